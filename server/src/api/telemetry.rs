//! What records requests: metrics, the log and the list of slow requests, and traces. Shared by all protocols.

use std::sync::Arc;

use super::live::NotableRequests;
use super::slow_requests::SlowRequestLog;
use super::traces::Tracer;
use crate::config::SlowRequests;
use crate::metrics::Metrics;

/// What records requests.
pub struct Telemetry {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The log of slow requests.
    pub slow_requests: SlowRequestLog,
    /// The recent slow and failed requests.
    pub notable_requests: NotableRequests,
    /// Decides which requests are traced.
    pub tracer: Tracer,
}

impl Telemetry {
    /// Records metrics, and nothing else.
    pub fn of_metrics(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            slow_requests: SlowRequestLog::new(SlowRequests::Off),
            notable_requests: NotableRequests::default(),
            tracer: Tracer::default(),
        }
    }
}
