//! How long a request that arrives now is expected to wait, and whether it can be answered in time.
//!
//! Pure values and functions, for the admission of requests and for `retry-after`. A [`ServiceEstimate`] is a copy of what a
//! policy has learned about the service time of its task, so that threads which do not own the batcher can use it. A
//! [`Workload`] is what is ahead of a request. Which items are ahead, and where the numbers come from, is decided elsewhere.
//!
//! # The expected wait
//! Consider an item that is queued after `n` items of total weight `w`, in a task whose batches hold at most `b` items
//! and the cost `c`. Of the batches that the items ahead need, at least
//!
//! ```text
//! k = max(⌊n / b⌋, min(⌊w / c⌋, n))
//! ```
//!
//! run entirely before the item; the rest of the items ahead can share its batch. They take the worker seconds
//!
//! ```text
//! S = k × service(b)                                   if the number of items predicts the service time
//! S = k × per_batch + w × k / (k + 1) × per_unit       if the cost predicts it better
//! ```
//!
//! `k` and `S` are summed over the tasks of the model, which share its workers. `service(b)` is not extrapolated: it is the
//! time of the largest size up to `b` that has run. The `W` workers become free after `r₀ ≤ r₁ ≤ …` seconds, and take the
//! batches ahead in turn:
//!
//! ```text
//! wait = r(k mod W) + ⌊k / W⌋ × S / k,    r₀ if k = 0
//! ```
//!
//! If service times are deterministic, do not fall with the size, and are the same for all tasks, this is the real wait. If
//! they vary by a factor of up to 1 ± v and all workers are idle, it exceeds the real wait by a factor of at most
//! (1 + v) / (1 − v).
//!
//! The policy `adaptive` can limit batches to an efficient size, which is then `b`. It occasionally tries sizes that
//! differ from it by a factor of up to √2.
//!
//! # The expected answer
//! A request is answered when its last item is: after the wait of that item, the time of its batch, and a reserve for the
//! variation of service times. The relative error `e` of a batch is learned, and assumed to be at least 4%; the mean `m` of recent batches, with weight
//! α = 1/8 for the newest, has the variance `α / (2 − α)` of that of a batch. For `q` batches one after the other:
//!
//! ```text
//! reserve = 2.5 × e × m × √(q + q² × α / (2 − α))
//! ```
//!
//! which is two standard deviations of a normal distribution. So a queue that is filled as far as this permits loses few
//! answers to the deadline. It loses no throughput either: an item that joins the next batch needs only the part of the
//! reserve that corresponds to the part of the batch which is taken, so that the batch can always be filled.
//!
//! A worker also needs some time between two batches. It is measured by the engine and added to each of them
//! ([`ServiceEstimate::with_turnaround`]).
//!
//! A task may prepare its items before they are queued. The threads of the model prepare the items of all tasks in order of
//! arrival, so an item does not start before the ones ahead, and it itself, are prepared.
//!
//! Not included: items of higher classes that arrive later.

use std::time::Duration;

use super::duration;

/// Mean absolute errors in the reserve.
const RESERVE: f64 = 2.5;

/// The relative error is assumed to be at least this, except for the next batch: what ran alone until now is disturbed by
/// other load later.
const MIN_ERROR: f64 = 0.04;

/// Variance of the mean of recent batches, relative to that of one batch.
const MEAN_VARIANCE: f64 = 1.0 / 15.0;

/// Items that run before another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Number of items.
    pub items: usize,
    /// Their total weight.
    pub weight: u64,
}

/// The learned service time of one task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServiceEstimate {
    /// Maximum number of items in a batch.
    pub(super) max_items: usize,
    /// Maximum cost of a batch.
    pub(super) max_cost: Option<u64>,
    pub(super) pace: Pace,
    /// Mean relative error of recent estimates.
    pub(super) error: f64,
}

/// What the service time of a task depends on. All times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// On the number of items.
    ByCount {
        /// The size of the smallest batches, and their time.
        smallest: (f64, f64),
        /// The time of a batch of the maximum size.
        full_batch: f64,
    },
    /// On the cost.
    ByCost { per_batch: f64, per_unit: f64 },
}

/// Batches that run before an item, and the worker seconds that they take.
#[derive(Clone, Copy, Debug, Default)]
struct Batches {
    count: usize,
    seconds: f64,
}

impl Batches {
    fn and(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            seconds: self.seconds + other.seconds,
        }
    }
}

impl ServiceEstimate {
    /// The estimate for workers that need this time between two batches.
    pub fn with_turnaround(self, turnaround: Duration) -> Self {
        let more = turnaround.as_secs_f64();
        let pace = match self.pace {
            Pace::ByCount {
                smallest: (size, seconds),
                full_batch,
            } => Pace::ByCount {
                smallest: (size, seconds + more),
                full_batch: full_batch + more,
            },
            Pace::ByCost { per_batch, per_unit } => Pace::ByCost {
                per_batch: per_batch + more,
                per_unit,
            },
        };
        Self { pace, ..self }
    }

    /// The expected time of a batch of these items.
    pub fn batch_time(&self, items: usize, cost: u64) -> Duration {
        duration(self.batch_seconds(Backlog { items, weight: cost }, 0))
    }

    /// The batches that run entirely before an item that is queued after this backlog.
    fn batches_before(&self, ahead: Backlog) -> Batches {
        let by_items = ahead.items / self.max_items.max(1);
        let by_cost = self.max_cost.map_or(0, |max| ahead.weight / max.max(1));
        // An item that is heavier than the limit runs in a batch of one.
        let by_cost = usize::try_from(by_cost).unwrap_or(usize::MAX).min(ahead.items);
        let count = by_items.max(by_cost);
        let batches = count as f64;
        let seconds = match self.pace {
            Pace::ByCount { full_batch, .. } => batches * full_batch,
            Pace::ByCost { per_batch, per_unit } => {
                let before = ahead.weight as f64 * batches / (batches + 1.0);
                batches * per_batch + before * per_unit
            }
        };
        Batches { count, seconds }
    }

    /// Seconds of the batch of the last one of these items, which runs after `before` batches of the task. If there are any,
    /// other items join it until it starts.
    fn batch_seconds(&self, items: Backlog, before: usize) -> f64 {
        match self.pace {
            Pace::ByCount { full_batch, .. } if before > 0 || items.items >= self.max_items => full_batch,
            Pace::ByCount {
                smallest: (size, seconds),
                full_batch,
            } => {
                let part = (items.items as f64 - size) / (self.max_items as f64 - size);
                seconds + (full_batch - seconds).max(0.0) * part.clamp(0.0, 1.0)
            }
            Pace::ByCost { per_batch, per_unit } => {
                per_batch + items.weight as f64 / (before as f64 + 1.0) * per_unit
            }
        }
    }

    /// Seconds until the last of `items` items is answered that are queued after `ahead` and are prepared after `prepared`
    /// seconds.
    fn answer(&self, ahead: Backlog, others: Batches, busy: &[f64], items: usize, prepared: f64) -> f64 {
        let last = Backlog {
            items: ahead.items.saturating_add(items.saturating_sub(1)),
            ..ahead
        };
        let own = self.batches_before(last);
        let with_last = Backlog {
            items: last.items.saturating_add(1),
            ..last
        };
        let batch = self.batch_seconds(with_last, own.count);
        let before = own.and(others);
        let expected = start(before, busy).max(prepared) + batch;
        let error = match before.count {
            0 => self.error * ahead.items as f64 / self.max_items.max(1) as f64,
            _ => self.error.max(MIN_ERROR),
        };
        let mean = (before.seconds + batch) / (before.count as f64 + 1.0);
        let in_a_row = (before.count / busy.len()) as f64 + 1.0;
        let deviation = (in_a_row + in_a_row * in_a_row * MEAN_VARIANCE).sqrt();
        expected + RESERVE * error * mean * deviation
    }
}

/// Seconds until a worker is free for the batch that follows `before`. `busy` lists the seconds until each worker is free, in
/// rising order.
fn start(before: Batches, busy: &[f64]) -> f64 {
    let first = busy[0];
    if before.count == 0 {
        return first;
    }
    let mean = before.seconds / before.count as f64;
    // A worker that is busy for longer takes its turn later.
    let turn = busy[before.count % busy.len()].min(first + mean);
    turn + (before.count / busy.len()) as f64 * mean
}

/// What is ahead of a request in one task.
#[derive(Clone, Copy, Debug)]
pub struct TaskLoad {
    /// What is known of the service time; `None` before any batch has run.
    pub service: Option<ServiceEstimate>,
    /// The items that run before those of the request.
    pub ahead: Backlog,
}

/// The preparation of the items of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Preparation {
    /// Until the items ahead are prepared.
    pub wait: Duration,
    /// Additional time for each item of the request.
    pub each: Duration,
}

/// What is ahead of a request that arrives now.
#[derive(Clone, Debug)]
pub struct Workload {
    tasks: Vec<TaskLoad>,
    preparation: Preparation,
    /// Seconds until each worker is free, in rising order. Never empty.
    busy: Vec<f64>,
}

impl Workload {
    /// The workload of a model with these tasks, and a worker for each element of `busy`: the time until it is free.
    pub fn new(
        tasks: Vec<TaskLoad>,
        preparation: Preparation,
        busy: impl IntoIterator<Item = Duration>,
    ) -> Self {
        let mut busy: Vec<f64> = busy.into_iter().map(|time| time.as_secs_f64()).collect();
        busy.sort_unstable_by(f64::total_cmp);
        if busy.is_empty() {
            busy.push(0.0);
        }
        Self {
            tasks,
            preparation,
            busy,
        }
    }

    /// The expected wait of an item that arrives now, by the formula of the module.
    ///
    /// A task without an estimate counts as instantaneous. The result is `None` if nothing is known about the tasks that
    /// have items ahead. With one worker, it does not fall if items or weight are added to a backlog.
    pub fn expected_wait(&self) -> Option<Duration> {
        let has_items = |task: &&TaskLoad| task.ahead.items > 0;
        let is_unknown = self.tasks.iter().any(|task| has_items(&task))
            && self
                .tasks
                .iter()
                .filter(has_items)
                .all(|task| task.service.is_none());
        (!is_unknown).then(|| duration(self.wait()))
    }

    fn wait(&self) -> f64 {
        start(self.before(None), &self.busy).max(self.preparation.wait.as_secs_f64())
    }

    /// Whether a request with `items` items for `task` is expected to be answered within this time.
    ///
    /// As long as nothing is known, and while a worker is free for the request, it is. If no items are ahead, only the wait
    /// for a worker counts: the request takes no place of another one. A request that even an idle model could not answer
    /// completely is judged by its first item: the other ones that are late fail alone.
    pub fn admits(&self, task: usize, items: usize, within: Duration) -> bool {
        let within = within.as_secs_f64();
        let wait = self.wait();
        if wait <= 0.0 {
            return true;
        }
        if wait > within {
            return false;
        }
        if self.tasks.iter().all(|task| task.ahead.items == 0) {
            return true;
        }
        let TaskLoad { service, ahead } = self.tasks[task];
        let Some(service) = service else {
            return true;
        };
        let preparation = |items: usize| self.preparation.each.as_secs_f64() * items as f64;
        let idle = vec![0.0; self.busy.len()];
        let alone = service.answer(
            Backlog::default(),
            Batches::default(),
            &idle,
            items,
            preparation(items),
        );
        let judged = if alone <= within { items } else { 1 };
        let prepared = self.preparation.wait.as_secs_f64() + preparation(judged);
        service.answer(ahead, self.before(Some(task)), &self.busy, judged, prepared) <= within
    }

    /// The batches that run entirely before an item that arrives now, except those of the task `except`.
    fn before(&self, except: Option<usize>) -> Batches {
        let tasks = self.tasks.iter().enumerate();
        let of_others = tasks.filter(|(index, _)| Some(*index) != except);
        let batches = of_others.filter_map(|(_, task)| Some(task.service?.batches_before(task.ahead)));
        batches.fold(Batches::default(), Batches::and)
    }
}

#[cfg(test)]
mod tests;
