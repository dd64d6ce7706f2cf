//! The safe interface to a loaded model.
//!
//! `loader` implements it for plugins in this process, `isolation` for plugins in child processes. `engine` calls it and
//! depends on nothing else about a model.

mod finite_embeddings;

use std::any::Any;
use std::time::Duration;

use bytes::Bytes;
use plugin_abi::manifest::ModelManifest;

use crate::error::ItemError;
use crate::values::{ItemInput, Tensor, Value};
pub use finite_embeddings::FiniteEmbeddings;

/// A loaded model. All methods may block, and none of them panics.
pub trait Model: Send + Sync {
    /// The model's manifest. Tasks are identified by their index in it.
    fn manifest(&self) -> &ModelManifest;

    /// Decodes and preprocesses one item, for tasks whose manifest declares that they prepare. Can run concurrently with
    /// every other method.
    fn prepare(&self, task: usize, item: &ItemInput) -> Result<PreparedItem, ItemError>;

    /// Runs one batch of one task and reports the outcome of each item to `sink`. Items without an outcome fail with the
    /// returned error or, if there is none, as a fault of the plugin. Two calls with the same `worker` never overlap.
    fn predict_batch(
        &self,
        worker: usize,
        task: usize,
        items: &[BatchItem<'_>],
        sink: &mut dyn OutputSink,
    ) -> Result<(), BatchError>;

    /// Creates an item of `task` whose weight is about `weight`, as JSON. `None` if there is no such item. Only for tasks whose
    /// manifest declares samples.
    fn sample(&self, _task: usize, _weight: u64) -> Result<Option<Bytes>, ItemError> {
        Ok(None)
    }

    /// The device or arena memory of the model. Starts a new measurement of its peak. `None` if the model does not report it.
    fn memory_usage(&self) -> Option<MemoryUsage> {
        None
    }

    /// Waits for at most `timeout` until a batch of `worker` can run, and returns whether it can. A model whose workers can
    /// exit returns `false` while too few of them are available. Called before a batch is formed, so that items that
    /// nothing can run yet stay in the queue.
    fn wait_for_worker(&self, _worker: usize, _timeout: Duration) -> bool {
        true
    }

    /// Starts to measure the memory of batches, if the model can: see [`batch_memory`](Self::batch_memory).
    fn measure_batch_memory(&self) {}

    /// Maximum memory that the latest batch of `worker` added to an idle worker, in bytes. `None` if it was not measured.
    fn batch_memory(&self, _worker: usize) -> Option<u64> {
        None
    }

    /// Whether the model can run a batch now.
    fn health(&self) -> Health {
        Health::Ready
    }

    /// The worker processes of the model, by their number. Empty if it runs in threads of this process. Waits for nothing.
    fn worker_processes(&self) -> Vec<WorkerProcess> {
        Vec::new()
    }

    /// Kills whatever runs a batch, because the outcomes are no longer needed. A model that cannot do this finishes the batch.
    fn stop_running(&self) {}
}

/// Memory that a model has allocated from a device or an arena, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUsage {
    /// In use now.
    pub current: u64,
    /// Maximum in use since the previous report.
    pub peak: u64,
}

/// Memory and time of the process that runs the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryReading {
    /// Resident memory in bytes.
    pub resident: u64,
    /// Maximum resident memory in bytes since the start of the measurement.
    pub peak: u64,
    /// What the model reports, since the previous reading.
    pub reported: Option<MemoryUsage>,
    /// Time that the model took for its last batch.
    pub batch_time: Duration,
    /// Time for which all threads of the process have run on a CPU, with a resolution of 10 ms.
    pub cpu_time: Duration,
}

/// Whether a loaded model can run batches. Reasons can be shown to clients: they contain no paths or settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can run batches.
    Ready,
    /// It lost its workers and is restarting them. Items wait in the queue.
    Recovering {
        /// What happened.
        reason: String,
    },
    /// Its workers exit repeatedly and are restarted with backoff. New requests are rejected, and queued items fail.
    CrashLoop {
        /// What happened last.
        reason: String,
    },
    /// It cannot run any batch until it is reloaded. Requests are rejected, and queued items fail.
    Failed {
        /// What happened.
        reason: String,
    },
}

/// A worker process of a model: the one that has this number now, and those that it replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerProcess {
    /// What it does now.
    pub phase: WorkerPhase,
    /// Its id, unless it is being started.
    pub process_id: Option<u32>,
    /// Time for which batches ran in it.
    pub busy: Duration,
    /// How often it was lost and replaced.
    pub restarts: u64,
}

/// What a worker process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerPhase {
    /// It waits for a batch.
    Waiting,
    /// It runs a batch.
    Busy,
    /// It is being started, or was lost and waits to be started again.
    Restarting,
}

impl BatchError {
    /// Whether the items may succeed if the batch is split in halves.
    pub fn may_succeed_in_halves(&self) -> bool {
        matches!(self, Self::OutOfMemory(_) | Self::TooLarge(_))
    }
}

/// One item of a batch.
#[derive(Clone, Copy)]
pub struct BatchItem<'a> {
    /// The item as the client sent it.
    pub input: &'a ItemInput,
    /// The result of preparing it, if its task prepares items.
    pub prepared: Option<&'a PreparedItem>,
}

/// An item that the model has prepared.
pub struct PreparedItem {
    /// Cost of the item, at least 1, in units that the model chooses.
    pub weight: u64,
    /// Items of different groups never share a batch.
    pub group: u64,
    /// The model's own representation of the item. Only the model that created it can use it.
    pub payload: Box<dyn Any + Send + Sync>,
}

/// Receives the outcomes of one batch.
pub trait OutputSink {
    /// The output of item `index`, or one part of it if `more` parts follow.
    fn emit(&mut self, index: usize, value: Value, more: bool) -> SinkStatus;

    /// The outputs of all items: tensors whose first dimension is the batch. Row `i` belongs to item `i`.
    fn emit_batch(&mut self, tensors: Vec<Tensor>) -> SinkStatus;

    /// Item `index` failed. Other items are not affected.
    fn fail(&mut self, index: usize, error: ItemError) -> SinkStatus;

    /// Sets the weight of item `index`. It is not an outcome. An index outside the batch is ignored.
    fn weigh(&mut self, _index: usize, _weight: u64) {}
}

/// The sink's answer to an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkStatus {
    /// The outcome was recorded.
    Accepted,
    /// The item was canceled: its outcome is no longer needed.
    Cancelled,
    /// The item does not exist or already has an outcome, or the tensors do not have one row per item.
    Rejected,
    /// The receiver does not support outputs in parts.
    NotStreaming,
}

/// Discards outputs, and checks that every item of a batch has an outcome.
#[derive(Debug)]
pub struct OutcomeCheck {
    items: usize,
    outcomes: usize,
    failure: Option<ItemError>,
}

impl OutcomeCheck {
    /// For a batch of this many items.
    pub fn new(items: usize) -> Self {
        Self {
            items,
            outcomes: 0,
            failure: None,
        }
    }

    /// The first failure of an item, or an error if the number of outcomes is wrong.
    pub fn finish(self) -> Result<(), ItemError> {
        match self.failure {
            Some(failure) => Err(failure),
            None if self.outcomes != self.items => Err(ItemError::Fault(format!(
                "{} outcomes for a batch of {} items",
                self.outcomes, self.items
            ))),
            None => Ok(()),
        }
    }
}

impl OutputSink for OutcomeCheck {
    fn emit(&mut self, _index: usize, _value: Value, more: bool) -> SinkStatus {
        self.outcomes += usize::from(!more);
        SinkStatus::Accepted
    }

    fn emit_batch(&mut self, _tensors: Vec<Tensor>) -> SinkStatus {
        self.outcomes += self.items;
        SinkStatus::Accepted
    }

    fn fail(&mut self, _index: usize, error: ItemError) -> SinkStatus {
        self.failure.get_or_insert(error);
        self.outcomes += 1;
        SinkStatus::Accepted
    }
}

/// Why a whole batch failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// A smaller batch may fit into memory.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// The plugin returned an error for the batch.
    #[error("{0}")]
    Failed(ItemError),
    /// The plugin panicked.
    #[error("the plugin panicked: {0}")]
    Panicked(String),
    /// The batch or its outputs exceed the size that can be passed to or from a worker process. Nothing was passed on. A
    /// smaller batch may fit. If a single item does not fit, it fails with this error.
    #[error("{0}")]
    TooLarge(ItemError),
    /// The worker process that ran the batch exited at an unknown point. The text describes how.
    #[error("the worker process that ran the batch {0}")]
    WorkerLost(String),
    /// No worker process is available. The batch has not been started. [`Model::wait_for_worker`] waits for one.
    #[error("no worker process is available to run the batch")]
    NoWorker,
}
