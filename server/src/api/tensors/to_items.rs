//! From the tensors of a request to items.

use std::collections::HashSet;

use bytes::Bytes;
use plugin_abi::manifest::{Kind, TaskManifest, ValueManifest};
use serde::de::IgnoredAny;

use super::{BYTES, JSON, Spec, TEXT, find, hint, listed, main_kind, outputs, specs};
use crate::api::BodyLimits;
use crate::api::failure::{Code, Failure, cut};
use crate::codec::media_types::check_media_type;
use crate::error::ItemError;
use crate::json::{self, too_deep};
use crate::values::{DType, ItemInput, Tensor, TensorError, Value, byte_strings};

/// A tensor as a client sent it. Nothing about it has been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub dtype: DType,
    /// Its dimensions; the first counts the items, unless the task is unbatched.
    pub shape: Vec<u64>,
    /// The elements, little-endian.
    pub data: Bytes,
    /// Media types of its elements, as far as the client states them.
    pub media_types: MediaTypes,
}

/// Media types of the elements of a tensor. An empty one states nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaTypes {
    /// The same for all elements.
    Shared(String),
    /// One for each element, in order.
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

/// Why tensors are no request to a task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorsError {
    /// The task has no such tensor.
    #[error("unknown input `{name}`{hint}; the task takes {expected}")]
    Unknown {
        /// As sent.
        name: String,
        /// The name that may be meant, as a phrase; may be empty.
        hint: String,
        /// What the task takes.
        expected: String,
    },
    /// A tensor that the task needs is not there.
    #[error("missing input `{name}`; the task takes {expected}")]
    Missing {
        /// Its name.
        name: String,
        /// What the task takes.
        expected: String,
    },
    /// The name of a sequence, which is none of its tensors.
    #[error("input `{name}` is a sequence of tensors: send them as `{name}.0`, `{name}.1`, …")]
    Sequence {
        /// Name of the sequence.
        name: String,
    },
    /// The same tensor twice.
    #[error("input `{name}` is given twice")]
    Duplicate {
        /// Its name.
        name: String,
    },
    /// Another type of elements.
    #[error("input `{name}` has datatype {got}, expected {expected}")]
    Datatype {
        /// Name of the tensor.
        name: String,
        /// As sent.
        got: DType,
        /// As the task takes it.
        expected: DType,
    },
    /// Other dimensions.
    #[error("input `{name}` has shape {got:?}, expected {expected:?}, where -1 is any size")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// As sent.
        got: Vec<u64>,
        /// As the task takes it.
        expected: Vec<i64>,
    },
    /// Tensors with different numbers of items.
    #[error(
        "input `{name}` has {got} items, input `{other}` has {expected}; their first dimensions must be equal"
    )]
    Count {
        /// Name of the tensor.
        name: String,
        /// Its items.
        got: u64,
        /// Name of the first tensor.
        other: String,
        /// Items of the first tensor.
        expected: u64,
    },
    /// Not one item.
    #[error("input `{name}` has no items: its shape is {got:?}; expected at least one")]
    NoItems {
        /// Name of the tensor.
        name: String,
        /// As sent.
        got: Vec<u64>,
    },
    /// More items than a request may have.
    #[error("input `{name}` has {got} items, at most {limit} are allowed in one request")]
    TooManyItems {
        /// Name of the tensor.
        name: String,
        /// Items sent.
        got: u64,
        /// Most items.
        limit: usize,
    },
    /// Data and shape contradict each other.
    #[error("{0}")]
    Data(#[from] TensorError),
    /// Text that is none.
    #[error("input `{name}`: element {at} is not UTF-8, invalid byte at {offset}")]
    NotUtf8 {
        /// Name of the tensor.
        name: String,
        /// Which element.
        at: usize,
        /// Of the first bad byte.
        offset: usize,
    },
    /// A document that is none.
    #[error("input `{name}`: element {at} is not JSON: {problem}")]
    NotJson {
        /// Name of the tensor.
        name: String,
        /// Which element.
        at: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The same output twice.
    #[error("output `{name}` is requested twice; request each output once")]
    DuplicateOutput {
        /// Its name.
        name: String,
    },
    /// An output that the task does not give.
    #[error("unknown output `{name}`{hint}; the task gives {expected}")]
    UnknownOutput {
        /// As sent.
        name: String,
        /// The name that may be meant, as a phrase; may be empty.
        hint: String,
        /// What the task gives.
        expected: String,
    },
}

impl From<TensorsError> for Failure {
    fn from(error: TensorsError) -> Self {
        Self::new(Code::Malformed, error.to_string())
    }
}

/// Makes items of the tensors of a request. `parameters` is a JSON object, or empty; every item gets it.
pub fn read_items(
    task: &TaskManifest,
    inputs: Vec<Input>,
    parameters: &Bytes,
    limits: BodyLimits,
) -> Result<Vec<Result<ItemInput, ItemError>>, TensorsError> {
    let kind = meant_kind(&task.input, &inputs);
    let specs = specs(task, &task.input, kind);
    let tensors = match_up(&specs, inputs, kind, limits.items)?;
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

/// Which of the kinds that a task takes a client means, by what it calls its tensor.
fn meant_kind(input: &ValueManifest, inputs: &[Input]) -> Kind {
    match inputs {
        [only] => kind_named(input, &only.name),
        _ => main_kind(&input.kinds),
    }
}

/// The kind of a task's input that a tensor of this name belongs to.
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

/// The maximum number of elements of an input of this name and shape, known before any of them is read; `None` if its
/// items may be of any size.
///
/// # Errors
/// The task has no such input, or the shape has more items than a request may have.
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
    let most_items = if spec.batched { limits.items as u64 } else { 1 };
    let items = shape.first().filter(|_| spec.batched);
    if let Some(&items) = items.filter(|&&items| items > most_items) {
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
        .try_fold(most_items, |product, size| Some(product.saturating_mul(size?))))
}

fn unknown_input(name: &str, specs: &[Spec<'_>]) -> TensorsError {
    if specs.iter().any(|spec| spec.sequence && spec.name == name) {
        let name = name.to_owned();
        return TensorsError::Sequence { name };
    }
    TensorsError::Unknown {
        hint: hint(name, specs),
        expected: listed(specs),
        name: cut(name).to_owned(),
    }
}

/// A tensor of the request, with the media types of its elements.
struct Matched {
    tensor: Tensor,
    media_types: MediaTypes,
}

/// The tensors in the order of `specs`, all of one length and within their shapes; those of a sequence in its order.
fn match_up(
    specs: &[Spec<'_>],
    inputs: Vec<Input>,
    kind: Kind,
    most_items: usize,
) -> Result<Vec<Matched>, TensorsError> {
    let mut first: Option<(String, u64)> = None;
    let mut matched = Vec::with_capacity(specs.len());
    for (spec, input) in in_order(specs, inputs)? {
        let items = check(spec, &input, kind, most_items)?;
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
        matched.push(Matched {
            tensor: Tensor::new(input.name, input.dtype, input.shape, input.data)?,
            media_types: input.media_types,
        });
    }
    Ok(matched)
}

/// The tensors in the order of `specs`, complete and each of them once.
fn in_order<'s, 'a>(
    specs: &'s [Spec<'a>],
    inputs: Vec<Input>,
) -> Result<Vec<(&'s Spec<'a>, Input)>, TensorsError> {
    let mut found = Vec::with_capacity(inputs.len());
    for input in inputs {
        match find(specs, &input.name) {
            Some(place) => found.push((place, input)),
            None => return Err(unknown_input(&input.name, specs)),
        }
    }
    found.sort_by_key(|(place, _)| *place);
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
                    expected: listed(specs),
                });
            }
            expected += 1;
            ordered.push((spec, input));
        }
        if expected == 0 && !spec.sequence {
            return Err(TensorsError::Missing {
                name: spec.name.to_owned(),
                expected: listed(specs),
            });
        }
    }
    Ok(ordered)
}

/// Checks one tensor against what the task takes; how many items it has.
fn check(spec: &Spec<'_>, input: &Input, kind: Kind, most_items: usize) -> Result<u64, TensorsError> {
    if input.dtype != spec.dtype {
        return Err(TensorsError::Datatype {
            name: input.name.clone(),
            got: input.dtype,
            expected: spec.dtype,
        });
    }
    let fits = |(&got, &want): (&u64, &i64)| want < 0 || u64::try_from(want) == Ok(got);
    let (items, item_shape) = match input.shape.split_first() {
        _ if !spec.batched => (1, Some(input.shape.as_slice())),
        // A list of elements, each an item of its own.
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
    if items > most_items as u64 {
        return Err(TensorsError::TooManyItems {
            name: input.name.clone(),
            got: items,
            limit: most_items,
        });
    }
    Ok(items)
}

/// The rows of tensors that are equally long.
fn rows(matched: Vec<Matched>) -> Vec<Value> {
    let count = matched
        .first()
        .map_or(0, |first| first.tensor.shape()[0] as usize);
    let mut items: Vec<Vec<Tensor>> = std::iter::repeat_with(|| Vec::with_capacity(matched.len()))
        .take(count)
        .collect();
    for Matched { tensor, .. } in matched {
        // They have `count` rows, as was checked.
        for (item, row) in items.iter_mut().zip(tensor.into_rows(count).unwrap_or_default()) {
            item.push(row);
        }
    }
    items.into_iter().map(Value::Tensors).collect()
}

/// The elements of the only tensor. An element of an unsupported media type fails alone.
fn elements(
    task: &TaskManifest,
    matched: Vec<Matched>,
    kind: Kind,
    depth: usize,
) -> Result<Vec<Result<Value, ItemError>>, TensorsError> {
    let Some(Matched { tensor, media_types }) = matched.into_iter().next() else {
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
                "it is nested too deeply at offset {offset}: at most {depth} levels are allowed"
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

/// Checks that the task has all these outputs, and that none is requested twice: a reply would repeat its data. The name of
/// a sequence requests all of its tensors.
pub fn check_requested<'a>(
    task: &TaskManifest,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), TensorsError> {
    let specs = outputs(task);
    // Of a sequence the position of the tensor, if not all of it is requested.
    let mut requested: HashSet<(usize, Option<usize>)> = HashSet::new();
    for name in names {
        let whole = specs.iter().position(|spec| spec.name == name);
        let tensor = whole.map(|index| (index, None)).or_else(|| {
            let (index, position) = find(&specs, name)?;
            Some((index, Some(position)))
        });
        let Some(tensor) = tensor else {
            return Err(TensorsError::UnknownOutput {
                name: cut(name).to_owned(),
                hint: hint(name, &specs),
                expected: listed(&specs),
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
