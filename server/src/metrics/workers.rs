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

/// Counts of the worker processes of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounts {
    /// Processes that are serving.
    pub serving: u64,
    /// Processes that were lost and are replaced, since the start of the server.
    pub restarts: u64,
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

    /// The present counts.
    pub fn counts(&self) -> WorkerCounts {
        let restarts = RestartReason::ALL.map(|reason| self.restarts.get(reason.label()));
        WorkerCounts {
            serving: u64::try_from(self.processes.get()).unwrap_or_default(),
            restarts: restarts.iter().sum(),
        }
    }

    /// Counts a process that was lost.
    pub fn count_restart(&self, reason: RestartReason) {
        self.restarts.inc(reason.label());
    }
}
