//! Background items: which of them join a batch of requests, and when a batch consists of them alone.
//!
//! Called by the [`Batcher`] after the items of requests have been considered, so they never change what those do: a batch
//! of requests is formed, waits and runs as if there were no background items. Their queue is separate, and its arrivals and
//! batches are not mistaken for those of clients.
//!
//! # In a batch of requests
//! Background items fill the room of a batch that is about to run, oldest first, if
//! - no items of requests that could share the batch are left waiting, so that no room is taken from them;
//! - the batch stays within its limits, its memory budget and the first deadline of its items;
//! - its predicted time grows by at most the share `background_slack`. More requests arrive during a longer batch, and
//!   lengthen the next one. If each takes m seconds in a batch and λ arrive per second and worker, the lengthening is
//!   amplified by 1 / (1 − λm). The share is therefore limited to `STABLE / λm − 1`: batches that are mostly time of their
//!   items stay short if the load is high, and those that are mostly overhead are filled at any load;
//! - the batch does not become less efficient: the time for each item does not increase;
//! - batches of this size have run before. What a further item costs is otherwise unknown, and would remain unknown.
//!
//! # Alone
//! If no requests wait, background items form the largest batch immediately. The first batches of a task grow step by step,
//! so that the time of each size is known. While requests arrive,
//! - the batch has the least size with nearly the best throughput;
//! - one of the workers runs no such batch, if there are at least [`MIN_WORKERS`];
//! - the batch does not start if closed-loop clients return very soon.
//!
//! A request thus waits for the end of at most one of these batches.
//!
//! # Turns
//! With a load of batches that are mostly overhead, requests wait at any time, although larger batches would leave capacity.
//! Background items that cannot share the batches of these requests, because they are of another task, for example, then
//! run alone after up to [`TURN`] batches, before the requests that wait. This requires that the requests leave capacity and
//! fit into the batches after it, so that they lose no throughput.

use std::time::{Duration, Instant};

use super::candidates::Candidate;
use super::cost_model::BatchShape;
use super::fill::{Constraints, Draft, Load, Members, fill};
use super::lane::Position;
use super::queue::Head;
use super::{Batch, Batcher, IdleWorkers, Item, Next, Task};
use crate::batching::{DispatchReason, Priority};

const CLASS: Priority = Priority::Background;

/// Maximum number of items that are considered and do not fit.
const MAX_MISSES: usize = 16;

/// The maximum share of a worker's time that further items of requests take in lengthened batches.
const STABLE: f64 = 0.8;

/// The seconds over which arrivals are averaged.
const RECENT: f64 = 2.0;

/// Minimum number of seconds over which they are averaged after a silence, which begins if this number of recent arrivals
/// is left.
const MIN_OBSERVED: f64 = 0.1;
const SILENCE: f64 = 0.01;

/// Requests arrive if this number of them is expected during a batch.
const ARRIVING: f64 = 0.01;

/// Closed-loop clients that return within this share of the time of a batch are waited for.
const RETURN_SOON: f64 = 0.25;

/// Minimum number of workers of which one is kept for requests. With fewer, too little would be left for jobs.
const MIN_WORKERS: usize = 3;

/// Factor by which the estimated time of each item may increase.
const NO_INCREASE: f64 = 1.02;

/// Number of batches that can leave the oldest background item waiting before it is its turn, if requests use the whole
/// capacity. Fewer batches suffice if they use less.
pub(super) const TURN: f64 = 4.0;

/// Larger batches than any that have run have at most this multiple of items.
const GROWTH: usize = 2;

/// The maximum share of the capacity that requests use if there is a turn of background items.
const MAX_LOAD: f64 = 0.9;

/// Number of background items.
pub(super) fn count<T>(items: &[Item<T>]) -> usize {
    items.iter().filter(|item| item.priority == CLASS).count()
}

/// The batches of background items, and those without the oldest of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    /// Batches that run and had only background items when they were formed.
    pub(super) running: usize,
    /// Batches in a row that left the oldest background item waiting.
    passed_over: u32,
}

impl Turn {
    /// Whether it is the turn of background items while requests use this share of the capacity.
    fn is_due(self, load: f64) -> bool {
        load <= MAX_LOAD && f64::from(self.passed_over) >= (TURN * load).round().max(1.0)
    }
}

/// The recent rate of arrivals.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ArrivalRate {
    /// The first arrival after a long silence, and the latest one.
    span: Option<(Instant, Instant)>,
    /// Arrivals up to the latest one, weighted by `exp(-age / RECENT)`.
    count: f64,
}

impl ArrivalRate {
    /// Records an arrival.
    pub(super) fn arrived(&mut self, at: Instant) {
        let before = self.count_at(at);
        self.count = before + 1.0;
        self.span = match self.span.filter(|_| before >= SILENCE) {
            Some((first, latest)) => Some((first, latest.max(at))),
            None => Some((at, at)),
        };
    }

    /// Arrivals per second.
    fn per_second(self, now: Instant) -> f64 {
        let Some((first, _)) = self.span else {
            return 0.0;
        };
        // Arrivals before the first one are not missing.
        let observed = now
            .saturating_duration_since(first)
            .as_secs_f64()
            .max(MIN_OBSERVED);
        self.count_at(now) / (RECENT * (1.0 - (-observed / RECENT).exp()))
    }

    fn count_at(self, now: Instant) -> f64 {
        let age = self.span.map(|(_, latest)| now.saturating_duration_since(latest));
        age.map_or(0.0, |age| self.count * (-age.as_secs_f64() / RECENT).exp())
    }
}

/// Background items that join a batch.
#[derive(Clone, Debug)]
pub(super) struct Added {
    pub(super) places: Vec<Position>,
    /// The batch with them.
    pub(super) shape: BatchShape,
}

impl Added {
    pub(super) fn none(draft: &Draft) -> Self {
        Self {
            places: Vec::new(),
            shape: *draft.shape(),
        }
    }

    pub(super) fn into_members(self) -> Members {
        Members::Chosen(self.places.into_iter().map(|place| (CLASS, place)).collect())
    }
}

impl<T> Batcher<T> {
    /// The background items that join the batch that a candidate leads.
    pub(super) fn room_for_background(&self, candidate: &Candidate, draft: &Draft, now: Instant) -> Added {
        let mut added = Added::none(draft);
        let (task, group) = (candidate.task, candidate.head.group);
        let Some(lane) = self.background.find_lane(task, group) else {
            return added;
        };
        if self.queue.lane(task, group).len() > draft.size() {
            return added;
        }
        let Task {
            limits,
            policy,
            memory,
            ..
        } = &self.tasks[task];
        let Some((mut each, longest)) = self.limits_of_time(task, draft, now) else {
            return added;
        };
        let constraints = Constraints {
            limits: limits.narrowed(policy.efficient_size()),
            memory: memory.as_ref(),
            time: None,
        };
        let mut load = Load::of(added.shape);
        let mut misses = 0;
        // Items that are as heavy as one that did not fit are not tried, so that none of them is overtaken.
        let mut too_heavy = u64::MAX;
        for (place, entry) in lane.line(CLASS) {
            if misses > MAX_MISSES || constraints.exhausted(&load).is_some() {
                break;
            }
            let with = load.with(entry.weight);
            let time = policy
                .expected_time(with.size(), with.cost(limits.rule))
                .filter(|time| *time <= longest && entry.weight < too_heavy && constraints.admits(&with))
                .map(|time| time.as_secs_f64() / with.size() as f64)
                // An item that is heavier than the others can take longer.
                .map(|time| (time, with.heaviest() > load.heaviest()))
                .filter(|(time, is_heavier)| *is_heavier || *time <= each * NO_INCREASE);
            if let Some((time, is_heavier)) = time {
                each = if is_heavier { time } else { each.min(time) };
                load = with;
                added.places.push(*place);
            } else {
                misses += 1;
                too_heavy = too_heavy.min(entry.weight);
            }
        }
        added.shape = load.shape();
        added
    }

    /// The seconds for each item of the batch, and how long it may take with background items; `None` if too little is known.
    fn limits_of_time(&self, task: usize, draft: &Draft, now: Instant) -> Option<(f64, Duration)> {
        let Task {
            limits,
            policy,
            slack,
            ..
        } = &self.tasks[task];
        let (size, cost) = (draft.size() as f64, draft.cost(limits.rule));
        let example = (draft.size(), cost);
        let alone = policy.known_seconds(size, example)?;
        let each = (policy.known_seconds(2.0 * size, example)? - alone).max(0.0) / size;
        let load = each * self.arrivals(now) / self.workers as f64;
        let stable = (STABLE / load.max(1e-9) - 1.0).max(0.0);
        // Less than a microsecond is no difference.
        let longest = alone * (1.0 + slack.share().min(stable)) + 1e-6;
        let longest = Duration::try_from_secs_f64(longest).ok()?;
        let longest = match draft.earliest_deadline {
            Some(deadline) => longest.min(deadline.saturating_duration_since(now)),
            None => longest,
        };
        Some((alone / size, longest))
    }

    /// Records that a batch of requests starts, with these background items.
    pub(super) fn requests_start(&mut self, added: &Added) {
        self.turn.passed_over = if self.leaves_oldest(added) {
            self.turn.passed_over.saturating_add(1)
        } else {
            0
        };
    }

    /// Whether the oldest background item is not among these.
    fn leaves_oldest(&self, added: &Added) -> bool {
        self.oldest_background()
            .is_some_and(|(_, oldest)| added.places.first() != Some(&oldest.place))
    }

    /// What an idle worker does while no items of requests wait.
    pub(super) fn background_alone(
        &mut self,
        now: Instant,
        idle: IdleWorkers,
        reserve: &mut dyn FnMut(u64) -> bool,
    ) -> Next<T> {
        let Some((task, head)) = self.oldest_background() else {
            return Next::Idle;
        };
        let wait = if !self.requests_arrive(task, now) {
            None
        } else if self.keeps_worker(idle) {
            Some(None)
        } else if self.turn.is_due(self.load(now)) {
            None
        } else {
            self.clients_return_by(task, now).map(Some)
        };
        match wait {
            None => self.run_background(task, head, now, reserve),
            Some(until) => match until
                .into_iter()
                .chain(self.background.next_live_deadline())
                .min()
            {
                Some(until) => Next::WaitUntil(until),
                None => Next::Idle,
            },
        }
    }

    /// The batch of background items that runs before the batch of requests that `added` would join, if it is their turn.
    pub(super) fn turn_of_background(
        &mut self,
        added: &Added,
        now: Instant,
        idle: IdleWorkers,
        reserve: &mut dyn FnMut(u64) -> bool,
    ) -> Option<Batch<T>> {
        let (task, head) = self.oldest_background()?;
        let fits = |(index, task): (usize, &Task)| self.queue.len_of(index) <= task.limits.max_size;
        let is_turn = self.turn.is_due(self.load(now)) && self.tasks.iter().enumerate().all(fits);
        if !is_turn || !self.leaves_oldest(added) || self.blocked.is_some() || self.keeps_worker(idle) {
            return None;
        }
        match self.run_background(task, head, now, reserve) {
            Next::Run(batch) => Some(batch),
            _ => None,
        }
    }

    fn run_background(
        &mut self,
        task: usize,
        head: Head,
        now: Instant,
        reserve: &mut dyn FnMut(u64) -> bool,
    ) -> Next<T> {
        let requests_arrive = self.requests_arrive(task, now);
        let Task {
            limits,
            policy,
            memory,
            time,
            ..
        } = &self.tasks[task];
        let lane = self.background.lane_mut(task, head.group);
        let waiting = lane.len();
        let size = policy.size_to_try().filter(|size| *size < waiting);
        let size = size.or(policy.efficient_size()).unwrap_or(usize::MAX);
        let largest = policy.largest().saturating_mul(GROWTH).max(1);
        let mut constraints = Constraints {
            limits: limits.narrowed(Some(size.min(largest))),
            memory: memory.as_ref(),
            time: time.as_ref(),
        };
        let mut draft = fill(lane, CLASS, head, &constraints);
        if requests_arrive
            && let Some(size) = policy.sufficient_size((draft.size(), draft.cost(limits.rule)))
            && size < draft.size()
        {
            constraints.limits = limits.narrowed(Some(size));
            draft = fill(lane, CLASS, head, &constraints);
        }
        let memory = memory.as_ref();
        if !reserve(memory.map_or(0, |memory| memory.reservation(draft.shape()))) {
            return Next::WaitForMemory;
        }
        let items = self.background.take(task, head.group, &draft.members);
        self.turn.running += 1;
        self.turn.passed_over = 0;
        Next::Run(self.batch(task, items, draft.shape(), DispatchReason::Background, now))
    }

    /// The oldest background item that leads its group, and its task.
    fn oldest_background(&self) -> Option<(usize, Head)> {
        let head = |task| Some((task, self.background.next_head(task, CLASS, None)?));
        (0..self.tasks.len())
            .filter_map(head)
            .min_by_key(|(_, head)| *head)
    }

    /// Items of requests that arrive per second.
    fn arrivals(&self, now: Instant) -> f64 {
        self.tasks.iter().map(|task| task.arrivals.per_second(now)).sum()
    }

    /// Whether requests are expected during a batch of this task.
    fn requests_arrive(&self, task: usize, now: Instant) -> bool {
        let Task { limits, policy, .. } = &self.tasks[task];
        let longest = policy.usual_seconds(limits.max_size).unwrap_or(f64::MAX);
        self.arrivals(now) * longest >= ARRIVING
    }

    /// Whether this is the worker that is kept for requests.
    fn keeps_worker(&self, idle: IdleWorkers) -> bool {
        self.workers >= MIN_WORKERS && idle.count == 1 && self.turn.running + 1 >= self.workers
    }

    /// When closed-loop clients have returned, if that is so soon that a batch of this task would delay them by almost all
    /// of its time.
    fn clients_return_by(&self, task: usize, now: Instant) -> Option<Instant> {
        let Task { limits, policy, .. } = &self.tasks[task];
        let seconds = policy.usual_seconds(limits.max_size)?;
        let latest = now + Duration::try_from_secs_f64(seconds * RETURN_SOON).ok()?;
        let returned = |(index, task): (usize, &Task)| {
            task.policy
                .returned_by(self.queue.len_of(index) + task.running, now)
        };
        let until = self.tasks.iter().enumerate().filter_map(returned).min()?;
        (until <= latest).then_some(until)
    }

    /// The share of the capacity that requests use in full batches.
    fn load(&self, now: Instant) -> f64 {
        let load = |task: &Task| {
            let max_size = task
                .policy
                .efficient_size()
                .map_or(task.limits.max_size, |size| size.min(task.limits.max_size));
            match (task.arrivals.per_second(now), task.policy.usual_seconds(max_size)) {
                (0.0, _) => 0.0,
                (rate, Some(seconds)) => rate * seconds / max_size as f64,
                // Nothing is known about the capacity.
                (_, None) => f64::INFINITY,
            }
        };
        self.tasks.iter().map(load).sum::<f64>() / self.workers as f64
    }
}
