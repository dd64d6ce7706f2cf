//! Writes an inference response: JSON, followed by the data of the outputs that are requested as binary data.

use bytes::Bytes;
use plugin_abi::manifest::TaskManifest;

use super::infer_request::RequestedOutputs;
use crate::api::tensors::{OutputTensor, choose_outputs};
use crate::api::{Code, Failure, VERSION};
use crate::codec::{write_string, write_tensor};
use crate::values::{DType, Tensor};

/// The request that a response answers.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// The model name in the request.
    pub model: &'a str,
    /// The id in the request.
    pub id: Option<&'a str>,
    /// Manifest of the task.
    pub task: &'a TaskManifest,
}

/// An encoded response.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// The JSON.
    pub json: Vec<u8>,
    /// The binary data after the JSON, in order. If there is any, a header states the length of the JSON.
    pub binary: Vec<Bytes>,
}

/// Writes a response with the requested outputs.
///
/// # Errors
/// If JSON cannot express an output that was not requested as binary data, or the model did not return a requested
/// output.
pub fn write_response(
    head: &ResponseHead<'_>,
    outputs: Vec<OutputTensor>,
    requested: &RequestedOutputs,
) -> Result<Encoded, Failure> {
    let mut json = Vec::with_capacity(256);
    json.extend_from_slice(b"{\"model_name\":");
    write_string(&mut json, head.model);
    json.extend_from_slice(b",\"model_version\":");
    write_string(&mut json, VERSION);
    if let Some(id) = head.id {
        json.extend_from_slice(b",\"id\":");
        write_string(&mut json, id);
    }
    json.extend_from_slice(b",\"outputs\":[");
    let mut binary = Vec::new();
    for (index, (output, as_binary)) in choose(head.task, outputs, requested)?.into_iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write_head(&mut json, &output);
        if as_binary {
            json.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
            json.extend_from_slice(output.byte_len().to_string().as_bytes());
            json.extend_from_slice(b"}}");
            binary.extend(output.rows);
        } else {
            json.extend_from_slice(b",\"data\":");
            write_data(&mut json, output)?;
            json.push(b'}');
        }
    }
    json.extend_from_slice(b"]}");
    Ok(Encoded { json, binary })
}

/// Selects the requested outputs in order, and returns whether each is requested as binary data.
fn choose(
    task: &TaskManifest,
    outputs: Vec<OutputTensor>,
    requested: &RequestedOutputs,
) -> Result<Vec<(OutputTensor, bool)>, Failure> {
    match requested {
        RequestedOutputs::All { binary } => Ok(outputs.into_iter().map(|output| (output, *binary)).collect()),
        RequestedOutputs::Named(named) => {
            let names = named.iter().map(|requested| requested.name.as_str());
            let chosen = choose_outputs(task, &outputs, names)?.into_iter();
            Ok(chosen
                .map(|(position, output)| (output, named[position].binary))
                .collect())
        }
    }
}

fn write_head(json: &mut Vec<u8>, output: &OutputTensor) {
    json.extend_from_slice(b"{\"name\":");
    write_string(json, &output.name);
    json.extend_from_slice(b",\"datatype\":");
    write_string(json, output.dtype.name());
    json.extend_from_slice(b",\"shape\":[");
    for (index, dim) in output.shape.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(dim.to_string().as_bytes());
    }
    json.push(b']');
}

/// Writes the elements as one flat array.
fn write_data(json: &mut Vec<u8>, output: OutputTensor) -> Result<(), Failure> {
    if matches!(output.dtype, DType::Fp16 | DType::Bf16) {
        let message = format!(
            "output `{}` has datatype {}, which JSON cannot express; request it as binary data",
            output.name, output.dtype
        );
        return Err(Failure::new(Code::Malformed, message));
    }
    let elements: u64 = output.shape.iter().product();
    let (name, dtype) = (output.name.clone(), output.dtype);
    let flat = Tensor::new(name, dtype, vec![elements], output.into_data())
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    write_tensor(json, &flat)
        .map_err(|error| Failure::new(Code::Malformed, format!("{error}; request it as binary data")))
}

#[cfg(test)]
mod tests;
