//! The series of a model's worker processes. Models whose workers are threads have none.

use prometheus::IntGauge;

use super::labels::RestartReason;
use super::series::{Builder, ReasonCounters, Series};

/// The series of the worker processes of one model. A new generation of the model keeps counting in the same series.
pub struct WorkerMetrics {
    /// Processes that serve.
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
                "Processes of a model that serve, if it has processes of its own.",
            )?,
            crash_loops: builder.int_gauge(
                "inference_worker_crash_loops",
                "Processes of a model that were lost repeatedly without a completed batch.",
            )?,
            restarts: builder.reasons(
                "inference_worker_restarts_total",
                "Processes of a model that were lost and are replaced, by reason.",
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
