//! A server in virtual time: clients, the scheduler that production runs, and workers whose batches take as long as a
//! formula says.
//!
//! Shared by the test that holds policies to their bar and the command that draws them. Nothing here depends on the policy.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use crate::batcher::scheduler::{Command, Message, Payload, Scheduler};
use crate::batcher::{Batch, BatchOutcome, Item, ItemId};
use crate::batching::{Policy, Priority, Slack, TaskBatching, WeightRule};

/// What a batch costs a worker, by the number of its items.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Service {
    /// As tables call it.
    pub name: &'static str,
    /// Milliseconds of a batch, of each item, and of each square of items.
    pub fixed: f64,
    pub linear: f64,
    pub square: f64,
    /// By how much one batch differs from the next like it: evenly spread over 1 ± this part.
    pub noise: f64,
}

impl Service {
    pub(crate) fn millis(&self, size: usize) -> f64 {
        let size = size as f64;
        self.fixed + self.linear * size + self.square * size * size
    }

    /// The most items per millisecond that batches of up to `max` give.
    pub(crate) fn capacity(&self, max: usize) -> f64 {
        (1..=max)
            .map(|size| size as f64 / self.millis(size))
            .fold(0.0, f64::max)
    }
}

/// How long a caller takes from a reply to its next request, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Think {
    /// Evenly spread over `mean × (1 ± spread)`.
    Even { mean: f64, spread: f64 },
    /// Exponential.
    Memoryless { mean: f64 },
}

/// Who sends requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Callers {
    /// Each sends a request of this many items, waits for the reply, thinks, and sends again.
    Closed {
        callers: usize,
        items: usize,
        think: Think,
    },
    /// Single items that come whatever the server does, at a share of its capacity.
    Open { arrivals: Arrivals, load: f64 },
}

/// How open arrivals are spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Arrivals {
    Poisson,
    /// Bursts of this many, each spread evenly over `span` milliseconds, that begin at random.
    Bursts {
        size: usize,
        span: f64,
    },
    /// Poisson for `on` milliseconds at a rate that makes up for the `off` milliseconds of silence that follow.
    OnOff {
        on: f64,
        off: f64,
    },
}

/// One experiment, whatever the policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct World {
    pub callers: Callers,
    pub service: Service,
    pub max_batch_size: usize,
    pub workers: usize,
    /// Items that are measured, after a fifth as many that are not.
    pub items: usize,
    pub seed: u64,
}

/// Jobs, of which there are always more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Jobs {
    /// By how much they may lengthen a batch, as a share of its time.
    pub slack: f64,
    /// Whether their task is that of the requests, so that they can share batches.
    pub share_batches: bool,
    /// Items that wait at any time.
    pub backlog: usize,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    /// Milliseconds from arrival to reply.
    pub(crate) mean: f64,
    pub(crate) p99: f64,
    /// Items per millisecond.
    pub throughput: f64,
    pub(crate) mean_batch: f64,
}

/// Numbers that are the same in every run (SplitMix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice(seed)
    }

    /// Evenly spread over 0 to 1.
    pub(crate) fn even(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.even()).ln()
    }

    fn think(&mut self, think: Think) -> f64 {
        match think {
            Think::Even { mean, spread } => mean * (1.0 + spread * (2.0 * self.even() - 1.0)),
            Think::Memoryless { mean } => self.exponential(mean),
        }
    }
}

/// An arrival that is to come. Ordered by time, then by the order in which it was decided.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Arrival {
    at: Duration,
    caller: usize,
}

/// Stands for the request of an item of a job.
const JOB: usize = usize::MAX;

/// Where a request has got to.
#[derive(Clone, Copy)]
struct Request {
    caller: usize,
    unanswered: usize,
}

/// How it is decided when a batch runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rule {
    /// By the batcher.
    Policy(Policy),
    /// As soon as a worker is free and `size` items wait, or any item waits and the worker has been idle for `patience`. A
    /// batch has at most `limit` items. No server knows the best values of these in advance: this shows what is
    /// achievable.
    Gather {
        size: usize,
        patience: Duration,
        limit: usize,
    },
}

/// The request of an item. Nobody cancels one.
#[derive(Debug)]
struct OfRequest(usize);

impl Payload for OfRequest {
    fn is_queued(&self) -> bool {
        true
    }

    fn start(&mut self) -> bool {
        true
    }
}

/// A batch that runs.
struct Running {
    ends: Duration,
    started: Duration,
    worker: usize,
    batch: Batch<OfRequest>,
}

struct Server<'a> {
    world: &'a World,
    rule: Rule,
    /// When a worker was free the last time that none was before.
    free_since: Duration,
    scheduler: Scheduler<OfRequest>,
    start: Instant,
    now: Duration,
    dice: Dice,
    /// Apart from the rest, so that noise leaves the arrivals as they are.
    noise: Dice,
    arrivals: BinaryHeap<Reverse<Arrival>>,
    running: Vec<Running>,
    requests: Vec<Request>,
    next_id: u64,
    /// Arrival and reply of every item.
    answered: Vec<(Duration, Duration)>,
    batches: usize,
    jobs: Option<Jobs>,
    /// When the items of jobs were answered.
    jobs_answered: Vec<Duration>,
}

/// Runs `world` under `rule`.
pub(crate) fn run(world: &World, rule: Rule) -> Measured {
    let mut server = Server::new(world, rule, None);
    server.run();
    server.measured()
}

/// Runs `world` under `rule` with `jobs`, and returns also how many of their items are answered per millisecond.
pub(crate) fn run_with_jobs(world: &World, rule: Rule, jobs: Jobs) -> (Measured, f64) {
    let mut server = Server::new(world, rule, Some(jobs));
    server.run();
    let (from, until) = server.measured_time();
    let is_measured = |at: &&Duration| **at > from && **at <= until;
    let answered = server.jobs_answered.iter().filter(is_measured).count();
    let millis = (until - from).as_secs_f64() * 1e3;
    (server.measured(), answered as f64 / millis)
}

/// The items of jobs per millisecond that are answered if there are no requests.
pub(crate) fn run_jobs_alone(world: &World, rule: Rule, jobs: Jobs) -> f64 {
    let world = World {
        callers: Callers::Closed {
            callers: 0,
            items: 1,
            think: Think::Memoryless { mean: 1.0 },
        },
        ..*world
    };
    let mut server = Server::new(&world, rule, Some(jobs));
    server.start();
    while server.jobs_answered.len() < world.items && server.step() {}
    server.finish();
    let last = server.jobs_answered.iter().max();
    server.jobs_answered.len() as f64 / (last.map_or(0.0, Duration::as_secs_f64) * 1e3)
}

fn rules(world: &World, rule: Rule, jobs: Option<Jobs>) -> TaskBatching {
    let (policy, max_batch_size) = match rule {
        Rule::Policy(policy) => (policy, world.max_batch_size),
        Rule::Gather { limit, .. } => (Policy::Greedy, limit.min(world.max_batch_size)),
    };
    TaskBatching {
        policy,
        max_batch_size: NonZeroUsize::new(max_batch_size).expect("a batch has room"),
        max_batch_weight: None,
        weight_rule: WeightRule::Padded,
        background_slack: Slack::of_share(jobs.map_or(0.0, |jobs| jobs.slack)),
    }
}

impl<'a> Server<'a> {
    fn new(world: &'a World, rule: Rule, jobs: Option<Jobs>) -> Self {
        let tasks = match jobs {
            Some(jobs) if !jobs.share_batches => 2,
            _ => 1,
        };
        Server {
            world,
            rule,
            free_since: Duration::ZERO,
            scheduler: Scheduler::new(vec![rules(world, rule, jobs); tasks], world.workers),
            start: crate::clock::now(),
            now: Duration::ZERO,
            dice: Dice::new(world.seed),
            noise: Dice::new(!world.seed),
            arrivals: BinaryHeap::new(),
            running: Vec::new(),
            requests: Vec::new(),
            next_id: 0,
            answered: Vec::new(),
            batches: 0,
            jobs,
            jobs_answered: Vec::new(),
        }
    }

    fn run(&mut self) {
        self.start();
        let wanted = self.world.items + self.world.items / 5;
        while self.answered.len() < wanted && self.step() {}
        self.finish();
    }

    fn start(&mut self) {
        for worker in 0..self.world.workers {
            self.handle(Message::WorkerAvailable(worker));
        }
        self.submit_jobs();
        self.schedule_first();
    }

    fn finish(&mut self) {
        for running in std::mem::take(&mut self.running) {
            self.complete(running);
        }
    }

    /// Restores the backlog of jobs.
    fn submit_jobs(&mut self) {
        let Some(jobs) = self.jobs else {
            return;
        };
        for _ in self.scheduler.batcher().background_len()..jobs.backlog {
            self.submit(usize::from(!jobs.share_batches), Priority::Background, JOB);
        }
    }

    fn submit(&mut self, task: usize, priority: Priority, request: usize) {
        self.handle(Message::Arrival(Item {
            id: ItemId(self.next_id),
            task,
            priority,
            weight: 1,
            group: 0,
            arrived: self.start + self.now,
            ready: self.start + self.now,
            deadline: None,
            payload: OfRequest(request),
        }));
        self.next_id += 1;
    }

    fn schedule_first(&mut self) {
        match self.world.callers {
            Callers::Closed { callers, think, .. } => {
                for caller in 0..callers {
                    let at = millis(self.dice.think(think));
                    self.arrivals.push(Reverse(Arrival { at, caller }));
                }
            }
            Callers::Open { arrivals, load } => {
                let rate =
                    load * self.world.service.capacity(self.world.max_batch_size) * self.world.workers as f64;
                let count = self.world.items * 6 / 5 + 1;
                for at in open_arrivals(arrivals, rate, count, &mut self.dice) {
                    self.arrivals.push(Reverse(Arrival {
                        at: millis(at),
                        caller: usize::MAX,
                    }));
                }
            }
        }
    }

    /// Up to the next thing that happens, and that. False when nothing ever will.
    fn step(&mut self) -> bool {
        let wait = self.dispatch();
        let arrival = self.arrivals.peek().map(|Reverse(arrival)| arrival.at);
        let ended = self.running.iter().map(|running| running.ends).min();
        let Some(next) = [arrival, ended, wait].into_iter().flatten().min() else {
            return false;
        };
        self.now = self.now.max(next);
        if ended == Some(next) {
            let first = self.running.iter().position(|running| running.ends == next);
            let running = self.running.swap_remove(first.expect("it ends now"));
            self.complete(running);
        } else if arrival == Some(next) {
            self.arrive();
        }
        true
    }

    fn handle(&mut self, message: Message<OfRequest>) {
        self.scheduler.handle(self.start + self.now, message);
    }

    /// Carries out the commands of the scheduler. Until when it waits, if it does.
    fn dispatch(&mut self) -> Option<Duration> {
        loop {
            if let Some(until) = self.gathers_until() {
                return Some(until);
            }
            match self.scheduler.poll(self.start + self.now) {
                Command::Start { worker, batch, .. } => {
                    let noise = 1.0 + self.world.service.noise * (2.0 * self.noise.even() - 1.0);
                    let ends = self.now + millis(self.world.service.millis(batch.items.len()) * noise);
                    self.batches += 1;
                    self.running.push(Running {
                        ends,
                        started: self.now,
                        worker,
                        batch,
                    });
                }
                Command::Wait(until) => return until.map(|until| until - self.start),
                other => panic!("nothing is cancelled, expires or runs out of memory: {other:?}"),
            }
        }
    }

    /// Until when a batch is left open that the scheduler would start.
    fn gathers_until(&mut self) -> Option<Duration> {
        let Rule::Gather { size, patience, .. } = self.rule else {
            return None;
        };
        let queued = self.scheduler.batcher().len();
        if queued == 0 {
            self.free_since = self.now;
            return None;
        }
        self.scheduler.idle_worker()?;
        let until = self.free_since + patience;
        (queued < size && until > self.now).then_some(until)
    }

    fn arrive(&mut self) {
        let Some(Reverse(Arrival { caller, .. })) = self.arrivals.pop() else {
            return;
        };
        let items = match self.world.callers {
            Callers::Closed { items, .. } => items,
            Callers::Open { .. } => 1,
        };
        let request = self.requests.len();
        self.requests.push(Request {
            caller,
            unanswered: items,
        });
        for _ in 0..items {
            self.submit(0, Priority::Normal, request);
        }
    }

    fn complete(&mut self, running: Running) {
        let Running {
            ends,
            started,
            worker,
            batch,
        } = running;
        self.free_since = ends;
        self.handle(Message::Completed {
            token: batch.token,
            outcome: BatchOutcome {
                started: self.start + started,
                finished: self.start + ends,
                succeeded: true,
            },
            out_of_memory: None,
        });
        self.handle(Message::WorkerAvailable(worker));
        for item in batch.items {
            if item.payload.0 == JOB {
                self.jobs_answered.push(ends);
                continue;
            }
            self.answered.push((item.arrived - self.start, ends));
            let request = &mut self.requests[item.payload.0];
            request.unanswered -= 1;
            if let (0, Callers::Closed { think, .. }) = (request.unanswered, self.world.callers) {
                let caller = request.caller;
                let at = ends + millis(self.dice.think(think));
                self.arrivals.push(Reverse(Arrival { at, caller }));
            }
        }
        self.submit_jobs();
    }

    /// When the measured items were answered.
    fn measured_time(&self) -> (Duration, Duration) {
        let skipped = self.world.items / 5;
        let from = self.answered[skipped.saturating_sub(1)].1;
        let until = self.answered[skipped..].last().map_or(from, |last| last.1);
        (from, until)
    }

    fn measured(&self) -> Measured {
        let (from, until) = self.measured_time();
        let answered = &self.answered[self.world.items / 5..];
        let mut latencies: Vec<f64> = answered
            .iter()
            .map(|(arrived, replied)| (*replied - *arrived).as_secs_f64() * 1e3)
            .collect();
        latencies.sort_unstable_by(f64::total_cmp);
        Measured {
            mean: latencies.iter().sum::<f64>() / latencies.len() as f64,
            p99: latencies[latencies.len() * 99 / 100],
            throughput: answered.len() as f64 / ((until - from).as_secs_f64() * 1e3),
            mean_batch: self.answered.len() as f64 / self.batches as f64,
        }
    }
}

fn millis(millis: f64) -> Duration {
    Duration::from_secs_f64(millis.max(0.0) / 1e3)
}

/// The times of at least `count` arrivals at `rate` items per millisecond.
fn open_arrivals(arrivals: Arrivals, rate: f64, count: usize, dice: &mut Dice) -> Vec<f64> {
    let mut times = Vec::with_capacity(count);
    let mut now = 0.0;
    while times.len() < count {
        match arrivals {
            Arrivals::Poisson => {
                now += dice.exponential(1.0 / rate);
                times.push(now);
            }
            Arrivals::Bursts { size, span } => {
                now += dice.exponential(size as f64 / rate);
                times.extend((0..size).map(|_| now + span * dice.even()));
            }
            Arrivals::OnOff { on, off } => {
                now += dice.exponential(on / (on + off) / rate);
                let period = (now / on).floor();
                times.push(now + period * off);
            }
        }
    }
    times
}
