//! A task at work: prepares items, stacks them into batches, runs the model and hands out the rows. What a task is was
//! decided by `plan`, and does not change.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;

use plugin_sdk::manifest::{Kind, ValueManifest};
use plugin_sdk::prelude::*;
use plugin_sdk::{Input, Output};

use crate::Onnx;
use crate::network::{Dim, Port, shape_text};
use crate::plan::{Plan, Slot};
use crate::ranking::Classification;
use crate::runtime::{Computed, Fault, Given};
use crate::values::Values;

/// One item, ready to be stacked: a tensor for each input.
#[derive(Debug)]
pub(crate) struct Sample(pub(crate) Vec<SampleTensor>);

/// One tensor of an item, without a batch dimension.
#[derive(Debug)]
pub(crate) struct SampleTensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Values,
}

/// A plan, served with inputs `I` and outputs `O`.
pub(crate) struct Served<I, O> {
    plan: Arc<Plan>,
    marker: PhantomData<fn() -> (I, O)>,
}

impl<I, O> Served<I, O> {
    pub(crate) fn new(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            marker: PhantomData,
        }
    }
}

impl<I, O> PreparedTask<Onnx> for Served<I, O>
where
    I: for<'a> Input<Value<'a> = Value<'a>>,
    O: Answer,
{
    type Input = I;
    type Output = O;
    type Prepared = Sample;

    fn describe(&self) -> TaskInfo {
        self.plan.info.clone()
    }

    fn prepare(&self, _model: &Onnx, item: Item<'_, Value<'_>>) -> Result<Prepared<Sample>, ItemError> {
        self.plan.prepare(item.value)
    }

    fn predict(&self, _model: &Onnx, batch: Batch<'_, &Sample>) -> Result<Outputs<O::Item>, BatchError> {
        let plan = &*self.plan;
        let worker = batch.worker();
        // A batch fails as a whole when the graph cannot run one of its items (an index out of range, say). The others must
        // not pay for that, so each then runs alone.
        if !plan.singly || batch.len() == 1 {
            match plan.compute(&batch, worker) {
                Ok(values) => return O::rows(plan, values, batch.len()),
                Err(fault) if batch.len() == 1 => return Ok([Err(fault.of_item())].into_iter().collect()),
                Err(fault) => log::debug!(
                    "a batch of {} runs item by item: {}",
                    batch.len(),
                    fault.message()
                ),
            }
        }
        let alone = |sample: &&Sample| {
            let values = plan.compute(&[sample], worker).map_err(|fault| fault.of_item())?;
            O::only(plan, values)
        };
        Ok(batch.iter().map(alone).collect())
    }
}

impl Plan {
    fn prepare(&self, value: Value<'_>) -> Result<Prepared<Sample>, ItemError> {
        let sample = match (value, &self.eye, &self.inputs[..]) {
            (Value::Tensors(tensors), _, slots) => {
                let unknown = tensors
                    .iter()
                    .find(|tensor| slots.iter().all(|slot| slot.port.name != tensor.name()));
                if let Some(unknown) = unknown {
                    return Err(ItemError::invalid(format_args!(
                        "the task has no input `{}`",
                        unknown.name()
                    )));
                }
                Sample(
                    slots
                        .iter()
                        .map(|slot| read_tensor(&tensors.get(&slot.port.name)?, slot))
                        .collect::<Result<_, _>>()?,
                )
            }
            (Value::Bytes(bytes), Some(eye), [slot]) => {
                let shape = eye.shape(&slot.sizes());
                let values = Values::from_pixels(eye.read(bytes.data)?, slot.port.held);
                Sample(vec![SampleTensor { shape, values }])
            }
            (_, Some(_), _) => return Err(ItemError::invalid("expected the bytes of an image, or a tensor")),
            (_, None, _) => return Err(ItemError::invalid("expected tensors")),
        };
        let prepared = (self.weight(&sample)?, self.group(&sample));
        Ok(Prepared::new(sample).weight(prepared.0).group(prepared.1))
    }

    /// How many elements the open dimensions make: tokens, or pixels. 1 where every size is fixed.
    fn weight(&self, sample: &Sample) -> Result<u64, ItemError> {
        let mut heaviest = 1;
        let mut open: HashMap<&str, (usize, &str)> = HashMap::new();
        for (slot, tensor) in self.inputs.iter().zip(&sample.0) {
            let mut weight = 1_u64;
            for (dim, &size) in slot.dims.iter().zip(&tensor.shape) {
                let Dim::Open(name) = dim else { continue };
                weight = weight.saturating_mul(size as u64);
                let (known, input) = *open.entry(name).or_insert((size, &slot.port.name));
                if known != size && !name.is_empty() {
                    return Err(ItemError::invalid(format_args!(
                        "dimension `{name}` is {known} in tensor `{input}` and {size} in tensor `{}`, expected the same",
                        slot.port.name
                    )));
                }
            }
            heaviest = heaviest.max(weight);
        }
        Ok(heaviest)
    }

    /// Only items of the same shapes can be stacked.
    fn group(&self, sample: &Sample) -> u64 {
        if self
            .inputs
            .iter()
            .all(|slot| slot.sizes().iter().all(Option::is_some))
        {
            return 0;
        }
        let mut hasher = DefaultHasher::new();
        sample.0.iter().for_each(|tensor| tensor.shape.hash(&mut hasher));
        hasher.finish()
    }

    /// Stacks the items and runs the model: a value for each output, whose first dimension counts items.
    pub(crate) fn compute(&self, samples: &[&Sample], worker: usize) -> Result<Vec<Computed>, Fault> {
        let mut stacked = Vec::with_capacity(self.inputs.len());
        for index in 0..self.inputs.len() {
            let tensors: Vec<_> = samples.iter().map(|sample| &sample.0[index]).collect();
            let mut shape = vec![samples.len()];
            shape.extend(tensors.first().map_or(&[][..], |first| &first.shape));
            if let Some(odd) = tensors.iter().find(|tensor| tensor.shape[..] != shape[1..]) {
                let (one, other) = (&shape[1..], &odd.shape);
                return Err(Fault::Failed(format!(
                    "a batch has items of the shapes {one:?} and {other:?}"
                )));
            }
            let values: Vec<_> = tensors.iter().map(|tensor| &tensor.values).collect();
            stacked.push((shape, Values::concat(&values)));
        }
        let given = self.inputs.iter().zip(&stacked);
        let given: Vec<_> = given
            .map(|(slot, (shape, values))| Given {
                port: &slot.port,
                shape: shape.clone(),
                values,
            })
            .collect();
        self.network.run(&given, &self.outputs, worker)
    }
}

impl Fault {
    fn message(&self) -> &str {
        let (Self::Inputs(message) | Self::Failed(message)) = self;
        message
    }

    /// The graph ran at load, so that it does not run now is due to the item.
    fn of_item(&self) -> ItemError {
        match self {
            Self::Inputs(message) => ItemError::fault(message),
            Self::Failed(message) => {
                ItemError::invalid(format_args!("the model cannot compute this item: {message}"))
            }
        }
    }
}

fn read_tensor(tensor: &TensorView<'_>, slot: &Slot) -> Result<SampleTensor, ItemError> {
    let fits = tensor.shape().len() == slot.dims.len()
        && tensor
            .shape()
            .iter()
            .zip(&slot.dims)
            .all(|(size, dim)| match dim {
                Dim::Fixed(wanted) => *size == *wanted as u64,
                Dim::Open(_) => *size > 0,
            });
    if !fits {
        return Err(ItemError::invalid(format_args!(
            "tensor `{}` has the shape {:?}, expected {}",
            tensor.name(),
            tensor.shape(),
            shape_text(&slot.dims)
        )));
    }
    Ok(SampleTensor {
        shape: tensor.shape().iter().map(|size| *size as usize).collect(),
        values: Values::read(tensor, slot.port.dtype, slot.port.held)?,
    })
}

/// How a task's output is made from what the model computed.
pub(crate) trait Answer: Output {
    /// Of a batch of `count` items.
    fn rows(plan: &Plan, values: Vec<Computed>, count: usize) -> Result<Outputs<Self::Item>, BatchError>;

    /// Of a single item.
    fn only(plan: &Plan, values: Vec<Computed>) -> Result<Self::Item, ItemError>;
}

impl Answer for Tensors {
    fn rows(
        plan: &Plan,
        values: Vec<Computed>,
        _count: usize,
    ) -> Result<Outputs<Vec<TensorOutput>>, BatchError> {
        Ok(Outputs::<Vec<_>>::batch(tensors(plan, values, 0)))
    }

    fn only(plan: &Plan, values: Vec<Computed>) -> Result<Vec<TensorOutput>, ItemError> {
        Ok(tensors(plan, values, 1))
    }
}

/// The first `skip` dimensions, which are 1, are left out of the shapes.
fn tensors(plan: &Plan, values: Vec<Computed>, skip: usize) -> Vec<TensorOutput> {
    let answer = |(port, computed): (&Port, Computed)| {
        let shape = &computed.shape[skip..];
        computed.values.answer(&port.name, port.dtype, shape)
    };
    plan.outputs.iter().zip(values).map(answer).collect()
}

impl Answer for Json<Classification> {
    fn rows(plan: &Plan, values: Vec<Computed>, count: usize) -> Result<Outputs<Classification>, BatchError> {
        classify(plan, values, count).map_err(BatchError::Failed)
    }

    fn only(plan: &Plan, values: Vec<Computed>) -> Result<Classification, ItemError> {
        let mut all = rank(plan, values, 1).map_err(ItemError::Fault)?;
        all.pop()
            .unwrap_or_else(|| Err(ItemError::fault("the model computed nothing")))
    }
}

fn classify(plan: &Plan, values: Vec<Computed>, count: usize) -> Result<Outputs<Classification>, String> {
    Ok(rank(plan, values, count)?.into_iter().collect())
}

fn rank(
    plan: &Plan,
    values: Vec<Computed>,
    count: usize,
) -> Result<Vec<Result<Classification, ItemError>>, String> {
    let computed = values.into_iter().next();
    let computed = computed.and_then(|computed| Some((computed.shape, computed.values.into_floats()?)));
    let (Some(ranking), Some((shape, scores))) = (&plan.ranking, computed) else {
        return Err("the model computed no scores".to_owned());
    };
    if shape.first() != Some(&count) || scores.len() != count * ranking.len() {
        let labels = ranking.len();
        return Err(format!(
            "the model computed scores of the shape {shape:?}, expected {count} times {labels} labels"
        ));
    }
    Ok(scores
        .chunks_exact(ranking.len())
        .map(|row| ranking.rank(row))
        .collect())
}

/// Input of a task that takes tensors alone.
pub(crate) struct TensorsAlone;

/// Input of a task that takes an image, or the tensor that it would become.
pub(crate) struct ImageOrTensors;

impl Input for TensorsAlone {
    type Value<'a> = Value<'a>;

    fn manifest() -> ValueManifest {
        <Tensors as Input>::manifest()
    }

    fn decode<'a>(value: Value<'a>) -> Result<Value<'a>, ItemError> {
        Ok(value)
    }
}

impl Input for ImageOrTensors {
    type Value<'a> = Value<'a>;

    fn manifest() -> ValueManifest {
        ValueManifest {
            kinds: vec![Kind::Bytes, Kind::Tensors],
            ..ValueManifest::default()
        }
    }

    fn decode<'a>(value: Value<'a>) -> Result<Value<'a>, ItemError> {
        Ok(value)
    }
}
