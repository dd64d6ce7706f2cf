//! Executes a task: prepares items, pads and stacks them into batches, runs the model and returns the answers. `plan` determines
//! what a task does; this does not change after loading.

pub(crate) mod answer;
mod classifier;
mod declared;
mod items;

use std::borrow::Cow;
use std::sync::Arc;

use plugin_sdk::AnyOutput;
use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::Value as Json;

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
            let computed = plan.compute_alone(sample, worker);
            answer::single(plan, computed.map_err(|fault| fault.of_item())?, &sample.1)
        };
        Ok(batch.iter().map(alone).collect())
    }

    fn sample(&self, _model: &Onnx, weight: u64) -> Option<Json> {
        self.0.item_of_weight(weight)
    }
}

impl Plan {
    /// Stacks the items and runs the model. Unless the task is unbatched, the first dimension of each tensor is the batch
    /// dimension.
    pub(crate) fn compute(&self, samples: &[&Sample], worker: usize) -> Result<Vec<Computed>, Fault> {
        self.compute_padded(samples, self.longest(samples).as_deref(), worker)
    }

    /// Like [`compute`](Self::compute), for items that are padded to these lengths.
    pub(crate) fn compute_padded(
        &self,
        samples: &[&Sample],
        lengths: Option<&[usize]>,
        worker: usize,
    ) -> Result<Vec<Computed>, Fault> {
        self.run(samples, lengths, |given| {
            self.network.run(given, &self.outputs, worker)
        })
    }

    /// The lengths to which the items are padded, if the task pads.
    pub(crate) fn longest(&self, samples: &[&Sample]) -> Option<Vec<usize>> {
        self.padding.as_ref().map(|padding| padding.longest(samples))
    }

    /// Pads the items to these lengths, stacks them, and passes the result to `run`.
    fn run(
        &self,
        samples: &[&Sample],
        lengths: Option<&[usize]>,
        run: impl FnOnce(&[Given<'_>]) -> Result<Vec<Computed>, Fault>,
    ) -> Result<Vec<Computed>, Fault> {
        let padding = self.padding.as_ref().zip(lengths);
        let Some(first) = samples.first() else {
            return Ok(Vec::new());
        };
        let mut stacked = Vec::with_capacity(first.0.len());
        for (index, tensor) in first.0.iter().enumerate() {
            let shape_of = |tensor: &SampleTensor| match padding {
                Some((padding, lengths)) => padding.shape(tensor, lengths),
                None => tensor.shape.clone(),
            };
            let mut shape = shape_of(tensor);
            let mut values = Vec::with_capacity(samples.len());
            for sample in samples {
                match sample.0.get(index) {
                    Some(other) if other.has_type_of(tensor) && shape_of(other) == shape => {
                        values.push(match padding {
                            Some((padding, _)) => padding.padded(other, &shape),
                            None => Cow::Borrowed(&other.values),
                        });
                    }
                    _ => {
                        return Err(Fault::Failed(
                            "the items of a batch have different shapes".to_owned(),
                        ));
                    }
                }
            }
            if self.mode != BatchMode::Unbatched {
                shape.insert(0, samples.len());
            }
            stacked.push((&self.inputs[tensor.slot].spec, shape, Values::concat(values)));
        }
        let given: Vec<_> = stacked
            .iter()
            .map(|(spec, shape, values)| Given {
                spec,
                shape: shape.clone(),
                values,
            })
            .collect();
        run(&given)
    }

    /// Like [`compute`](Self::compute), for a task that is not unbatched: also checks that every output has a row for each item.
    fn compute_rows(&self, samples: &[&Sample], worker: usize) -> Result<Vec<Computed>, Fault> {
        let lengths = self.longest(samples);
        let computed = self.compute_padded(samples, lengths.as_deref(), worker)?;
        let computed = self.checked(computed, samples.len())?;
        let mismatch = self.padding.as_ref().zip(lengths);
        match mismatch.and_then(|(padding, lengths)| padding.mismatch(&computed, &lengths)) {
            None => Ok(computed),
            Some(problem) => Err(Fault::Outputs(problem)),
        }
    }

    /// Computes one item: in the fallback, if there is one and the runtime is not verified for the item.
    fn compute_alone(&self, sample: &Sample, worker: usize) -> Result<Vec<Computed>, Fault> {
        let computed = match self.compute(&[sample], worker) {
            Err(Fault::Unverified(reason)) => self.run(&[sample], None, |given| {
                self.network.run_unverified(given, &self.outputs, reason)
            }),
            computed => computed,
        };
        match self.mode {
            BatchMode::Unbatched => computed,
            BatchMode::Batched | BatchMode::ItemByItem => self.checked(computed?, 1),
        }
    }

    /// Returns the outputs for `count` items if every output has a row for each item.
    fn checked(&self, computed: Vec<Computed>, count: usize) -> Result<Vec<Computed>, Fault> {
        match self.not_rows(&computed, count) {
            None => Ok(computed),
            Some(problem) => Err(Fault::Outputs(problem)),
        }
    }
}

impl Fault {
    fn of_item(&self) -> ItemError {
        match self {
            Self::Inputs(message) => ItemError::fault(message),
            Self::Unverified(_) => ItemError::invalid(format_args!(
                "the model cannot compute this item: {}",
                self.message()
            )),
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
