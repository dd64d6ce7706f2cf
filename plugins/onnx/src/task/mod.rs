//! Executes a task: prepares items, stacks them into batches, runs the model and returns the answers. `plan` determines what a
//! task does; this does not change after loading.

pub(crate) mod answer;
mod classifier;
mod declared;
mod items;

use std::sync::Arc;

use plugin_sdk::AnyOutput;
use plugin_sdk::prelude::*;

pub(crate) use self::items::{Origin, Sample, SampleTensor};
use crate::Onnx;
use crate::plan::{BatchMode, Plan};
use crate::runtime::{Computed, Fault, Given};
use crate::values::Values;

/// A task that executes a plan.
pub(crate) struct Served(pub(crate) Arc<Plan>);

impl PreparedTask<Onnx> for Served {
    type Input = Any;
    type Output = Any;
    type Prepared = Sample;

    fn describe(&self) -> TaskInfo {
        self.0.info.clone()
    }

    fn prepare(&self, _model: &Onnx, item: Item<'_, Value<'_>>) -> Result<Prepared<Sample>, ItemError> {
        self.0.prepare(item.value)
    }

    fn predict(&self, _model: &Onnx, batch: Batch<'_, &Sample>) -> Result<Outputs<AnyOutput>, BatchError> {
        let plan = &*self.0;
        let worker = batch.worker();
        // A batch fails as a whole if the graph cannot compute one of its items, for example because an index is out of range. In
        // that case, run the items one by one so that the others succeed.
        if plan.mode == BatchMode::Batched && batch.len() > 1 {
            match plan.compute_rows(&batch, worker) {
                Ok(computed) => return Ok(answer::rows(plan, computed, &batch)),
                Err(fault) => log::debug!(
                    "a batch of {} runs item by item: {}",
                    batch.len(),
                    fault.message()
                ),
            }
        }
        let alone = |sample: &&Sample| {
            let computed = match plan.mode {
                BatchMode::Unbatched => plan.compute(&[sample], worker),
                BatchMode::Batched | BatchMode::ItemByItem => plan.compute_rows(&[sample], worker),
            };
            answer::single(plan, computed.map_err(|fault| fault.of_item())?, &sample.1)
        };
        Ok(batch.iter().map(alone).collect())
    }
}

impl Plan {
    /// Stacks the items and runs the model. Unless the task is unbatched, the first dimension of each tensor is the batch
    /// dimension.
    pub(crate) fn compute(&self, samples: &[&Sample], worker: usize) -> Result<Vec<Computed>, Fault> {
        let Some(first) = samples.first() else {
            return Ok(Vec::new());
        };
        let mut stacked = Vec::with_capacity(first.0.len());
        for (index, tensor) in first.0.iter().enumerate() {
            let mut shape = tensor.shape.clone();
            if self.mode != BatchMode::Unbatched {
                shape.insert(0, samples.len());
            }
            let mut values = Vec::with_capacity(samples.len());
            for sample in samples {
                match sample.0.get(index) {
                    Some(other) if other.shape == tensor.shape => values.push(&other.values),
                    other => {
                        let (one, other) = (&tensor.shape, other.map(|other| &other.shape));
                        return Err(Fault::Failed(format!(
                            "a batch has items of the shapes {one:?} and {other:?}"
                        )));
                    }
                }
            }
            stacked.push((&self.inputs[tensor.slot].port, shape, Values::concat(&values)));
        }
        let given: Vec<_> = stacked
            .iter()
            .map(|(port, shape, values)| Given {
                port,
                shape: shape.clone(),
                values,
            })
            .collect();
        self.network.run(&given, &self.outputs, worker)
    }

    /// Like [`compute`](Self::compute), for a task that is not unbatched: also checks that every output has a row for each item.
    fn compute_rows(&self, samples: &[&Sample], worker: usize) -> Result<Vec<Computed>, Fault> {
        let computed = self.compute(samples, worker)?;
        match self.not_rows(&computed, samples.len()) {
            None => Ok(computed),
            Some(problem) => Err(Fault::Outputs(problem)),
        }
    }
}

impl Fault {
    pub(crate) fn message(&self) -> &str {
        let (Self::Inputs(message) | Self::Failed(message) | Self::Outputs(message)) = self;
        message
    }

    fn of_item(&self) -> ItemError {
        match self {
            Self::Inputs(message) => ItemError::fault(message),
            Self::Outputs(message) => ItemError::fault(format_args!(
                "{message}; the operator can set `batch` to \"none\" for this model"
            )),
            // The task provides all inputs that its outputs depend on, so the item is the cause.
            Self::Failed(message) => {
                ItemError::invalid(format_args!("the model cannot compute this item: {message}"))
            }
        }
    }
}
