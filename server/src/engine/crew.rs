//! What the workers of a model share: its scheduler, and what reaches and leaves it.
//!
//! The scheduler is behind a lock that is held only to pass it messages and to read commands, never to wait, to answer or
//! to drop anything. A worker that has nothing to run parks outside the lock. One of the idle workers watches for messages
//! (see `wakeups`); the worker that it wakes takes the batch itself if it can, so a request reaches the model with one
//! handover between threads.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::admission::{Message, Queued};
use super::request::ItemHandle;
use super::running_batches::RunningBatches;
use super::task_queue::TaskQueue;
use super::wakeups::Wakeups;
use crate::batch_context::{BatchContext, log_batch};
use crate::batcher::cost_model::BatchShape;
use crate::batcher::memory_budget::MemoryDrift;
use crate::batcher::policy::ServiceEstimate;
use crate::batcher::scheduler::{Command, MemoryChange, Reason, Scheduler};
use crate::batcher::{Batch, BatchOutcome, BatchToken, Item};
use crate::clock;
use crate::error::ItemError;
use crate::model::{Health, Model};

/// Panics of workers in a row, without a completed batch, after which the model has failed.
const MAX_PANICS_IN_A_ROW: u32 = 3;

/// How often the estimates of the policies are published.
const ESTIMATES_INTERVAL: Duration = Duration::from_millis(100);

/// The scheduler, and what reaches and leaves it.
struct Core {
    scheduler: Scheduler<Queued>,
    messages: Receiver<Message>,
    /// By worker: the batch that it runs next.
    assigned: Vec<Option<Assignment>>,
    /// The idle worker that watches for messages.
    watcher: Option<usize>,
    /// When the estimates of the policies were last published.
    published: Instant,
    /// By task: the mean time that a worker recently needed between two batches.
    turnarounds: Vec<Option<Duration>>,
}

/// How a batch ran, as a worker reports it.
pub(super) struct Report {
    pub(super) outcome: BatchOutcome,
    /// The smallest cost that did not fit in memory, if any did not.
    pub(super) out_of_memory: Option<u64>,
    /// The time from the end of the worker's previous batch to the start of this one, if its items waited for the worker all
    /// that time.
    pub(super) turnaround: Option<Duration>,
}

impl Report {
    /// The report of a batch that did not run.
    pub(super) fn failed() -> Self {
        let now = clock::now();
        Self {
            outcome: BatchOutcome {
                started: now,
                finished: now,
                succeeded: false,
            },
            out_of_memory: None,
            turnaround: None,
        }
    }
}

/// A batch for a worker.
pub(super) struct Assignment {
    pub(super) batch: Batch<Queued>,
    /// How long the worker was idle while items of the batch waited.
    pub(super) waited: Duration,
}

/// What a worker does next.
pub(super) enum Turn {
    Run(Assignment),
    /// Waits until it is woken, or until this instant.
    Wait(Option<Instant>),
    Stop,
}

/// What the commands of the scheduler have to change outside its lock.
#[derive(Default)]
struct Effects {
    wake: Vec<usize>,
    released: Vec<(Vec<Item<Queued>>, Reason)>,
    memory_limits: Vec<(usize, u64, MemoryChange)>,
    memory_drifts: Vec<(usize, MemoryDrift)>,
}

impl Core {
    fn learn_turnaround(&mut self, task: usize, turnaround: Duration) {
        let mean = &mut self.turnarounds[task];
        *mean = Some(mean.map_or(turnaround, |mean| mean - mean / 8 + turnaround / 8));
    }

    /// The estimate of the task's service time, for the admission of requests.
    fn service_estimate(&self, task: usize) -> Option<ServiceEstimate> {
        let estimate = self.scheduler.batcher().service_estimate(task)?;
        Some(estimate.with_turnaround(self.turnarounds[task].unwrap_or_default()))
    }

    fn read_messages(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            self.scheduler.handle(clock::now(), message);
        }
    }

    /// Carries out commands until there are no more, and decides what `worker` does.
    fn advance(&mut self, worker: usize, wakeups: &Wakeups, effects: &mut Effects) -> Turn {
        loop {
            self.read_messages();
            let until = match self.scheduler.poll(clock::now()) {
                Command::Start {
                    worker: starts,
                    batch,
                    waited,
                } => {
                    self.assigned[starts] = Some(Assignment { batch, waited });
                    if starts != worker {
                        effects.wake.push(starts);
                    }
                    continue;
                }
                Command::Release(items, reason) => {
                    effects.released.push((items, reason));
                    continue;
                }
                Command::MemoryLimit { task, cost, change } => {
                    effects.memory_limits.push((task, cost, change));
                    continue;
                }
                Command::MemoryDrift { task, drift } => {
                    effects.memory_drifts.push((task, drift));
                    continue;
                }
                Command::Stop => {
                    let others = self.scheduler.idle_workers().filter(|other| *other != worker);
                    effects.wake.extend(others);
                    return self.assigned[worker].take().map_or(Turn::Stop, Turn::Run);
                }
                Command::Wait(until) => until,
            };
            if !self.leave_watcher(worker, until, wakeups, effects) {
                continue;
            }
            return self.assigned[worker].take().map_or(Turn::Wait(until), Turn::Run);
        }
    }

    /// Makes an idle worker watch for messages: `worker` if it is idle. Returns false if there are messages already.
    fn leave_watcher(
        &mut self,
        worker: usize,
        until: Option<Instant>,
        wakeups: &Wakeups,
        effects: &mut Effects,
    ) -> bool {
        let is_idle = self.scheduler.idle_workers().any(|idle| idle == worker);
        let watcher = if is_idle {
            Some(worker)
        } else {
            self.scheduler.idle_worker()
        };
        if let Some(before) = std::mem::replace(&mut self.watcher, watcher)
            && self.watcher != Some(before)
        {
            wakeups.unwatch(before);
        }
        let Some(watcher) = watcher else {
            return true;
        };
        wakeups.watch(watcher);
        if !self.messages.is_empty() {
            wakeups.unwatch(watcher);
            return false;
        }
        // One that is parked already does not know this instant.
        if watcher != worker && until.is_some() {
            effects.wake.push(watcher);
        }
        true
    }
}

/// The workers of one model, as they see each other.
pub(super) struct Crew {
    core: Mutex<Core>,
    pub(super) model: Arc<dyn Model>,
    pub(super) tasks: Vec<Arc<TaskQueue>>,
    pub(super) wakeups: Arc<Wakeups>,
    pub(super) running: Arc<RunningBatches>,
    pub(super) panics: Arc<Panics>,
}

/// The panics of the workers of one model.
#[derive(Default)]
pub(super) struct Panics {
    in_a_row: AtomicU32,
    has_failed: AtomicBool,
}

impl Panics {
    pub(super) fn batch_completed(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
    }

    pub(super) fn panicked(&self) {
        if self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_PANICS_IN_A_ROW {
            self.has_failed.store(true, Ordering::Release);
        }
    }

    /// Why the model has failed, if it has.
    pub(super) fn failure(&self) -> Option<String> {
        let has_failed = self.has_failed.load(Ordering::Acquire);
        has_failed.then(|| {
            format!("its workers panicked {MAX_PANICS_IN_A_ROW} times in a row; the model has to be reloaded")
        })
    }
}

impl Crew {
    pub(super) fn new(
        model: Arc<dyn Model>,
        tasks: Vec<Arc<TaskQueue>>,
        scheduler: Scheduler<Queued>,
        messages: Receiver<Message>,
        wakeups: Arc<Wakeups>,
        running: Arc<RunningBatches>,
        panics: Arc<Panics>,
    ) -> Self {
        let assigned = std::iter::repeat_with(|| None).take(wakeups.len());
        Self {
            core: Mutex::new(Core {
                scheduler,
                messages,
                assigned: assigned.collect(),
                watcher: None,
                published: clock::now(),
                turnarounds: vec![None; tasks.len()],
            }),
            model,
            tasks,
            wakeups,
            running,
            panics,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds the lock of the scheduler while `run` runs.
    #[cfg(test)]
    pub(super) fn with_scheduler_locked<T>(&self, run: impl FnOnce(&Scheduler<Queued>) -> T) -> T {
        run(&self.lock().scheduler)
    }

    /// Whether no thread holds the lock of the scheduler.
    #[cfg(test)]
    pub(super) fn is_scheduler_unlocked(&self) -> bool {
        self.core.try_lock().is_ok()
    }

    /// Passes messages of `worker` to the scheduler, carries out its commands, and returns what the worker does next.
    pub(super) fn advance<const N: usize>(&self, worker: usize, messages: [Message; N]) -> Turn {
        let mut effects = Effects::default();
        let turn = {
            let mut core = self.lock();
            if let Some(assignment) = core.assigned[worker].take() {
                return Turn::Run(assignment);
            }
            for message in messages {
                core.scheduler.handle(clock::now(), message);
            }
            core.advance(worker, &self.wakeups, &mut effects)
        };
        self.apply(effects);
        turn
    }

    /// Reports a batch that has ended.
    pub(super) fn complete(&self, token: BatchToken, report: Report) {
        let Report {
            outcome,
            out_of_memory,
            turnaround,
        } = report;
        let task = token.task();
        let mut core = self.lock();
        // They happened before.
        core.read_messages();
        core.scheduler.handle(
            outcome.finished,
            Message::Completed {
                token,
                outcome,
                out_of_memory,
            },
        );
        if let Some(turnaround) = turnaround {
            core.learn_turnaround(task, turnaround);
        }
        if outcome.finished.saturating_duration_since(core.published) >= ESTIMATES_INTERVAL {
            core.published = outcome.finished;
            for (index, task) in self.tasks.iter().enumerate() {
                task.publish_estimates(core.scheduler.batcher().estimates(index));
                if task.memory.is_predicted() {
                    task.memory.publish(core.scheduler.batcher().memory(index));
                }
            }
        }
        // The admission of requests must not rely on an outdated one.
        self.tasks[task].publish_service(core.service_estimate(task));
    }

    /// Reports the measured memory of a batch that has ended, before its completion.
    pub(super) fn memory_measured(&self, task: usize, shape: BatchShape, bytes: u64) {
        let mut core = self.lock();
        let message = Message::MemoryMeasured { task, shape, bytes };
        core.scheduler.handle(clock::now(), message);
        let queue = &self.tasks[task];
        queue
            .memory
            .measured(bytes, core.scheduler.batcher().memory(task), &queue.metrics);
    }

    fn apply(&self, effects: Effects) {
        for worker in effects.wake {
            self.wakeups.wake(worker);
        }
        for (items, reason) in effects.released {
            for item in items {
                self.release(item.payload.handle, reason);
                drop(item.payload.prepared);
            }
        }
        for (task, cost, change) in effects.memory_limits {
            log_memory_limit(&self.tasks[task].context([]), cost, change);
        }
        for (task, drift) in effects.memory_drifts {
            log_memory_drift(&self.tasks[task].context([]), drift);
        }
    }

    /// Answers a batch that will not run.
    pub(super) fn abandon(&self, assignment: Assignment) {
        let Batch { items, token, .. } = assignment.batch;
        self.complete(token, Report::failed());
        for item in items {
            self.release(item.payload.handle, Reason::Failed);
        }
    }

    fn release(&self, handle: ItemHandle, reason: Reason) {
        match reason {
            Reason::Expired => handle.expire(),
            Reason::Infeasible => handle.reject_infeasible(),
            Reason::Cancelled => handle.cancel(),
            Reason::Aborted => handle.settle(Err(ItemError::ShuttingDown)),
            Reason::Failed => handle.settle(Err(self.unavailable())),
        }
    }

    /// The error of an item that nothing can run.
    fn unavailable(&self) -> ItemError {
        match (self.panics.failure(), self.model.health()) {
            (Some(failure), _) => ItemError::Unavailable(format!("the model has failed: {failure}")),
            (None, Health::CrashLoop { reason }) => crash_loop(&reason),
            (None, _) => ItemError::Unavailable("the model is not running".to_owned()),
        }
    }
}

fn log_memory_limit(context: &BatchContext, cost: u64, change: MemoryChange) {
    match change {
        MemoryChange::Narrowed(limit) => log_batch!(
            warn,
            *context,
            "a batch of weight {cost} ran out of memory; limiting batches to weight {limit}"
        ),
        MemoryChange::Raised(limit) => log_batch!(
            info,
            *context,
            "memory has sufficed; trying batches of weight {limit}"
        ),
        MemoryChange::Lifted => log_batch!(
            info,
            *context,
            "memory suffices again; batches are no longer limited by it"
        ),
    }
}

fn log_memory_drift(context: &BatchContext, drift: MemoryDrift) {
    let MemoryDrift { ratio, margin } = drift;
    log_batch!(
        warn,
        *context,
        "batches use {ratio:.2} times the memory that their calibration predicts; the margin is now {:.0}%. Calibrate the model again",
        margin * 100.0
    );
}

/// The error of an item that cannot run because its model is in a crash loop.
pub(super) fn crash_loop(reason: &str) -> ItemError {
    ItemError::Unavailable(format!("the model is in a crash loop: {reason}"))
}
