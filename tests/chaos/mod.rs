//! Chaos test: load, disconnecting clients, invalid requests, reloads, faults of a plugin, and processes that die or are killed, chosen
//! at random from a seed. In the end, every request must have completed once, and the server must hold no more resources than at the
//! start.
//!
//! The short form runs with the other tests. `INFERENCE_TEST_LONG=1` runs for ten minutes, and `INFERENCE_CHAOS_SECONDS` sets the
//! duration. The choices follow from the seed, which is printed. Their effects also depend on timing.

mod disconnecting_clients;
mod invalid_requests;
mod items;
mod ledger;
mod operator;
mod probes;
mod process_killer;
mod targets;
mod waiting_clients;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use self::ledger::Ledger;
use self::operator::Operator;
use self::targets::Target;
use crate::harness::{Metrics, Scenario, Server, eventually, rounds, seed};

/// Number of clients of each target that wait for their replies.
const WAITING_CLIENTS: usize = 3;

/// The targets whose items cause faults.
const FAULTY_TARGETS: [Target; 2] = [Target::Threads, Target::Processes];

/// Number of phases. Counts are compared after each phase. The first phase also warms up the server.
const PHASES: u32 = 4;

/// Maximum memory that remains after a load: the private pages of a library, which stays mapped.
const BYTES_PER_LOAD: u64 = 200 << 10;

/// Maximum of freed memory that the allocator retains beyond what it retained in the first phase.
const ALLOCATOR_BYTES: u64 = 12 << 20;

/// State shared by all actors.
struct World<'a> {
    server: &'a Server,
    stop: AtomicBool,
    /// Number of replies so far, which the operator and the killer use as a clock.
    answered: AtomicU64,
    /// Unique value of the next item.
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

    fn is_running(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn value(&self) -> u64 {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }

    fn answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for this number of further replies. Returns false if the phase ends before.
    fn wait_for_replies(&self, more: u64) -> bool {
        let enough = self.answered.load(Ordering::Relaxed) + more;
        eventually("further replies", || {
            match self.answered.load(Ordering::Relaxed) {
                answered if answered >= enough || !self.is_running() => Ok(()),
                answered => Err(answered),
            }
        });
        self.is_running()
    }

    /// Runs an actor. If it panics, stops the others.
    fn act<T>(&self, actor: impl FnOnce() -> T) -> T {
        catch_unwind(AssertUnwindSafe(actor)).unwrap_or_else(|panic| {
            self.stop.store(true, Ordering::Relaxed);
            resume_unwind(panic)
        })
    }
}

#[test]
fn under_all_faults_at_once_every_request_completes_once_and_nothing_leaks() {
    let duration = duration();
    let mut rng = Rng::with_seed(seed());
    let mut operator = Operator::new(rng.fork());
    // By default, each thread allocates from its own arena and each arena retains the memory of its peak. That adds up to more
    // than a leak would, and differs from run to run.
    let server = Scenario::new(&operator.config())
        .env("MALLOC_ARENA_MAX", "1")
        .start();
    let world = World::new(&server);
    let start = ResourceCounts::of(&server);
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
        operator.reset(&server);
        let metrics = idle_metrics(&server);
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
    wait_until_released(start, &server);
    server.shut_down();
}

fn duration() -> Duration {
    let seconds = match std::env::var("INFERENCE_CHAOS_SECONDS") {
        Ok(text) => text.parse().expect("INFERENCE_CHAOS_SECONDS is a number"),
        Err(_) => rounds(6, 600) as u64,
    };
    Duration::from_secs(seconds)
}

/// Runs all actors for `duration`. Returns the ledgers of the clients and the number of killed processes.
fn run_phase(
    world: &World<'_>,
    operator: &mut Operator,
    rng: &mut Rng,
    duration: Duration,
) -> (Vec<Ledger>, u64) {
    thread::scope(|scope| {
        let mut clients = Vec::new();
        for target in FAULTY_TARGETS {
            for _ in 0..WAITING_CLIENTS {
                let rng = rng.fork();
                clients.push(
                    scope.spawn(move || world.act(|| waiting_clients::send_requests(world, rng, target))),
                );
            }
            let rng = rng.fork();
            clients.push(scope.spawn(move || world.act(|| disconnecting_clients::run(world, rng, target))));
        }
        clients.push(scope.spawn(|| world.act(|| probes::call_bystander(world))));
        let (talker, killer) = (rng.fork(), rng.fork());
        let killer = scope.spawn(move || world.act(|| process_killer::run(world, killer)));
        let others = [
            scope.spawn(move || world.act(|| invalid_requests::send(world, talker))),
            scope.spawn(|| world.act(|| probes::run(world))),
            scope.spawn(|| world.act(|| operator.operate(world))),
        ];
        stop_after(world, duration);
        for other in others {
            other.join().expect("no actor fails");
        }
        let ledgers = clients
            .into_iter()
            .map(|client| client.join().expect("no client fails"));
        (
            ledgers.collect(),
            killer.join().expect("the killer does not fail"),
        )
    })
}

/// Stops all actors after `duration`, or when one of them has failed.
fn stop_after(world: &World<'_>, duration: Duration) {
    let over = crate::harness::eventually::happens_within(duration, || !world.is_running());
    if !over {
        world.stop.store(true, Ordering::Relaxed);
    }
}

/// Waits until no item is queued or running, and returns the metrics.
fn idle_metrics(server: &Server) -> Metrics {
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

/// Numbers of resources that the server holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ResourceCounts {
    threads: u64,
    open_files: u64,
    processes: usize,
}

impl ResourceCounts {
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

/// Waits until all resources have been released and all model processes are serving. Idle threads of the event loops exit after some
/// seconds.
fn wait_until_released(start: ResourceCounts, server: &Server) {
    eventually("the server to release its resources", || {
        let now = ResourceCounts::of(server);
        let ready = server.get("/readyz").status == 200;
        let is_released = now.threads <= start.threads && now.open_files <= start.open_files;
        match ready && is_released && now.processes == start.processes {
            true => Ok(()),
            false => Err((start, now)),
        }
    });
}
