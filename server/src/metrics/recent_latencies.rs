//! The latencies of the last minute, for a percentile of them.
//!
//! A histogram with a bounded number of buckets per ten seconds. Recording is lock-free. While a thread clears the buckets of
//! ten seconds that are over, others may record into them, so that a few latencies can be lost.

use std::array;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::latency::Scale;

/// Number of periods of the last minute, and one that is being cleared.
const PERIODS: u64 = 7;

const PERIOD: Duration = Duration::from_secs(10);

/// How long a percentile is used before it is computed again.
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);

/// The end of a bucket exceeds its latencies by at most 1/16.
const SCALE: Scale = Scale::new(4);

/// The last bucket ends at 2^28 microseconds, four and a half minutes, and has all longer latencies as well.
const BUCKETS: usize = 400;

struct Period {
    /// Its number since the start, plus one; zero if it was never used.
    number: AtomicU64,
    counts: [AtomicU32; BUCKETS],
}

/// The latencies of the last minute.
pub struct RecentLatencies {
    start: Instant,
    periods: [Period; PERIODS as usize],
    /// When the percentile is computed next, in milliseconds since the start.
    update_at: AtomicU64,
    /// In microseconds; zero if it is not known.
    percentile: AtomicU64,
}

impl RecentLatencies {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            periods: array::from_fn(|_| Period {
                number: AtomicU64::new(0),
                counts: array::from_fn(|_| AtomicU32::new(0)),
            }),
            update_at: AtomicU64::new(0),
            percentile: AtomicU64::new(0),
        }
    }

    /// Adds a latency.
    pub fn record(&self, now: Instant, latency: Duration) {
        let number = self.number_at(now);
        let period = &self.periods[(number % PERIODS) as usize];
        let before = period.number.load(Ordering::Acquire);
        if before < number {
            let changed = period
                .number
                .compare_exchange(before, number, Ordering::AcqRel, Ordering::Relaxed);
            if changed.is_ok() {
                for count in &period.counts {
                    count.store(0, Ordering::Relaxed);
                }
            }
        }
        period.counts[bucket(latency)].fetch_add(1, Ordering::Relaxed);
    }

    /// A recent value of this percentile (0 to 100) of the last minute. All calls must pass the same. `None` if there were not
    /// enough latencies for one of them to be above it.
    pub fn percentile(&self, now: Instant, percent: f64) -> Option<Duration> {
        let millis = now.saturating_duration_since(self.start).as_millis() as u64;
        let due = self.update_at.load(Ordering::Acquire);
        if millis >= due {
            let next = millis + UPDATE_INTERVAL.as_millis() as u64;
            let changed = self
                .update_at
                .compare_exchange(due, next, Ordering::AcqRel, Ordering::Relaxed);
            if changed.is_ok() {
                let micros = self.compute(now, percent).unwrap_or(0);
                self.percentile.store(micros, Ordering::Release);
            }
        }
        match self.percentile.load(Ordering::Acquire) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }

    fn compute(&self, now: Instant, percent: f64) -> Option<u64> {
        let number = self.number_at(now);
        let mut counts = [0_u64; BUCKETS];
        for period in &self.periods {
            if period.number.load(Ordering::Acquire) + (PERIODS - 1) > number {
                for (total, count) in counts.iter_mut().zip(&period.counts) {
                    *total += u64::from(count.load(Ordering::Relaxed));
                }
            }
        }
        let total: u64 = counts.iter().sum();
        let rank = (total as f64 * percent / 100.0).ceil() as u64;
        if rank >= total {
            return None;
        }
        let mut below = 0;
        let bucket = counts.iter().position(|count| {
            below += count;
            below >= rank
        });
        bucket.map(upper_bound)
    }

    fn number_at(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / PERIOD.as_secs() + 1
    }
}

fn bucket(latency: Duration) -> usize {
    SCALE.bucket(latency).min(BUCKETS - 1)
}

/// The longest latency of a bucket, in microseconds. At least one, since zero stands for none.
fn upper_bound(bucket: usize) -> u64 {
    (SCALE.micros(bucket).end - 1).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn the_percentile_is_that_of_the_last_minute() {
        let start = clock::now();
        let recent = RecentLatencies::new(start);
        for latency in 1..=200 {
            recent.record(start, MILLI * latency);
        }
        let percentile = recent.percentile(start, 99.0).expect("there are enough");
        assert!((MILLI * 198..MILLI * 212).contains(&percentile), "{percentile:?}");
        let later = start + Duration::from_secs(30);
        for _ in 0..10_000 {
            recent.record(later, MILLI);
        }
        let percentile = recent.percentile(later, 99.0).expect("there are enough");
        assert!((MILLI * 90..MILLI * 110).contains(&percentile), "{percentile:?}");
        let much_later = start + Duration::from_secs(75);
        let percentile = recent.percentile(much_later, 99.0).expect("there are enough");
        assert!((MILLI..MILLI * 2).contains(&percentile), "{percentile:?}");
        assert_eq!(recent.percentile(start + Duration::from_secs(300), 99.0), None);
    }

    #[test]
    fn there_is_no_percentile_before_a_latency_can_exceed_it() {
        let start = clock::now();
        let recent = RecentLatencies::new(start);
        for _ in 0..99 {
            recent.record(start, MILLI);
        }
        assert_eq!(recent.percentile(start, 99.0), None);
        let later = start + Duration::from_secs(2);
        for _ in 0..2 {
            recent.record(later, MILLI);
        }
        assert!(recent.percentile(later, 99.0).is_some());
    }

    proptest! {
        #[test]
        fn a_bucket_contains_its_latency_and_is_narrow(micros in 1_u64..(1 << 28)) {
            let bound = upper_bound(bucket(Duration::from_micros(micros)));
            prop_assert!(bound >= micros);
            prop_assert!(bound - micros <= micros / 16);
        }
    }
}
