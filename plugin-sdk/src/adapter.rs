//! Adapts tasks of any type to one trait, which converts items and outcomes between the ABI and the author's types.

#![allow(unsafe_code, reason = "the server passes prepared items as handles")]

use plugin_abi::manifest::TaskManifest;
use plugin_abi::{RawBatch, RawItem, RawPrepared};
use serde_json::Value as Json;

use crate::batch::{Batch, BatchResult, Item, Outcomes};
use crate::error::{BatchError, ItemError};
use crate::input;
use crate::output::{Emitter, Output};
use crate::prepared;
use crate::task::{PreparedTask, Task};
use crate::tensor::TensorOutput;

/// A task of the model `M` with its types erased.
pub(crate) trait ErasedTask<M>: Send + Sync {
    /// Returns the manifest without the name.
    fn manifest(&self) -> TaskManifest;

    fn prepare(&self, model: &M, item: &RawItem<'_>) -> Result<RawPrepared, ItemError>;

    fn run(&self, model: &M, batch: &RawBatch<'_>, emitter: &mut Emitter<'_>) -> Result<(), BatchError>;

    fn sample(&self, model: &M, weight: u64) -> Option<Json>;
}

/// A task without a prepare step.
pub(crate) struct Direct<T>(pub(crate) T);

impl<M, T: Task<M>> ErasedTask<M> for Direct<T> {
    fn manifest(&self) -> TaskManifest {
        self.0.describe().manifest::<T::Input, T::Output>(false)
    }

    fn prepare(&self, _model: &M, _item: &RawItem<'_>) -> Result<RawPrepared, ItemError> {
        Err(ItemError::fault("the task has no prepare step"))
    }

    fn run(&self, model: &M, batch: &RawBatch<'_>, emitter: &mut Emitter<'_>) -> Result<(), BatchError> {
        run::<_, T::Output>(batch, emitter, input::decode::<T::Input>, |batch| {
            self.0.predict(model, batch)
        })
    }

    fn sample(&self, model: &M, weight: u64) -> Option<Json> {
        self.0.sample(model, weight)
    }
}

/// A task with a prepare step.
pub(crate) struct Preparing<T>(pub(crate) T);

impl<M, T: PreparedTask<M>> ErasedTask<M> for Preparing<T> {
    fn manifest(&self) -> TaskManifest {
        self.0.describe().manifest::<T::Input, T::Output>(true)
    }

    fn prepare(&self, model: &M, item: &RawItem<'_>) -> Result<RawPrepared, ItemError> {
        let value = input::decode::<T::Input>(item)?;
        let prepared = self.0.prepare(model, Item::new(value, item))?;
        let (weight, group) = (prepared.weight, prepared.group);
        Ok(RawPrepared {
            handle: prepared::into_handle(prepared.value),
            weight,
            group,
            reserved: 0,
        })
    }

    fn run(&self, model: &M, batch: &RawBatch<'_>, emitter: &mut Emitter<'_>) -> Result<(), BatchError> {
        run::<_, T::Output>(batch, emitter, borrow_prepared::<T::Prepared>, |batch| {
            self.0.predict(model, batch)
        })
    }

    fn sample(&self, model: &M, weight: u64) -> Option<Json> {
        self.0.sample(model, weight)
    }
}

fn borrow_prepared<'a, P: 'static>(item: &RawItem<'a>) -> Result<&'a P, ItemError> {
    // SAFETY: by the ABI's contract, the items of a batch, including their handles, are valid for the duration of
    // `predict_batch`, which is `'a`, and a handle other than 0 was returned by `prepare` above.
    let prepared = unsafe { prepared::borrow(item.prepared) };
    prepared.ok_or_else(|| ItemError::fault("the item was not prepared by this task"))
}

/// Decodes the items, calls `predict`, and emits the outcome of every item. Shared by both kinds of tasks.
fn run<'a, V, O: Output>(
    raw: &RawBatch<'a>,
    emitter: &mut Emitter<'_>,
    decode: impl Fn(&RawItem<'a>) -> Result<V, ItemError>,
    predict: impl FnOnce(Batch<'a, V>) -> BatchResult<O::Item>,
) -> Result<(), BatchError> {
    let failed = |index, error| emitter.fail(index, &error);
    let batch = Batch::decode(raw.items.as_slice(), raw.worker, decode, failed);
    if batch.is_empty() {
        return Ok(());
    }
    let (count, positions) = (batch.len(), batch.positions());
    let outputs = predict(batch)?;
    if let Some(weights) = outputs.weights {
        if weights.len() != count {
            let weights = weights.len();
            return Err(BatchError::failed(format_args!(
                "the task reported {weights} weights for {count} items, expected one for each"
            )));
        }
        for (row, weight) in weights.into_iter().enumerate() {
            emitter.weigh(index_of(positions.as_deref(), row), weight);
        }
    }
    match outputs.outcomes {
        Outcomes::Each(outcomes) => {
            // If the count is wrong, outcomes cannot be assigned to items, so none is sent.
            if outcomes.len() != count {
                return Err(outcome_count_error(outcomes.len(), count));
            }
            for (row, outcome) in outcomes.into_iter().enumerate() {
                emitter.complete::<O>(index_of(positions.as_deref(), row), outcome);
            }
            Ok(())
        }
        Outcomes::Rows(tensors) => {
            check_rows(&tensors, count)?;
            emitter
                .complete_rows(&tensors, positions.as_deref())
                .map_err(BatchError::Failed)
        }
    }
}

/// Returns the index in the server's batch of an item of the task's batch.
fn index_of(positions: Option<&[u32]>, row: usize) -> u32 {
    positions.map_or(row as u32, |positions| positions[row])
}

fn check_rows(tensors: &[TensorOutput], count: usize) -> Result<(), BatchError> {
    if tensors.is_empty() {
        return Err(BatchError::failed("the task returned no tensors for the batch"));
    }
    for tensor in tensors {
        tensor.check().map_err(BatchError::Failed)?;
        match tensor.shape().first() {
            Some(&rows) if rows == count as u64 => {}
            Some(&rows) => return Err(outcome_count_error(rows as usize, count)),
            None => {
                let name = tensor.name();
                return Err(BatchError::Failed(format!(
                    "tensor `{name}` has no batch dimension"
                )));
            }
        }
    }
    Ok(())
}

fn outcome_count_error(outcomes: usize, items: usize) -> BatchError {
    BatchError::Failed(format!(
        "the task returned {outcomes} outcomes for {items} items, expected one for each"
    ))
}
