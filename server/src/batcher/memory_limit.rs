//! How much a batch of a task may cost before memory runs out, as its batches teach.
//!
//! Memory is often short for a while only: another model of the same GPU loads, or a neighbor of the machine computes. So
//! a limit that has held for a minute is raised by a quarter. Where that fails, what has held is the limit again, and has to
//! hold for twice as long.

use std::time::{Duration, Instant};

const FIRST_PATIENCE: Duration = Duration::from_secs(60);
const MOST_PATIENCE: Duration = Duration::from_secs(60 * 60);

/// See the module. Costs are by the task's weight rule.
#[derive(Debug, Default)]
pub(super) struct MemoryLimit {
    short: Option<Short>,
}

/// What is known of a memory that was short once.
#[derive(Debug)]
struct Short {
    /// Maximum cost of a batch.
    limit: u64,
    /// The limit before it was raised last; 0 if it never was.
    held: u64,
    /// The cost that began it; once this fits again, memory is not short.
    began_with: u64,
    patience: Duration,
    raise_at: Instant,
}

/// What a batch has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Batches may cost at most so much from now on.
    Narrowed(u64),
    /// A greater cost is tried.
    Raised(u64),
    /// Batches are not limited any more.
    Lifted,
}

impl MemoryLimit {
    /// Maximum cost of a batch, if memory is short.
    pub(super) fn cost(&self) -> Option<u64> {
        self.short.as_ref().map(|short| short.limit)
    }

    /// A batch of that cost, the least of those that did not fit, ran out of memory.
    pub(super) fn ran_out(&mut self, cost: u64, now: Instant) -> Option<Change> {
        let half = (cost / 2).max(1);
        let Some(short) = &mut self.short else {
            self.short = Some(Short {
                limit: half,
                held: 0,
                began_with: cost,
                patience: FIRST_PATIENCE,
                raise_at: now + FIRST_PATIENCE,
            });
            return Some(Change::Narrowed(half));
        };
        short.began_with = short.began_with.max(cost);
        short.patience = (2 * short.patience).min(MOST_PATIENCE);
        short.raise_at = now + short.patience;
        if cost <= short.held {
            short.held = 0;
        }
        let limit = if short.held > 0 { short.held } else { half };
        if limit >= short.limit {
            return None;
        }
        short.limit = limit;
        Some(Change::Narrowed(limit))
    }

    /// A batch of that cost fitted. Only one near the limit says that more might.
    pub(super) fn fitted(&mut self, cost: u64, now: Instant) -> Option<Change> {
        // Before that, it may be a batch that another worker began while there was no limit.
        let short = self.short.as_mut().filter(|short| now >= short.raise_at)?;
        if cost >= short.began_with {
            self.short = None;
            return Some(Change::Lifted);
        }
        if cost < short.limit - short.limit / 4 {
            return None;
        }
        short.held = short.limit;
        short.limit = short.limit.saturating_add((short.limit / 4).max(1));
        short.raise_at = now + short.patience;
        Some(Change::Raised(short.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const MINUTE: Duration = FIRST_PATIENCE;

    /// A limit of 8, since a batch of 16 did not fit, and when that was.
    fn short() -> (MemoryLimit, Instant) {
        let (mut limit, now) = (MemoryLimit::default(), clock::now());
        assert_eq!(limit.ran_out(16, now), Some(Change::Narrowed(8)));
        (limit, now)
    }

    #[test]
    fn a_limit_that_held_for_a_minute_is_raised_by_a_quarter() {
        let (mut limit, now) = short();
        assert_eq!(limit.fitted(8, now + MINUTE / 2), None);
        assert_eq!(limit.fitted(8, now + MINUTE), Some(Change::Raised(10)));
        assert_eq!(limit.fitted(10, now + MINUTE), None);
        assert_eq!(limit.fitted(10, now + 2 * MINUTE), Some(Change::Raised(12)));
    }

    #[test]
    fn where_more_does_not_fit_the_limit_is_again_what_held() {
        let (mut limit, now) = short();
        assert_eq!(limit.fitted(8, now + MINUTE), Some(Change::Raised(10)));
        assert_eq!(limit.ran_out(10, now + MINUTE), Some(Change::Narrowed(8)));
        assert_eq!(limit.fitted(8, now + 2 * MINUTE), None);
        assert_eq!(limit.fitted(8, now + 3 * MINUTE), Some(Change::Raised(10)));
        // Memory has become shorter still.
        assert_eq!(limit.ran_out(8, now + 3 * MINUTE), Some(Change::Narrowed(4)));
    }

    #[test]
    fn small_batches_raise_nothing() {
        let (mut limit, now) = short();
        assert_eq!(limit.fitted(5, now + MINUTE), None);
        assert_eq!(limit.fitted(6, now + MINUTE), Some(Change::Raised(10)));
    }

    #[test]
    fn the_limit_is_lifted_once_what_did_not_fit_fits() {
        let (mut limit, mut now) = short();
        let mut costs = Vec::new();
        while let Some(cost) = limit.cost() {
            costs.push(cost);
            now += MINUTE;
            limit.fitted(cost, now);
        }
        assert_eq!(costs, [8, 10, 12, 15, 18]);
    }

    #[test]
    fn a_batch_that_another_worker_had_begun_lifts_nothing() {
        let (mut limit, now) = short();
        assert_eq!(limit.fitted(16, now), None);
        assert_eq!(limit.cost(), Some(8));
    }

    #[test]
    fn each_failure_doubles_the_patience_up_to_an_hour() {
        let (mut limit, mut now) = short();
        for minutes in [2, 4, 8, 16, 32, 60, 60] {
            limit.ran_out(16, now);
            let patience = minutes * MINUTE;
            assert_eq!(limit.fitted(8, now + patience - MINUTE / 2), None, "{minutes}");
            now += patience;
        }
        assert_eq!(limit.fitted(8, now), Some(Change::Raised(10)));
    }

    #[test]
    fn a_greater_cost_that_does_not_fit_narrows_nothing_further() {
        let (mut limit, now) = short();
        assert_eq!(limit.ran_out(20, now), None);
        assert_eq!(limit.cost(), Some(8));
        assert_eq!(limit.ran_out(8, now), Some(Change::Narrowed(4)));
        assert_eq!(limit.ran_out(1, now), Some(Change::Narrowed(1)));
    }
}
