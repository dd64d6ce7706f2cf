//! What waits, and what runs next: the state machine between the requests that come in and a worker.
//!
//! Owned by the engine's worker loop, one per live model. It has no thread, no clock and no I/O: time is an argument,
//! and a payload is carried without a look at it. A batch is formed in [`Batcher::poll`] and never earlier, so an item
//! that arrives while the worker is busy can still join the next batch.
//!
//! The parts know little of each other: `queue` holds the items and finds them, `fill` chooses which of them share a
//! batch, [`policy`] decides whether that batch runs now, and this module decides who is asked first.

mod fill;
pub mod policy;
mod queue;
#[cfg(test)]
mod tests;

use std::time::Instant;

use crate::batching::{DispatchReason, Priority, TaskBatching};
use fill::{Draft, Limits, fill};
use policy::{Decision, Estimates, Limit, TaskPolicy, View};
use queue::{CLASSES, Head, Queue};

/// While a lower class waits, at least every this many batches is led by it.
const LOWER_CLASS_TURN: u32 = 8;

/// How many groups of one class of a task are shown to a policy that may leave batches open.
const OPEN_GROUPS: usize = 32;

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
    /// When it reached the server. An item that is pushed once more, to be retried, has its old place again.
    pub arrived: Instant,
    /// When it could first run: when it had been prepared, or when it arrived.
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
    /// Waits for an item to be pushed: none is queued that may still run.
    Idle,
}

/// Items of one task and one group that run together.
#[derive(Debug)]
pub struct Batch<T> {
    /// Index of the task.
    pub task: usize,
    /// The items, by arrival, then by name.
    pub items: Vec<Item<T>>,
    /// Why it runs now.
    pub reason: DispatchReason,
    /// What it costs, by the task's weight rule.
    pub cost: u64,
}

/// A batch that a worker has finished, well or badly.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// Index of its task.
    pub task: usize,
    /// How many items it had.
    pub size: usize,
    /// What it cost, by the task's weight rule.
    pub cost: u64,
    /// When the worker began.
    pub started: Instant,
    /// When the worker was free again.
    pub finished: Instant,
    /// Whether any item succeeded. How long it takes to fail says nothing about batches that do not.
    pub succeeded: bool,
}

/// The rules of one task, and what its policy has learned.
#[derive(Debug)]
struct Task {
    limits: Limits,
    policy: TaskPolicy,
    /// Items in batches that were handed out and have not been reported.
    running: usize,
    /// What arrived up to here was left open while another batch ran.
    overtaken: Option<Instant>,
}

/// An item that could lead the next batch.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    task: usize,
    class: Priority,
    head: Head,
}

/// The items that wait for one model's worker, and the rules by which they become batches.
///
/// Memory is bounded by what is queued. The cost of an operation does not depend on it, but for a logarithm.
#[derive(Debug)]
pub struct Batcher<T> {
    queue: Queue<T>,
    tasks: Vec<Task>,
    /// Batches in a row that the highest class led while a lower one waited.
    passed_over: u32,
    worker_free_since: Option<Instant>,
    workers: usize,
    /// Batches that were handed out and have not been reported.
    running: usize,
}

impl<T> Batcher<T> {
    /// An empty batcher. A task is named by its index in `tasks`.
    pub fn new(tasks: Vec<TaskBatching>) -> Self {
        let task = |rules: &TaskBatching| Task {
            limits: Limits::of(rules),
            policy: TaskPolicy::new(rules.policy),
            running: 0,
            overtaken: None,
        };
        Batcher {
            queue: Queue::new(tasks.len()),
            tasks: tasks.iter().map(task).collect(),
            passed_over: 0,
            worker_free_since: None,
            workers: 1,
            running: 0,
        }
    }

    /// Says how many workers share the batches, for policies that wait for one: 1 if nothing is said.
    pub fn with_workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// Goes on under other rules. What is queued stays queued, and what policies have learned stays learned.
    ///
    /// # Panics
    /// If the number of tasks is another: tasks come with a plugin, and another plugin has a batcher of its own.
    pub fn reconfigure(&mut self, tasks: Vec<TaskBatching>) {
        assert_eq!(
            tasks.len(),
            self.tasks.len(),
            "the number of tasks of a batcher never changes"
        );
        for (task, rules) in self.tasks.iter_mut().zip(&tasks) {
            task.limits = Limits::of(rules);
            task.policy.reconfigure(rules.policy);
        }
    }

    /// Queues an item. It may still join any batch that is formed from now on.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn push(&mut self, item: Item<T>) {
        self.tasks[item.task].policy.arrived(item.ready);
        self.queue.push(item);
    }

    /// Hands an item back before it ran; none if it is not held any more.
    pub fn cancel(&mut self, id: ItemId) -> Option<Item<T>> {
        self.queue.cancel(id)
    }

    /// Hands back the items whose deadline is not after `now`, and those that were found to have no chance to meet theirs,
    /// earliest deadline first.
    pub fn take_expired(&mut self, now: Instant) -> Vec<Item<T>> {
        self.queue.set_expired_aside(now);
        self.queue.take_expired()
    }

    /// Takes all items.
    pub fn take_all(&mut self) -> Vec<Item<T>> {
        self.queue.take_all()
    }

    /// What a free worker does now. To be called only when one is free.
    ///
    /// An item whose deadline is not after `now` is never part of a batch and never waited for. Where more wait than a
    /// batch holds, the same is true of an item whose deadline would pass even in a fast batch that begins now: the place
    /// goes to one that can be answered in time. Such items stay held, and counted, until
    /// [`take_expired`](Self::take_expired) hands them back.
    pub fn poll(&mut self, now: Instant) -> Next<T> {
        self.queue.set_expired_aside(now);
        // The worker that asks is free, so a batch that never was reported does not count for ever.
        self.running = self.running.min(self.workers - 1);
        loop {
            if let Some(next) = self.first_to_run(now) {
                return next;
            }
        }
    }

    /// Asks everybody in turn; none if an item that had the turn turned out to have no chance to meet its deadline.
    fn first_to_run(&mut self, now: Instant) -> Option<Next<T>> {
        let mut wait = None::<Instant>;
        let mut left_open = Vec::new();
        for candidate in self.candidates() {
            let (draft, decision) = self.consider(candidate, now)?;
            match decision {
                Decision::Run(reason) => {
                    self.overtake(&left_open);
                    return Some(Next::Run(self.run(candidate, &draft, reason)));
                }
                Decision::WaitUntil(until) => {
                    left_open.push((candidate.task, draft.oldest_arrival));
                    wait = Some(wait.map_or(until, |wait| wait.min(until)));
                }
            }
        }
        Some(match (wait, self.queue.next_live_deadline()) {
            (Some(wait), Some(deadline)) => Next::WaitUntil(wait.min(deadline)),
            (Some(wait), None) => Next::WaitUntil(wait),
            (None, _) => Next::Idle,
        })
    }

    /// Takes note of items of a batch that were given up before it ran.
    pub fn gave_up(&mut self, task: usize, items: usize) {
        let running = &mut self.tasks[task].running;
        *running = running.saturating_sub(items);
    }

    /// Takes note of a batch that ran, for policies that learn.
    pub fn completed(&mut self, completion: Completion) {
        self.worker_free_since = self.worker_free_since.max(Some(completion.finished));
        self.running = self.running.saturating_sub(1);
        let queued = self.queue.len_of(completion.task);
        let task = &mut self.tasks[completion.task];
        task.policy
            .observe(&completion, queued + task.running, self.workers);
        task.running = task.running.saturating_sub(completion.size);
    }

    /// What the policy of a task has learned, if it goes by what it learns.
    pub fn estimates(&self, task: usize) -> Option<Estimates> {
        self.tasks[task].policy.estimates()
    }

    /// Gives up all items, in no particular order.
    pub fn into_items(self) -> impl Iterator<Item = Item<T>> {
        self.queue.into_items()
    }

    /// How many items are held, those included whose deadline has passed and that were not taken yet.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// How many items of one task are held.
    pub fn len_of(&self, task: usize) -> usize {
        self.queue.len_of(task)
    }

    /// Whether no item is held.
    pub fn is_empty(&self) -> bool {
        self.queue.len() == 0
    }

    /// When [`take_expired`](Self::take_expired) next has something to hand back, unless more is pushed.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.queue.next_deadline()
    }

    /// Who is asked, in order: the higher class first, within a class who has waited longest. When it is the turn of
    /// the lower classes, they come first, and among them only age counts.
    ///
    /// A task that never waits answers for its first head, so it shows one per class. Of a task that may leave
    /// batches open only so many groups are shown that a poll stays cheap; the oldest are always among them.
    fn candidates(&self) -> Vec<Candidate> {
        let Some(top) = CLASSES.into_iter().find(|class| self.queue.has(*class)) else {
            return Vec::new();
        };
        let lower_first = self.passed_over + 1 >= LOWER_CLASS_TURN;
        let mut candidates = Vec::new();
        for (task, rules) in self.tasks.iter().enumerate() {
            let shown = if rules.policy.may_wait() { OPEN_GROUPS } else { 1 };
            for class in CLASSES {
                let heads = self.queue.heads(task, class).take(shown);
                candidates.extend(heads.map(|head| Candidate {
                    task,
                    class,
                    head: *head,
                }));
            }
        }
        candidates.sort_unstable_by_key(|candidate| {
            let rank = if lower_first {
                u8::from(candidate.class == top)
            } else {
                candidate.class as u8
            };
            (rank, candidate.head.place)
        });
        candidates
    }

    /// Batches that stay open and are older than the one which runs now do not wait a second time.
    fn overtake(&mut self, left_open: &[(usize, Instant)]) {
        for (task, oldest_arrival) in left_open {
            let overtaken = &mut self.tasks[*task].overtaken;
            *overtaken = (*overtaken).max(Some(*oldest_arrival));
        }
    }

    /// The batch that a candidate leads, and whether it runs now; none if the candidate has no chance to meet its deadline
    /// and leaves its place to others.
    fn consider(&mut self, candidate: Candidate, now: Instant) -> Option<(Draft, Decision)> {
        let other_worker_idle = self.running + 1 < self.workers;
        let (task, group) = (candidate.task, candidate.head.group);
        let Task {
            limits,
            policy,
            running,
            overtaken,
        } = &mut self.tasks[task];
        let waiting = self.queue.lane(task, group).len();
        let batch_limit = policy.batch_limit(waiting, limits.max_size, self.workers);
        let narrowed = limits.narrowed(batch_limit);
        let lane = self.queue.lane(task, group);
        let mut draft = fill(lane, candidate.class, candidate.head, &narrowed);
        let reached = match draft.reached(&narrowed, waiting) {
            Some(Limit::Size) if narrowed.max_size < limits.max_size => Some(Limit::Policy),
            reached => reached,
        };
        // So many can be spared, and a full batch still runs.
        let spare = waiting.saturating_sub(narrowed.max_size);
        let least_time = || policy.least_time(draft.size(), draft.cost(limits.rule));
        if spare > 0
            && let ends = now + least_time()
            && draft.earliest_deadline.is_some_and(|deadline| deadline < ends)
        {
            self.queue.set_hopeless_aside(task, group, ends, spare);
            let lane = self.queue.lane(task, group);
            if !lane.line(candidate.class).contains_key(&candidate.head.place) {
                return None;
            }
            draft = fill(lane, candidate.class, candidate.head, &narrowed);
        }
        let view = View {
            now,
            worker_free_since: self.worker_free_since,
            present: self.queue.len_of(task) + *running,
            size: draft.size(),
            max_size: narrowed.max_size,
            max_batch_size: limits.max_size,
            cost: draft.cost(limits.rule),
            oldest_arrival: draft.oldest_arrival,
            earliest_deadline: draft.earliest_deadline,
            workers: self.workers,
            other_worker_idle,
            overtaken: overtaken.is_some_and(|overtaken| draft.oldest_arrival <= overtaken),
            reached,
        };
        let decision = policy.decide(&view);
        Some((draft, decision))
    }

    fn run(&mut self, candidate: Candidate, draft: &Draft, reason: DispatchReason) -> Batch<T> {
        let Candidate { task, class, head } = candidate;
        self.running += 1;
        let led_by_top = !CLASSES
            .into_iter()
            .any(|other| other < class && self.queue.has(other));
        let items = self.queue.take(task, head.group, &draft.places);
        self.tasks[task].running += items.len();
        let lower_waits = CLASSES
            .into_iter()
            .any(|other| other > class && self.queue.has(other));
        self.passed_over = if led_by_top && lower_waits {
            self.passed_over.saturating_add(1)
        } else {
            0
        };
        Batch {
            task,
            items,
            reason,
            cost: draft.cost(self.tasks[task].limits.rule),
        }
    }
}
