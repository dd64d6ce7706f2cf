//! The export of traces.

use prometheus::IntCounter;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::{Metrics, register};

/// Counts what is not exported.
pub struct TraceMetrics {
    dropped: DroppedSpans,
}

/// Spans that were dropped. Exposed from its first use on.
#[derive(Clone)]
struct DroppedSpans(IntCounter);

impl TraceMetrics {
    /// Creates and registers the families.
    ///
    /// # Errors
    /// They are registered already.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let dropped = IntCounter::new(
            "inference_trace_spans_dropped_total",
            "Spans that were not exported, because the queue was full or the collector did not accept them.",
        )?;
        Ok(Self {
            dropped: register(metrics.registry(), DroppedSpans(dropped))?,
        })
    }

    /// Counts spans that were dropped.
    pub fn dropped(&self, spans: usize) {
        self.dropped.0.inc_by(spans as u64);
    }
}

impl Collector for DroppedSpans {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        match self.0.get() {
            0 => Vec::new(),
            _ => self.0.collect(),
        }
    }
}
