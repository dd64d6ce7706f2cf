//! Converts the tensors of a request to items.

use std::collections::HashSet;

use bytes::Bytes;
use plugin_abi::manifest::{Kind, TaskManifest, ValueManifest};
use serde::de::IgnoredAny;

use super::tensors_error::TensorsError;
use super::{BYTES, JSON, TEXT, TensorSpec, find, hint, list_specs, main_kind, outputs, specs};
use crate::api::BodyLimits;
use crate::api::failure::excerpt;
use crate::codec::media_types::check_media_type;
use crate::error::ItemError;
use crate::json::{self, too_deep};
use crate::values::{DType, ItemInput, Tensor, Value, byte_strings};

/// A tensor as the client sent it, unchecked.
#[derive(Clone, Debug, PartialEq)]
pub struct InputTensor {
    /// Name of the tensor.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape, including the batch dimension, unless the task is unbatched.
    pub shape: Vec<u64>,
    /// Elements in little-endian order.
    pub data: Bytes,
    /// Media types of the elements, if the client states them.
    pub media_types: MediaTypes,
}

/// Media types of the elements of a tensor. An empty string means unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaTypes {
    /// One for all elements.
    Shared(String),
    /// One per element, in order.
    Each(Vec<String>),
}

impl Default for MediaTypes {
    fn default() -> Self {
        Self::Shared(String::new())
    }
}

impl MediaTypes {
    fn of(&self, element: usize) -> &str {
        match self {
            Self::Shared(media_type) => media_type,
            Self::Each(each) => each.get(element).map_or("", String::as_str),
        }
    }
}

/// Converts the tensors of a request to items. `parameters` is a JSON object or empty, and is shared by all items.
pub fn items_from_tensors(
    task: &TaskManifest,
    inputs: Vec<InputTensor>,
    parameters: &Bytes,
    limits: BodyLimits,
) -> Result<Vec<Result<ItemInput, ItemError>>, TensorsError> {
    let kind = input_kind(&task.input, &inputs);
    let specs = specs(task, &task.input, kind);
    let tensors = match_inputs(&specs, inputs, kind, limits.items)?;
    let values = match kind {
        Kind::Tensors if task.unbatched => {
            let tensors = tensors.into_iter().map(|matched| matched.tensor);
            vec![Ok(Value::Tensors(tensors.collect()))]
        }
        Kind::Tensors => rows(tensors).into_iter().map(Ok).collect(),
        Kind::Text | Kind::Bytes | Kind::Json => elements(task, tensors, kind, limits.depth)?,
    };
    let item = |value: Result<Value, ItemError>| {
        Ok(ItemInput {
            value: value?,
            parameters: parameters.clone(),
        })
    };
    Ok(values.into_iter().map(item).collect())
}

/// Returns the input kind that the client uses, judging by the name of its tensor.
fn input_kind(input: &ValueManifest, inputs: &[InputTensor]) -> Kind {
    match inputs {
        [only] => kind_named(input, &only.name),
        _ => main_kind(&input.kinds),
    }
}

/// Returns the input kind that a tensor with this name belongs to.
fn kind_named(input: &ValueManifest, name: &str) -> Kind {
    let main = main_kind(&input.kinds);
    if main == Kind::Tensors && input.find_tensor(name).is_some() {
        return main;
    }
    [(TEXT, Kind::Text), (BYTES, Kind::Bytes), (JSON, Kind::Json)]
        .into_iter()
        .find(|(known, kind)| *known == name && input.kinds.contains(kind))
        .map_or(main, |(_, kind)| kind)
}

/// Returns the maximum number of elements of an input, which limits how many are read; `None` if items can have any
/// size.
///
/// # Errors
/// If the task has no such input, or the shape has too many items.
pub fn max_elements(
    task: &TaskManifest,
    name: &str,
    shape: &[u64],
    limits: BodyLimits,
) -> Result<Option<u64>, TensorsError> {
    let specs = specs(task, &task.input, kind_named(&task.input, name));
    let Some((index, _)) = find(&specs, name) else {
        return Err(unknown_input(name, &specs));
    };
    let spec = &specs[index];
    let max_items = if spec.batched { limits.items as u64 } else { 1 };
    let items = shape.first().filter(|_| spec.batched);
    if let Some(&items) = items.filter(|&&items| items > max_items) {
        return Err(TensorsError::TooManyItems {
            name: name.to_owned(),
            got: items,
            limit: limits.items,
        });
    }
    if spec.unranked {
        return Ok(None);
    }
    let sizes = spec.item_shape.iter().map(|&dim| u64::try_from(dim).ok());
    Ok(sizes
        .into_iter()
        .try_fold(max_items, |product, size| Some(product.saturating_mul(size?))))
}

/// Checks the datatype of an input before its data is read.
///
/// # Errors
/// If the task has no such input, or one of another datatype.
pub fn check_datatype(task: &TaskManifest, name: &str, dtype: DType) -> Result<(), TensorsError> {
    let specs = specs(task, &task.input, kind_named(&task.input, name));
    match find(&specs, name) {
        Some((index, _)) => specs[index].check_datatype(name, dtype),
        None => Err(unknown_input(name, &specs)),
    }
}

fn unknown_input(name: &str, specs: &[TensorSpec<'_>]) -> TensorsError {
    if specs.iter().any(|spec| spec.sequence && spec.name == name) {
        let name = name.to_owned();
        return TensorsError::Sequence { name };
    }
    TensorsError::Unknown {
        hint: hint(name, specs),
        expected: list_specs(specs),
        name: excerpt(name).to_owned(),
    }
}

/// A checked input tensor with the media types of its elements.
struct MatchedInput {
    tensor: Tensor,
    media_types: MediaTypes,
}

/// Checks the inputs and returns them in the order of `specs`, tensors of a sequence in the order of the sequence.
fn match_inputs(
    specs: &[TensorSpec<'_>],
    inputs: Vec<InputTensor>,
    kind: Kind,
    max_items: usize,
) -> Result<Vec<MatchedInput>, TensorsError> {
    let mut first: Option<(String, u64)> = None;
    let mut matched = Vec::with_capacity(specs.len());
    for (spec, input) in sort_inputs(specs, inputs)? {
        let items = check(spec, &input, kind, max_items)?;
        match &first {
            None => first = Some((input.name.clone(), items)),
            Some((other, expected)) if *expected != items => {
                return Err(TensorsError::Count {
                    name: input.name,
                    got: items,
                    other: other.clone(),
                    expected: *expected,
                });
            }
            Some(_) => {}
        }
        matched.push(MatchedInput {
            tensor: Tensor::new(input.name, input.dtype, input.shape, input.data)?,
            media_types: input.media_types,
        });
    }
    Ok(matched)
}

/// Sorts the inputs into the order of `specs`. Rejects missing, duplicate and unknown inputs.
fn sort_inputs<'s, 'a>(
    specs: &'s [TensorSpec<'a>],
    inputs: Vec<InputTensor>,
) -> Result<Vec<(&'s TensorSpec<'a>, InputTensor)>, TensorsError> {
    let mut found = Vec::with_capacity(inputs.len());
    for input in inputs {
        match find(specs, &input.name) {
            Some(key) => found.push((key, input)),
            None => return Err(unknown_input(&input.name, specs)),
        }
    }
    found.sort_by_key(|(key, _)| *key);
    let mut ordered = Vec::with_capacity(found.len());
    let mut found = found.into_iter().peekable();
    for (index, spec) in specs.iter().enumerate() {
        let of_spec = std::iter::from_fn(|| found.next_if(|((of, _), _)| *of == index));
        let mut expected = 0;
        for ((_, position), input) in of_spec {
            if position < expected {
                return Err(TensorsError::Duplicate { name: input.name });
            }
            if position > expected {
                return Err(TensorsError::Missing {
                    name: format!("{}.{expected}", spec.name),
                    expected: list_specs(specs),
                });
            }
            expected += 1;
            ordered.push((spec, input));
        }
        if expected == 0 && !spec.sequence {
            return Err(TensorsError::Missing {
                name: spec.name.to_owned(),
                expected: list_specs(specs),
            });
        }
    }
    Ok(ordered)
}

impl TensorSpec<'_> {
    fn check_datatype(&self, name: &str, got: DType) -> Result<(), TensorsError> {
        if got == self.dtype {
            return Ok(());
        }
        Err(TensorsError::Datatype {
            name: name.to_owned(),
            got,
            expected: self.dtype,
        })
    }
}

/// Checks the datatype and shape of one input. Returns its number of items.
fn check(
    spec: &TensorSpec<'_>,
    input: &InputTensor,
    kind: Kind,
    max_items: usize,
) -> Result<u64, TensorsError> {
    spec.check_datatype(&input.name, input.dtype)?;
    let fits = |(&got, &want): (&u64, &i64)| want < 0 || u64::try_from(want) == Ok(got);
    let (items, item_shape) = match input.shape.split_first() {
        _ if !spec.batched => (1, Some(input.shape.as_slice())),
        // A list of elements, each of which is an item.
        Some((&items, [])) if kind != Kind::Tensors => (items, None),
        Some((&items, rest)) => (items, Some(rest)),
        None => (0, None),
    };
    let has_dimensions = !spec.batched || !input.shape.is_empty();
    let shape_fits = has_dimensions
        && item_shape.is_none_or(|got| {
            spec.unranked || got.len() == spec.item_shape.len() && got.iter().zip(&spec.item_shape).all(fits)
        });
    if !shape_fits {
        return Err(TensorsError::Shape {
            name: input.name.clone(),
            got: input.shape.clone(),
            expected: spec.shape(),
        });
    }
    if items == 0 {
        return Err(TensorsError::NoItems {
            name: input.name.clone(),
            got: input.shape.clone(),
        });
    }
    if items > max_items as u64 {
        return Err(TensorsError::TooManyItems {
            name: input.name.clone(),
            got: items,
            limit: max_items,
        });
    }
    Ok(items)
}

/// Splits tensors with the same batch dimension into rows.
fn rows(matched: Vec<MatchedInput>) -> Vec<Value> {
    let count = matched
        .first()
        .map_or(0, |first| first.tensor.shape()[0] as usize);
    let mut items: Vec<Vec<Tensor>> = std::iter::repeat_with(|| Vec::with_capacity(matched.len()))
        .take(count)
        .collect();
    for MatchedInput { tensor, .. } in matched {
        // `match_inputs` has checked that there are `count` rows.
        for (item, row) in items.iter_mut().zip(tensor.into_rows(count).unwrap_or_default()) {
            item.push(row);
        }
    }
    items.into_iter().map(Value::Tensors).collect()
}

/// Returns the elements of the only tensor. An element with an unsupported media type fails without failing the
/// request.
fn elements(
    task: &TaskManifest,
    matched: Vec<MatchedInput>,
    kind: Kind,
    depth: usize,
) -> Result<Vec<Result<Value, ItemError>>, TensorsError> {
    let Some(MatchedInput { tensor, media_types }) = matched.into_iter().next() else {
        return Ok(Vec::new());
    };
    let element = |(at, data): (usize, Bytes)| {
        let name = || tensor.name().to_owned();
        if kind == Kind::Bytes {
            let media_type = media_types.of(at);
            return Ok(check_media_type(task, media_type).map(|()| Value::Bytes {
                data,
                media_type: media_type.to_owned(),
            }));
        }
        let text = std::str::from_utf8(&data).map_err(|error| TensorsError::NotUtf8 {
            name: name(),
            at,
            offset: error.valid_up_to(),
        })?;
        if kind == Kind::Text {
            return Ok(Ok(Value::Text(data)));
        }
        let problem = match too_deep(text.as_bytes(), depth) {
            Some(offset) => Some(format!(
                "nested too deeply at offset {offset}: expected at most {depth} levels"
            )),
            None => json::from_str::<IgnoredAny>(text)
                .err()
                .map(|error| error.to_string()),
        };
        match problem {
            Some(problem) => Err(TensorsError::NotJson {
                name: name(),
                at,
                problem,
            }),
            None => Ok(Ok(Value::Json(data))),
        }
    };
    byte_strings(tensor.data()).enumerate().map(element).collect()
}

/// Checks that the requested outputs exist and that none is requested twice, which would repeat its data in the
/// reply. The name of a sequence requests all its tensors.
pub fn check_requested<'a>(
    task: &TaskManifest,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), TensorsError> {
    let specs = outputs(task);
    // The position in a sequence, or `None` for a whole sequence or a single tensor.
    let mut requested: HashSet<(usize, Option<usize>)> = HashSet::new();
    for name in names {
        let whole = specs.iter().position(|spec| spec.name == name);
        let tensor = whole.map(|index| (index, None)).or_else(|| {
            let (index, position) = find(&specs, name)?;
            Some((index, Some(position)))
        });
        let Some(tensor) = tensor else {
            return Err(TensorsError::UnknownOutput {
                name: excerpt(name).to_owned(),
                hint: hint(name, &specs),
                expected: list_specs(&specs),
            });
        };
        let of_whole = (tensor.0, None);
        let overlaps = match tensor.1 {
            None => requested.iter().any(|(index, _)| *index == tensor.0),
            Some(_) => requested.contains(&of_whole),
        };
        if overlaps || !requested.insert(tensor) {
            return Err(TensorsError::DuplicateOutput {
                name: name.to_owned(),
            });
        }
    }
    Ok(())
}
