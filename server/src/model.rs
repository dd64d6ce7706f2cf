//! The safe interface to a loaded model. `loader` implements it for plugins in this process, `isolation` for those in child
//! processes. `engine` calls it and knows no more.

use std::any::Any;
use std::time::Duration;

use plugin_abi::manifest::ModelManifest;

use crate::error::ItemError;
use crate::values::{ItemInput, Tensor, Value};

/// A loaded model. All methods block; none panics.
pub trait Model: Send + Sync {
    /// What the model is; its tasks are addressed by their index here.
    fn manifest(&self) -> &ModelManifest;

    /// Decodes and preprocesses one item of a task whose manifest says that it prepares. Runs in parallel with everything.
    fn prepare(&self, task: usize, item: &ItemInput) -> Result<Prepared, ItemError>;

    /// Runs one batch of one task and settles its items in `sink`. Items left unsettled fail with the returned error, or, if
    /// there is none, as the plugin's fault. Two calls with the same `worker` never overlap.
    fn predict_batch(
        &self,
        worker: usize,
        task: usize,
        items: &[BatchItem<'_>],
        sink: &mut dyn OutputSink,
    ) -> Result<(), BatchError>;

    /// Waits until a batch of `worker` would find what runs it, for `patience` at most. Whether it would: a model whose
    /// workers can be lost says `false` while there are not enough of them. To be called before a batch is formed, so that
    /// what nothing could run yet stays queued.
    fn wait_for_worker(&self, _worker: usize, _patience: Duration) -> bool {
        true
    }

    /// Whether the model could run a batch now.
    fn health(&self) -> Health {
        Health::Ready
    }

    /// Ends what runs a batch now, as nobody needs its outcomes. A model that cannot do so finishes the batch.
    fn stop_running(&self) {}
}

/// Whether a loaded model can run batches. Reasons are fit for clients: they name no path and no setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Ready,
    /// Not now: it lost what runs it, and is about to have it again. What comes meanwhile waits in the queue.
    Recovering {
        /// What happened.
        reason: String,
    },
    /// It loses what runs it again and again, and is restarted with growing pauses. Meanwhile new requests are rejected, and
    /// queued items fail.
    CrashLoop {
        /// What happened last.
        reason: String,
    },
}

impl BatchError {
    /// Whether the batch may fit in halves.
    pub fn is_run_in_halves(&self) -> bool {
        matches!(self, Self::OutOfMemory(_) | Self::TooLarge(_))
    }
}

/// One item of a batch.
#[derive(Clone, Copy)]
pub struct BatchItem<'a> {
    /// What the client sent.
    pub input: &'a ItemInput,
    /// What preparing it gave, if its task prepares.
    pub prepared: Option<&'a Prepared>,
}

/// A prepared item.
pub struct Prepared {
    /// Cost of the item, at least 1, in units of the model's choice.
    pub weight: u64,
    /// Items of different groups never share a batch.
    pub group: u64,
    /// What the model made of it; only the model that made it can use it.
    pub payload: Box<dyn Any + Send + Sync>,
}

/// Where a model puts the outcomes of one batch.
pub trait OutputSink {
    /// The output of item `index`, or a part of it if `more` follow.
    fn emit(&mut self, index: usize, value: Value, more: bool) -> SinkStatus;

    /// The outputs of all items: tensors whose first dimension is the batch; row `i` is item `i`'s.
    fn emit_batch(&mut self, tensors: Vec<Tensor>) -> SinkStatus;

    /// Item `index` failed, alone.
    fn fail(&mut self, index: usize, error: ItemError) -> SinkStatus;

    /// Item `index` has this weight. Settles nothing; an item that the batch does not have is ignored.
    fn weigh(&mut self, _index: usize, _weight: u64) {}
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkStatus {
    /// Taken.
    Taken,
    /// Nobody waits for this item any more.
    Cancelled,
    /// No such item, settled before, or tensors that do not have a row per item.
    Refused,
    /// The receiver cannot take an output in parts.
    NotStreaming,
}

/// Why a whole batch failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// A smaller batch may fit.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// The plugin returned an error for the batch.
    #[error("{0}")]
    Failed(ItemError),
    /// The plugin panicked.
    #[error("the plugin panicked: {0}")]
    Panicked(String),
    /// The batch or its outputs are larger than what can be passed to or from what runs it, and nothing was passed on. A
    /// smaller batch may fit; the error is that of an item that does not fit alone.
    #[error("{0}")]
    TooLarge(ItemError),
    /// What ran the batch is gone, and nobody knows how far it came. Says how it ended.
    #[error("the process that ran the batch is gone: {0}")]
    WorkerLost(String),
    /// Nothing is there that could run the batch, which has not been touched. [`Model::wait_for_worker`] says when it is
    /// worth trying again.
    #[error("no process is there to run the batch")]
    NoWorker,
}
