//! The series of one task of one model.

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use super::labels::{ItemOutcome, REJECTIONS, rejection_reason};
use super::requests::{INFERENCE, RequestMetrics};
use super::series::{Buckets, Builder, ReasonCounters, Series, seconds};
use crate::error::Rejection;
use crate::latency::{LatencyCounts, LatencyTotals};

/// Buckets for the number of items in a batch.
const BATCH_SIZES: [f64; 5] = [1.0, 4.0, 16.0, 64.0, 256.0];

/// The series of one task of one model. New generations of the model continue the same series.
pub struct TaskMetrics {
    /// Time from the end of the preparation (or the arrival) of an item to the start of its batch.
    pub queue_seconds: Histogram,
    /// Time to decode and preprocess an item.
    pub prepare_seconds: Histogram,
    /// Time of a call of `predict_batch`.
    pub inference_seconds: Histogram,
    /// Time to write the body of a reply.
    pub encode_seconds: Histogram,
    /// Time that a free worker waited for more items before it started a batch.
    pub batch_wait_seconds: Histogram,
    /// Estimated cost of a batch, without its items.
    pub learned_batch_seconds: Gauge,
    /// Estimated cost of each further item, or unit of weight.
    pub learned_unit_seconds: Gauge,
    /// Items in a batch.
    pub batch_size: Histogram,
    /// Cost of a batch, in the units of the plugin.
    pub batch_weight: Histogram,
    /// Weight of the items in batches, without padding.
    pub item_weight: IntCounter,
    /// Predicted bound of the memory of a batch.
    pub memory_predicted: Histogram,
    /// Measured memory of a batch.
    pub memory_measured: Histogram,
    /// Margin of the prediction.
    pub memory_margin: Gauge,
    /// Measured over expected memory.
    pub memory_drift: Gauge,
    /// Items in the queue, without background items.
    pub queued_items: IntGauge,
    /// Background items in the queue.
    pub queued_background_items: IntGauge,
    /// Background items in batches.
    pub background_items: IntCounter,
    /// Weight in the queue.
    pub queued_weight: IntGauge,
    /// Items in running batches.
    pub executing_items: IntGauge,
    /// Batches that did not fit in memory.
    pub out_of_memory: IntCounter,
    /// The durations of the stages, for percentiles. Unlike the histograms, whose buckets are configured, they are not exposed.
    pub stage_latencies: StageLatencies,
    /// Requests, by protocol and status.
    pub requests: RequestMetrics,
    batches: ReasonCounters,
    items: ReasonCounters,
    rejections: ReasonCounters,
    pub(super) series: Series,
}

/// The durations of each stage of a task.
#[derive(Default)]
pub struct StageLatencies {
    /// Preparations of items.
    pub prepare: LatencyCounts,
    /// Waits of items for their batches.
    pub queue: LatencyCounts,
    /// Batches in the model.
    pub inference: LatencyCounts,
    /// Writing of replies.
    pub encode: LatencyCounts,
}

impl StageLatencies {
    /// Number of stages.
    pub const COUNT: usize = 4;

    /// The counts so far, in the order of the stages.
    pub fn totals(&self) -> [LatencyTotals; Self::COUNT] {
        [&self.prepare, &self.queue, &self.inference, &self.encode].map(LatencyCounts::totals)
    }
}

impl TaskMetrics {
    /// `reasons` are the values of the label `reason` of `inference_batches_total`.
    pub(super) fn new(
        model: &str,
        task: &str,
        reasons: &[&'static str],
        buckets: &Buckets,
    ) -> Result<Self, prometheus::Error> {
        let labels = [("model", model), ("task", task)];
        let mut builder = Builder::new(&labels);
        let b = &mut builder;
        Ok(Self {
            queue_seconds: b.histogram(
                "inference_queue_seconds",
                "Time an item waited, from the end of its preparation to the start of its batch, without items of jobs.",
                seconds(&buckets.stages),
            )?,
            prepare_seconds: b.optional_histogram(
                "inference_prepare_seconds",
                "Time to decode and preprocess an item, for tasks that prepare.",
                seconds(&buckets.stages),
            )?,
            inference_seconds: b.histogram(
                INFERENCE,
                "Time a batch took in the model.",
                seconds(&buckets.inference),
            )?,
            encode_seconds: b.histogram(
                "inference_encode_seconds",
                "Time to write the body of a reply.",
                seconds(&buckets.stages),
            )?,
            batch_wait_seconds: b.histogram(
                "inference_batch_wait_seconds",
                "Time a free worker waited for more items before it started a batch.",
                seconds(&buckets.stages),
            )?,
            learned_batch_seconds: b.gauge(
                "inference_learned_batch_seconds",
                "Estimated cost of a batch without its items, under the adaptive policy.",
            )?,
            learned_unit_seconds: b.gauge(
                "inference_learned_unit_seconds",
                "Estimated cost of each further item, or unit of weight, under the adaptive policy.",
            )?,
            batch_size: b.histogram("inference_batch_size", "Items in a batch.", BATCH_SIZES.to_vec())?,
            batch_weight: b.histogram(
                "inference_batch_weight",
                "Cost of a batch, in the plugin's units (such as tokens or pixels), or in items if the plugin declares no weights.",
                seconds(&[]),
            )?,
            item_weight: b.optional_int_counter(
                "inference_item_weight_total",
                "Total weight of the items in batches, without padding, in the units of inference_batch_weight, for tasks with weights.",
            )?,
            memory_predicted: b.optional_histogram(
                "inference_batch_memory_predicted_bytes",
                "Predicted bound of the memory of a batch, for tasks that were calibrated.",
                seconds(&[]),
            )?,
            memory_measured: b.optional_histogram(
                "inference_batch_memory_measured_bytes",
                "Measured memory of a batch, for tasks that were calibrated and run in worker processes.",
                seconds(&[]),
            )?,
            memory_margin: b.optional_gauge(
                "inference_batch_memory_margin_ratio",
                "99th percentile of the relative errors of the predicted memory, for tasks that were calibrated.",
            )?,
            memory_drift: b.optional_gauge(
                "inference_batch_memory_drift_ratio",
                "Measured memory relative to the expected memory, averaged over recent batches, for tasks whose memory was measured.",
            )?,
            queued_items: b.int_gauge("inference_queue_items", "Items in the queue, without those of jobs.")?,
            queued_background_items: b.int_gauge(
                "inference_background_queue_items",
                "Items of jobs in the queue.",
            )?,
            background_items: b
                .optional_int_counter("inference_background_items_total", "Items of jobs in batches.")?,
            queued_weight: b.int_gauge(
                "inference_queue_weight",
                "Total weight of the items in the queue, in the plugin's units, without those of jobs.",
            )?,
            executing_items: b.int_gauge("inference_executing_items", "Items in running batches.")?,
            out_of_memory: b.int_counter(
                "inference_out_of_memory_total",
                "Batches that did not fit in memory and were halved or failed.",
            )?,
            stage_latencies: StageLatencies::default(),
            requests: RequestMetrics::new(b, Some(buckets))?,
            batches: b.reasons(
                "inference_batches_total",
                "Batches run, by the reason why they were closed.",
                "reason",
                reasons,
            )?,
            items: b.reasons(
                "inference_items_total",
                "Items completed, by outcome.",
                "outcome",
                &ItemOutcome::ALL.map(ItemOutcome::label),
            )?,
            rejections: b.reasons(
                "inference_rejections_total",
                "Requests rejected on admission, by reason.",
                "reason",
                &REJECTIONS,
            )?,
            series: builder.finish(),
        })
    }

    /// Counts a completed item.
    pub fn count_item(&self, outcome: ItemOutcome) {
        self.items.inc(outcome.label());
    }

    /// Number of items with this outcome.
    pub fn counted(&self, outcome: ItemOutcome) -> u64 {
        self.items.get(outcome.label())
    }

    /// Counts a rejected request.
    pub fn count_rejection(&self, rejection: &Rejection) {
        self.rejections.inc(rejection_reason(rejection));
    }

    /// Number of items that were completed with an error, without those whose client disconnected.
    pub fn failed_items(&self) -> u64 {
        let failed = ItemOutcome::ALL
            .into_iter()
            .filter(|outcome| !matches!(outcome, ItemOutcome::Success | ItemOutcome::Cancelled));
        failed.map(|outcome| self.counted(outcome)).sum()
    }

    /// Number of rejected requests, in the order of [`REJECTIONS`].
    pub fn rejected(&self) -> [u64; REJECTIONS.len()] {
        REJECTIONS.map(|reason| self.rejections.get(reason))
    }

    /// Number of batches that were closed for this reason.
    pub fn batches_run(&self, reason: &str) -> u64 {
        self.batches.get(reason)
    }

    /// Counts a batch by the reason why it was closed.
    pub fn count_batch(&self, reason: &'static str) {
        self.batches.inc(reason);
    }
}
