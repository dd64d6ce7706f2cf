//! Everything at once: load, clients that leave, nonsense, reloads and a plugin that fails, chosen at random from a seed.
//! In the end every request has been answered once, and the server holds no more than when it began.
//!
//! The short form runs with the other tests; `INFERENCE_TEST_LONG=1` runs for ten minutes, `INFERENCE_CHAOS_SECONDS` for as
//! long as it says. Choices follow from the seed, which is printed; what they meet in the server also depends on its pace.

mod caller;
mod deed;
mod leaver;
mod ledger;
mod nonsense;
mod operator;
mod probe;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use self::ledger::Ledger;
use self::operator::Operator;
use crate::harness::resources::Resources;
use crate::harness::{Metrics, Scenario, Server, eventually, rounds, seed};

/// Clients that wait for their answers.
const CALLERS: usize = 4;

/// Clients that go away.
const LEAVERS: usize = 2;

/// After each phase everything is counted. The first one also warms the server up.
const PHASES: u32 = 4;

/// What a retired generation may leave behind: the private pages of a library that stays mapped.
const BYTES_PER_GENERATION: u64 = 100 << 10;

/// What the allocator may keep back, differently each time.
const ALLOCATOR_BYTES: u64 = 24 << 20;

/// What all actors share.
struct World<'a> {
    server: &'a Server,
    stop: AtomicBool,
    /// Requests answered so far: the clock by which the operator acts.
    answered: AtomicU64,
    /// The next item's value, which no other item has.
    next_value: AtomicU64,
}

impl<'a> World<'a> {
    fn new(server: &'a Server) -> Self {
        Self {
            server,
            stop: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            next_value: AtomicU64::new(0),
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn value(&self) -> u64 {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }

    fn answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs an actor to its end. One that fails stops the others.
    fn act<T>(&self, actor: impl FnOnce() -> T) -> T {
        catch_unwind(AssertUnwindSafe(actor)).unwrap_or_else(|panic| {
            self.stop.store(true, Ordering::Relaxed);
            resume_unwind(panic)
        })
    }
}

#[test]
fn whatever_happens_at_once_every_request_is_answered_once_and_nothing_is_left_behind() {
    let duration = duration();
    let mut rng = Rng::with_seed(seed());
    let mut operator = Operator::new(rng.fork());
    let server = Scenario::new(&operator.config()).start();
    let world = World::new(&server);
    let start = server.resources();
    let mut ledger = Ledger::default();
    let mut warm = None;
    for phase in 1..=PHASES {
        world.stop.store(false, Ordering::Relaxed);
        ledger.add(run_phase(&world, &mut operator, &mut rng, duration / PHASES));
        operator.tidy(&server);
        let metrics = quiet(&server);
        ledger.check(&metrics);
        let now = server.resources();
        eprintln!("phase {phase} of {PHASES}: {now:?}\n{ledger}\n{operator}");
        let (warm, generations) = *warm.get_or_insert((now, operator.generations()));
        let most = warm.anonymous_bytes
            + ALLOCATOR_BYTES
            + (operator.generations() - generations) * BYTES_PER_GENERATION;
        assert!(now.anonymous_bytes <= most, "memory grew: {warm:?} {now:?}");
    }
    wait_until_no_more_is_held_than(start, &server);
    server.shut_down();
}

fn duration() -> Duration {
    let seconds = match std::env::var("INFERENCE_CHAOS_SECONDS") {
        Ok(text) => text.parse().expect("INFERENCE_CHAOS_SECONDS is a number"),
        Err(_) => rounds(6, 600) as u64,
    };
    Duration::from_secs(seconds)
}

/// Lets all actors act until the time is over.
fn run_phase(world: &World<'_>, operator: &mut Operator, rng: &mut Rng, duration: Duration) -> Ledger {
    let mut seeds = std::iter::repeat_with(|| rng.fork());
    let mut rng = || seeds.next().expect("there is always another seed");
    thread::scope(|scope| {
        let mut ledgers = Vec::new();
        for _ in 0..CALLERS {
            let rng = rng();
            ledgers.push(scope.spawn(move || world.act(|| caller::call(world, rng))));
        }
        for _ in 0..LEAVERS {
            let rng = rng();
            ledgers.push(scope.spawn(move || world.act(|| leaver::leave(world, rng))));
        }
        ledgers.push(scope.spawn(|| world.act(|| probe::ask_the_bystander(world))));
        let rng = rng();
        let others = [
            scope.spawn(move || world.act(|| nonsense::talk(world, rng))),
            scope.spawn(|| world.act(|| probe::probe(world))),
            scope.spawn(|| world.act(|| operator.operate(world))),
        ];
        stop_after(world, duration);
        for other in others {
            other.join().expect("everybody else is content");
        }
        let mut total = Ledger::default();
        for ledger in ledgers {
            total.add(ledger.join().expect("every client is answered rightly"));
        }
        total
    })
}

/// Tells everybody to stop when the time is over, or when one of them has failed.
fn stop_after(world: &World<'_>, duration: Duration) {
    let over = crate::harness::eventually::happens_within(duration, || !world.goes_on());
    if !over {
        world.stop.store(true, Ordering::Relaxed);
    }
}

/// The metrics, once nothing is queued or runs.
fn quiet(server: &Server) -> Metrics {
    eventually("the queues to be empty", || {
        let metrics = server.metrics();
        let busy = |gauge| metrics.sum(gauge, &[]) != 0.0;
        let gauges = [
            "inference_queue_items",
            "inference_queue_weight",
            "inference_executing_items",
        ];
        match gauges.into_iter().filter(|gauge| busy(gauge)).collect::<Vec<_>>() {
            busy if busy.is_empty() => Ok(metrics),
            busy => Err(busy),
        }
    })
}

/// Waits until threads and files are given back. Idle threads of the event loops end by themselves after some seconds.
fn wait_until_no_more_is_held_than(start: Resources, server: &Server) {
    eventually("the server to hold no more than at the start", || {
        let now = server.resources();
        if now.threads <= start.threads && now.open_files <= start.open_files {
            Ok(())
        } else {
            Err((start, now))
        }
    });
}
