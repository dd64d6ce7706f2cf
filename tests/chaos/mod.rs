//! Everything at once: load, clients that leave, nonsense, reloads, a plugin that fails, and processes that die or are killed,
//! chosen at random from a seed.
//! In the end every request has been answered once, and the server holds no more than when it began.
//!
//! The short form runs with the other tests; `INFERENCE_TEST_LONG=1` runs for ten minutes, `INFERENCE_CHAOS_SECONDS` for as
//! long as it says. Choices follow from the seed, which is printed; what they meet in the server also depends on its pace.

mod caller;
mod deed;
mod killer;
mod leaver;
mod ledger;
mod nonsense;
mod operator;
mod probe;
mod target;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use self::ledger::Ledger;
use self::operator::Operator;
use self::target::Target;
use crate::harness::{Metrics, Scenario, Server, eventually, rounds, seed};

/// Clients of each target that wait for their answers.
const CALLERS: usize = 3;

/// The targets whose items do harm.
const HARMED: [Target; 2] = [Target::Threads, Target::Processes];

/// After each phase everything is counted. The first one also warms the server up.
const PHASES: u32 = 4;

/// Maximum that a load leaves behind: the private pages of a library that stays mapped.
const BYTES_PER_LOAD: u64 = 200 << 10;

/// Maximum of freed memory that the allocator retains beyond what it retained in the first phase.
const ALLOCATOR_BYTES: u64 = 12 << 20;

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

    /// Waits for so many more answers. `false` if it is over before.
    fn wait_for_answers(&self, more: u64) -> bool {
        let enough = self.answered.load(Ordering::Relaxed) + more;
        eventually("answers to go on", || {
            match self.answered.load(Ordering::Relaxed) {
                answered if answered >= enough || !self.goes_on() => Ok(()),
                answered => Err(answered),
            }
        });
        self.goes_on()
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
    // By default, each thread allocates from its own arena and each arena retains the memory of its peak. That adds up to more
    // than a leak would, and differs from run to run.
    let server = Scenario::new(&operator.config())
        .env("MALLOC_ARENA_MAX", "1")
        .start();
    let world = World::new(&server);
    let start = Holdings::of(&server);
    let mut ledgers = Target::ALL.map(Ledger::of);
    let mut kills = 0;
    let mut warm = None;
    for phase in 1..=PHASES {
        world.stop.store(false, Ordering::Relaxed);
        let (more, killed) = run_phase(&world, &mut operator, &mut rng, duration / PHASES);
        for ledger in more {
            let total = ledgers.iter_mut().find(|total| total.target == ledger.target);
            total.expect("every target has a ledger").add(ledger);
        }
        kills += killed;
        operator.tidy(&server);
        let metrics = quiet(&server);
        let now = server.resources();
        eprintln!("phase {phase} of {PHASES}: {now:?}\n{operator}, {kills} kills");
        for ledger in &ledgers {
            eprintln!("{ledger}");
            ledger.check(&metrics);
        }
        let (warm, loads) = *warm.get_or_insert((now, operator.loads()));
        let maximum = warm.anonymous_bytes + ALLOCATOR_BYTES + (operator.loads() - loads) * BYTES_PER_LOAD;
        assert!(
            now.anonymous_bytes <= maximum,
            "memory grew beyond {maximum} bytes: {warm:?} {now:?}"
        );
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

/// Lets all actors act until the time is over. What clients saw, and how many processes were killed.
fn run_phase(
    world: &World<'_>,
    operator: &mut Operator,
    rng: &mut Rng,
    duration: Duration,
) -> (Vec<Ledger>, u64) {
    thread::scope(|scope| {
        let mut clients = Vec::new();
        for target in HARMED {
            for _ in 0..CALLERS {
                let rng = rng.fork();
                clients.push(scope.spawn(move || world.act(|| caller::call(world, rng, target))));
            }
            let rng = rng.fork();
            clients.push(scope.spawn(move || world.act(|| leaver::leave(world, rng, target))));
        }
        clients.push(scope.spawn(|| world.act(|| probe::ask_the_bystander(world))));
        let (talker, killer) = (rng.fork(), rng.fork());
        let killer = scope.spawn(move || world.act(|| killer::kill(world, killer)));
        let others = [
            scope.spawn(move || world.act(|| nonsense::talk(world, talker))),
            scope.spawn(|| world.act(|| probe::probe(world))),
            scope.spawn(|| world.act(|| operator.operate(world))),
        ];
        stop_after(world, duration);
        for other in others {
            other.join().expect("everybody else is content");
        }
        let ledgers = clients
            .into_iter()
            .map(|client| client.join().expect("every client is answered rightly"));
        (ledgers.collect(), killer.join().expect("processes can be killed"))
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

/// What the server holds of the system that has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holdings {
    threads: u64,
    open_files: u64,
    processes: usize,
}

impl Holdings {
    /// Counts after a request, so that the test's own pooled connection is always among them.
    fn of(server: &Server) -> Self {
        server.get("/livez");
        let resources = server.resources();
        Self {
            threads: resources.threads,
            open_files: resources.open_files,
            processes: server.processes().len(),
        }
    }
}

/// Waits until everything is given back, and all processes of models serve again. Idle threads of the event loops end by
/// themselves after some seconds.
fn wait_until_no_more_is_held_than(start: Holdings, server: &Server) {
    eventually("the server to hold no more than at the start", || {
        let now = Holdings::of(server);
        let ready = server.get("/readyz").status == 200;
        let given_back = now.threads <= start.threads && now.open_files <= start.open_files;
        match ready && given_back && now.processes == start.processes {
            true => Ok(()),
            false => Err((start, now)),
        }
    });
}
