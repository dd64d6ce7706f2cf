//! The families of worker processes. Models whose workers are threads have no series of them.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::labels::RestartReason;
use super::{gauge, register};

pub(super) struct WorkerFamilies {
    processes: IntGaugeVec,
    crash_loops: IntGaugeVec,
    restarts: IntCounterVec,
}

/// The series of the worker processes of one model. A new generation of the model goes on counting in the same series.
pub struct WorkerMetrics {
    /// Processes that serve.
    pub processes: IntGauge,
    /// Processes that end again and again.
    pub crash_loops: IntGauge,
    restarts: Vec<IntCounter>,
}

impl WorkerMetrics {
    /// Counts a process that was lost.
    pub fn count_restart(&self, reason: RestartReason) {
        self.restarts[reason as usize].inc();
    }
}

impl WorkerFamilies {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            processes: gauge(
                registry,
                "inference_worker_processes",
                "Processes of a model that serve, where it has processes of its own.",
                &["model"],
            )?,
            crash_loops: gauge(
                registry,
                "inference_worker_crash_loops",
                "Processes of a model that end again and again without a completed batch.",
                &["model"],
            )?,
            restarts: register(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "inference_worker_restarts_total",
                        "Processes of a model that were lost and are replaced, by why.",
                    ),
                    &["model", "reason"],
                )?,
            )?,
        })
    }

    pub(super) fn of(&self, model: &str) -> WorkerMetrics {
        WorkerMetrics {
            processes: self.processes.with_label_values(&[model]),
            crash_loops: self.crash_loops.with_label_values(&[model]),
            restarts: RestartReason::ALL
                .iter()
                .map(|reason| self.restarts.with_label_values(&[model, reason.label()]))
                .collect(),
        }
    }

    pub(super) fn remove(&self, model: &str) {
        // A family that lacks the series says so with an error, which is as good as having removed it.
        let _ = self.processes.remove_label_values(&[model]);
        let _ = self.crash_loops.remove_label_values(&[model]);
        for reason in RestartReason::ALL {
            let _ = self.restarts.remove_label_values(&[model, reason.label()]);
        }
    }
}
