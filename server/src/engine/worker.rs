//! The workers of a model: the threads that drive its scheduler and run its batches.
//!
//! The scheduler is behind a lock that is held only to pass it messages and to read commands, never to wait, to answer or
//! to drop anything. A worker that has nothing to run parks outside the lock. One of the idle workers watches for messages
//! (see `wakeups`); the worker that it wakes takes the batch itself if it can, so a request reaches the model with one
//! handover between threads.
//!
//! # Panics
//! Nothing here should panic, and models catch the panics of plugins. If something does, the worker starts over: its batch
//! is answered with an error, and after [`MAX_PANICS_IN_A_ROW`] panics without a completed batch the model has failed.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::EngineConfig;
use super::admission::{Message, Queued, TaskQueue};
use super::batch_run::{BatchRun, NO_PROCESS_INTERVAL};
use super::request::{ItemHandle, Outcome};
use super::running::RunningBatches;
use super::wakeups::Wakeups;
use crate::batch_context::{BatchContext, log_batch};
use crate::batcher::scheduler::{Command, MemoryChange, Reason, Scheduler};
use crate::batcher::{Batch, BatchOutcome, BatchToken, Item};
use crate::clock;
use crate::error::ItemError;
use crate::metrics::TaskMetrics;
use crate::model::{Health, Model, PreparedItem};
use crate::niceness;
use crate::values::ItemInput;

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
}

/// A batch for a worker.
struct Assignment {
    batch: Batch<Queued>,
    /// How long the worker was idle while items of the batch waited.
    waited: Duration,
}

/// What a worker does next.
enum Turn {
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
}

impl Core {
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
    model: Arc<dyn Model>,
    tasks: Vec<Arc<TaskQueue>>,
    wakeups: Arc<Wakeups>,
    running: Arc<RunningBatches>,
    panics: Arc<Panics>,
}

/// The panics of the workers of one model.
#[derive(Default)]
pub(super) struct Panics {
    in_a_row: AtomicU32,
    has_failed: AtomicBool,
}

impl Panics {
    fn batch_completed(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
    }

    fn panicked(&self) {
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
    fn advance<const N: usize>(&self, worker: usize, messages: [Message; N]) -> Turn {
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
    fn complete(&self, token: BatchToken, outcome: BatchOutcome, out_of_memory: Option<u64>) {
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
        if outcome.finished.saturating_duration_since(core.published) >= ESTIMATES_INTERVAL {
            core.published = outcome.finished;
            for (index, task) in self.tasks.iter().enumerate() {
                task.publish_estimates(core.scheduler.batcher().estimates(index));
            }
        }
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

/// The error of an item that cannot run because its model is in a crash loop.
pub(super) fn crash_loop(reason: &str) -> ItemError {
    ItemError::Unavailable(format!("the model is in a crash loop: {reason}"))
}

/// An item of a batch that runs.
pub(super) struct BatchedItem {
    pub(super) handle: ItemHandle,
    pub(super) input: ItemInput,
    pub(super) prepared: Option<PreparedItem>,
    pub(super) weight: u64,
    ready: Instant,
}

impl BatchedItem {
    fn new(item: Item<Queued>) -> Option<Self> {
        let Queued { handle, prepared } = item.payload;
        Some(Self {
            input: handle.take_input()?,
            handle,
            prepared,
            weight: item.weight,
            ready: item.ready,
        })
    }
}

/// Counts items as executing while it exists.
struct Executing<'a>(&'a TaskMetrics, i64);

impl<'a> Executing<'a> {
    fn new(metrics: &'a TaskMetrics, items: usize) -> Self {
        metrics.executing_items.add(items as i64);
        Self(metrics, items as i64)
    }
}

impl Drop for Executing<'_> {
    fn drop(&mut self) {
        self.0.executing_items.sub(self.1);
    }
}

/// One thread that runs batches.
pub(super) struct Worker {
    pub(super) index: usize,
    crew: Arc<Crew>,
}

impl Worker {
    /// Starts all workers of a model.
    pub(super) fn start_all(crew: &Arc<Crew>, config: &EngineConfig<'_>) -> io::Result<Vec<JoinHandle<()>>> {
        (0..config.workers)
            .map(|index| {
                let worker = Self {
                    index,
                    crew: crew.clone(),
                };
                let nice = config.nice;
                thread::Builder::new()
                    .name(format!("model {} {index}", config.name))
                    .spawn(move || {
                        niceness::raise_to(nice);
                        worker.work();
                    })
            })
            .collect()
    }

    /// Runs batches until the engine has ended. Starts over after a panic.
    fn work(self) {
        self.crew.wakeups.register(self.index);
        let mut running = None;
        while catch_unwind(AssertUnwindSafe(|| self.run_batches(&mut running))).is_err() {
            self.recover(running.take());
        }
    }

    /// `running` is the token of the batch that runs, for the case of a panic.
    fn run_batches(&self, running: &mut Option<BatchToken>) {
        let crew = &*self.crew;
        loop {
            let can_run = crew.model.wait_for_worker(self.index, NO_PROCESS_INTERVAL);
            let turn = if can_run {
                crew.advance(self.index, [Message::WorkerAvailable(self.index)])
            } else if matches!(crew.model.health(), Health::CrashLoop { .. }) {
                // This may last, so queued items fail at once, as new requests do.
                let unavailable = Message::WorkerUnavailable(self.index);
                crew.advance(self.index, [unavailable, Message::FailQueued])
            } else {
                crew.advance(self.index, [Message::WorkerUnavailable(self.index)])
            };
            match turn {
                Turn::Run(assignment) => self.run(assignment, running),
                Turn::Wait(_) if !can_run => {}
                Turn::Wait(None) => thread::park(),
                Turn::Wait(Some(until)) => {
                    thread::park_timeout(until.saturating_duration_since(clock::now()));
                }
                Turn::Stop => return,
            }
        }
    }

    /// Reports a panic of this worker. The items of its batch were answered as they were dropped.
    fn recover(&self, running: Option<BatchToken>) {
        let crew = &*self.crew;
        crew.running.end(self.index);
        crew.panics.panicked();
        if let Some(token) = running {
            let now = clock::now();
            let outcome = BatchOutcome {
                started: now,
                finished: now,
                succeeded: false,
            };
            crew.complete(token, outcome, None);
        }
        let name = thread::current().name().unwrap_or_default().to_owned();
        match crew.panics.failure() {
            None => log::error!("worker `{name}` panicked and was replaced; its batch failed"),
            Some(failure) => {
                log::error!("worker `{name}` panicked and was replaced; the model has failed: {failure}");
                // The message is passed on only once this worker has no assignment.
                while let Turn::Run(assignment) = crew.advance(self.index, [Message::Failed]) {
                    crew.abandon(assignment);
                }
            }
        }
    }

    /// The log context of a batch of these items.
    pub(super) fn context<'a>(
        &self,
        task: usize,
        items: impl Iterator<Item = &'a BatchedItem>,
    ) -> BatchContext {
        self.crew.tasks[task].context(items.map(|item| item.handle.request_id()))
    }

    pub(super) fn model(&self) -> &dyn Model {
        self.crew.model.as_ref()
    }

    pub(super) fn metrics(&self, task: usize) -> &TaskMetrics {
        &self.crew.tasks[task].metrics
    }

    fn run(&self, assignment: Assignment, running: &mut Option<BatchToken>) {
        let Assignment { batch, waited } = assignment;
        let crew = &*self.crew;
        let task = &*crew.tasks[batch.task];
        let token = running.insert(batch.token);
        let (index, cost) = (token.task(), token.cost());
        let items: Vec<BatchedItem> = batch.items.into_iter().filter_map(BatchedItem::new).collect();
        task.metrics.count_batch(batch.reason.as_str());
        task.metrics.batch_wait_seconds.observe(waited.as_secs_f64());
        task.metrics.batch_size.observe(items.len() as f64);
        task.metrics.batch_weight.observe(cost as f64);

        let executing = Executing::new(&task.metrics, items.len());
        let started = clock::now();
        let context = self.context(index, items.iter());
        crew.running.begin(self.index, Arc::new(context), started);
        let mut run = BatchRun::new(self, index, started);
        let outcomes = run.run(&items, cost);
        let finished = clock::now();
        crew.running.end(self.index);
        drop(executing);
        let inference = finished - started;
        task.metrics.inference_seconds.observe(inference.as_secs_f64());
        task.batch_ran(items.len(), inference);
        crew.panics.batch_completed();
        if let Some(token) = running.take() {
            let outcome = BatchOutcome {
                started: run.started,
                finished,
                succeeded: outcomes.iter().any(|outcome| matches!(outcome, Some(Ok(_)))),
            };
            crew.complete(token, outcome, run.out_of_memory);
        }
        answer(items, outcomes, started, inference, &task.metrics);
    }
}

impl Crew {
    /// Answers a batch that will not run.
    fn abandon(&self, assignment: Assignment) {
        let Batch { items, token, .. } = assignment.batch;
        let now = clock::now();
        let outcome = BatchOutcome {
            started: now,
            finished: now,
            succeeded: false,
        };
        self.complete(token, outcome, None);
        for item in items {
            self.release(item.payload.handle, Reason::Failed);
        }
    }
}

fn answer(
    items: Vec<BatchedItem>,
    outcomes: Vec<Option<Outcome>>,
    started: Instant,
    inference: Duration,
    metrics: &TaskMetrics,
) {
    let mut last: Option<&ItemHandle> = None;
    for item in &items {
        let waited = started.saturating_duration_since(item.ready);
        metrics.queue_seconds.observe(waited.as_secs_f64());
        item.handle.waited(waited);
        // The items of a request are next to each other in a batch.
        if !last.is_some_and(|last| last.is_of_same_request(&item.handle)) {
            item.handle.ran_in(inference);
        }
        last = Some(&item.handle);
    }
    for (item, outcome) in items.into_iter().zip(outcomes) {
        match outcome {
            Some(outcome) => item.handle.settle(outcome),
            None => item.handle.cancel(),
        }
        // After the reply, so that freeing what a plugin prepared does not delay it.
        drop((item.input, item.prepared));
    }
}
