//! A lower bound for the time of a batch.
//!
//! Owned by the estimates of one task. Deadlines are judged by it, under every policy, so it never extrapolates: a batch
//! takes at least as long as a smaller one did. It does not know deadlines.
//!
//! # The bound
//! A batch *contains* another one if it has at least as many items and at least the same cost. The bound of a batch is the
//! longest of the recorded times of the batches that it contains. For similar batches, the fastest time is recorded:
//!
//! ```text
//! min_time(size, cost) = MARGIN × max { fastest(p) : p.size ≤ size and p.cost ≤ cost },  0 if there is no such p
//! ```
//!
//! It is a true bound for every model whose time does not fall when a batch grows.

use std::time::Duration;

/// The bound is this part of the fastest recorded time, because the next batch can be faster than any before.
const MARGIN: f64 = 0.7;

/// Maximum number of kinds of batches that are remembered.
const MAX_KINDS: usize = 64;

/// Times are compared within windows of this many batches. A time is forgotten at the end of the second window, so that
/// a model that has become slower is noticed.
const WINDOW: u64 = 512;

/// Batches of similar size and similar cost.
#[derive(Clone, Copy, Debug)]
struct Kind {
    key: (u32, u32),
    /// The largest size and the greatest cost among them. Only a batch that reaches both contains all of them.
    size: usize,
    cost: u64,
    /// The latest window in which such a batch ran.
    window: u64,
    /// The fastest time in that window, and in the one before it.
    fastest: Duration,
    fastest_before: Option<Duration>,
}

impl Kind {
    /// Adds a batch of the same kind that ran in the same window or in the next one.
    fn add(&mut self, new: &Kind) {
        self.size = self.size.max(new.size);
        self.cost = self.cost.max(new.cost);
        if self.window == new.window {
            self.fastest = self.fastest.min(new.fastest);
        } else {
            self.fastest_before = Some(self.fastest);
            self.fastest = new.fastest;
            self.window = new.window;
        }
    }
}

/// The fastest times of the latest batches.
#[derive(Clone, Debug, Default)]
pub(super) struct MinTimes {
    kinds: Vec<Kind>,
    batches: u64,
}

impl MinTimes {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Records a batch that ran.
    pub(super) fn learn(&mut self, size: usize, cost: u64, time: Duration) {
        let window = self.window();
        self.batches += 1;
        let new = Kind {
            key: (half_octave(size as u64), half_octave(cost)),
            size,
            cost,
            window,
            fastest: time,
            fastest_before: None,
        };
        match self.kinds.iter_mut().find(|kind| kind.key == new.key) {
            Some(kind) if kind.window + 1 >= window => kind.add(&new),
            Some(kind) => *kind = new,
            None => self.insert(new),
        }
    }

    /// Adds a kind; if there are too many, replaces the least recently used one.
    fn insert(&mut self, new: Kind) {
        if self.kinds.len() < MAX_KINDS {
            self.kinds.push(new);
        } else if let Some(oldest) = self.kinds.iter_mut().min_by_key(|kind| kind.window) {
            *oldest = new;
        }
    }

    /// The least time that a batch of `size` items with this cost takes; zero if nothing is known.
    pub(super) fn bound(&self, size: usize, cost: u64) -> Duration {
        let window = self.window();
        self.kinds
            .iter()
            .filter(|kind| kind.size <= size && kind.cost <= cost && kind.window + 1 >= window)
            .map(|kind| {
                kind.fastest_before
                    .map_or(kind.fastest, |before| before.min(kind.fastest))
            })
            .max()
            .unwrap_or(Duration::ZERO)
            .mul_f64(MARGIN)
    }

    fn window(&self) -> u64 {
        self.batches / WINDOW
    }
}

/// The index of a range of values whose ends differ by a factor of about the square root of two.
fn half_octave(value: u64) -> u32 {
    let value = value.max(1);
    let octave = value.ilog2();
    // The bit below the highest one tells the halves of an octave apart.
    let half = octave.checked_sub(1).map_or(0, |below| (value >> below) & 1);
    2 * octave + half as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn bound(times: &MinTimes, size: usize, cost: u64) -> f64 {
        (times.bound(size, cost).as_secs_f64() / MARGIN).round()
    }

    #[test]
    fn nothing_is_known_about_batches_smaller_than_any_that_ran() {
        let mut times = MinTimes::new();
        assert_eq!(times.bound(64, 64), Duration::ZERO);
        times.learn(8, 800, SECOND);
        assert_eq!(times.bound(7, 800), Duration::ZERO);
        assert_eq!(times.bound(8, 799), Duration::ZERO);
    }

    #[test]
    fn the_bound_of_a_larger_batch_is_the_time_of_the_largest_known_one() {
        let mut times = MinTimes::new();
        times.learn(1, 1, SECOND);
        assert_eq!(bound(&times, 64, 64), 1.0, "it is not extrapolated");
        times.learn(8, 8, 3 * SECOND);
        assert_eq!(bound(&times, 64, 64), 3.0);
        assert_eq!(bound(&times, 7, 7), 1.0);
    }

    #[test]
    fn the_fastest_of_similar_batches_counts() {
        let mut times = MinTimes::new();
        for seconds in [5, 2, 4] {
            times.learn(8, 8, seconds * SECOND);
        }
        assert_eq!(bound(&times, 8, 8), 2.0);
    }

    #[test]
    fn a_fast_time_is_forgotten_after_two_windows() {
        let mut times = MinTimes::new();
        times.learn(8, 8, SECOND);
        for _ in 0..2 * WINDOW {
            assert_eq!(bound(&times, 8, 8), 1.0);
            times.learn(8, 8, 3 * SECOND);
        }
        assert_eq!(bound(&times, 8, 8), 3.0);
    }

    proptest! {
        /// Whatever ran before, no batch takes less than its bound if time does not fall with size and cost.
        #[test]
        fn the_bound_never_exceeds_the_time_of_a_batch(
            fixed in 0..1000_u64,
            per_item in 0..100_u64,
            per_unit in 0..10_u64,
            jump in 0..10_000_u64,
            batches in prop::collection::vec((1..200_usize, 1..2000_u64), 1..300),
        ) {
            let time = |size: usize, weight: u64| {
                let cost = weight * size as u64;
                // A jump, as where a cache is full.
                let jump = if cost > 50_000 { jump } else { 0 };
                Duration::from_micros(fixed + per_item * size as u64 + per_unit * cost + jump)
            };
            let mut times = MinTimes::new();
            for (size, weight) in batches {
                let cost = weight * size as u64;
                prop_assert!(times.bound(size, cost) <= time(size, weight));
                times.learn(size, cost, time(size, weight));
            }
            prop_assert!(times.kinds.len() <= MAX_KINDS);
        }
    }
}
