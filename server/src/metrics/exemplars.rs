//! Exemplars: for each bucket of a histogram, a recent traced request whose latency was counted in it.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::trace_context::TraceId;

/// A traced request in a bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// The trace of the request.
    pub trace: TraceId,
    /// Its latency in seconds.
    pub seconds: f64,
    /// When it was answered.
    pub unix_time: Duration,
}

/// The exemplars of one histogram.
pub(super) struct Exemplars {
    /// The upper bounds of its buckets in seconds, without infinity.
    bounds: Vec<f64>,
    /// One per bucket, including that without an upper bound. Created for the first exemplar.
    buckets: OnceLock<Box<[Mutex<Option<Exemplar>>]>>,
}

impl Exemplars {
    pub(super) fn new(bounds: &[Duration]) -> Self {
        Self {
            bounds: bounds.iter().map(Duration::as_secs_f64).collect(),
            buckets: OnceLock::new(),
        }
    }

    /// Replaces the exemplar of the bucket in which it is counted, unless that is being read: request threads never wait.
    pub(super) fn set(&self, exemplar: Exemplar) {
        let buckets = self.buckets.get_or_init(|| {
            let all = 0..=self.bounds.len();
            all.map(|_| Mutex::default()).collect()
        });
        let bucket = self.bounds.partition_point(|bound| *bound < exemplar.seconds);
        if let Ok(mut current) = buckets[bucket].try_lock() {
            *current = Some(exemplar);
        }
    }

    /// The exemplar of each bucket, in the order of their bounds.
    pub(super) fn get(&self) -> Vec<Option<Exemplar>> {
        let buckets = self.buckets.get().into_iter().flatten();
        buckets
            .map(|bucket| *bucket.lock().unwrap_or_else(PoisonError::into_inner))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exemplar_belongs_to_the_bucket_that_counts_it() {
        let exemplars = Exemplars::new(&[Duration::from_millis(10), Duration::from_millis(100)]);
        assert_eq!(exemplars.get(), []);
        let set = |seconds| {
            let exemplar = Exemplar {
                trace: TraceId::random(),
                seconds,
                unix_time: Duration::from_secs(1),
            };
            exemplars.set(exemplar);
            Some(exemplar)
        };
        set(0.005);
        let (at_bound, above) = (set(0.01), set(7.0));
        assert_eq!(exemplars.get(), [at_bound, None, above]);
    }
}
