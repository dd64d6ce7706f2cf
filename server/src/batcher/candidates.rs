//! The batches that could run next, and their order.
//!
//! Every item that could lead a batch is a candidate: the heads of the groups of each task and class. A poll considers
//! the candidates in order, drafts the batch that each of them leads, and stops at the first one whose policy runs it. How
//! a batch is filled, and whether it waits, is decided elsewhere.

use std::time::{Duration, Instant};

use super::background::Added;
use super::cost_model::BatchShape;
use super::extremes::earlier;
use super::fill::{Constraints, Draft, fill};
use super::lane::CLASSES;
use super::policy::{Crew, Decision, Limit, View};
use super::queue::Head;
use super::{Batch, BatchToken, Batcher, IdleWorkers, Item, Next, Task, background, fill};
use crate::batching::{DispatchReason, Priority};

/// While a lower class waits, at least every this many batches is led by it.
pub(super) const LOWER_CLASS_TURN: u32 = 8;

/// The order in which candidates are considered: the higher class first, within a class the oldest first. If it is the
/// turn of the lower classes, they come first, and only age counts among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClassOrder {
    top: Priority,
    lower_first: bool,
}

impl ClassOrder {
    pub(super) fn rank(self, class: Priority) -> u8 {
        if self.lower_first {
            u8::from(class == self.top)
        } else {
            class as u8
        }
    }
}

/// An item that could lead the next batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) task: usize,
    pub(super) class: Priority,
    pub(super) head: Head,
}

/// A batch that would run if it fitted into memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocked {
    task: usize,
    group: u64,
    reason: DispatchReason,
}

impl<T> Batcher<T> {
    /// Considers the candidates in order; `None` if items turned out to be infeasible and the order is different without
    /// them.
    pub(super) fn first_to_run(
        &mut self,
        now: Instant,
        idle: IdleWorkers,
        reserve: &mut dyn FnMut(u64) -> bool,
    ) -> Option<Next<T>> {
        let Some(order) = self.order() else {
            return Some(Next::Idle);
        };
        for task in &mut self.tasks {
            task.considered = [0; CLASSES.len()];
            task.left_open = None;
        }
        let mut wait = None::<Instant>;
        let mut previous = None;
        while let Some(candidate) = self.next_candidate(order, previous) {
            previous = Some(candidate);
            self.tasks[candidate.task].considered[candidate.class as usize] += 1;
            let (draft, decision) = self.consider(candidate, now, idle)?;
            if self.order() != Some(order) {
                return None;
            }
            match decision {
                Decision::Run(reason) => {
                    let mut added = self.room_for_background(&candidate, &draft, now);
                    if let Some(batch) = self.turn_of_background(&added, now, idle, reserve) {
                        return Some(Next::Run(batch));
                    }
                    let reservation = |shape: &BatchShape| {
                        let memory = self.tasks[candidate.task].memory.as_ref();
                        memory.map_or(0, |memory| memory.reservation(shape))
                    };
                    if !added.places.is_empty() && !reserve(reservation(&added.shape)) {
                        added = Added::none(&draft);
                    }
                    // Otherwise, the memory is reserved already.
                    if added.places.is_empty() && !reserve(reservation(draft.shape())) {
                        self.blocked = Some(Blocked {
                            task: candidate.task,
                            group: candidate.head.group,
                            reason,
                        });
                        return Some(Next::WaitForMemory);
                    }
                    self.overtake_open_batches();
                    return Some(Next::Run(self.run(candidate, &draft, added, reason, now)));
                }
                Decision::WaitUntil(until) => {
                    let left_open = &mut self.tasks[candidate.task].left_open;
                    *left_open = (*left_open).max(Some(draft.oldest_arrival));
                    wait = Some(wait.map_or(until, |wait| wait.min(until)));
                }
            }
        }
        let deadline = earlier(
            self.queue.next_live_deadline(),
            self.background.next_live_deadline(),
        );
        Some(match (wait, deadline) {
            (Some(wait), Some(deadline)) => Next::WaitUntil(wait.min(deadline)),
            (Some(wait), None) => Next::WaitUntil(wait),
            (None, _) => Next::Idle,
        })
    }

    /// The order of this poll; `None` if no item can run.
    pub(super) fn order(&self) -> Option<ClassOrder> {
        let top = CLASSES.into_iter().find(|class| self.queue.has(*class))?;
        Some(ClassOrder {
            top,
            lower_first: self.passed_over + 1 >= LOWER_CLASS_TURN,
        })
    }

    /// The first candidate, or the one after `previous`. The candidates are merged from the sorted heads of each task and
    /// class, so that a poll neither collects nor sorts them.
    pub(super) fn next_candidate(&self, order: ClassOrder, previous: Option<Candidate>) -> Option<Candidate> {
        let previous = previous.map(|previous| (order.rank(previous.class), previous.head));
        let mut next = None::<(u8, Candidate)>;
        for (index, task) in self.tasks.iter().enumerate() {
            for class in CLASSES {
                if task.considered[class as usize] >= task.max_considered() {
                    continue;
                }
                let rank = order.rank(class);
                let after = match previous {
                    Some((previous, _)) if rank < previous => continue,
                    Some((previous, head)) if rank == previous => Some(head),
                    _ => None,
                };
                let Some(head) = self.queue.next_head(index, class, after) else {
                    continue;
                };
                if next.is_none_or(|(best, candidate)| (rank, head.place) < (best, candidate.head.place)) {
                    let candidate = Candidate {
                        task: index,
                        class,
                        head,
                    };
                    next = Some((rank, candidate));
                }
            }
        }
        next.map(|(_, candidate)| candidate)
    }

    /// Batches that stay open and are older than the one that runs now do not wait a second time.
    fn overtake_open_batches(&mut self) {
        for task in &mut self.tasks {
            task.overtaken = task.overtaken.max(task.left_open);
        }
    }

    /// The batch that a candidate leads, and whether it runs now; `None` if the candidate cannot be answered within its
    /// deadline and leaves its place to others.
    fn consider(
        &mut self,
        candidate: Candidate,
        now: Instant,
        idle: IdleWorkers,
    ) -> Option<(Draft, Decision)> {
        let (task, group) = (candidate.task, candidate.head.group);
        let Task {
            limits,
            policy,
            memory,
            time,
            running,
            overtaken,
            ..
        } = &mut self.tasks[task];
        let waiting = self.queue.lane(task, group).len();
        let until_next_end = until_next_end(&self.expected_ends, now);
        let crew = Crew {
            workers: self.workers,
            idle: idle.count,
            running_items: *running,
            until_next_end,
        };
        let batch_limit = policy.batch_limit(waiting, limits.max_size, crew);
        let narrowed = limits.narrowed(batch_limit);
        let constraints = Constraints {
            limits: narrowed,
            memory: memory.as_ref(),
            time: time.as_ref(),
        };
        let lane = self.queue.lane_mut(task, group);
        let mut draft = fill(lane, candidate.class, candidate.head, &constraints);
        let reached = match draft.reached(&constraints, waiting) {
            Some(Limit::Size) if narrowed.max_size < limits.max_size => Some(Limit::Policy),
            reached => reached,
        };
        // If this many items are set aside, a full batch still runs.
        let spare = waiting.saturating_sub(narrowed.max_size);
        let min_time = || policy.min_time(draft.size(), draft.cost(limits.rule));
        if spare > 0
            && let ends = now + min_time()
            && draft.earliest_deadline.is_some_and(|deadline| deadline < ends)
        {
            self.queue.set_infeasible_aside(task, group, ends, spare);
            let lane = self.queue.lane_mut(task, group);
            if !lane.line(candidate.class).contains_key(&candidate.head.place) {
                return None;
            }
            draft = fill(lane, candidate.class, candidate.head, &constraints);
        }
        if let Some(blocked) = self
            .blocked
            .filter(|blocked| (blocked.task, blocked.group) == (task, group))
        {
            return Some((draft, Decision::Run(blocked.reason)));
        }
        let view = View {
            now,
            idle_since: idle.since,
            present: self.queue.len_of(task) + *running,
            size: draft.size(),
            max_size: narrowed.max_size,
            max_batch_size: limits.max_size,
            cost: draft.cost(limits.rule),
            oldest_ready: draft.oldest_ready,
            earliest_deadline: draft.earliest_deadline,
            crew,
            overtaken: overtaken.is_some_and(|overtaken| draft.oldest_arrival <= overtaken),
            reached,
        };
        let decision = policy.decide(&view);
        Some((draft, decision))
    }

    /// Takes the items of the batch out of the queues.
    fn run(
        &mut self,
        candidate: Candidate,
        draft: &Draft,
        added: Added,
        reason: DispatchReason,
        now: Instant,
    ) -> Batch<T> {
        let Candidate { task, class, head } = candidate;
        let led_by_top = !CLASSES
            .into_iter()
            .any(|other| other < class && self.queue.has(other));
        let mut items = self.queue.take(task, head.group, &draft.members);
        self.tasks[task].running += items.len();
        let lower_waits = CLASSES
            .into_iter()
            .any(|other| other > class && self.queue.has(other));
        self.passed_over = if led_by_top && lower_waits {
            self.passed_over.saturating_add(1)
        } else {
            0
        };
        self.requests_start(&added);
        let shape = added.shape;
        if !added.places.is_empty() {
            items.extend(self.background.take(task, head.group, &added.into_members()));
            items.sort_unstable_by_key(Item::place);
        }
        self.batch(task, items, &shape, reason, now)
    }

    /// The batch of these items, which have left the queues.
    pub(super) fn batch(
        &mut self,
        task: usize,
        items: Vec<Item<T>>,
        shape: &BatchShape,
        reason: DispatchReason,
        now: Instant,
    ) -> Batch<T> {
        let Task {
            limits,
            policy,
            memory,
            ..
        } = &self.tasks[task];
        let (size, background) = (items.len(), background::count(&items));
        let (cost, memory) = (fill::cost(shape, limits.rule), memory.as_ref());
        let expected_end = policy.expected_time(size, cost).map(|time| now + time);
        self.running += 1;
        self.expected_ends.extend(expected_end);
        Batch {
            task,
            items,
            reason,
            cost,
            token: BatchToken {
                task,
                size,
                background,
                is_background: background == size,
                cost,
                memory: memory.map_or(0, |memory| memory.reservation(shape)),
                predicted_memory: memory.and_then(|memory| memory.bound(shape)),
                expected_end,
            },
        }
    }
}

/// Time until the first of these batches is expected to end.
pub(super) fn until_next_end(expected_ends: &[Instant], now: Instant) -> Option<Duration> {
    let first = expected_ends.iter().min()?;
    Some(first.saturating_duration_since(now))
}
