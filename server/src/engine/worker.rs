//! The workers: who owns the batcher, what runs, and how a batch is settled.

use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, TryRecvError};

use super::EngineConfig;
use super::memory_limit::{Change, MemoryLimit};
use super::prediction::{PATIENCE, Prediction};
use super::queue::{Message, QueueReceiver, Queued, TaskQueue};
use super::running::RunningBatches;
use crate::batch_context::{BatchContext, log_batch};
use crate::batcher::{Batch, Batcher, Completion, Item, ItemId, Next};
use crate::batching::{Policy, TaskBatching};
use crate::clock;
use crate::error::ItemError;
use crate::model::{Health, Model};
use crate::niceness;

/// The batcher and the receiving end of the queue. Belongs to the worker whose turn it is.
pub(super) struct Scheduler {
    receiver: QueueReceiver,
    batcher: Batcher<Queued>,
    tasks: Vec<Arc<TaskQueue>>,
    /// As configured; what the batcher obeys is narrowed by `memory`.
    batching: Vec<TaskBatching>,
    /// By task.
    memory: Vec<MemoryLimit>,
    batches: u64,
    /// When the estimates of the policies were last published.
    shown: Instant,
    closed: bool,
}

/// How often the estimates of the policies are published.
const SHOWN_EVERY: Duration = Duration::from_millis(100);

/// A batch on its way to the model.
struct Run {
    number: u64,
    batch: Batch<Queued>,
}

/// What a worker does when its turn comes.
#[allow(
    clippy::large_enum_variant,
    reason = "the large one is the common one, and a box would cost an allocation"
)]
enum Turn {
    /// Runs a batch.
    Run(Run),
    /// Waits until it could run one.
    Wait,
    /// Goes home.
    End,
}

/// What a worker reports when its turn comes again.
struct Finished {
    completion: Completion,
    /// The cost that did not fit in memory.
    too_much: Option<u64>,
}

impl Scheduler {
    pub(super) fn new(
        receiver: QueueReceiver,
        batcher: Batcher<Queued>,
        batching: Vec<TaskBatching>,
        tasks: Vec<Arc<TaskQueue>>,
    ) -> Self {
        let memory = tasks.iter().map(|_| MemoryLimit::default()).collect();
        Self {
            receiver,
            batcher,
            tasks,
            batching,
            memory,
            batches: 0,
            shown: clock::now(),
            closed: false,
        }
    }

    /// Waits for the next batch; the end comes once the queue is closed and empty.
    fn next(&mut self) -> Turn {
        let free_since = clock::now();
        loop {
            let now = self.look_around();
            let received = match self.batcher.poll(now) {
                Next::Run(batch) => {
                    self.expire(now);
                    match self.begin(batch, now, free_since) {
                        Some(run) => return Turn::Run(run),
                        None => continue,
                    }
                }
                Next::WaitUntil(instant) => self.receiver.messages.recv_deadline(instant),
                Next::Idle if self.closed => return Turn::End,
                Next::Idle => self
                    .receiver
                    .messages
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
            };
            match received {
                Ok(message) => self.read(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.close(),
            }
        }
    }

    /// Does what there is to do while nothing could run a batch. In a crash loop that may last, so what is queued fails at
    /// once, as new requests do.
    fn tidy(&mut self, health: Health) -> Turn {
        self.look_around();
        if let Health::CrashLoop { reason } = health {
            let error = crash_loop(&reason);
            for item in self.batcher.take_all() {
                item.payload.ticket.settle(Err(error.clone()));
            }
        }
        if self.closed && self.batcher.is_empty() {
            Turn::End
        } else {
            Turn::Wait
        }
    }

    /// Reads what has come, and lets go of what has expired.
    fn look_around(&mut self) -> Instant {
        self.read_channel();
        let now = clock::now();
        self.expire(now);
        now
    }

    /// Answers the items whose deadline has passed or cannot be met.
    fn expire(&mut self, now: Instant) {
        for item in self.batcher.take_expired(now) {
            item.payload.ticket.expire();
        }
    }

    /// Takes the batch's items out of the queue; `None` if all have been given up meanwhile.
    fn begin(&mut self, mut batch: Batch<Queued>, now: Instant, free_since: Instant) -> Option<Run> {
        let handed_out = batch.items.len();
        batch.items.retain(|item| item.payload.ticket.take());
        self.batcher.gave_up(batch.task, handed_out - batch.items.len());
        let oldest = batch.items.iter().map(|item| item.ready).min()?;
        self.batches += 1;
        let metrics = &self.tasks[batch.task].metrics;
        metrics.count_batch(batch.reason.as_str());
        let waited = now.saturating_duration_since(free_since.max(oldest));
        metrics.batch_wait_seconds.observe(waited.as_secs_f64());
        metrics.batch_size.observe(batch.items.len() as f64);
        metrics.batch_weight.observe(batch.cost as f64);
        Some(Run {
            number: self.batches,
            batch,
        })
    }

    fn read_channel(&mut self) {
        while !self.closed {
            match self.receiver.messages.try_recv() {
                Ok(message) => self.read(message),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.close(),
            }
        }
    }

    fn read(&mut self, message: Message) {
        match message {
            Message::One(item) => {
                self.items_read(1);
                self.push(item);
            }
            Message::Many(items) => {
                self.items_read(items.len());
                for item in items {
                    self.push(item);
                }
            }
            Message::Withdraw(ids) => {
                for id in ids {
                    self.batcher.cancel(ItemId(id));
                }
            }
            Message::Reconfigure(batching) => {
                self.batching = batching;
                self.apply_batching();
            }
            Message::Abort => self.abort(),
        }
    }

    fn items_read(&self, items: usize) {
        self.receiver
            .unread
            .fetch_sub(items, std::sync::atomic::Ordering::Relaxed);
    }

    fn push(&mut self, item: Item<Queued>) {
        if item.payload.ticket.is_waiting() {
            self.batcher.push(item);
        }
    }

    /// Nobody will submit any more: what is left goes without waiting for company.
    fn close(&mut self) {
        self.closed = true;
        self.apply_batching();
    }

    fn abort(&mut self) {
        self.closed = true;
        while let Ok(message) = self.receiver.messages.try_recv() {
            if let Message::One(_) | Message::Many(_) = message {
                self.read(message);
            }
        }
        let batcher = std::mem::replace(&mut self.batcher, Batcher::new(self.batching.clone()));
        for item in batcher.into_items() {
            item.payload.ticket.settle(Err(ItemError::ShuttingDown));
        }
    }

    fn apply_batching(&mut self) {
        let narrowed = self.batching.iter().zip(&self.memory).map(|(batching, memory)| {
            let mut batching = *batching;
            if let Some(cost) = memory.cost() {
                let size = NonZeroUsize::new(usize::try_from(cost).unwrap_or(usize::MAX))
                    .unwrap_or(NonZeroUsize::MIN);
                // Every item weighs at least 1, so no batch of more items than that can cost less.
                batching.max_batch_size = batching.max_batch_size.min(size);
                batching.max_batch_weight = Some(batching.max_batch_weight.map_or(cost, |max| max.min(cost)));
            }
            if self.closed && batching.policy != Policy::Off {
                batching.policy = Policy::Greedy;
            }
            batching
        });
        self.batcher.reconfigure(narrowed.collect());
    }

    fn finished(&mut self, finished: &Finished) {
        self.batcher.completed(finished.completion);
        self.publish_estimates(finished.completion.finished);
        self.learn_memory(finished);
    }

    fn learn_memory(&mut self, finished: &Finished) {
        let Completion {
            task,
            cost,
            finished: now,
            succeeded,
            ..
        } = finished.completion;
        let memory = &mut self.memory[task];
        let change = match finished.too_much {
            Some(cost) => memory.ran_out(cost, now),
            None if succeeded => memory.fitted(cost, now),
            None => None,
        };
        let Some(change) = change else { return };
        let context = self.tasks[task].context([]);
        match change {
            Change::Narrowed(limit) => log_batch!(
                warn,
                context,
                "a batch of weight {} ran out of memory; limiting batches to weight {limit}",
                finished.too_much.unwrap_or(cost)
            ),
            Change::Raised(limit) => {
                log_batch!(
                    info,
                    context,
                    "memory has sufficed; trying batches of weight {limit}"
                );
            }
            Change::Lifted => {
                log_batch!(
                    info,
                    context,
                    "memory suffices again; batches are no longer limited by it"
                );
            }
        }
        self.apply_batching();
    }
}

impl Scheduler {
    /// Publishes the estimates of the policies for operators.
    fn publish_estimates(&mut self, now: Instant) {
        if now.saturating_duration_since(self.shown) < SHOWN_EVERY {
            return;
        }
        self.shown = now;
        for (index, task) in self.tasks.iter().enumerate() {
            task.publish_estimates(self.batcher.estimates(index));
        }
    }
}

/// The error of an item that cannot run because its model is in a crash loop.
pub(super) fn crash_loop(reason: &str) -> ItemError {
    ItemError::Unavailable(format!("the model is in a crash loop: {reason}"))
}

/// One thread that runs batches.
pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) model: Arc<dyn Model>,
    pub(super) tasks: Vec<Arc<TaskQueue>>,
    running: Arc<RunningBatches>,
    scheduler: Arc<Mutex<Scheduler>>,
}

impl Worker {
    /// Starts all workers of a model.
    pub(super) fn start_all(
        model: &Arc<dyn Model>,
        scheduler: Scheduler,
        config: &EngineConfig<'_>,
        running: &Arc<RunningBatches>,
    ) -> io::Result<Vec<JoinHandle<()>>> {
        let tasks = scheduler.tasks.clone();
        let scheduler = Arc::new(Mutex::new(scheduler));
        (0..config.workers)
            .map(|index| {
                let worker = Self {
                    index,
                    model: model.clone(),
                    tasks: tasks.clone(),
                    running: running.clone(),
                    scheduler: scheduler.clone(),
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

    fn work(&self) {
        let mut finished = None;
        loop {
            let could_run = self.model.wait_for_worker(self.index, PATIENCE);
            let next = {
                let mut scheduler = self.scheduler.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(finished) = finished.take() {
                    scheduler.finished(&finished);
                }
                if could_run {
                    scheduler.next()
                } else {
                    scheduler.tidy(self.model.health())
                }
            };
            match next {
                Turn::Run(run) => finished = Some(self.run(run)),
                Turn::Wait => {}
                Turn::End => return,
            }
        }
    }

    /// What a batch of these items is called in the log.
    pub(super) fn context<'a>(
        &self,
        task: usize,
        items: impl Iterator<Item = &'a Item<Queued>>,
    ) -> BatchContext {
        self.tasks[task].context(items.map(|item| item.payload.ticket.request_id()))
    }

    fn run(&self, run: Run) -> Finished {
        let Run { number, batch } = run;
        let task = &self.tasks[batch.task];
        let items = batch.items.len();
        task.metrics.executing_items.add(items as i64);
        let started = clock::now();
        let context = self.context(batch.task, batch.items.iter());
        self.running.begin(self.index, Arc::new(context), started);
        let mut prediction = Prediction::new(self, batch.task, started);
        let outcomes = prediction.predict(&batch.items, batch.cost);
        let (last_started, too_much) = (prediction.started, prediction.too_much);
        let finished = clock::now();
        self.running.end(self.index);
        let inference = finished - started;
        task.metrics.inference_seconds.observe(inference.as_secs_f64());
        task.metrics.executing_items.sub(items as i64);
        task.batch_ran(items, inference);
        let succeeded = outcomes.iter().any(|outcome| matches!(outcome, Some(Ok(_))));
        for (item, outcome) in batch.items.into_iter().zip(outcomes) {
            let queued = started.saturating_duration_since(item.ready);
            task.metrics.queue_seconds.observe(queued.as_secs_f64());
            let Queued {
                ticket,
                input,
                prepared,
            } = item.payload;
            ticket.ran_in(number, queued, inference);
            match outcome {
                Some(outcome) => ticket.settle(outcome),
                None => ticket.abandon(),
            }
            // After the reply, so that freeing what a plugin prepared does not delay it.
            drop((input, prepared));
        }
        Finished {
            completion: Completion {
                task: batch.task,
                size: items,
                cost: batch.cost,
                started: last_started,
                finished,
                succeeded,
            },
            too_much,
        }
    }
}
