//! Forms batches from queued items, and decides when each of them runs.
//!
//! Two state machines without threads, clocks or I/O; time is an argument of every call:
//! - [`scheduler::Scheduler`] decides everything for one model: it receives messages and returns commands, such as "start
//!   this batch on worker 2". The engine's threads, the tests and the simulation drive this type.
//! - [`Batcher`] is the part of it that holds the queued items and forms batches. It does not know which workers exist,
//!   and carries payloads without reading them.
//!
//! # Calls of a batcher, in order
//! 1. [`Batcher::push`] when an item becomes ready to run; [`Batcher::cancel`] when a client goes away. At any time.
//! 2. [`Batcher::poll`] while a worker is idle and only then. It forms a batch at that moment and never earlier, so an
//!    item that arrives while all workers are busy can still join the next batch.
//! 3. [`Batcher::retain`], at most once, before the batch runs, to remove items that were cancelled meanwhile.
//! 4. Exactly one of [`Batcher::complete`] and [`Batcher::abandon`] with the [`BatchToken`] of the batch, before the next
//!    `poll` if the batch has ended by then. Policies learn from completed batches.
//! 5. [`Batcher::take_expired`] after `poll`, to answer the items that cannot run any more.
//!
//! `queue` holds the items and finds them, `fill` chooses which of them share a batch, [`policy`] decides whether that
//! batch runs now, and `candidates` decides which batch is considered first. All of this concerns the items of requests.
//! Background items are in a queue of their own, so that nothing above depends on them: `background` decides which of them
//! join a batch that runs anyway, and when a batch consists of them alone.

mod background;
mod batch;
mod candidates;
pub mod cost_model;
mod efficient_fill;
mod extremes;
mod fill;
mod lane;
pub mod memory_budget;
pub mod memory_ledger;
mod memory_limit;
pub mod policy;
mod queue;
pub mod scheduler;
#[cfg(test)]
mod tests;

use std::time::Instant;

use crate::batching::{Priority, Slack, TaskBatching};
use background::{ArrivalRate, Turn};
use batch::Ended;
use candidates::Blocked;
use cost_model::{BatchShape, CostModel, TaskCosts};
use extremes::earlier;
use fill::Limits;
use lane::CLASSES;
use memory_budget::{MemoryDrift, MemoryLimits, TaskMemory};
use policy::{Estimates, ServiceEstimate, TaskPolicy};
use queue::Queue;

pub use batch::{Batch, BatchOutcome, BatchToken, Completion};

/// Maximum number of groups of one class of a task that are considered in a poll if the policy can leave batches open.
const MAX_OPEN_GROUPS: usize = 32;

/// Names an item. Given by who submits it: unique among what is queued, and rising in order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(pub u64);

/// One element of a request, as it waits.
#[derive(Clone, Debug)]
pub struct Item<T> {
    /// Its name.
    pub id: ItemId,
    /// Index of its task.
    pub task: usize,
    /// The class of its request.
    pub priority: Priority,
    /// What it costs, in the unit of its model.
    pub weight: u64,
    /// Only items of one group share a batch: a key of the shape, say.
    pub group: u64,
    /// When its request was admitted, which is after its whole body had been received. Items of one class run in this
    /// order, so neither a slow upload nor a long preparation changes the order of requests. An item that is pushed again
    /// returns to its previous place.
    pub arrived: Instant,
    /// When it could first run: when it had been prepared, or when it was admitted. The delay of `fixed` counts from
    /// here, so a long preparation is not a part of it.
    pub ready: Instant,
    /// From this instant on it must not run.
    pub deadline: Option<Instant>,
    /// What the engine needs to run and answer it.
    pub payload: T,
}

/// What a free worker does now.
#[derive(Debug)]
pub enum Next<T> {
    /// Runs this batch.
    Run(Batch<T>),
    /// Waits: nothing changes before this instant, unless an item is pushed or cancelled, or the rules change.
    WaitUntil(Instant),
    /// Waits for memory: the next batch does not fit beside those that run.
    WaitForMemory,
    /// Waits for an item to be pushed, or for a batch to end: no item is queued that may run before that.
    Idle,
}

/// The workers that could run the next batch.
#[derive(Clone, Copy, Debug)]
pub struct IdleWorkers {
    /// Their number, at least 1.
    pub count: usize,
    /// Since when one of them has been idle. `None` if it has been since the beginning.
    pub since: Option<Instant>,
}

/// The rules of one task, and what its policy has learned.
#[derive(Debug)]
struct Task {
    limits: Limits,
    policy: TaskPolicy,
    /// The predicted memory of its batches, if it was calibrated.
    memory: Option<TaskMemory>,
    /// The calibrated time of its batches.
    time: Option<CostModel>,
    /// By how much background items may lengthen a batch.
    slack: Slack,
    /// Of items of requests.
    arrivals: ArrivalRate,
    /// Items of batches whose tokens exist, without background items.
    running: usize,
    /// What arrived up to here was left open while another batch ran.
    overtaken: Option<Instant>,
    /// During a poll: how many heads of each class were considered, and the latest oldest arrival among the batches that
    /// are left open.
    considered: [usize; CLASSES.len()],
    left_open: Option<Instant>,
}

impl Task {
    /// Maximum number of heads of one class that are considered in a poll. A policy that never waits runs the first one.
    /// For the others the number is bounded, so that a poll stays cheap; the oldest heads are considered first.
    fn max_considered(&self) -> usize {
        if self.policy.may_wait() {
            MAX_OPEN_GROUPS
        } else {
            1
        }
    }
}

/// The items that wait for one model's worker, and the rules by which they become batches.
///
/// Memory is bounded by what is queued. The cost of an operation does not depend on it, but for a logarithm.
#[derive(Debug)]
pub struct Batcher<T> {
    /// The items of requests.
    queue: Queue<T>,
    /// The background items.
    background: Queue<T>,
    turn: Turn,
    tasks: Vec<Task>,
    /// Batches in a row that the highest class led while a lower one waited.
    passed_over: u32,
    worker_free_since: Option<Instant>,
    workers: usize,
    /// Batches whose tokens exist.
    running: usize,
    /// When those of them are expected to end whose time can be estimated. In no order; at most one for each worker.
    expected_ends: Vec<Instant>,
    /// The batch that waits for memory. Its policy has decided, and is not asked again.
    blocked: Option<Blocked>,
}

impl<T> Batcher<T> {
    /// An empty batcher. A task is named by its index in `tasks`.
    pub fn new(tasks: Vec<TaskBatching>) -> Self {
        let task = |rules: &TaskBatching| Task {
            limits: Limits::of(rules),
            policy: TaskPolicy::new(rules.policy),
            memory: None,
            time: None,
            slack: rules.background_slack,
            arrivals: ArrivalRate::default(),
            running: 0,
            overtaken: None,
            considered: [0; CLASSES.len()],
            left_open: None,
        };
        Batcher {
            queue: Queue::new(tasks.len()),
            background: Queue::new(tasks.len()),
            turn: Turn::default(),
            tasks: tasks.iter().map(task).collect(),
            passed_over: 0,
            worker_free_since: None,
            workers: 1,
            running: 0,
            expected_ends: Vec::new(),
            blocked: None,
        }
    }

    /// Says how many workers share the batches, for policies that wait for one: 1 if nothing is said.
    pub fn with_workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// Sets what batches cost, by task: memory is then predicted, and policies start with the calibrated time. Tasks
    /// without an element are not calibrated.
    pub fn with_costs(mut self, costs: Vec<TaskCosts>) -> Self {
        for (task, TaskCosts { memory, time }) in self.tasks.iter_mut().zip(costs) {
            task.memory = memory.map(TaskMemory::new);
            if let Some(time) = &time {
                task.policy.set_calibrated_time(time.clone());
            }
            task.time = time;
        }
        self
    }

    /// Limits the predicted memory of batches.
    fn set_memory_limits(&mut self, limits: MemoryLimits) {
        for memory in self.tasks.iter_mut().filter_map(|task| task.memory.as_mut()) {
            memory.set_limits(limits);
        }
    }

    /// Corrects the prediction of a task's memory by a batch that was measured. Returns a drift that is to be reported.
    pub(super) fn memory_measured(
        &mut self,
        task: usize,
        shape: &BatchShape,
        bytes: u64,
        now: Instant,
    ) -> Option<MemoryDrift> {
        self.tasks[task].memory.as_mut()?.measured(shape, bytes, now)
    }

    /// The predicted memory of the batches of a task, if it was calibrated.
    pub fn memory(&self, task: usize) -> Option<&TaskMemory> {
        self.tasks[task].memory.as_ref()
    }

    /// Goes on under other rules. What is queued stays queued, and what policies have learned stays learned.
    ///
    /// # Panics
    /// If the number of tasks is another: tasks belong to a plugin, and each loaded plugin has a separate batcher.
    pub fn reconfigure(&mut self, tasks: Vec<TaskBatching>) {
        assert_eq!(
            tasks.len(),
            self.tasks.len(),
            "the number of tasks of a batcher never changes"
        );
        for (task, rules) in self.tasks.iter_mut().zip(&tasks) {
            task.limits = Limits::of(rules);
            task.policy.reconfigure(rules.policy);
            task.slack = rules.background_slack;
        }
    }

    /// Queues an item. It may still join any batch that is formed from now on.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn push(&mut self, item: Item<T>) {
        if item.priority == Priority::Background {
            self.background.push(item);
        } else {
            let task = &mut self.tasks[item.task];
            task.policy.arrived(item.ready);
            task.arrivals.arrived(item.ready);
            self.queue.push(item);
        }
    }

    /// Hands an item back before it ran; none if it is not held any more.
    pub fn cancel(&mut self, id: ItemId) -> Option<Item<T>> {
        self.queue.cancel(id).or_else(|| self.background.cancel(id))
    }

    /// Hands back the items whose deadline is not after `now`, and those that were found to have no chance to meet theirs,
    /// earliest deadline first.
    pub fn take_expired(&mut self, now: Instant) -> Vec<Item<T>> {
        self.queue.set_expired_aside(now);
        self.background.set_expired_aside(now);
        let mut expired = self.queue.take_expired();
        let of_background = self.background.take_expired();
        if !of_background.is_empty() {
            expired.extend(of_background);
            expired.sort_by_key(|item| item.deadline);
        }
        expired
    }

    /// Takes all items.
    pub fn take_all(&mut self) -> Vec<Item<T>> {
        let mut items = self.queue.take_all();
        items.extend(self.background.take_all());
        items
    }

    /// What an idle worker does now. To be called only while one is idle.
    ///
    /// An item whose deadline is not after `now` is never part of a batch and never waited for. Where more wait than a
    /// batch holds, the same is true of an item whose deadline would pass even in a fast batch that begins now: the place
    /// goes to one that can be answered in time. Such items stay held, and counted, until
    /// [`take_expired`](Self::take_expired) hands them back.
    pub fn poll(&mut self, now: Instant) -> Next<T> {
        let idle = IdleWorkers {
            count: self.workers.saturating_sub(self.running).max(1),
            since: self.worker_free_since,
        };
        self.poll_within(now, idle, &mut |_| true)
    }

    /// Like [`poll`](Self::poll), if it is known which workers are idle, and if memory is limited: `reserve` reserves the
    /// given number of bytes for the batch that is about to run, or returns false. The batch is then not formed, and no
    /// other batch runs before it except those that are considered before it.
    pub fn poll_within(
        &mut self,
        now: Instant,
        idle: IdleWorkers,
        reserve: &mut dyn FnMut(u64) -> bool,
    ) -> Next<T> {
        self.queue.set_expired_aside(now);
        self.background.set_expired_aside(now);
        let next = loop {
            if let Some(next) = self.first_to_run(now, idle, reserve) {
                break next;
            }
        };
        let next = match next {
            Next::Idle => self.background_alone(now, idle, reserve),
            next => next,
        };
        if !matches!(next, Next::WaitForMemory) {
            self.blocked = None;
        }
        next
    }

    /// Removes the items of a batch for which `keep` returns false, and returns them. They do not count as running any
    /// more, and the cost of the batch is that of the others.
    pub fn retain(
        &mut self,
        batch: &mut Batch<T>,
        mut keep: impl FnMut(&mut Item<T>) -> bool,
    ) -> Vec<Item<T>> {
        let removed: Vec<Item<T>> = batch.items.extract_if(.., |item| !keep(item)).collect();
        if removed.is_empty() {
            return removed;
        }
        let of_background = background::count(&removed);
        let task = &mut self.tasks[batch.task];
        task.running -= removed.len() - of_background;
        batch.token.background -= of_background;
        let shape = BatchShape::of(batch.items.iter().map(|item| item.weight));
        batch.cost = fill::cost(&shape, task.limits.rule);
        batch.token.size = batch.items.len();
        batch.token.cost = batch.cost;
        if let Some(memory) = &task.memory {
            // The bound of fewer items is not always lower, but what is held suffices for them.
            batch.token.memory = memory.reservation(&shape).min(batch.token.memory);
            batch.token.predicted_memory = memory.bound(&shape);
        }
        removed
    }

    /// Reports that a batch ran, for policies that learn.
    pub fn complete(&mut self, token: BatchToken, outcome: BatchOutcome) {
        self.forget_end(&token);
        let ended = token.consume();
        self.observe(Completion {
            task: ended.task,
            size: ended.size,
            background: ended.background,
            cost: ended.cost,
            started: outcome.started,
            finished: outcome.finished,
            succeeded: outcome.succeeded,
        });
        self.ended(ended);
    }

    /// Reports that a batch did not run.
    pub fn abandon(&mut self, token: BatchToken) {
        self.forget_end(&token);
        let ended = token.consume();
        self.ended(ended);
    }

    fn forget_end(&mut self, token: &BatchToken) {
        let is_its = |end: &Instant| Some(*end) == token.expected_end;
        if let Some(nth) = self.expected_ends.iter().position(is_its) {
            self.expected_ends.swap_remove(nth);
        }
    }

    fn observe(&mut self, completion: Completion) {
        self.worker_free_since = self.worker_free_since.max(Some(completion.finished));
        let queued = self.queue.len_of(completion.task);
        let task = &mut self.tasks[completion.task];
        task.policy
            .observe(&completion, queued + task.running, self.workers);
    }

    fn ended(&mut self, ended: Ended) {
        self.running -= 1;
        self.turn.running -= usize::from(ended.is_background);
        self.tasks[ended.task].running -= ended.size - ended.background;
    }

    /// What the waits for a task are estimated from, under every policy; `None` before a batch of it has run.
    pub fn service_estimate(&self, task: usize) -> Option<ServiceEstimate> {
        let Task { limits, policy, .. } = &self.tasks[task];
        policy.service_estimate(limits.max_size, limits.max_weight)
    }

    /// The estimates of the policy of a task, if it uses any.
    pub fn estimates(&self, task: usize) -> Option<Estimates> {
        self.tasks[task].policy.estimates()
    }

    /// Gives up all items, in no particular order.
    pub fn into_items(self) -> impl Iterator<Item = Item<T>> {
        self.queue.into_items().chain(self.background.into_items())
    }

    /// Number of batches that run.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Number of items, including those whose deadline has passed and that were not taken yet.
    pub fn len(&self) -> usize {
        self.queue.len() + self.background.len()
    }

    /// Number of items of one task.
    pub fn len_of(&self, task: usize) -> usize {
        self.queue.len_of(task) + self.background.len_of(task)
    }

    /// Number of background items.
    pub fn background_len(&self) -> usize {
        self.background.len()
    }

    /// Whether no item is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When [`take_expired`](Self::take_expired) next has something to hand back, unless more is pushed.
    pub fn next_deadline(&self) -> Option<Instant> {
        earlier(self.queue.next_deadline(), self.background.next_deadline())
    }
}
