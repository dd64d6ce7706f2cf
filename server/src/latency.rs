//! Counts of latencies in buckets of a fixed relative width, from which percentiles are estimated.
//!
//! Unlike the histograms of the metrics, whose buckets are configured and few, these are not exposed. Counting takes one atomic
//! addition and no lock.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Buckets of latencies: one per microsecond below `2^bits` microseconds, and `2^bits` per power of two from there on. The width
/// of a bucket is at most `1 / 2^bits` of the latencies in it, or a microsecond.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    bits: u32,
}

impl Scale {
    /// A scale with `2^bits` buckets per power of two.
    pub const fn new(bits: u32) -> Self {
        Self { bits }
    }

    /// The bucket of a latency.
    pub fn bucket(self, latency: Duration) -> usize {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if micros < 1 << self.bits {
            return micros as usize;
        }
        let shift = micros.ilog2() - self.bits;
        ((shift as usize) << self.bits) + (micros >> shift) as usize
    }

    /// The microseconds in a bucket.
    pub fn micros(self, bucket: usize) -> Range<u64> {
        let (each, bucket) = (1 << self.bits, bucket as u64);
        if bucket < each {
            return bucket..bucket + 1;
        }
        let (shift, first) = (bucket / each - 1, bucket % each + each);
        first << shift..(first + 1) << shift
    }
}

/// The scale of [`LatencyCounts`].
const SCALE: Scale = Scale::new(2);

/// The first bucket of the scale that is used. It also counts what is shorter.
const FIRST: usize = 4;

/// Number of buckets. The last one ends at 268 s, and also counts what is longer.
pub const BUCKETS: usize = 104;

/// Counts that several threads add to.
pub struct LatencyCounts([AtomicU32; BUCKETS]);

impl Default for LatencyCounts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(0)))
    }
}

impl LatencyCounts {
    /// Counts a latency.
    pub fn observe(&self, latency: Duration) {
        self.0[bucket(latency)].fetch_add(1, Ordering::Relaxed);
    }

    /// The counts so far.
    pub fn totals(&self) -> LatencyTotals {
        LatencyTotals(std::array::from_fn(|bucket| {
            self.0[bucket].load(Ordering::Relaxed)
        }))
    }
}

/// Counts at one moment, or between two moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyTotals([u32; BUCKETS]);

impl Default for LatencyTotals {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl LatencyTotals {
    /// The counts since `before`. They may have wrapped around.
    pub fn since(&self, before: &Self) -> Self {
        Self(std::array::from_fn(|bucket| {
            self.0[bucket].wrapping_sub(before.0[bucket])
        }))
    }

    /// The sum of both counts.
    pub fn plus(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|bucket| {
            self.0[bucket].wrapping_add(other.0[bucket])
        }))
    }

    /// The latency that the fraction `quantile` of all latencies does not exceed. The error is less than the width of a bucket,
    /// which is at most 25%, and about half of that on average. `None` if nothing was counted.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let all: u64 = self.0.iter().copied().map(u64::from).sum();
        if all == 0 {
            return None;
        }
        let rank = (quantile * all as f64).ceil().max(1.0);
        let mut below = 0.0;
        for (bucket, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = f64::from(*count);
            if below + count >= rank {
                let Range { start, end } = SCALE.micros(FIRST + bucket);
                // As if the latencies were spread evenly.
                let part = (rank - below - 0.5) / count;
                let micros = start as f64 + part.clamp(0.0, 1.0) * (end - start) as f64;
                return Some(Duration::from_secs_f64(micros / 1e6));
            }
            below += count;
        }
        None
    }
}

/// The bucket that counts a latency.
fn bucket(latency: Duration) -> usize {
    SCALE.bucket(latency).saturating_sub(FIRST).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_is_in_a_narrow_bucket_that_contains_it() {
        for bits in [2, 4] {
            let scale = Scale::new(bits);
            for micros in (0..5000).chain([65_535, 65_536, 1_000_000, 268_435_455, u64::MAX >> bits]) {
                let range = scale.micros(scale.bucket(Duration::from_micros(micros)));
                assert!(range.contains(&micros), "{micros} in {range:?}");
                let width = range.end - range.start;
                assert!(width <= (range.start >> bits).max(1), "{range:?}");
            }
        }
    }

    #[test]
    fn the_first_and_the_last_bucket_count_all_shorter_and_longer_latencies() {
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::from_micros(4)), 0);
        assert_eq!(bucket(Duration::from_micros(5)), 1);
        assert_eq!(bucket(Duration::from_micros(268_435_455)), BUCKETS - 1);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_estimated_from_the_counts() {
        let counts = LatencyCounts::default();
        assert_eq!(counts.totals().quantile(0.5), None);
        let before = counts.totals();
        (1..=1000).for_each(|millis| counts.observe(Duration::from_millis(millis)));
        let totals = counts.totals().since(&before);
        for (quantile, millis) in [(0.01, 10.0), (0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let estimate = totals
                .quantile(quantile)
                .map(|latency| latency.as_secs_f64() * 1e3);
            let error = estimate.map(|estimate| (estimate / millis - 1.0).abs());
            assert!(
                error.is_some_and(|error| error < 0.13),
                "{quantile}: {estimate:?}"
            );
        }
        let one = LatencyCounts::default();
        one.observe(Duration::from_millis(20));
        let estimate = one.totals().quantile(0.99).map(|latency| latency.as_secs_f64());
        assert!(estimate.is_some_and(|estimate| (estimate / 0.02 - 1.0).abs() < 0.13));
        assert_eq!(totals.plus(&LatencyTotals::default()), totals);
    }
}
