//! Converts the values that clients send to items, and determines the weight and batch group of each item.

use std::hash::{DefaultHasher, Hash, Hasher};

use plugin_sdk::prelude::*;

use crate::answers::boxes::Frame;
use crate::network::{Dim, shape_text};
use crate::plan::{Plan, Slot};
use crate::values::Values;

/// One item, ready for inference: its tensors in the order of the task's inputs, one for each input or any number for a sequence,
/// and their origin.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample(pub(crate) Vec<SampleTensor>, pub(crate) Origin);

/// The properties of an item's original value that its answer depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Origin {
    /// Position of the image within the tensor, if the item is an image.
    pub(crate) frame: Option<Frame>,
    /// Number of tokens, if the item is a text.
    pub(crate) tokens: Option<usize>,
}

/// One tensor of an item.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SampleTensor {
    /// Index of the input.
    pub(crate) slot: usize,
    /// Without the batch dimension, unless the task is unbatched.
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Values,
}

impl SampleTensor {
    pub(crate) fn has_type_of(&self, other: &Self) -> bool {
        self.values.element_type() == other.values.element_type()
    }
}

impl Sample {
    /// The same item with a leading batch dimension of size 1.
    pub(crate) fn with_batch_of_one(mut self) -> Self {
        self.0.iter_mut().for_each(|tensor| tensor.shape.insert(0, 1));
        self
    }

    /// The same item with the elements of each tensor in reverse order.
    pub(crate) fn reversed(&self) -> Self {
        let reversed = |tensor: &SampleTensor| SampleTensor {
            values: tensor.values.reversed(),
            ..tensor.clone()
        };
        Self(self.0.iter().map(reversed).collect(), self.1)
    }

    pub(crate) fn has_shapes_of(&self, other: &Self) -> bool {
        let shapes = |sample: &Self| {
            sample
                .0
                .iter()
                .map(|tensor| tensor.shape.clone())
                .collect::<Vec<_>>()
        };
        shapes(self) == shapes(other)
    }
}

impl Plan {
    pub(super) fn prepare(&self, value: Value<'_>) -> Result<Prepared<Sample>, ItemError> {
        if let Some(texts) = &self.texts {
            let Value::Text(text) = value else {
                return Err(ItemError::invalid("expected a text"));
            };
            let sample = texts.read(text)?;
            let (weight, group) = (sample.1.tokens.unwrap_or(1) as u64, self.group(&sample)?);
            return Ok(Prepared::new(sample).weight(weight).group(group));
        }
        let sample = match (value, &self.images) {
            (Value::Tensors(tensors), _) => self.read_tensors(&tensors)?,
            (Value::Bytes(bytes), Some(images)) => images.read(bytes.data)?,
            (_, Some(_)) => return Err(ItemError::invalid("expected the bytes of an image, or a tensor")),
            (_, None) => return Err(ItemError::invalid("expected tensors")),
        };
        let (weight, group) = (self.weight(&sample), self.group(&sample)?);
        Ok(Prepared::new(sample).weight(weight).group(group))
    }

    fn read_tensors(&self, tensors: &TensorsView<'_>) -> Result<Sample, ItemError> {
        let mut sample = Vec::with_capacity(self.inputs.len());
        let mut used = Vec::with_capacity(self.inputs.len());
        for (index, slot) in self.inputs.iter().enumerate() {
            if !slot.spec.sequence {
                let tensor = tensors.get(&slot.spec.name)?;
                sample.push(read_tensor(&tensor, index, slot)?);
                used.push(tensor.name());
                continue;
            }
            for position in 0.. {
                let name = format!("{}.{position}", slot.spec.name);
                let Some(tensor) = tensors.iter().find(|tensor| tensor.name() == name) else {
                    break;
                };
                sample.push(read_tensor(&tensor, index, slot)?);
                used.push(tensor.name());
            }
        }
        match tensors.iter().find(|tensor| !used.contains(&tensor.name())) {
            None => Ok(Sample(sample, Origin::default())),
            Some(unknown) => Err(ItemError::invalid(format_args!(
                "the task has no input `{}`",
                unknown.name()
            ))),
        }
    }

    /// The product of the open dimensions of a tensor, such as the number of tokens or pixels; the maximum over all tensors. 1 if
    /// all dimensions are fixed.
    fn weight(&self, sample: &Sample) -> u64 {
        let weight = |tensor: &SampleTensor| {
            let is_open = |index: usize| match &self.inputs[tensor.slot].dims {
                Some(dims) => matches!(dims.get(index), Some(Dim::Open(_))),
                None => true,
            };
            let open = tensor
                .shape
                .iter()
                .enumerate()
                .filter(|(index, _)| is_open(*index));
            open.fold(1_u64, |weight, (_, &size)| weight.saturating_mul(size as u64))
        };
        sample.0.iter().map(weight).max().unwrap_or(1).max(1)
    }

    /// The batch group: a hash of the element types, and of the shapes except for padded dimensions, since only items with the same
    /// ones can be stacked. 0 if all shapes are fixed or padded and all elements have the type in which the runtime holds them.
    ///
    /// # Errors
    /// The tensors of the item contradict each other.
    fn group(&self, sample: &Sample) -> Result<u64, ItemError> {
        let lengths = self.padding.as_ref().map(|padding| padding.lengths(sample));
        let lengths = lengths.transpose().map_err(ItemError::invalid)?;
        let is_held =
            |tensor: &SampleTensor| tensor.values.element_type() == self.inputs[tensor.slot].spec.held;
        let are_held = sample.0.iter().all(is_held);
        // Items without elements are not padded: a model may compute something else for nothing but padding. Neither are items with
        // other element types than the fill values.
        let are_padded = are_held && lengths.is_some_and(|lengths| !lengths.contains(&0));
        let padding = self.padding.as_ref().filter(|_| are_padded);
        let is_alike = |index: usize, slot: &Slot| {
            let is_alike = |(dim, size): (usize, &Dim)| {
                matches!(size, Dim::Fixed(_)) || padding.is_some_and(|padding| padding.is_padded(index, dim))
            };
            let dims = slot.dims.as_ref().filter(|_| !slot.spec.sequence);
            dims.is_some_and(|dims| dims.iter().enumerate().all(is_alike))
        };
        let mut slots = self.inputs.iter().enumerate();
        if are_held && slots.all(|(index, slot)| is_alike(index, slot)) {
            return Ok(0);
        }
        let mut hasher = DefaultHasher::new();
        for tensor in &sample.0 {
            for (dim, size) in tensor.shape.iter().enumerate() {
                let is_padded = padding.is_some_and(|padding| padding.is_padded(tensor.slot, dim));
                (!is_padded).then_some(size).hash(&mut hasher);
            }
            (tensor.shape.len(), is_held(tensor)).hash(&mut hasher);
        }
        Ok(hasher.finish())
    }
}

fn read_tensor(tensor: &TensorView<'_>, index: usize, slot: &Slot) -> Result<SampleTensor, ItemError> {
    let fits = |(size, dim): (&u64, &Dim)| match dim {
        Dim::Fixed(wanted) => *size == *wanted as u64,
        Dim::Open(_) => true,
    };
    if let Some(dims) = &slot.dims {
        let shape = tensor.shape();
        if shape.len() != dims.len() || !shape.iter().zip(dims).all(fits) {
            return Err(ItemError::invalid(format_args!(
                "tensor `{}` has the shape {shape:?}, expected {}",
                tensor.name(),
                shape_text(dims)
            )));
        }
    }
    Ok(SampleTensor {
        slot: index,
        shape: tensor.shape().iter().map(|size| *size as usize).collect(),
        values: Values::read(tensor, slot.spec.dtype, slot.spec.held)?,
    })
}
