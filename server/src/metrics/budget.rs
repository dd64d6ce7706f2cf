//! The families about the bytes that all requests hold, read from the budget at each scrape.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntGauge};

use crate::byte_budget::ByteBudget;

/// Reads a [`ByteBudget`].
pub(super) struct BudgetCollector {
    budget: Arc<ByteBudget>,
    held: IntGauge,
    limit: IntGauge,
    rejections: IntCounter,
}

impl BudgetCollector {
    pub(super) fn new(budget: Arc<ByteBudget>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            held: IntGauge::new(
                "inference_inflight_bytes",
                "Bytes of request bodies, waiting and running items, and replies.",
            )?,
            limit: IntGauge::new(
                "inference_inflight_bytes_limit",
                "Maximum of inference_inflight_bytes above which requests are rejected.",
            )?,
            rejections: IntCounter::new(
                "inference_inflight_rejections_total",
                "Requests rejected because those in flight held too many bytes.",
            )?,
            budget,
        })
    }
}

impl Collector for BudgetCollector {
    fn desc(&self) -> Vec<&Desc> {
        [self.held.desc(), self.limit.desc(), self.rejections.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.held.set(gauge(self.budget.held()));
        self.limit.set(gauge(self.budget.limit()));
        self.rejections.reset();
        self.rejections.inc_by(self.budget.rejected());
        [
            self.held.collect(),
            self.limit.collect(),
            self.rejections.collect(),
        ]
        .concat()
    }
}
