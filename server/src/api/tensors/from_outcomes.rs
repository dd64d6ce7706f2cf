//! From the outcomes of a request to tensors.

use bytes::{Bytes, BytesMut};

use plugin_abi::manifest::{TaskManifest, position_in_sequence};

use super::{BYTES, JSON, TEXT};
use crate::api::failure::{Code, Failure};
use crate::engine::Outcome;
use crate::values::{DType, Tensor, Value};

/// A tensor of a reply: one row for each item, as the model gave it. Of an unbatched task the only row is the tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub dtype: DType,
    /// Its dimensions; the first counts the items, unless the task is unbatched.
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

/// How many bytes of data the outcomes of a request have.
pub fn data_size(outcomes: &[Outcome]) -> usize {
    let sizes = outcomes.iter().flatten().map(|value| match value {
        Value::Text(data) | Value::Json(data) | Value::Bytes { data, .. } => data.len(),
        Value::Tensors(tensors) => tensors.iter().map(|tensor| tensor.data().len()).sum(),
    });
    sizes.sum()
}

/// Makes tensors of the outcomes of a request. These protocols know no error of a single item, so if one failed all do.
///
/// # Errors
/// The most severe error of an item; or outputs that differ in shape, and so make no tensor.
pub fn write_outputs(task: &TaskManifest, outcomes: Vec<Outcome>) -> Result<Vec<Output>, Failure> {
    let count = outcomes.len();
    if let Some(failure) = worst(&outcomes) {
        return Err(failure);
    }
    if task.unbatched && count != 1 {
        let message =
            format!("a request to a task without a batch dimension has {count} items, expected one");
        return Err(Failure::new(Code::Internal, message));
    }
    let items = (!task.unbatched).then_some(count as u64);
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
                    shape: items.into_iter().chain(tensor.shape().iter().copied()).collect(),
                    rows: Vec::with_capacity(count),
                })
                .collect();
            for (output, tensor) in outputs.iter_mut().zip(&tensors) {
                output.rows.push(tensor.data().clone());
            }
        } else {
            stack(&mut outputs, tensors, index)?;
        }
    }
    Ok(outputs)
}

/// The outputs that a client requested by these names, in that order, each with the position of its name. The name of a
/// sequence stands for all of its tensors.
///
/// # Errors
/// The model returned fewer tensors of a sequence than were requested.
pub fn choose_outputs<'n>(
    task: &TaskManifest,
    outputs: &[Output],
    names: impl Iterator<Item = &'n str>,
) -> Result<Vec<(usize, Output)>, Failure> {
    let mut chosen = Vec::new();
    for (position, name) in names.enumerate() {
        if let Some(output) = outputs.iter().find(|output| output.name == name) {
            chosen.push((position, output.clone()));
            continue;
        }
        let sequences = &task.output.tensors;
        if !sequences
            .iter()
            .any(|tensor| tensor.sequence && tensor.name == name)
        {
            let names: Vec<String> = outputs
                .iter()
                .map(|output| format!("`{}`", output.name))
                .collect();
            let message = format!("the model returned no output `{name}`, but {}", names.join(", "));
            return Err(Failure::new(Code::InvalidInput, message));
        }
        let mut tensors: Vec<(usize, &Output)> = outputs
            .iter()
            .filter_map(|output| Some((position_in_sequence(name, &output.name)?, output)))
            .collect();
        tensors.sort_by_key(|(position, _)| *position);
        chosen.extend(tensors.into_iter().map(|(_, output)| (position, output.clone())));
    }
    Ok(chosen)
}

/// The most severe failure of an item, if any failed.
pub fn worst(outcomes: &[Outcome]) -> Option<Failure> {
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
