//! Bounds of the histograms' buckets.

use std::time::Duration;

/// The upper bounds of the buckets of each kind of duration, ascending. An empty list means no buckets: such a family has
/// a sum and a count alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// Of the time that a batch takes in the model.
    pub inference: Vec<Duration>,
    /// Of the time from the head of a request to its answer.
    pub requests: Vec<Duration>,
    /// Of the stages of a request other than the model: preparation, queue, encoding, and the wait of a batch.
    pub stages: Vec<Duration>,
}

impl Buckets {
    /// Sums and counts alone.
    pub const NONE: Self = Self {
        inference: Vec::new(),
        requests: Vec::new(),
        stages: Vec::new(),
    };

    /// The bounds for latencies of requests, in seconds, as `prometheus` takes them.
    pub fn request_seconds(&self) -> Vec<f64> {
        seconds(&self.requests)
    }
}

/// Bounds in seconds. `prometheus` replaces an empty list by its own defaults, but accepts the bound that every histogram has.
pub(super) fn seconds(bounds: &[Duration]) -> Vec<f64> {
    if bounds.is_empty() {
        return vec![f64::INFINITY];
    }
    bounds.iter().map(Duration::as_secs_f64).collect()
}

/// Bounds for the number of items in a batch.
pub(super) const BATCH_SIZES: [f64; 5] = [1.0, 4.0, 16.0, 64.0, 256.0];
