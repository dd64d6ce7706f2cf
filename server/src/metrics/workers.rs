//! The series of a model's worker processes. Models that run in threads have none.

use prometheus::IntGauge;

use super::labels::RestartReason;
use super::series::{Builder, ReasonCounters, Series};

/// The series of the worker processes of one model. New generations of the model continue the same series.
pub struct WorkerMetrics {
    /// Processes that are serving.
    pub processes: IntGauge,
    /// Processes in a crash loop.
    pub crash_loops: IntGauge,
    restarts: ReasonCounters,
    pub(super) series: Series,
}

impl WorkerMetrics {
    pub(super) fn new(model: &str) -> Result<Self, prometheus::Error> {
        let labels = [("model", model)];
        let mut builder = Builder::new(&labels);
        Ok(Self {
            processes: builder.int_gauge(
                "inference_worker_processes",
                "Worker processes of the model that are serving.",
            )?,
            crash_loops: builder.int_gauge(
                "inference_worker_crash_loops",
                "Worker processes of the model in a crash loop: they exited repeatedly without a completed batch.",
            )?,
            restarts: builder.reasons(
                "inference_worker_restarts_total",
                "Worker processes that were lost and are replaced, by reason.",
                "reason",
                &RestartReason::ALL.map(RestartReason::label),
            )?,
            series: builder.finish(),
        })
    }

    /// Counts a process that was lost.
    pub fn count_restart(&self, reason: RestartReason) {
        self.restarts.inc(reason.label());
    }
}
