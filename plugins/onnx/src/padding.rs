//! Padding of items of different lengths to the longest of a batch, and the reverse for outputs. Pure: `plan::padded` derives what
//! is padded from the settings, and verifies with the model that its results do not depend on it.
//!
//! An axis is a dimension whose size can differ between the items of a batch. All padded inputs that declare a dimension with the
//! same name share its axis, as do all unnamed ones, so an item has one length for each axis.

use std::borrow::Cow;
use std::ops::Range;

use crate::runtime::Computed;
use crate::task::{Sample, SampleTensor};
use crate::values::Values;

/// What is padded, and with which values.
#[derive(Debug)]
pub(crate) struct Padding {
    /// For each input of the task, `None` if it is not padded.
    pub(crate) inputs: Vec<Option<PaddedInput>>,
    /// Number of axes.
    pub(crate) axes: usize,
    /// The dimensions of each output, without the batch dimension.
    pub(crate) outputs: Vec<Vec<OutputDim>>,
}

/// An input with at least one padded dimension.
#[derive(Debug)]
pub(crate) struct PaddedInput {
    /// Name for clients.
    pub(crate) name: String,
    /// A single element.
    pub(crate) fill: Values,
    /// The axis of each dimension of an item, `None` for a dimension that is not padded.
    pub(crate) axes: Vec<Option<usize>>,
}

/// A dimension of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputDim {
    /// Has the length of an axis, and is cut back to that of each item.
    Axis(usize),
    /// Does not depend on the axes, which are the only open dimensions of the inputs.
    Fixed(usize),
    /// Does not depend on the axes, but other dimensions of the inputs are open.
    Other,
}

/// A part of a padded tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Elements of the tensor.
    Copy(Range<usize>),
    /// Repetitions of the fill value.
    Fill(usize),
}

impl Padding {
    /// Whether a dimension of an input is padded.
    pub(crate) fn is_padded(&self, slot: usize, dim: usize) -> bool {
        self.axis(slot, dim).is_some()
    }

    fn axis(&self, slot: usize, dim: usize) -> Option<usize> {
        *self.inputs.get(slot)?.as_ref()?.axes.get(dim)?
    }

    /// The length of an item along each axis.
    ///
    /// # Errors
    /// Two tensors of the item contradict each other.
    pub(crate) fn lengths(&self, sample: &Sample) -> Result<Vec<usize>, String> {
        let mut lengths: Vec<Option<(usize, &str)>> = vec![None; self.axes];
        for tensor in &sample.0 {
            let Some(input) = &self.inputs[tensor.slot] else {
                continue;
            };
            for (&size, axis) in tensor.shape.iter().zip(&input.axes) {
                let Some(axis) = axis else { continue };
                match lengths[*axis] {
                    None => lengths[*axis] = Some((size, &input.name)),
                    Some((length, _)) if length == size => {}
                    Some((length, other)) => {
                        return Err(format!(
                            "tensor `{}` has the length {size}, expected {length}, the length of tensor `{other}`",
                            input.name
                        ));
                    }
                }
            }
        }
        Ok(lengths
            .into_iter()
            .map(|length| length.map_or(0, |(length, _)| length))
            .collect())
    }

    /// The greatest length along each axis.
    pub(crate) fn longest(&self, samples: &[&Sample]) -> Vec<usize> {
        let mut longest = vec![0; self.axes];
        for tensor in samples.iter().flat_map(|sample| &sample.0) {
            for (dim, &size) in tensor.shape.iter().enumerate() {
                if let Some(axis) = self.axis(tensor.slot, dim) {
                    longest[axis] = size.max(longest[axis]);
                }
            }
        }
        longest
    }

    /// The shape of a tensor of an item that is padded to these lengths.
    pub(crate) fn shape(&self, tensor: &SampleTensor, lengths: &[usize]) -> Vec<usize> {
        let size =
            |(dim, size): (usize, &usize)| self.axis(tensor.slot, dim).map_or(*size, |axis| lengths[axis]);
        tensor.shape.iter().enumerate().map(size).collect()
    }

    /// The values of a tensor that is padded to `shape`.
    pub(crate) fn padded<'a>(&self, tensor: &'a SampleTensor, shape: &[usize]) -> Cow<'a, Values> {
        match &self.inputs[tensor.slot] {
            Some(input) if tensor.shape != shape => {
                Cow::Owned(tensor.values.padded(&padded(&tensor.shape, shape), &input.fill))
            }
            _ => Cow::Borrowed(&tensor.values),
        }
    }

    /// The same item with other lengths: its elements are repeated or dropped at the end. No length may be 0.
    pub(crate) fn resized(&self, sample: &Sample, lengths: &[usize]) -> Sample {
        let resize = |tensor: &SampleTensor| tensor.resized(self.shape(tensor, lengths));
        let mut origin = sample.1;
        if let (Some(tokens), [length]) = (&mut origin.tokens, lengths) {
            *tokens = *length;
        }
        Sample(sample.0.iter().map(resize).collect(), origin)
    }

    /// Why the outputs of a batch that is padded to these lengths cannot be cut back; `None` if they can.
    pub(crate) fn mismatch(&self, computed: &[Computed], lengths: &[usize]) -> Option<String> {
        computed.iter().find_map(|computed| {
            let dims = &self.outputs[computed.output];
            let shape = computed.shape.get(1..).unwrap_or_default();
            let expected = |(dim, size): (&OutputDim, &usize)| match dim {
                OutputDim::Axis(axis) => lengths[*axis] == *size,
                OutputDim::Fixed(fixed) => fixed == size,
                OutputDim::Other => true,
            };
            let fits = dims.len() == shape.len() && dims.iter().zip(shape).all(expected);
            (!fits).then(|| {
                format!(
                    "an output has the shape {:?} for items that are padded to the length {}",
                    computed.shape,
                    length_text(lengths)
                )
            })
        })
    }

    /// Whether outputs have to be cut back.
    pub(crate) fn cuts(&self) -> bool {
        let is_axis = |dim: &OutputDim| matches!(dim, OutputDim::Axis(_));
        self.outputs.iter().flatten().any(is_axis)
    }

    /// Removes the padding from an output of an item with these lengths. It has no batch dimension.
    pub(crate) fn cut(&self, output: Computed, lengths: &[usize]) -> Computed {
        let dims = &self.outputs[output.output];
        let size = |(size, dim): (&usize, &OutputDim)| match dim {
            OutputDim::Axis(axis) => lengths[*axis].min(*size),
            OutputDim::Fixed(_) | OutputDim::Other => *size,
        };
        let shape: Vec<_> = output.shape.iter().zip(dims).map(size).collect();
        if shape == output.shape {
            return output;
        }
        Computed {
            values: output.values.picked(&resized(&output.shape, &shape)),
            shape,
            ..output
        }
    }
}

impl SampleTensor {
    /// The same tensor with other sizes, none of which may be 0: its elements are repeated or dropped at the end.
    pub(crate) fn resized(&self, shape: Vec<usize>) -> Self {
        Self {
            slot: self.slot,
            values: self.values.picked(&resized(&self.shape, &shape)),
            shape,
        }
    }
}

/// Formats the lengths of an item for messages.
pub(crate) fn length_text(lengths: &[usize]) -> String {
    let lengths: Vec<_> = lengths.iter().map(usize::to_string).collect();
    lengths.join("×")
}

/// The pieces of a tensor of the shape `shape` that is padded at the end of its dimensions to `target`.
fn padded(shape: &[usize], target: &[usize]) -> Vec<Piece> {
    fn push(shape: &[usize], target: &[usize], offset: usize, pieces: &mut Vec<Piece>) {
        let (Some((&count, inner)), Some((&wanted, inner_target))) =
            (shape.split_first(), target.split_first())
        else {
            pieces.push(Piece::Copy(offset..offset + 1));
            return;
        };
        let size: usize = inner.iter().product();
        if inner == inner_target {
            pieces.push(Piece::Copy(offset..offset + count * size));
        } else {
            (0..count).for_each(|row| push(inner, inner_target, offset + row * size, pieces));
        }
        let missing = wanted.saturating_sub(count) * inner_target.iter().product::<usize>();
        if missing > 0 {
            pieces.push(Piece::Fill(missing));
        }
    }
    let mut pieces = Vec::new();
    push(shape, target, 0, &mut pieces);
    pieces
}

/// The parts of a tensor of the shape `shape` that form one of the shape `target`: dimensions are cut at the end, or repeated.
fn resized(shape: &[usize], target: &[usize]) -> Vec<Range<usize>> {
    fn push(shape: &[usize], target: &[usize], offset: usize, ranges: &mut Vec<Range<usize>>) {
        let (Some((&count, inner)), Some((&wanted, inner_target))) =
            (shape.split_first(), target.split_first())
        else {
            ranges.push(offset..offset + 1);
            return;
        };
        let size: usize = inner.iter().product();
        if inner == inner_target && wanted <= count {
            ranges.push(offset..offset + wanted * size);
        } else if count > 0 {
            (0..wanted).for_each(|row| push(inner, inner_target, offset + row % count * size, ranges));
        }
    }
    let mut ranges = Vec::new();
    push(shape, target, 0, &mut ranges);
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Origin;

    fn tensor(slot: usize, shape: &[usize], values: &[i32]) -> SampleTensor {
        SampleTensor {
            slot,
            shape: shape.to_vec(),
            values: Values::I32(values.to_vec()),
        }
    }

    /// Padding of an input `[length, 2]` and an input `[length, length]`.
    fn padding() -> Padding {
        let input = |name: &str, axes: &[Option<usize>], fill| {
            Some(PaddedInput {
                name: name.to_owned(),
                fill: Values::I32(vec![fill]),
                axes: axes.to_vec(),
            })
        };
        Padding {
            inputs: vec![
                input("x", &[Some(0), None], 9),
                input("pairs", &[Some(0), Some(0)], 7),
            ],
            axes: 1,
            outputs: vec![vec![OutputDim::Axis(0), OutputDim::Fixed(2)]],
        }
    }

    #[test]
    fn every_padded_dimension_is_filled_at_its_end() {
        let padding = padding();
        let x = tensor(0, &[1, 2], &[1, 2]);
        let pairs = tensor(1, &[2, 2], &[1, 2, 3, 4]);
        for (tensor, shape, values) in [
            (&x, vec![3, 2], vec![1, 2, 9, 9, 9, 9]),
            (&pairs, vec![3, 3], vec![1, 2, 7, 3, 4, 7, 7, 7, 7]),
        ] {
            assert_eq!(padding.shape(tensor, &[3]), shape);
            assert_eq!(*padding.padded(tensor, &shape), Values::I32(values));
        }
    }

    #[test]
    fn the_lengths_of_an_item_must_agree() {
        let sample = |length: usize| {
            let pairs = tensor(1, &[length, length], &vec![0; length * length]);
            Sample(vec![tensor(0, &[2, 2], &[0; 4]), pairs], Origin::default())
        };
        let padding = padding();
        assert_eq!(padding.lengths(&sample(2)), Ok(vec![2]));
        assert_eq!(
            padding.lengths(&sample(3)),
            Err("tensor `pairs` has the length 3, expected 2, the length of tensor `x`".to_owned())
        );
    }

    #[test]
    fn outputs_are_cut_back_to_the_length_of_the_item() {
        let computed = |shape: &[usize], values: &[i32]| Computed {
            output: 0,
            position: None,
            shape: shape.to_vec(),
            values: Values::I32(values.to_vec()),
        };
        let padding = padding();
        let cut = padding.cut(computed(&[3, 2], &[1, 2, 3, 4, 5, 6]), &[2]);
        assert_eq!(
            (cut.shape, cut.values),
            (vec![2, 2], Values::I32(vec![1, 2, 3, 4]))
        );
        assert_eq!(padding.mismatch(&[computed(&[1, 3, 2], &[0; 6])], &[3]), None);
        for shape in [&[1, 2, 2][..], &[1, 3, 3], &[1, 3]] {
            let computed = computed(shape, &vec![0; shape.iter().product()]);
            assert!(padding.mismatch(&[computed], &[3]).is_some(), "{shape:?}");
        }
    }

    #[test]
    fn an_item_is_resized_by_repeating_and_dropping_its_elements() {
        let sample = Sample(vec![tensor(1, &[2, 2], &[1, 2, 3, 4])], Origin::default());
        let resized = |length| padding().resized(&sample, &[length]).0.remove(0).values;
        assert_eq!(resized(1), Values::I32(vec![1]));
        assert_eq!(resized(3), Values::I32(vec![1, 2, 1, 3, 4, 3, 1, 2, 1]));
    }
}
