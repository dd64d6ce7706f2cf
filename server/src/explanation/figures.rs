//! A summary of a window in figures.

use serde::Serialize;

use super::history::{Stage, TaskTotals};
use super::{Limits, Window};

/// What a model or a task did in a window. Rates are per second of the window; means and percentiles are `None` if nothing
/// happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Length of the window.
    pub seconds: f64,
    /// Requests answered.
    pub requests_per_second: f64,
    /// Items in batches.
    pub items_per_second: f64,
    /// Items that failed.
    pub failed_items_per_second: f64,
    /// Requests that were rejected on admission.
    pub rejections_per_second: f64,
    /// Median latency of the requests that succeeded.
    pub latency_p50_seconds: Option<f64>,
    /// Their 99th percentile.
    pub latency_p99_seconds: Option<f64>,
    /// Mean time of the preparation of an item.
    pub prepare_seconds: Option<f64>,
    /// Mean wait of an item.
    pub queue_seconds: Option<f64>,
    /// Mean time of a batch in the model.
    pub inference_seconds: Option<f64>,
    /// Mean time of writing a reply.
    pub encode_seconds: Option<f64>,
    /// Mean number of items in a batch.
    pub batch_size: Option<f64>,
    /// The same relative to the maximum.
    pub batch_fill: Option<f64>,
    /// Part of the workers' time in which they ran batches, from 0 to 1. `None` for a task, since tasks share the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_busy_share: Option<f64>,
}

impl Figures {
    /// The figures of a task.
    pub fn of_task(window: &Window, task: usize, limits: &Limits) -> Self {
        let none = TaskTotals::default();
        let totals = window.tasks.get(task).unwrap_or(&none);
        let room = totals.batches() as f64 * limits.max_size(task) as f64;
        Self::new(window, totals, room, None)
    }

    /// The figures of all tasks of a model together.
    pub fn of_model(window: &Window, limits: &Limits) -> Self {
        let tasks = window.tasks.iter().enumerate();
        let room = tasks
            .map(|(task, totals)| totals.batches() as f64 * limits.max_size(task) as f64)
            .sum();
        let workers_seconds = window.seconds * limits.workers as f64;
        let busy = (window.busy_seconds / workers_seconds.max(f64::MIN_POSITIVE)).min(1.0);
        Self::new(window, &window.all_tasks(), room, Some(rounded(busy)))
    }

    /// `room` is the number of items that all batches could have had.
    fn new(window: &Window, totals: &TaskTotals, room: f64, worker_busy_share: Option<f64>) -> Self {
        let rate = |count: u64| match window.seconds {
            0.0 => 0.0,
            seconds => rounded(count as f64 / seconds),
        };
        let mean = |stage: Stage| stage.mean().map(rounded);
        let latency = |quantile| {
            let latency = totals.latencies.quantile(quantile);
            latency.map(|latency| rounded(latency.as_secs_f64()))
        };
        let items = totals.batched_items as f64;
        let batches = totals.batches();
        Self {
            seconds: rounded(window.seconds),
            requests_per_second: rate(totals.requests.count),
            items_per_second: rate(totals.batched_items),
            failed_items_per_second: rate(totals.failed_items),
            rejections_per_second: rate(totals.rejected()),
            latency_p50_seconds: latency(0.5),
            latency_p99_seconds: latency(0.99),
            prepare_seconds: mean(totals.prepare),
            queue_seconds: mean(totals.queue),
            inference_seconds: mean(totals.inference),
            encode_seconds: mean(totals.encode),
            batch_size: (batches > 0).then(|| rounded(items / batches as f64)),
            batch_fill: (room > 0.0).then(|| rounded(items / room)),
            worker_busy_share,
        }
    }
}

/// Microseconds are precise enough.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
