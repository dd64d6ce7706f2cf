//! The safe interface to a loaded model. `loader` implements it for plugins in this process; a child process can
//! implement it as well. `engine` calls it and knows no more.

use std::any::Any;

use plugin_abi::manifest::ModelManifest;

use crate::error::ItemError;
use crate::protocol::{ItemInput, Tensor, Value};

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
}
