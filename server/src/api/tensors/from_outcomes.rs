//! Converts the outcomes of a request to tensors.

use bytes::{Bytes, BytesMut};

use plugin_abi::manifest::{TaskManifest, position_in_sequence};

use super::{BYTES, JSON, TEXT};
use crate::api::failure::{Code, Failure};
use crate::engine::Outcome;
use crate::values::{DType, Tensor, Value};

/// A tensor of a reply, with one row per item as the model returned it. For an unbatched task, the only row is the
/// whole tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputTensor {
    /// Name of the tensor.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape, including the batch dimension, unless the task is unbatched.
    pub shape: Vec<u64>,
    /// Elements in little-endian order, one slice per row.
    pub rows: Vec<Bytes>,
}

impl OutputTensor {
    /// Length of the data in bytes.
    pub fn byte_len(&self) -> usize {
        self.rows.iter().map(Bytes::len).sum()
    }

    /// The data as one slice. It is not copied if there is only one row.
    pub fn into_data(self) -> Bytes {
        if self.rows.len() == 1 {
            return self.rows.into_iter().next().unwrap_or_default();
        }
        let mut data = BytesMut::with_capacity(self.byte_len());
        self.rows.iter().for_each(|row| data.extend_from_slice(row));
        data.freeze()
    }
}

/// Returns the total size of the outcomes' data in bytes.
pub fn data_size(outcomes: &[Outcome]) -> usize {
    let sizes = outcomes.iter().flatten().map(|value| match value {
        Value::Text(data) | Value::Json(data) | Value::Bytes { data, .. } => data.len(),
        Value::Tensors(tensors) => tensors.iter().map(|tensor| tensor.data().len()).sum(),
    });
    sizes.sum()
}

/// Stacks the outcomes of a request into tensors. Protocols with tensors have no per-item errors: if one item fails,
/// the whole request fails.
///
/// # Errors
/// The most severe error of the items, or that their outputs have different shapes and cannot be stacked.
pub fn tensors_from_outcomes(
    task: &TaskManifest,
    outcomes: Vec<Outcome>,
) -> Result<Vec<OutputTensor>, Failure> {
    let count = outcomes.len();
    if let Some(failure) = most_severe(&outcomes) {
        return Err(failure);
    }
    if task.unbatched && count != 1 {
        let message =
            format!("the request has {count} items, expected one, since the task has no batch dimension");
        return Err(Failure::new(Code::Internal, message));
    }
    let items = (!task.unbatched).then_some(count as u64);
    let mut outputs: Vec<OutputTensor> = Vec::new();
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
                .map(|tensor| OutputTensor {
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

/// Selects the requested outputs in the order of `names`, each with the index of its name. The name of a sequence
/// selects all its tensors.
///
/// # Errors
/// If the model did not return a requested tensor of a sequence.
pub fn choose_outputs<'n>(
    task: &TaskManifest,
    outputs: &[OutputTensor],
    names: impl Iterator<Item = &'n str>,
) -> Result<Vec<(usize, OutputTensor)>, Failure> {
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
            let message = format!(
                "the model did not return output `{name}`; it returned {}",
                names.join(", ")
            );
            return Err(Failure::new(Code::InvalidInput, message));
        }
        let mut tensors: Vec<(usize, &OutputTensor)> = outputs
            .iter()
            .filter_map(|output| Some((position_in_sequence(name, &output.name)?, output)))
            .collect();
        tensors.sort_by_key(|(position, _)| *position);
        chosen.extend(tensors.into_iter().map(|(_, output)| (position, output.clone())));
    }
    Ok(chosen)
}

/// Returns the most severe failure of the items, if any failed.
pub fn most_severe(outcomes: &[Outcome]) -> Option<Failure> {
    let mut most_severe: Option<Failure> = None;
    for (index, outcome) in outcomes.iter().enumerate() {
        let Err(error) = outcome else { continue };
        let mut failure = Failure::from(error);
        if most_severe
            .as_ref()
            .is_some_and(|most_severe| most_severe.code >= failure.code)
        {
            continue;
        }
        if outcomes.len() > 1 {
            failure.message = format!("item {index} of {}: {}", outcomes.len(), failure.message);
        }
        most_severe = Some(failure);
    }
    most_severe
}

/// Creates a tensor of one element.
fn element(name: &'static str, data: &[u8]) -> Result<Tensor, Failure> {
    let length = u32::try_from(data.len()).map_err(|_| {
        let message = format!("an output of {} bytes does not fit in a BYTES tensor", data.len());
        Failure::new(Code::Unsupported, message)
    })?;
    let mut prefixed = BytesMut::with_capacity(4 + data.len());
    prefixed.extend_from_slice(&length.to_le_bytes());
    prefixed.extend_from_slice(data);
    Tensor::new(name, DType::Bytes, vec![1], prefixed.freeze())
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))
}

/// Appends the tensors of item `index`, which must have the same names, datatypes and shapes as those of item 0.
fn stack(outputs: &mut [OutputTensor], tensors: Vec<Tensor>, index: usize) -> Result<(), Failure> {
    if tensors.len() != outputs.len() {
        let message = format!(
            "the model returned {} outputs for item 0, but {} for item {index}",
            outputs.len(),
            tensors.len()
        );
        return Err(Failure::new(Code::ModelFault, message));
    }
    for (output, tensor) in outputs.iter_mut().zip(tensors) {
        if tensor.name() != output.name || tensor.dtype() != output.dtype {
            let message = format!(
                "the model returned output `{}` {} for item 0, but `{}` {} for item {index}",
                output.name,
                output.dtype,
                tensor.name(),
                tensor.dtype()
            );
            return Err(Failure::new(Code::ModelFault, message));
        }
        if tensor.shape() != &output.shape[1..] {
            let message = format!(
                "output `{}` has shape {:?} for item 0, but {:?} for item {index}; send items with outputs of different shapes in separate requests",
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
