//! The setting `pad`: which dimensions are padded with which values, and the check that the results of the model do not depend on
//! the padding.

use std::collections::BTreeMap;

use plugin_sdk::serde_json::Value as Json;
use plugin_sdk::{DType, LoadError};

use super::batch_mode::{BatchMode, Declared, is_meaningful};
use super::compare::{Difference, compare, tolerance};
use super::examples::from_json;
use super::{Keys, Plan, Slot, Tried};
use crate::network::{Dim, TensorSpec, shape_text};
use crate::padding::{OutputDim, PaddedInput, Padding, length_text};
use crate::runtime::Computed;
use crate::settings::BatchSetting;
use crate::task::Sample;
use crate::values::Values;

/// Maximum number of the examples of the settings with which padding is checked.
const MAX_EXAMPLES: usize = 4;

/// Fill values by the index of the input.
pub(super) type Fills = BTreeMap<usize, Values>;

/// Reads the fill values. `inputs` have the names that the setting uses.
pub(super) fn fills(
    settings: Option<&BTreeMap<String, Json>>,
    inputs: &[TensorSpec],
    keys: &Keys<'_>,
) -> Result<Option<Fills>, LoadError> {
    let Some(settings) = settings else {
        return Ok(None);
    };
    let names = || {
        let names: Vec<_> = inputs.iter().map(|spec| format!("`{}`", spec.name)).collect();
        names.join(", ")
    };
    if settings.is_empty() {
        let message = format!(
            "is empty, expected a fill value for at least one input of {}",
            names()
        );
        return Err(LoadError::setting(keys.of("pad", true), message));
    }
    let read = |(name, value): (&String, &Json)| {
        let blame =
            |message: String| LoadError::setting(format_args!("{}.{name}", keys.of("pad", true)), message);
        let index = inputs.iter().position(|spec| spec.name == *name);
        let index =
            index.ok_or_else(|| blame(format!("the task has no input `{name}`, expected {}", names())))?;
        let fill = fill(value, &inputs[index]).map_err(blame)?;
        Ok((index, fill))
    };
    settings.iter().map(read).collect::<Result<_, _>>().map(Some)
}

/// Converts a fill value to a single element of an input.
fn fill(value: &Json, spec: &TensorSpec) -> Result<Values, String> {
    let (is_in_range, expected) = match spec.dtype {
        DType::Bool => (value.is_boolean(), "true or false".to_owned()),
        DType::Bytes => (value.is_string(), "a string".to_owned()),
        DType::Fp16 | DType::Bf16 | DType::Fp32 | DType::Fp64 => {
            (value.is_number(), "a number within its range".to_owned())
        }
        DType::Int64 => integer(value, i64::MIN, i64::MAX as u64),
        DType::Int32 => integer(value, i32::MIN.into(), i32::MAX as u64),
        DType::Int16 => integer(value, i16::MIN.into(), i16::MAX as u64),
        DType::Int8 => integer(value, i8::MIN.into(), i8::MAX as u64),
        DType::Uint64 => integer(value, 0, u64::MAX),
        DType::Uint32 => integer(value, 0, u32::MAX.into()),
        DType::Uint16 => integer(value, 0, u16::MAX.into()),
        DType::Uint8 => integer(value, 0, u8::MAX.into()),
    };
    let held = is_in_range.then(|| from_json(spec.held, &[value])).flatten();
    let is_finite = |values: &Values| {
        let numbers = values.as_numbers().unwrap_or_default();
        numbers.iter().all(|number| number.is_finite())
    };
    held.filter(is_finite).ok_or_else(|| {
        format!(
            "{value}, expected {expected}: input `{}` is {}",
            spec.name,
            spec.dtype.name()
        )
    })
}

/// Whether a value is an integer from `min` to `max`, and what is expected.
fn integer(value: &Json, min: i64, max: u64) -> (bool, String) {
    let is_in_range = match (value.as_i64(), value.as_u64()) {
        (Some(negative), None) => negative >= min,
        (_, Some(positive)) => positive <= max,
        (None, None) => false,
    };
    (is_in_range, format!("an integer from {min} to {max}"))
}

impl Plan {
    /// The padding that the settings declare. Its outputs are not known yet.
    pub(super) fn declared_padding(
        &self,
        fills: Option<Fills>,
        declared: &Declared,
        keys: &Keys<'_>,
    ) -> Result<Option<Padding>, LoadError> {
        let Some(mut fills) = fills else {
            return Ok(None);
        };
        if declared.mode != BatchMode::Batched {
            return Err(not_batched(&declared.reason, keys));
        }
        let of_input = |index: usize| {
            // The settings name inputs as the file does.
            let name = &self.inputs[index].spec.file_name;
            format!("{}.{name}", keys.of("pad", true))
        };
        let mut names: Vec<&str> = Vec::new();
        let mut inputs = Vec::new();
        for (index, slot) in self.inputs.iter().enumerate() {
            let (Some(fill), Some(dims)) = (fills.remove(&index), &slot.dims) else {
                inputs.push(None);
                continue;
            };
            let axes: Vec<_> = dims.iter().map(|dim| axis(dim, &mut names)).collect();
            if axes.iter().all(Option::is_none) {
                let message = format!(
                    "input `{}` has no open dimension: its items have the shape {}",
                    slot.spec.name,
                    shape_text(dims)
                );
                return Err(LoadError::setting(of_input(index), message));
            }
            inputs.push(Some(PaddedInput {
                name: slot.spec.name.clone(),
                fill,
                axes,
            }));
        }
        for (index, slot) in self
            .inputs
            .iter()
            .enumerate()
            .filter(|(index, _)| inputs[*index].is_none())
        {
            let is_padded = |dim: &&Dim| matches!(dim, Dim::Open(name) if is_meaningful(name) && names.contains(&&**name));
            if let Some(dim) = slot.dims.iter().flatten().find(is_padded) {
                let message = format!(
                    "missing: input `{}` has the padded dimension `{dim}` as well, expected its fill value",
                    slot.spec.name
                );
                return Err(LoadError::setting(of_input(index), message));
            }
        }
        Ok(Some(Padding {
            inputs,
            axes: names.len(),
            outputs: Vec::new(),
        }))
    }

    /// Checks that the examples of the settings do not contradict themselves.
    pub(super) fn check_lengths(&self, examples: &[Sample], keys: &Keys<'_>) -> Result<(), LoadError> {
        let Some(padding) = &self.padding else {
            return Ok(());
        };
        examples.iter().try_for_each(|example| {
            let lengths = padding.lengths(example).map(drop);
            lengths.map_err(|problem| LoadError::setting(keys.of("examples", true), problem))
        })
    }

    /// Determines the padded dimensions of the outputs, and compares the results for padded items with those for unpadded ones.
    /// `examples` are those of the settings.
    pub(super) fn check_padding(
        &mut self,
        tried: &Tried,
        examples: Vec<Sample>,
        setting: BatchSetting,
        keys: &Keys<'_>,
    ) -> Result<(), LoadError> {
        let Some(padding) = &self.padding else {
            return Ok(());
        };
        // Another runtime may compute an item. If none does, the model is rejected later.
        let Some(item) = tried.sample() else {
            self.unchecked_padding = Some(keys.of("pad", true));
            return Ok(());
        };
        if tried.mode != BatchMode::Batched {
            return Err(not_batched(
                tried.reason().unwrap_or("the batch is fixed to 1"),
                keys,
            ));
        }
        let blame = |problem: String| LoadError::setting(keys.of("pad", true), problem);
        let outputs = self.padded_dims(padding, item).map_err(blame)?;
        let variants = variants(padding, item, &examples).map_err(blame)?;
        if let Some(padding) = &mut self.padding {
            padding.outputs = outputs;
        }
        let forced = setting == BatchSetting::Force;
        self.compare_padded(variants, forced).map_err(blame)
    }

    /// Finds out which dimensions of the outputs are padded: those that have the length of an item, padded or not.
    fn padded_dims(&self, padding: &Padding, item: &Sample) -> Result<Vec<Vec<OutputDim>>, String> {
        let lengths = padding.lengths(item)?;
        if lengths.contains(&0) {
            return Err(
                "cannot be checked: the item of the trial has a dimension of size 0; set `examples`"
                    .to_owned(),
            );
        }
        // The differences between the lengths tell axes apart.
        let longer = |lengths: &[usize], factor: usize| -> Vec<usize> {
            let longer = lengths.iter().enumerate();
            longer.map(|(axis, length)| length * factor + 1 + axis).collect()
        };
        let half: Vec<_> = lengths.iter().map(|length| (length / 2).max(1)).collect();
        let attempts = [
            (&half, longer(&half, 1)),
            (&lengths, longer(&lengths, 1)),
            (&half, lengths.clone()),
            (&lengths, lengths.iter().map(|length| length * 2).collect()),
        ];
        let mut failure = String::new();
        for (short, long) in attempts {
            let item = padding.resized(item, short);
            let run = |lengths: &[usize]| self.run_padded(&[&item], lengths);
            match run(short).and_then(|alone| Ok((alone, run(&long)?))) {
                Ok((alone, padded)) => return self.compare_dims(padding, [&alone, &padded], [short, &long]),
                Err(message) if failure.is_empty() => failure = message,
                Err(_) => {}
            }
        }
        Err(format!("the model cannot compute a padded item: {failure}"))
    }

    /// Computes items that are padded to these lengths. Every output has a row for each.
    fn run_padded(&self, samples: &[&Sample], lengths: &[usize]) -> Result<Vec<Computed>, String> {
        let computed = self
            .compute_padded(samples, Some(lengths), 0)
            .map_err(|fault| fault.message().into_owned())?;
        match self.not_rows(&computed, samples.len()) {
            None => Ok(computed),
            Some(problem) => Err(problem),
        }
    }

    /// Classifies the dimensions of the outputs of an item, unpadded and padded.
    fn compare_dims(
        &self,
        padding: &Padding,
        [alone, padded]: [&[Computed]; 2],
        [short, long]: [&[usize]; 2],
    ) -> Result<Vec<Vec<OutputDim>>, String> {
        let is_padded = |(index, slot): (usize, &Slot)| {
            let mut open = slot.dims.iter().flatten().enumerate();
            open.all(|(dim, size)| matches!(size, Dim::Fixed(_)) || padding.is_padded(index, dim))
        };
        let are_padded = self.inputs.iter().enumerate().all(is_padded);
        let dims = |(alone, padded): (&Computed, &Computed)| {
            let dim = |(one, other): (&usize, &usize)| {
                let axis = (0..padding.axes).find(|axis| short[*axis] == *one && long[*axis] == *other);
                match axis {
                    _ if one == other && are_padded => Some(OutputDim::Fixed(*one)),
                    _ if one == other => Some(OutputDim::Other),
                    axis => axis.map(OutputDim::Axis),
                }
            };
            let (one, other) = (&alone.shape[1..], &padded.shape[1..]);
            let dims: Option<Vec<_>> = one.iter().zip(other).map(dim).collect();
            dims.filter(|_| one.len() == other.len()).ok_or_else(|| {
                format!(
                    "output `{}` cannot be cut back: an item of the length {} has the shape {one:?}, and {other:?} if it is padded to \
                     {}; expected dimensions that have the length of the item, or do not depend on it",
                    self.outputs[alone.output].name,
                    length_text(short),
                    length_text(long)
                )
            })
        };
        alone.iter().zip(padded).map(dims).collect()
    }

    /// Compares what the model computes for each item alone with what it computes for all of them, padded to the longest. If items
    /// are allowed to affect one another (`forced`), each is padded alone.
    fn compare_padded(&self, variants: Vec<Sample>, forced: bool) -> Result<(), String> {
        let Some(padding) = &self.padding else {
            return Ok(());
        };
        let mut items = Vec::new();
        let mut failure = None;
        for variant in variants {
            let lengths = padding.lengths(&variant)?;
            match self.run_padded(&[&variant], &lengths) {
                Ok(alone) => items.push((lengths, variant, alone)),
                Err(message) => failure = failure.or(Some(message)),
            }
        }
        let samples: Vec<_> = items.iter().map(|(_, sample, _)| sample).collect();
        let longest = padding.longest(&samples);
        if items.iter().all(|(lengths, ..)| *lengths == longest) {
            let failure = failure.unwrap_or_else(|| "all examples have the same length".to_owned());
            return Err(format!(
                "cannot be checked: the model computes no items of different lengths: {failure}; set `examples` to such items"
            ));
        }
        let together = match forced {
            true => None,
            false => Some(self.run_padded(&samples, &longest).map_err(|failure| {
                format!("the model cannot compute items of different lengths together: {failure}")
            })?),
        };
        let half = self.network.is_half_precision();
        for (index, (lengths, sample, alone)) in items.iter().enumerate() {
            let padded: Vec<_> = match &together {
                Some(together) => together
                    .iter()
                    .map(|output| output.row(index, items.len()))
                    .collect(),
                None => {
                    let padded = self.run_padded(&[sample], &longest)?;
                    padded.iter().map(|output| output.row(0, 1)).collect()
                }
            };
            for (padded, alone) in padded.into_iter().zip(alone) {
                let name = &self.outputs[alone.output].name;
                let mut padded = padding.cut(padded, lengths);
                padded.shape.insert(0, 1);
                let difference = match compare(&padded, 0, 1, alone, half) {
                    Difference::None => continue,
                    Difference::Values => format!(
                        "it differs by more than {} of its largest number",
                        tolerance(half)
                    ),
                    Difference::Shape => {
                        format!(
                            "its shape is {:?} instead of {:?}",
                            &padded.shape[1..],
                            &alone.shape[1..]
                        )
                    }
                };
                return Err(format!(
                    "output `{name}` depends on padding: for an item of the length {} that is padded to {}, {difference}; expected a \
                     model that ignores padding, such as one with an attention mask that is padded with 0, or no `pad`",
                    length_text(lengths),
                    length_text(&longest)
                ));
            }
        }
        Ok(())
    }
}

/// Items of different lengths, derived from the item of the trial, and the examples.
fn variants(padding: &Padding, item: &Sample, examples: &[Sample]) -> Result<Vec<Sample>, String> {
    let lengths = padding.lengths(item)?;
    let scaled =
        |scale: fn(usize) -> usize| -> Vec<usize> { lengths.iter().map(|length| scale(*length)).collect() };
    let reversed = item.reversed();
    let mut variants = vec![
        item.clone(),
        padding.resized(item, &scaled(|length| length.div_ceil(2))),
        padding.resized(&reversed, &scaled(|length| length.div_ceil(2) + 1)),
        padding.resized(&reversed, &scaled(|length| 2 * length + 1)),
        padding.resized(item, &scaled(|_| 1)),
    ];
    for example in examples.iter().take(MAX_EXAMPLES) {
        if !padding.lengths(example)?.contains(&0) {
            variants.push(example.clone());
        }
    }
    Ok(variants)
}

/// The axis of a dimension, `None` if its size is fixed. Adds the name of a new axis to `names`.
fn axis<'a>(dim: &'a Dim, names: &mut Vec<&'a str>) -> Option<usize> {
    let Dim::Open(name) = dim else { return None };
    let name = axis_name(name);
    let known = names.iter().position(|known| *known == name);
    Some(known.unwrap_or_else(|| {
        names.push(name);
        names.len() - 1
    }))
}

/// The name that identifies the axis of an open dimension.
fn axis_name(name: &str) -> &str {
    if is_meaningful(name) { name } else { "" }
}

fn not_batched(reason: &str, keys: &Keys<'_>) -> LoadError {
    LoadError::setting(
        keys.of("pad", true),
        format_args!("requires a model whose items are batched: {reason}"),
    )
}
