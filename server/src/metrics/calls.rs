//! Calls over gRPC, as the endpoints of HTTP are counted.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::{ENDPOINT_SECONDS, register};

/// The status of a call that succeeded.
const OK: &str = "OK";

/// Calls and their durations by method and status.
pub struct CallMetrics {
    calls: IntCounterVec,
    seconds: HistogramVec,
}

impl CallMetrics {
    /// Makes and registers both families. The series of calls that succeed are there from the start, at zero; others come
    /// with the first call of their kind.
    ///
    /// # Errors
    /// They are registered already.
    pub fn new(registry: &Registry, methods: &[&'static str]) -> Result<Self, prometheus::Error> {
        let labels = ["method", "status"];
        let calls = Opts::new("grpc_requests_total", "gRPC calls, of a stream its opening.");
        let seconds = HistogramOpts::new(
            "grpc_requests_duration_seconds",
            "Time from the head of a gRPC call to its answer.",
        );
        let seconds = HistogramVec::new(seconds.buckets(ENDPOINT_SECONDS.to_vec()), &labels)?;
        let metrics = Self {
            calls: register(registry, IntCounterVec::new(calls, &labels)?)?,
            seconds: register(registry, seconds)?,
        };
        for method in methods {
            metrics.calls.with_label_values(&[method, OK]);
            metrics.seconds.with_label_values(&[method, OK]);
        }
        Ok(metrics)
    }

    /// Counts a call of this method, which ended with this status.
    pub fn observe(&self, method: &'static str, status: &str, took: Duration) {
        let labels = [method, status];
        self.calls.with_label_values(&labels).inc();
        self.seconds
            .with_label_values(&labels)
            .observe(took.as_secs_f64());
    }
}
