//! The one place that maps the named, typed tensors of a protocol to the items of a task, and its outcomes back.
//!
//! The first dimension of every tensor counts the items. A task that takes tensors takes those that it declares, an item
//! being one row of each; any other takes one `BYTES` tensor, called [`TEXT`], [`BYTES`] or [`JSON`], an item being one
//! element. Rows are slices of what came: nothing is copied on the way in.

use bytes::{Bytes, BytesMut};
use plugin_abi::manifest::{Kind, TaskManifest, TensorManifest, ValueManifest};
use serde::de::IgnoredAny;

use super::BodyLimits;
use super::error::{Code, Failure, nearest};
use super::json::too_deep;
use crate::engine::Outcome;
use crate::error::ItemError;
use crate::protocol::{DType, ItemInput, Tensor, TensorError, Value, byte_strings};

/// Name of the tensor of a task that takes or gives text.
pub const TEXT: &str = "TEXT";
/// Name of the tensor of a task that takes or gives bytes.
pub const BYTES: &str = "BYTES";
/// Name of the tensor of a task that takes or gives JSON documents.
pub const JSON: &str = "JSON";

/// What a tensor of a task is, apart from its first dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec<'a> {
    /// Its name.
    pub name: &'a str,
    /// Type of its elements.
    pub dtype: DType,
    /// Dimensions of one item; -1 where any size will do.
    pub item_shape: Vec<i64>,
}

impl<'a> Spec<'a> {
    /// Dimensions of the whole tensor, of which the first counts items.
    pub fn shape(&self) -> Vec<i64> {
        [-1].into_iter().chain(self.item_shape.iter().copied()).collect()
    }

    fn declared(tensor: &'a TensorManifest) -> Self {
        Self {
            name: &tensor.name,
            // The loader has refused manifests with other names.
            dtype: DType::from_name(&tensor.dtype).unwrap_or(DType::Bytes),
            item_shape: tensor.shape.clone(),
        }
    }

    fn elements(name: &'static str) -> Self {
        Self {
            name,
            dtype: DType::Bytes,
            item_shape: vec![1],
        }
    }
}

/// The tensors that a task takes.
pub fn inputs(task: &TaskManifest) -> Vec<Spec<'_>> {
    specs(&task.input, main_kind(&task.input.kinds))
}

/// The tensors that a task gives.
pub fn outputs(task: &TaskManifest) -> Vec<Spec<'_>> {
    specs(&task.output, main_kind(&task.output.kinds))
}

fn specs(value: &ValueManifest, kind: Kind) -> Vec<Spec<'_>> {
    match kind {
        Kind::Tensors => value.tensors.iter().map(Spec::declared).collect(),
        Kind::Text => vec![Spec::elements(TEXT)],
        Kind::Bytes => vec![Spec::elements(BYTES)],
        Kind::Json => vec![Spec::elements(JSON)],
    }
}

/// Of several kinds the one that says most about itself.
fn main_kind(kinds: &[Kind]) -> Kind {
    [Kind::Tensors, Kind::Text, Kind::Bytes]
        .into_iter()
        .find(|kind| kinds.contains(kind))
        .unwrap_or(Kind::Json)
}

/// A tensor as a client sent it. Nothing about it has been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub dtype: DType,
    /// Its dimensions, the first of which counts the items.
    pub shape: Vec<u64>,
    /// The elements, little-endian.
    pub data: Bytes,
    /// Media type of its elements, if the client says one.
    pub media_type: String,
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
    let specs = specs(&task.input, kind);
    let tensors = match_up(&specs, inputs, kind, limits.items)?;
    let values = match kind {
        Kind::Tensors => rows(tensors),
        Kind::Text | Kind::Bytes | Kind::Json => elements(tensors, kind, limits.depth)?,
    };
    let item = |value| {
        Ok(ItemInput {
            value,
            parameters: parameters.clone(),
        })
    };
    Ok(values.into_iter().map(item).collect())
}

/// Which of the kinds that a task takes a client means, by what it calls its tensor.
fn meant_kind(input: &ValueManifest, inputs: &[Input]) -> Kind {
    let main = main_kind(&input.kinds);
    let [only] = inputs else {
        return main;
    };
    if main == Kind::Tensors && input.tensors.iter().any(|tensor| tensor.name == only.name) {
        return main;
    }
    [(TEXT, Kind::Text), (BYTES, Kind::Bytes), (JSON, Kind::Json)]
        .into_iter()
        .find(|(name, kind)| *name == only.name && input.kinds.contains(kind))
        .map_or(main, |(_, kind)| kind)
}

/// A tensor of the request, with the media type of its elements.
struct Matched {
    tensor: Tensor,
    media_type: String,
}

/// The tensors in the order of `specs`, all of one length and within their shapes.
fn match_up(
    specs: &[Spec<'_>],
    inputs: Vec<Input>,
    kind: Kind,
    most_items: usize,
) -> Result<Vec<Matched>, TensorsError> {
    let mut found: Vec<Option<Input>> = specs.iter().map(|_| None).collect();
    for input in inputs {
        let Some(index) = specs.iter().position(|spec| spec.name == input.name) else {
            return Err(TensorsError::Unknown {
                hint: hint(&input.name, specs),
                expected: listed(specs),
                name: cut(&input.name),
            });
        };
        if found[index].is_some() {
            return Err(TensorsError::Duplicate { name: input.name });
        }
        found[index] = Some(input);
    }
    let mut first: Option<(String, u64)> = None;
    let mut matched = Vec::with_capacity(specs.len());
    for (spec, input) in specs.iter().zip(found) {
        let input = input.ok_or_else(|| TensorsError::Missing {
            name: spec.name.to_owned(),
            expected: listed(specs),
        })?;
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
            media_type: input.media_type,
        });
    }
    Ok(matched)
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
        // A list of elements, each an item of its own.
        Some((&items, [])) if kind != Kind::Tensors => (items, None),
        Some((&items, rest)) => (items, Some(rest)),
        None => (0, Some([].as_slice())),
    };
    let shape_fits = !input.shape.is_empty()
        && item_shape.is_none_or(|got| {
            got.len() == spec.item_shape.len() && got.iter().zip(&spec.item_shape).all(fits)
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

/// The elements of the one tensor that there is.
fn elements(matched: Vec<Matched>, kind: Kind, depth: usize) -> Result<Vec<Value>, TensorsError> {
    let Some(Matched { tensor, media_type }) = matched.into_iter().next() else {
        return Ok(Vec::new());
    };
    let element = |(at, data): (usize, Bytes)| {
        let name = || tensor.name().to_owned();
        if kind == Kind::Bytes {
            return Ok(Value::Bytes {
                data,
                media_type: media_type.clone(),
            });
        }
        let text = std::str::from_utf8(&data).map_err(|error| TensorsError::NotUtf8 {
            name: name(),
            at,
            offset: error.valid_up_to(),
        })?;
        if kind == Kind::Text {
            return Ok(Value::Text(data));
        }
        let problem = match too_deep(text.as_bytes(), depth) {
            Some(offset) => Some(format!(
                "it is nested too deeply at offset {offset}: at most {depth} levels are allowed"
            )),
            None => serde_json::from_str::<IgnoredAny>(text)
                .err()
                .map(|error| error.to_string()),
        };
        match problem {
            Some(problem) => Err(TensorsError::NotJson {
                name: name(),
                at,
                problem,
            }),
            None => Ok(Value::Json(data)),
        }
    };
    byte_strings(tensor.data()).enumerate().map(element).collect()
}

fn listed(specs: &[Spec<'_>]) -> String {
    let one = |spec: &Spec<'_>| format!("`{}` {} {:?}", spec.name, spec.dtype, spec.shape());
    specs.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn hint(name: &str, specs: &[Spec<'_>]) -> String {
    nearest(name, specs.iter().map(|spec| spec.name))
        .map(|near| format!(", did you mean `{near}`?"))
        .unwrap_or_default()
}

/// A name of the client's own may be of any length.
fn cut(name: &str) -> String {
    name.chars().take(100).collect()
}

/// A tensor of a reply: one row for each item, as the model gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub dtype: DType,
    /// Its dimensions, the first of which counts the items.
    pub shape: Vec<u64>,
    /// The elements, little-endian, row by row.
    pub rows: Vec<Bytes>,
}

impl Output {
    /// How long the data is.
    pub fn byte_len(&self) -> usize {
        self.rows.iter().map(Bytes::len).sum()
    }

    /// The data in one piece: as it came, if there is one row.
    pub fn into_data(self) -> Bytes {
        if self.rows.len() == 1 {
            return self.rows.into_iter().next().unwrap_or_default();
        }
        let mut data = BytesMut::with_capacity(self.byte_len());
        self.rows.iter().for_each(|row| data.extend_from_slice(row));
        data.freeze()
    }
}

/// Whether the task gives all these outputs.
pub fn check_requested<'a>(
    task: &TaskManifest,
    mut names: impl Iterator<Item = &'a str>,
) -> Result<(), TensorsError> {
    let specs = outputs(task);
    match names.find(|name| !specs.iter().any(|spec| spec.name == *name)) {
        None => Ok(()),
        Some(name) => Err(TensorsError::UnknownOutput {
            name: cut(name),
            hint: hint(name, &specs),
            expected: listed(&specs),
        }),
    }
}

/// Makes tensors of the outcomes of a request. These protocols know no error of a single item, so if one failed all do.
///
/// # Errors
/// The most severe error of an item; or outputs that differ in shape, and so make no tensor.
pub fn write_outputs(outcomes: Vec<Outcome>) -> Result<Vec<Output>, Failure> {
    let count = outcomes.len();
    if let Some(failure) = worst(&outcomes) {
        return Err(failure);
    }
    let mut outputs: Vec<Output> = Vec::new();
    for (index, outcome) in outcomes.into_iter().enumerate() {
        let Ok(value) = outcome else { continue };
        let tensors = match value {
            Value::Tensors(tensors) => tensors,
            Value::Text(data) => vec![element(TEXT, &data)?],
            Value::Json(data) => vec![element(JSON, &data)?],
            Value::Bytes { data, .. } => vec![element(BYTES, &data)?],
        };
        if index == 0 {
            outputs = tensors
                .iter()
                .map(|tensor| Output {
                    name: tensor.name().to_owned(),
                    dtype: tensor.dtype(),
                    shape: [count as u64]
                        .into_iter()
                        .chain(tensor.shape().iter().copied())
                        .collect(),
                    rows: Vec::with_capacity(count),
                })
                .collect();
        }
        stack(&mut outputs, tensors, index)?;
    }
    Ok(outputs)
}

/// The most severe failure of an item, if any failed.
fn worst(outcomes: &[Outcome]) -> Option<Failure> {
    let mut worst: Option<Failure> = None;
    for (index, outcome) in outcomes.iter().enumerate() {
        let Err(error) = outcome else { continue };
        let mut failure = Failure::from(error);
        if worst.as_ref().is_some_and(|worst| worst.code >= failure.code) {
            continue;
        }
        if outcomes.len() > 1 {
            failure.message = format!("item {index} of {}: {}", outcomes.len(), failure.message);
        }
        worst = Some(failure);
    }
    worst
}

/// A tensor of one element.
fn element(name: &'static str, data: &[u8]) -> Result<Tensor, Failure> {
    let length = u32::try_from(data.len()).map_err(|_| {
        let message = format!("an output of {} bytes is too long for a tensor", data.len());
        Failure::new(Code::Unsupported, message)
    })?;
    let mut prefixed = BytesMut::with_capacity(4 + data.len());
    prefixed.extend_from_slice(&length.to_le_bytes());
    prefixed.extend_from_slice(data);
    Tensor::new(name, DType::Bytes, vec![1], prefixed.freeze())
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))
}

/// Appends the tensors of item `index`, which are those of the first in name, type and shape.
fn stack(outputs: &mut [Output], tensors: Vec<Tensor>, index: usize) -> Result<(), Failure> {
    if tensors.len() != outputs.len() {
        let message = format!(
            "the model gave {} outputs for item 0 and {} for item {index}",
            outputs.len(),
            tensors.len()
        );
        return Err(Failure::new(Code::ModelFault, message));
    }
    for (output, tensor) in outputs.iter_mut().zip(tensors) {
        if tensor.name() != output.name || tensor.dtype() != output.dtype {
            let message = format!(
                "the model gave output `{}` of {} for item 0 and `{}` of {} for item {index}",
                output.name,
                output.dtype,
                tensor.name(),
                tensor.dtype()
            );
            return Err(Failure::new(Code::ModelFault, message));
        }
        if tensor.shape() != &output.shape[1..] {
            let message = format!(
                "output `{}` has shape {:?} for item 0 and {:?} for item {index}, which make no tensor; send the items in requests of their own",
                output.name,
                &output.shape[1..],
                tensor.shape()
            );
            return Err(Failure::new(Code::Unsupported, message));
        }
        output.rows.push(tensor.data().clone());
    }
    Ok(())
}

#[cfg(test)]
#[path = "tensors_tests.rs"]
mod tests;
