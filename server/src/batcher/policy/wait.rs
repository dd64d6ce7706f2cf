//! How long an item that arrives now is expected to wait.
//!
//! Pure values and one function, for the admission of requests and for `retry-after`. A [`ServiceEstimate`] is a copy of
//! what a policy has learned about the service time of its task, so that threads which do not own the batcher can use it.
//! Who is rejected, and what counts as ahead, is decided elsewhere.
//!
//! # The estimate
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
//! summed over the tasks of the model, which share its workers. `service(b)` is not extrapolated: it is the time of the
//! largest size up to `b` that has run. With `W` workers and batches of at most `m` seconds, the item starts after at
//! least (Graham 1966, "Bounds for certain multiprocessing anomalies": when it starts, each of the other workers has at
//! most one unfinished batch)
//!
//! ```text
//! wait = max(0, S − (W − 1) × m) / W
//! ```
//!
//! So the estimate is a lower one. If service times are deterministic and do not fall with the size, it never exceeds the
//! real wait; if they vary by a factor of up to 1 ± v, it exceeds it by a factor of at most (1 + v) / (1 − v). Under
//! overload, with many batches ahead, it is close to the real wait.
//!
//! The policy `adaptive` can limit batches to an efficient size, which is then `b`. It occasionally tries sizes that
//! differ from it by a factor of up to √2.
//!
//! Not included: the remaining time of the batches that run, the time of the item's own batch, and items of higher
//! classes that arrive later.

use std::time::Duration;

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
    /// Seconds of the slowest size of batches.
    pub(super) longest: f64,
}

/// What the service time of a task depends on. All times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// On the number of items.
    ByCount {
        /// The time of a batch of the maximum size.
        full_batch: f64,
    },
    /// On the cost.
    ByCost { per_batch: f64, per_unit: f64 },
}

impl ServiceEstimate {
    /// Seconds that the workers need together for the batches which run entirely before an item that is queued after
    /// this backlog.
    fn worker_seconds(&self, ahead: Backlog) -> f64 {
        let by_items = ahead.items / self.max_items.max(1);
        let by_cost = self.max_cost.map_or(0, |max| ahead.weight / max.max(1));
        // An item that is heavier than the limit runs in a batch of one.
        let by_cost = usize::try_from(by_cost).unwrap_or(usize::MAX).min(ahead.items);
        let batches = by_items.max(by_cost) as f64;
        match self.pace {
            Pace::ByCount { full_batch } => batches * full_batch,
            Pace::ByCost { per_batch, per_unit } => {
                let before = ahead.weight as f64 * batches / (batches + 1.0);
                batches * per_batch + before * per_unit
            }
        }
    }
}

/// The expected wait of an item that arrives now, by the formula of the module.
///
/// `tasks` lists, for each task of the model, the items that run before this one and the estimate of the task. A task
/// without an estimate counts as instantaneous. The result is `None` if nothing is known about the tasks that have items
/// ahead, and zero if no items are ahead. It does not fall if items or weight are added to a backlog.
pub fn expected_wait(
    tasks: impl IntoIterator<Item = (Option<ServiceEstimate>, Backlog)>,
    workers: usize,
) -> Option<Duration> {
    let workers = workers.max(1) as f64;
    let (mut total, mut longest) = (0.0, 0.0_f64);
    let (mut is_known, mut is_empty) = (false, true);
    for (estimate, ahead) in tasks {
        is_empty &= ahead.items == 0;
        if let Some(estimate) = estimate.filter(|_| ahead.items > 0) {
            is_known = true;
            total += estimate.worker_seconds(ahead);
            longest = longest.max(estimate.longest);
        }
    }
    if !is_known {
        return is_empty.then_some(Duration::ZERO);
    }
    let seconds = (total - (workers - 1.0) * longest).max(0.0) / workers;
    Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by_count(max_items: usize, full_batch: f64) -> ServiceEstimate {
        ServiceEstimate {
            max_items,
            max_cost: None,
            pace: Pace::ByCount { full_batch },
            longest: full_batch,
        }
    }

    fn items(items: usize) -> Backlog {
        Backlog {
            items,
            weight: items as u64,
        }
    }

    fn seconds(tasks: &[(Option<ServiceEstimate>, Backlog)], workers: usize) -> Option<f64> {
        expected_wait(tasks.iter().copied(), workers).map(|wait| wait.as_secs_f64())
    }

    #[test]
    fn an_item_waits_for_the_full_batches_ahead() {
        let task = Some(by_count(32, 2.0));
        assert_eq!(seconds(&[(task, items(0))], 1), Some(0.0));
        assert_eq!(seconds(&[(task, items(31))], 1), Some(0.0));
        assert_eq!(seconds(&[(task, items(32))], 1), Some(2.0));
        assert_eq!(seconds(&[(task, items(320))], 1), Some(20.0));
    }

    #[test]
    fn workers_share_the_batches_ahead() {
        let task = Some(by_count(32, 2.0));
        assert_eq!(seconds(&[(task, items(32))], 2), Some(0.0));
        assert_eq!(seconds(&[(task, items(3200))], 2), Some(99.0));
    }

    #[test]
    fn tasks_share_the_workers() {
        let tasks = [
            (Some(by_count(32, 2.0)), items(64)),
            (Some(by_count(1, 0.5)), items(3)),
        ];
        assert_eq!(seconds(&tasks, 1), Some(5.5));
    }

    #[test]
    fn weights_are_waited_for_if_the_cost_predicts_the_time() {
        let task = ServiceEstimate {
            max_items: 32,
            max_cost: Some(1000),
            pace: Pace::ByCost {
                per_batch: 0.5,
                per_unit: 0.001,
            },
            longest: 1.5,
        };
        let ahead = Backlog {
            items: 10,
            weight: 4000,
        };
        // Four batches, of which the item could join a fifth.
        assert_eq!(seconds(&[(Some(task), ahead)], 1), Some(4.0 * 0.5 + 3.2));
    }

    #[test]
    fn an_item_heavier_than_the_limit_counts_as_one_batch() {
        let mut task = by_count(32, 2.0);
        task.max_cost = Some(10);
        let ahead = Backlog {
            items: 1,
            weight: 1_000_000,
        };
        assert_eq!(seconds(&[(Some(task), ahead)], 1), Some(2.0));
    }

    #[test]
    fn a_wait_is_unknown_until_a_batch_has_run() {
        assert_eq!(seconds(&[(None, items(10))], 1), None);
        assert_eq!(seconds(&[(None, items(0))], 1), Some(0.0));
        let tasks = [(None, items(10)), (Some(by_count(1, 1.0)), items(2))];
        assert_eq!(seconds(&tasks, 1), Some(2.0));
    }

    #[test]
    fn a_wait_that_a_duration_cannot_hold_is_the_longest_one() {
        let task = by_count(1, f64::MAX);
        assert_eq!(
            expected_wait([(Some(task), items(usize::MAX))], 1),
            Some(Duration::MAX)
        );
    }

    fn pace() -> impl Strategy<Value = Pace> {
        prop_oneof![
            (0.0..10.0).prop_map(|full_batch| Pace::ByCount { full_batch }),
            (0.0..10.0, 0.0..0.1).prop_map(|(per_batch, per_unit)| Pace::ByCost { per_batch, per_unit }),
        ]
    }

    proptest! {
        #[test]
        fn a_wait_never_falls_if_items_or_weight_are_added(
            pace in pace(),
            max_items in 1..100_usize,
            max_cost in prop::option::of(1..10_000_u64),
            longest in 0.0..10.0,
            workers in 1..8_usize,
            (items, weight) in (0..5000_usize, 0..1_000_000_u64),
            (more_items, more_weight) in (0..100_usize, 0..10_000_u64),
        ) {
            let task = Some(ServiceEstimate { max_items, max_cost, pace, longest });
            let wait = |items, weight, workers| {
                expected_wait([(task, Backlog { items, weight })], workers).expect("the task is known")
            };
            let before = wait(items, weight, workers);
            prop_assert!(wait(items + more_items, weight + more_weight, workers) >= before);
            prop_assert!(wait(items, weight, workers + 1) <= before);
        }
    }
}
