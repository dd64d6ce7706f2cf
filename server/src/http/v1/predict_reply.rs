//! Writes a predict reply: rows (`predictions`) or columns (`outputs`).
//!
//! If a task has only one output, its name is omitted. This protocol has no per-item errors: if one item fails, the
//! whole request fails.

use plugin_abi::manifest::TaskManifest;

use super::predict_request::Form;
use crate::api::tensors::most_severe;
use crate::api::{Code, Failure};
use crate::codec::{
    OutputError, by_name, write_b64_tensor, write_list, write_object, write_tensor, write_value,
};
use crate::engine::Outcome;
use crate::values::{DType, Tensor, Value};

/// Writes a reply.
///
/// # Errors
/// The most severe error of an item, or an output that JSON cannot express.
pub fn write_reply(form: Form, task: &TaskManifest, outcomes: &[Outcome]) -> Result<Vec<u8>, Failure> {
    if let Some(failure) = most_severe(outcomes) {
        return Err(failure);
    }
    let values: Vec<&Value> = outcomes.iter().flatten().collect();
    let mut body = Vec::with_capacity(256);
    let written = match form {
        Form::Rows => write_rows(&mut body, &values),
        Form::Columns if task.unbatched => write_unbatched(&mut body, &values),
        Form::Columns => write_columns(&mut body, &values),
    };
    written.map_err(|error| Failure::new(Code::ModelFault, error.to_string()))?;
    Ok(body)
}

fn write_rows(body: &mut Vec<u8>, values: &[&Value]) -> Result<(), OutputError> {
    body.extend(b"{\"predictions\":");
    write_list(body, values.iter().copied(), write_row)?;
    body.push(b'}');
    Ok(())
}

fn write_row(body: &mut Vec<u8>, value: &Value) -> Result<(), OutputError> {
    match value {
        Value::Tensors(tensors) => match tensors.as_slice() {
            [only] => write_tensor_output(body, only),
            several => write_object(body, by_name(several), write_tensor_output),
        },
        other => write_value(body, other),
    }
}

fn write_columns(body: &mut Vec<u8>, values: &[&Value]) -> Result<(), OutputError> {
    body.extend(b"{\"outputs\":");
    match values.first() {
        Some(Value::Tensors(first)) if first.len() != 1 => {
            let members = first
                .iter()
                .enumerate()
                .map(|(index, tensor)| (tensor.name(), index));
            write_object(body, members, |body, index| {
                // Every item has all outputs of the task, in the declared order.
                let column = values.iter().filter_map(|value| output(value, index));
                write_list(body, column, write_tensor_output)
            })?;
        }
        _ => write_list(body, values.iter().copied(), write_row)?,
    }
    body.push(b'}');
    Ok(())
}

/// Writes the outputs of the only item of a request to an unbatched task.
fn write_unbatched(body: &mut Vec<u8>, values: &[&Value]) -> Result<(), OutputError> {
    body.extend(b"{\"outputs\":");
    if let Some(value) = values.first() {
        write_row(body, value)?;
    }
    body.push(b'}');
    Ok(())
}

fn output(value: &Value, index: usize) -> Option<&Tensor> {
    match value {
        Value::Tensors(tensors) => tensors.get(index),
        Value::Text(_) | Value::Bytes { .. } | Value::Json(_) => None,
    }
}

/// Writes one tensor. Like TensorFlow Serving, writes strings as base64 if the name of the tensor ends in `_bytes`.
fn write_tensor_output(body: &mut Vec<u8>, tensor: &Tensor) -> Result<(), OutputError> {
    if tensor.dtype() == DType::Bytes && tensor.name().ends_with("_bytes") {
        return write_b64_tensor(body, tensor);
    }
    write_tensor(body, tensor)
}

#[cfg(test)]
mod tests;
