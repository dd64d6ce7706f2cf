//! gRPC calls, by method and status.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};

use super::{Metrics, register};

/// The status of a successful call.
const OK: &str = "OK";

/// gRPC calls and their durations, by method and status.
pub struct CallMetrics {
    calls: IntCounterVec,
    seconds: HistogramVec,
}

impl CallMetrics {
    /// Creates and registers both families. The series of successful calls exist from the start, at zero; others appear with the
    /// first such call.
    ///
    /// # Errors
    /// The families are already registered.
    pub fn new(metrics: &Metrics, methods: &[&'static str]) -> Result<Self, prometheus::Error> {
        let labels = ["method", "status"];
        let registry = metrics.registry();
        let calls = Opts::new(
            "grpc_requests_total",
            "gRPC calls, by method and status. A stream counts once, when it is opened.",
        );
        let seconds = HistogramOpts::new(
            "grpc_requests_duration_seconds",
            "Time from the head of a gRPC call to its reply, by method and status.",
        );
        let seconds = HistogramVec::new(seconds.buckets(metrics.buckets().request_seconds()), &labels)?;
        let families = Self {
            calls: register(registry, IntCounterVec::new(calls, &labels)?)?,
            seconds: register(registry, seconds)?,
        };
        for method in methods {
            families.calls.with_label_values(&[method, OK]);
            families.seconds.with_label_values(&[method, OK]);
        }
        Ok(families)
    }

    /// Counts a call of this method that ended with this status.
    pub fn observe(&self, method: &'static str, status: &str, took: Duration) {
        let labels = [method, status];
        self.calls.with_label_values(&labels).inc();
        self.seconds
            .with_label_values(&labels)
            .observe(took.as_secs_f64());
    }
}
