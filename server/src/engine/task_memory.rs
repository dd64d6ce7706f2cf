//! What is known about the memory of one task's batches, for threads that do not own the scheduler.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use serde::Serialize;

use crate::batcher::cost_model::BatchShape;
use crate::batcher::memory_budget::{TaskMemory, TooHeavy};
use crate::batching::DispatchReason;
use crate::error::ItemError;
use crate::metrics::TaskMetrics;

/// The memory of the batches of a task, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemoryReport {
    /// Maximum for all batches of the model that run at the same time, in bytes; `None` if there is no limit.
    pub budget_bytes: Option<u64>,
    /// Predicted bound for the latest batch that could be predicted.
    pub predicted_bytes: Option<u64>,
    /// Memory of the latest batch that was measured.
    pub measured_bytes: Option<u64>,
    /// The 99th percentile of the relative errors of the prediction.
    pub margin: f64,
    /// Measured over expected memory, averaged over recent batches.
    pub drift: Option<f64>,
    /// Number of batches that no further item could join because of the budget.
    pub limited_batches: u64,
}

/// A snapshot of the predictions, and the latest values.
pub(super) struct PublishedMemory {
    memory: ArcSwapOption<TaskMemory>,
    /// Zero if there was none.
    predicted: AtomicU64,
    measured: AtomicU64,
    /// The shapes of the latest batches: the number of items above the greatest weight of an item. Zero if there was none.
    batches: [AtomicU64; LATEST_BATCHES],
    next_batch: AtomicUsize,
}

/// Number of batches whose shapes are kept.
const LATEST_BATCHES: usize = 64;

/// Bits of the greatest weight of an item.
const WEIGHT_BITS: u32 = 40;

/// Which batches of a task fit into the memory budget, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    /// Numbers of items, ascending, and the greatest weight that each of them may have.
    pub limits: Vec<(u64, u64)>,
    /// The number of items and their greatest weight of the latest batches.
    pub batches: Vec<(u64, u64)>,
}

impl Default for PublishedMemory {
    fn default() -> Self {
        Self {
            memory: ArcSwapOption::empty(),
            predicted: AtomicU64::new(0),
            measured: AtomicU64::new(0),
            batches: std::array::from_fn(|_| AtomicU64::new(0)),
            next_batch: AtomicUsize::new(0),
        }
    }
}

impl PublishedMemory {
    /// Publishes the present state of the predictions.
    pub(super) fn publish(&self, memory: Option<&TaskMemory>) {
        self.memory.store(memory.cloned().map(Arc::new));
    }

    /// Changes the limits as the scheduler will, so that items which are too heavy are rejected from now on.
    pub(super) fn set_budget(&self, budget: Option<u64>, shared: Option<u64>, workers: usize) {
        if let Some(memory) = self.memory.load_full() {
            let memory = memory.with_budget(budget, shared, workers);
            self.memory.store(Some(Arc::new(memory)));
        }
    }

    /// Maximum for all batches of the model, if memory is predicted and limited.
    pub(super) fn budget(&self) -> Option<u64> {
        self.memory.load().as_ref().and_then(|memory| memory.budget())
    }

    /// Whether memory is predicted.
    pub(super) fn is_predicted(&self) -> bool {
        self.memory.load().is_some()
    }

    /// Checks that an item of this weight fits into the budget alone.
    pub(super) fn check_item(&self, weight: u64) -> Result<(), ItemError> {
        let memory = self.memory.load();
        let checked = memory.as_ref().map_or(Ok(()), |memory| memory.check_item(weight));
        checked.map_err(|TooHeavy { predicted, budget }| ItemError::TooHeavy { predicted, budget })
    }

    /// Records the shape of a batch.
    pub(super) fn ran(&self, shape: &BatchShape) {
        if self.is_predicted() {
            let slot = self.next_batch.fetch_add(1, Ordering::Relaxed) % LATEST_BATCHES;
            let weight = shape.heaviest.min((1 << WEIGHT_BITS) - 1);
            self.batches[slot].store((shape.items << WEIGHT_BITS) | weight, Ordering::Relaxed);
        }
    }

    /// Which batches of up to `max_items` items fit. `None` if batches are not limited.
    pub(super) fn frontier(&self, max_items: u64) -> Option<Frontier> {
        let memory = self.memory.load_full()?;
        let powers = (0..u64::BITS).map(|power| 1_u64 << power);
        let sizes = powers.take_while(|size| *size < max_items).chain([max_items]);
        let limits: Vec<(u64, u64)> = sizes
            .filter_map(|size| Some((size, memory.heaviest(size)?)))
            .collect();
        let batches = self.batches.iter().map(|batch| batch.load(Ordering::Relaxed));
        let batches = batches.filter(|batch| *batch > 0);
        (!limits.is_empty()).then(|| Frontier {
            limits,
            batches: batches
                .map(|batch| (batch >> WEIGHT_BITS, batch & ((1 << WEIGHT_BITS) - 1)))
                .collect(),
        })
    }

    /// Records the predicted bound of a batch.
    pub(super) fn predicted(&self, bytes: u64, metrics: &TaskMetrics) {
        self.predicted.store(bytes, Ordering::Relaxed);
        metrics.memory_predicted.observe(bytes as f64);
    }

    /// Records the measured memory of a batch, and the predictions that it has corrected.
    pub(super) fn measured(&self, bytes: u64, corrected: Option<&TaskMemory>, metrics: &TaskMetrics) {
        self.measured.store(bytes, Ordering::Relaxed);
        metrics.memory_measured.observe(bytes as f64);
        if let Some(memory) = corrected {
            metrics.memory_margin.set(memory.margin());
            metrics.memory_drift.set(memory.drift().unwrap_or(0.0));
        }
        self.publish(corrected);
    }

    pub(super) fn report(&self, metrics: &TaskMetrics) -> Option<MemoryReport> {
        let memory = self.memory.load_full()?;
        let latest = |bytes: &AtomicU64| Some(bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0);
        Some(MemoryReport {
            budget_bytes: memory.budget(),
            predicted_bytes: latest(&self.predicted),
            measured_bytes: latest(&self.measured),
            margin: memory.margin(),
            drift: memory.drift(),
            limited_batches: metrics.batches_run(DispatchReason::Memory.as_str()),
        })
    }
}
