//! Reloads, and the generations that they create.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::labels::ReloadResult;
use super::register;

/// Reloads by result, and generations.
pub(super) struct ReloadMetrics {
    generations_live: IntGauge,
    generations_loaded: IntCounter,
    reloads: IntCounterVec,
    last_success: IntGauge,
}

impl ReloadMetrics {
    /// Creates and registers the families. The series of both results exist from the start, at zero.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let reloads = Opts::new("inference_reloads_total", "Reloads, by result.");
        let metrics = Self {
            generations_live: register(
                registry,
                IntGauge::new(
                    "inference_generations_live",
                    "Generations that are serving or draining.",
                )?,
            )?,
            generations_loaded: register(
                registry,
                IntCounter::new(
                    "inference_generations_loaded_total",
                    "Generations ever loaded. Their code stays mapped until the process exits.",
                )?,
            )?,
            reloads: register(registry, IntCounterVec::new(reloads, &["result"])?)?,
            last_success: register(
                registry,
                IntGauge::new(
                    "inference_last_successful_reload_timestamp_seconds",
                    "Unix time at which the current state went live.",
                )?,
            )?,
        };
        for result in [ReloadResult::Success, ReloadResult::Failure] {
            metrics.reloads.with_label_values(&[result.label()]);
        }
        Ok(metrics)
    }

    /// Counts a reload that ended at `unix_seconds`.
    pub(super) fn count(&self, result: ReloadResult, unix_seconds: u64) {
        self.reloads.with_label_values(&[result.label()]).inc();
        if result == ReloadResult::Success {
            self.last_success.set(unix_seconds as i64);
        }
    }

    /// Counts a generation that was loaded.
    pub(super) fn generation_loaded(&self) {
        self.generations_loaded.inc();
        self.generations_live.inc();
    }

    /// Counts a generation that has drained and dropped its model.
    pub(super) fn generation_ended(&self) {
        self.generations_live.dec();
    }
}
