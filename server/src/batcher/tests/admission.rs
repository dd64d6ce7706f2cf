//! Which requests are admitted under load, in virtual time: the decision and the scheduler of production, and workers whose
//! batches take as long as a formula says.

use super::rounds::ADAPTIVE;
use super::*;
use crate::batcher::scheduler::{Command, Message, Scheduler};
use policy::{Backlog, Preparation, TaskLoad, Workload};

/// Who sends requests.
#[derive(Clone, Copy, Debug)]
enum Clients {
    /// Requests arrive at random, at this multiple of the capacity.
    Open { load: f64 },
    /// That many clients send a request, wait for the reply, and send the next one.
    Closed { clients: usize },
}

#[derive(Clone, Copy, Debug)]
struct World {
    clients: Clients,
    policy: Policy,
    workers: usize,
    max_batch_size: usize,
    /// Milliseconds of a batch, and of each item in it.
    fixed: f64,
    each: f64,
    /// Batches vary by a factor of up to 1 ± this part.
    noise: f64,
    /// Minimum and maximum number of items in a request.
    items: (usize, usize),
    deadline: Duration,
    seconds: u64,
}

const WORLD: World = World {
    clients: Clients::Open { load: 10.0 },
    policy: GREEDY,
    workers: 1,
    max_batch_size: 32,
    fixed: 100.0,
    each: 0.0,
    noise: 0.0,
    items: (1, 1),
    deadline: Duration::from_secs(2),
    seconds: 30,
};

impl World {
    fn batch_seconds(&self, size: usize) -> f64 {
        (self.fixed + self.each * size as f64) / 1e3
    }

    /// Items per second.
    fn capacity(&self) -> f64 {
        (self.workers * self.max_batch_size) as f64 / self.batch_seconds(self.max_batch_size)
    }
}

/// A request that was admitted.
struct Admitted {
    at: Instant,
    items: usize,
    unanswered: usize,
    is_in_time: bool,
}

struct Running {
    ends: Instant,
    /// As the server estimates it.
    expected_end: Instant,
    started: Instant,
    worker: usize,
    batch: Batch<usize>,
}

/// Numbers of requests, except for `items_in_time`: the items of the requests all of whose items were answered in time.
#[derive(Debug, Default)]
struct Counts {
    admitted: usize,
    rejected: usize,
    /// Admitted, and not answered in time.
    late: usize,
    /// Those of them that were admitted when the service time had been known for long.
    late_although_known: usize,
    items_in_time: usize,
}

struct Server {
    world: World,
    scheduler: Scheduler<usize>,
    dice: fastrand::Rng,
    start: Instant,
    now: Instant,
    next_id: u64,
    waiting: usize,
    arrivals: Vec<Instant>,
    running: Vec<Running>,
    requests: Vec<Admitted>,
    counts: Counts,
}

fn run(world: World) -> Counts {
    let start = crate::clock::now();
    let rules = rules(world.policy, world.max_batch_size);
    let mut server = Server {
        world,
        scheduler: Scheduler::new(vec![rules], world.workers),
        dice: fastrand::Rng::with_seed(1),
        start,
        now: start,
        next_id: 0,
        waiting: 0,
        arrivals: Vec::new(),
        running: Vec::new(),
        requests: Vec::new(),
        counts: Counts::default(),
    };
    server.run();
    server.counts
}

impl Server {
    fn run(&mut self) {
        for worker in 0..self.world.workers {
            self.scheduler.handle(self.now, Message::WorkerAvailable(worker));
        }
        match self.world.clients {
            Clients::Open { .. } => self.arrivals.push(self.now),
            Clients::Closed { clients } => self.arrivals = vec![self.now; clients],
        }
        let end = self.start + Duration::from_secs(self.world.seconds);
        loop {
            let wait = self.dispatch();
            let ended = self.running.iter().map(|running| running.ends).min();
            let arrival = self.arrivals.iter().min().copied();
            let Some(next) = [ended, arrival, wait].into_iter().flatten().min() else {
                break;
            };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if ended == Some(next) {
                let nth = self.running.iter().position(|running| running.ends == next);
                let running = self.running.swap_remove(nth.expect("it ends now"));
                self.complete(running);
            } else if arrival == Some(next) {
                let nth = self.arrivals.iter().position(|at| *at == next);
                self.arrivals.swap_remove(nth.expect("it arrives now"));
                self.arrive();
            }
        }
        self.running
            .drain(..)
            .for_each(|running| std::mem::forget(running.batch.token));
    }

    fn arrive(&mut self) {
        let (least, most) = self.world.items;
        let items = self.dice.usize(least..=most);
        if let Clients::Open { load } = self.world.clients {
            let rate = load * self.world.capacity() / (least + most) as f64 * 2.0;
            let gap = -(1.0 - self.dice.f64()).ln() / rate;
            self.arrivals.push(self.now + Duration::from_secs_f64(gap));
        }
        let task = TaskLoad {
            service: self.scheduler.batcher().service_estimate(0),
            ahead: Backlog {
                items: self.waiting,
                weight: self.waiting as u64,
            },
        };
        let idle = vec![self.now; self.world.workers - self.running.len()];
        let ends = self.running.iter().map(|running| running.expected_end);
        let busy = ends
            .chain(idle)
            .map(|end| end.saturating_duration_since(self.now));
        let workload = Workload::new(vec![task], Preparation::default(), busy);
        if !workload.admits(0, items, self.world.deadline) {
            self.counts.rejected += 1;
            if matches!(self.world.clients, Clients::Closed { .. }) {
                self.arrivals.push(self.now + Duration::from_secs(1));
            }
            return;
        }
        self.counts.admitted += 1;
        let request = self.requests.len();
        self.requests.push(Admitted {
            at: self.now,
            items,
            unanswered: items,
            is_in_time: true,
        });
        for _ in 0..items {
            let item = Item {
                id: ItemId(self.next_id),
                task: 0,
                priority: Priority::Normal,
                weight: 1,
                group: 0,
                arrived: self.now,
                ready: self.now,
                deadline: Some(self.now + self.world.deadline),
                payload: request,
            };
            self.next_id += 1;
            self.waiting += 1;
            self.scheduler.handle(self.now, Message::Arrival(item));
        }
    }

    /// Carries out the commands of the scheduler. Returns until when it waits, if it does.
    fn dispatch(&mut self) -> Option<Instant> {
        loop {
            match self.scheduler.poll(self.now) {
                Command::Start { worker, batch, .. } => {
                    let size = batch.items.len();
                    self.waiting -= size;
                    let noise = 1.0 + self.world.noise * (2.0 * self.dice.f64() - 1.0);
                    let seconds = self.world.batch_seconds(size) * noise;
                    let service = self.scheduler.batcher().service_estimate(0);
                    let expected = service.map(|service| service.batch_time(size, batch.cost));
                    self.running.push(Running {
                        ends: self.now + Duration::from_secs_f64(seconds),
                        expected_end: self.now + expected.unwrap_or_default(),
                        started: self.now,
                        worker,
                        batch,
                    });
                }
                Command::Release(items, _) => {
                    self.waiting -= items.len();
                    for item in items {
                        self.answer(item.payload, false);
                    }
                }
                Command::Wait(until) => return until,
                other => panic!("nothing runs out of memory: {other:?}"),
            }
        }
    }

    fn complete(&mut self, running: Running) {
        let outcome = BatchOutcome {
            started: running.started,
            finished: running.ends,
            succeeded: true,
        };
        for item in &running.batch.items {
            let is_in_time = item.deadline.is_some_and(|deadline| running.ends <= deadline);
            self.answer(item.payload, is_in_time);
        }
        let completed = Message::Completed {
            token: running.batch.token,
            outcome,
            out_of_memory: None,
        };
        self.scheduler.handle(self.now, completed);
        self.scheduler
            .handle(self.now, Message::WorkerAvailable(running.worker));
    }

    fn answer(&mut self, request: usize, is_in_time: bool) {
        let admitted = &mut self.requests[request];
        admitted.unanswered -= 1;
        admitted.is_in_time &= is_in_time;
        if admitted.unanswered > 0 {
            return;
        }
        match admitted.is_in_time {
            true => self.counts.items_in_time += admitted.items,
            false => {
                self.counts.late += 1;
                let is_known = admitted.at > self.start + 3 * self.world.deadline;
                self.counts.late_although_known += usize::from(is_known);
            }
        }
        if matches!(self.world.clients, Clients::Closed { .. }) {
            self.arrivals.push(self.now);
        }
    }
}

/// The items that were answered in time, relative to the capacity.
fn goodput(world: World, counts: &Counts) -> f64 {
    counts.items_in_time as f64 / (world.capacity() * world.seconds as f64)
}

const SECOND: Duration = Duration::from_secs(1);

/// The model answers as much in time as it can, and no admitted request is late once the service time is known.
fn assert_goodput(worlds: &[World], least: f64, most_late: f64) {
    for world in worlds {
        let counts = run(*world);
        let goodput = goodput(*world, &counts);
        assert!(goodput >= least, "goodput {goodput}: {counts:?} {world:?}");
        let late = counts.late_although_known as f64 / counts.admitted as f64;
        assert!(late <= most_late, "{late} are late: {counts:?} {world:?}");
    }
}

#[test]
fn at_ten_times_the_capacity_the_model_answers_as_much_in_time_as_it_can() {
    let worlds = [
        WORLD,
        World { workers: 4, ..WORLD },
        World {
            max_batch_size: 1,
            fixed: 20.0,
            ..WORLD
        },
        World {
            policy: Policy::Off,
            fixed: 20.0,
            max_batch_size: 1,
            ..WORLD
        },
        World {
            policy: fixed(10),
            ..WORLD
        },
        World { each: 3.0, ..WORLD },
        World {
            fixed: 900.0,
            deadline: 10 * SECOND,
            seconds: 300,
            ..WORLD
        },
        World {
            fixed: 900.0,
            deadline: 2 * SECOND,
            seconds: 300,
            ..WORLD
        },
        World {
            clients: Clients::Open { load: 1.5 },
            ..WORLD
        },
        World {
            clients: Clients::Open { load: 100.0 },
            seconds: 15,
            ..WORLD
        },
    ];
    assert_goodput(&worlds, 0.95, 0.0);
}

#[test]
fn at_ten_times_the_capacity_requests_of_several_items_are_answered_completely() {
    let worlds = [
        World {
            items: (1, 64),
            deadline: 3 * SECOND,
            ..WORLD
        },
        World {
            items: (64, 64),
            workers: 2,
            deadline: 3 * SECOND,
            ..WORLD
        },
    ];
    assert_goodput(&worlds, 0.95, 0.0);
}

#[test]
fn at_ten_times_the_capacity_batches_that_vary_cost_few_answers() {
    let worlds = [
        World { noise: 0.1, ..WORLD },
        World { noise: 0.3, ..WORLD },
        World {
            noise: 0.3,
            workers: 4,
            ..WORLD
        },
        World {
            noise: 0.3,
            fixed: 20.0,
            deadline: 10 * SECOND,
            ..WORLD
        },
        World {
            policy: ADAPTIVE,
            ..WORLD
        },
        World {
            policy: ADAPTIVE,
            each: 3.0,
            workers: 2,
            ..WORLD
        },
    ];
    assert_goodput(&worlds, 0.95, 0.05);
    // In each batch, the request that has waited longest is late.
    let short = World {
        fixed: 900.0,
        deadline: SECOND,
        seconds: 300,
        ..WORLD
    };
    assert_goodput(&[short], 0.9, 0.05);
    // Two batches must fit into the deadline, and they take up to 2.34 s: the part of them that takes longer is late.
    let tight = World {
        noise: 0.3,
        fixed: 900.0,
        seconds: 300,
        ..WORLD
    };
    assert_goodput(&[tight], 0.8, 0.2);
}

#[test]
fn no_request_is_rejected_by_a_model_that_keeps_up() {
    let worlds = [
        // A request takes 0.4 s, and all clients together send more items than 1024.
        World {
            clients: Clients::Closed { clients: 64 },
            policy: ADAPTIVE,
            fixed: 400.0,
            items: (1, 64),
            deadline: Duration::from_secs(60),
            ..WORLD
        },
        World {
            clients: Clients::Closed { clients: 64 },
            policy: ADAPTIVE,
            max_batch_size: 64,
            fixed: 5.0,
            items: (1, 64),
            noise: 0.5,
            ..WORLD
        },
        World {
            clients: Clients::Open { load: 0.8 },
            noise: 0.3,
            ..WORLD
        },
    ];
    for world in worlds {
        let counts = run(world);
        assert_eq!((counts.rejected, counts.late), (0, 0), "{counts:?} {world:?}");
        assert!(counts.admitted > 100, "{counts:?} {world:?}");
    }
}
