//! Decides what happens next for one model: which batch starts on which worker, which items are answered with an error,
//! and until when there is nothing to do.
//!
//! A state machine without threads, clocks or I/O. The driver (the engine's workers, a test or the simulation) passes
//! every event to [`Scheduler::handle`], then calls [`Scheduler::poll`] until it returns [`Command::Wait`] or
//! [`Command::Stop`], and carries out each command:
//!
//! 1. `handle(WorkerAvailable)` when a worker becomes idle. Batches start only on workers that were reported idle.
//! 2. `handle(Arrival)`, `handle(Cancelled)` and the other messages when they happen, in that order.
//! 3. `poll` returns [`Command::Start`]; the worker is busy from then on.
//! 4. `handle(Completed)` with the token of the batch when the model has returned, before its items are answered: a client
//!    may send its next request as soon as it has the reply, and that request must not be considered before the completion.
//!
//! The scheduler never drops an item. It returns items that do not run as [`Command::Release`], so that the driver can
//! answer and drop them after it has released its lock.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::time::{Duration, Instant};

pub use super::memory_limit::Change as MemoryChange;

use super::cost_model::{BatchShape, TaskCosts};
use super::memory_budget::{MemoryDrift, MemoryLimits, Reservations, SharedBudget};
use super::memory_limit::MemoryLimit;
use super::{Batch, BatchOutcome, BatchToken, Batcher, IdleWorkers, Item, ItemId, Next};
use crate::batching::{Policy, Priority, TaskBatching};

/// What the scheduler needs to know about the payload of an item.
pub trait Payload {
    /// Whether the item still waits. Items that do not are never queued.
    fn is_queued(&self) -> bool;

    /// Moves the item from the queue into a batch. Returns false if it does not wait any more, because it was cancelled,
    /// for example.
    fn start(&mut self) -> bool;
}

/// An event.
#[allow(
    clippy::large_enum_variant,
    reason = "the large variant is the common one, and a box would cost an allocation"
)]
#[derive(Debug)]
pub enum Message<T> {
    /// An item is ready to run.
    Arrival(Item<T>),
    /// Items of one request are ready to run.
    Arrivals(Vec<Item<T>>),
    /// The items with these names do not wait any more.
    Cancelled(Range<u64>),
    /// Other rules apply, also to items that are queued.
    Reconfigured(Vec<TaskBatching>),
    /// The batches of the model may use this much memory, in bytes.
    MemoryBudget(Option<u64>),
    /// Shared memory was released that this model waits for.
    MemoryAvailable,
    /// The memory of a batch was measured.
    MemoryMeasured {
        /// Index of its task.
        task: usize,
        /// Its items.
        shape: BatchShape,
        /// Bytes that it added to the memory of an idle worker.
        bytes: u64,
    },
    /// No more items will arrive. Those that are queued run without further waiting.
    Closed,
    /// No more batches start. Queued items are released.
    Aborted,
    /// Nothing can run the queued items. They are released; items that arrive later are queued.
    FailQueued,
    /// Nothing can run any items of this model from now on.
    Failed,
    /// This worker is idle and can run a batch.
    WorkerAvailable(usize),
    /// This worker cannot run a batch now.
    WorkerUnavailable(usize),
    /// A batch has ended.
    Completed {
        /// Its token.
        token: BatchToken,
        /// How it ran.
        outcome: BatchOutcome,
        /// The smallest cost that did not fit in memory, if any did not.
        out_of_memory: Option<u64>,
    },
}

/// What the driver does next.
#[derive(Debug)]
pub enum Command<T> {
    /// Run this batch on this worker, and report [`Message::Completed`].
    Start {
        /// The worker.
        worker: usize,
        /// The batch.
        batch: Batch<T>,
        /// How long the worker was idle while items of the batch waited. Background items that join a batch do not count.
        waited: Duration,
    },
    /// Answer these items. They are not queued any more.
    Release(Vec<Item<T>>, Reason),
    /// Report that the memory limit of a task changed.
    MemoryLimit {
        /// Index of the task.
        task: usize,
        /// Cost of the batch that caused the change.
        cost: u64,
        /// The change.
        change: MemoryChange,
    },
    /// Report that the measured memory of a task differs from the prediction.
    MemoryDrift {
        /// Index of the task.
        task: usize,
        /// The difference.
        drift: MemoryDrift,
    },
    /// Nothing to do until the next message, or until this instant.
    Wait(Option<Instant>),
    /// Nothing to do ever again.
    Stop,
}

/// Why items are released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Their deadline has passed.
    Expired,
    /// Their deadline would pass even in the fastest batch, and other items need the room.
    Infeasible,
    /// They did not wait any more.
    Cancelled,
    /// The scheduler was aborted.
    Aborted,
    /// Nothing can run them.
    Failed,
}

/// The decisions for one model. See the module documentation for the calls and their order.
#[derive(Debug)]
pub struct Scheduler<T> {
    batcher: Batcher<T>,
    /// As configured. The batcher follows these rules, narrowed by `memory`.
    rules: Vec<TaskBatching>,
    /// By task.
    memory: Vec<MemoryLimit>,
    reservations: Reservations,
    workers: usize,
    /// Idle workers, and since when; the one that reported last is the last, and is used first.
    idle: Vec<(usize, Instant)>,
    commands: VecDeque<Command<T>>,
    is_closed: bool,
    /// Why every item is released, if it is.
    ended: Option<Reason>,
}

impl<T: Payload> Scheduler<T> {
    /// A scheduler for this many workers, none of which is available yet. A task is named by its index in `rules`.
    pub fn new(rules: Vec<TaskBatching>, workers: usize) -> Self {
        Self {
            batcher: Batcher::new(rules.clone()).with_workers(workers),
            memory: rules.iter().map(|_| MemoryLimit::default()).collect(),
            rules,
            reservations: Reservations::default(),
            workers,
            idle: Vec::with_capacity(workers),
            commands: VecDeque::new(),
            is_closed: false,
            ended: None,
        }
    }

    /// Sets what the batches of each task cost, and the memory that they may use: `budget` in bytes by this model, and
    /// `shared` with others.
    pub fn with_costs(
        mut self,
        costs: Vec<TaskCosts>,
        budget: Option<u64>,
        shared: Option<Box<dyn SharedBudget>>,
    ) -> Self {
        self.batcher = self.batcher.with_costs(costs);
        self.reservations.shared = shared;
        self.set_memory_budget(budget);
        self
    }

    /// Records an event that happened at `now`.
    pub fn handle(&mut self, now: Instant, message: Message<T>) {
        match message {
            Message::Arrival(item) => self.arrived(item),
            Message::Arrivals(items) => items.into_iter().for_each(|item| self.arrived(item)),
            Message::Cancelled(ids) => {
                for id in ids {
                    if let Some(item) = self.batcher.cancel(ItemId(id)) {
                        self.release_one(item, Reason::Cancelled);
                    }
                }
            }
            Message::Reconfigured(rules) => {
                self.rules = rules;
                self.apply_rules();
            }
            Message::MemoryBudget(budget) => self.set_memory_budget(budget),
            // Every poll requests the memory that it needs.
            Message::MemoryAvailable => {}
            Message::MemoryMeasured { task, shape, bytes } => {
                if let Some(drift) = self.batcher.memory_measured(task, &shape, bytes, now) {
                    self.commands.push_back(Command::MemoryDrift { task, drift });
                }
            }
            Message::Closed => {
                self.is_closed = true;
                self.apply_rules();
            }
            Message::Aborted => {
                self.ended = Some(Reason::Aborted);
                self.release_all(Reason::Aborted);
            }
            Message::FailQueued => self.release_all(Reason::Failed),
            Message::Failed => {
                let reason = *self.ended.get_or_insert(Reason::Failed);
                self.release_all(reason);
            }
            Message::WorkerAvailable(worker) => {
                let since = self.remove_idle(worker).unwrap_or(now);
                self.idle.push((worker, since));
            }
            Message::WorkerUnavailable(worker) => {
                self.remove_idle(worker);
            }
            Message::Completed {
                token,
                outcome,
                out_of_memory,
            } => self.completed(token, outcome, out_of_memory),
        }
    }

    /// The next command. To be called again until it returns [`Command::Wait`] or [`Command::Stop`].
    pub fn poll(&mut self, now: Instant) -> Command<T> {
        loop {
            if let Some(command) = self.commands.pop_front() {
                return command;
            }
            if self.release_expired(now) {
                continue;
            }
            if self.is_finished() {
                self.reservations.withdraw();
                return Command::Stop;
            }
            let Some(since) = self.idle.iter().map(|(_, since)| *since).min() else {
                self.reservations.withdraw();
                return Command::Wait(None);
            };
            let idle = IdleWorkers {
                count: self.idle.len(),
                since: Some(since),
            };
            let reservations = &mut self.reservations;
            let next = self
                .batcher
                .poll_within(now, idle, &mut |bytes| reservations.reserve(bytes, now));
            if !matches!(next, Next::Run(_) | Next::WaitForMemory) {
                reservations.withdraw();
            }
            match next {
                Next::Run(batch) => {
                    if let Some(start) = self.start(batch, now) {
                        return start;
                    }
                }
                // Items that were found infeasible are released before the wait begins.
                _ if self.release_expired(now) => {}
                Next::WaitForMemory => return Command::Wait(self.batcher.next_deadline()),
                Next::WaitUntil(instant) => return Command::Wait(Some(instant)),
                Next::Idle => return Command::Wait(None),
            }
        }
    }

    /// Whether no batch will ever start again.
    pub fn is_finished(&self) -> bool {
        self.ended == Some(Reason::Aborted) || (self.is_closed && self.batcher.is_empty())
    }

    /// An idle worker, if there is one.
    pub fn idle_worker(&self) -> Option<usize> {
        self.idle.last().map(|(worker, _)| *worker)
    }

    /// The idle workers.
    pub fn idle_workers(&self) -> impl Iterator<Item = usize> {
        self.idle.iter().map(|(worker, _)| *worker)
    }

    /// What is queued, and what policies have learned.
    pub fn batcher(&self) -> &Batcher<T> {
        &self.batcher
    }

    fn arrived(&mut self, item: Item<T>) {
        match self.ended {
            Some(reason) => self.release_one(item, reason),
            None if item.payload.is_queued() => self.batcher.push(item),
            None => self.release_one(item, Reason::Cancelled),
        }
    }

    /// Bytes of the memory budget that the running batches hold.
    pub fn held_memory(&self) -> u64 {
        self.reservations.held()
    }

    fn set_memory_budget(&mut self, budget: Option<u64>) {
        self.reservations.budget = budget;
        let shared = self.reservations.shared.as_ref().map(|shared| shared.capacity());
        self.batcher
            .set_memory_limits(MemoryLimits::new(budget, shared, self.workers));
    }

    fn start(&mut self, mut batch: Batch<T>, now: Instant) -> Option<Command<T>> {
        let reserved = batch.token.memory();
        let removed = self.batcher.retain(&mut batch, |item| item.payload.start());
        self.reservations.release(reserved - batch.token.memory());
        if !removed.is_empty() {
            self.commands
                .push_back(Command::Release(removed, Reason::Cancelled));
        }
        // Background items that join a batch have often waited for long, but no worker was idle for them.
        let ready = |item: &Item<T>| (item.priority == Priority::Background, item.ready);
        let Some((_, oldest)) = batch.items.iter().map(ready).min() else {
            self.reservations.release(batch.token.memory());
            self.batcher.abandon(batch.token);
            return None;
        };
        let Some((worker, since)) = self.idle.pop() else {
            unreachable!("the batcher is polled only while a worker is idle");
        };
        Some(Command::Start {
            worker,
            batch,
            waited: now.saturating_duration_since(since.max(oldest)),
        })
    }

    fn completed(&mut self, token: BatchToken, outcome: BatchOutcome, out_of_memory: Option<u64>) {
        let (task, cost) = (token.task(), token.cost());
        self.reservations.release(token.memory());
        self.batcher.complete(token, outcome);
        let memory = &mut self.memory[task];
        let change = match out_of_memory {
            Some(cost) => memory.ran_out(cost, outcome.finished),
            None if outcome.succeeded => memory.fitted(cost, outcome.finished),
            None => None,
        };
        if let Some(change) = change {
            self.apply_rules();
            let cost = out_of_memory.unwrap_or(cost);
            self.commands
                .push_back(Command::MemoryLimit { task, cost, change });
        }
    }

    /// Releases the items whose deadline has passed or cannot be met. Returns whether there were any.
    fn release_expired(&mut self, now: Instant) -> bool {
        let released = self.batcher.take_expired(now);
        let (expired, infeasible): (Vec<_>, Vec<_>) = released
            .into_iter()
            .partition(|item| item.deadline.is_none_or(|deadline| deadline <= now));
        for (items, reason) in [(expired, Reason::Expired), (infeasible, Reason::Infeasible)] {
            if !items.is_empty() {
                self.commands.push_back(Command::Release(items, reason));
            }
        }
        !self.commands.is_empty()
    }

    fn release_all(&mut self, reason: Reason) {
        let items = self.batcher.take_all();
        if !items.is_empty() {
            self.commands.push_back(Command::Release(items, reason));
        }
    }

    fn release_one(&mut self, item: Item<T>, reason: Reason) {
        match self.commands.back_mut() {
            Some(Command::Release(items, last)) if *last == reason => items.push(item),
            _ => self.commands.push_back(Command::Release(vec![item], reason)),
        }
    }

    fn remove_idle(&mut self, worker: usize) -> Option<Instant> {
        let nth = self.idle.iter().position(|(idle, _)| *idle == worker)?;
        Some(self.idle.remove(nth).1)
    }

    fn apply_rules(&mut self) {
        let narrowed = self.rules.iter().zip(&self.memory).map(|(rules, memory)| {
            let mut rules = *rules;
            if let Some(cost) = memory.cost() {
                let size = NonZeroUsize::new(usize::try_from(cost).unwrap_or(usize::MAX))
                    .unwrap_or(NonZeroUsize::MIN);
                // Every item weighs at least 1, so no batch of more items than that can cost less.
                rules.max_batch_size = rules.max_batch_size.min(size);
                rules.max_batch_weight = Some(rules.max_batch_weight.map_or(cost, |max| max.min(cost)));
            }
            if self.is_closed && rules.policy != Policy::Off {
                rules.policy = Policy::Greedy;
            }
            rules
        });
        self.batcher.reconfigure(narrowed.collect());
    }
}
