//! Puts a reply of the Open Inference Protocol together: JSON, and the data of tensors that are wanted as binary behind it,
//! as the model gave them.

use bytes::Bytes;
use plugin_abi::manifest::TaskManifest;

use super::infer_request::Wanted;
use crate::api::tensors::{Output, choose_outputs};
use crate::api::{Code, Failure, VERSION};
use crate::http::native::reply::{write_string, write_tensor};
use crate::values::{DType, Tensor};

/// What a reply is about.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// As the client called the model.
    pub model: &'a str,
    /// As the client called the request.
    pub id: Option<&'a str>,
    /// What it requested.
    pub task: &'a TaskManifest,
}

/// A reply on its way out.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// The JSON.
    pub json: Vec<u8>,
    /// What comes behind it, in order; if anything does, a header says how long the JSON is.
    pub binary: Vec<Bytes>,
}

/// Writes a reply with the outputs that are wanted.
///
/// # Errors
/// One of them cannot be JSON, and was not wanted as binary; or the model did not return it.
pub fn write_response(reply: &Reply<'_>, outputs: Vec<Output>, wanted: &Wanted) -> Result<Encoded, Failure> {
    let mut json = Vec::with_capacity(256);
    json.extend_from_slice(b"{\"model_name\":");
    write_string(&mut json, reply.model);
    json.extend_from_slice(b",\"model_version\":");
    write_string(&mut json, VERSION);
    if let Some(id) = reply.id {
        json.extend_from_slice(b",\"id\":");
        write_string(&mut json, id);
    }
    json.extend_from_slice(b",\"outputs\":[");
    let mut binary = Vec::new();
    for (index, (output, as_binary)) in choose(reply.task, outputs, wanted)?.into_iter().enumerate() {
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

/// The outputs that are wanted, in the order in which the client named them, and whether each is wanted as binary.
fn choose(
    task: &TaskManifest,
    outputs: Vec<Output>,
    wanted: &Wanted,
) -> Result<Vec<(Output, bool)>, Failure> {
    match wanted {
        Wanted::All { binary } => Ok(outputs.into_iter().map(|output| (output, *binary)).collect()),
        Wanted::These(these) => {
            let names = these.iter().map(|wanted| wanted.name.as_str());
            let chosen = choose_outputs(task, &outputs, names)?.into_iter();
            Ok(chosen
                .map(|(position, output)| (output, these[position].binary))
                .collect())
        }
    }
}

fn write_head(json: &mut Vec<u8>, output: &Output) {
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
fn write_data(json: &mut Vec<u8>, output: Output) -> Result<(), Failure> {
    if matches!(output.dtype, DType::Fp16 | DType::Bf16) {
        let message = format!(
            "output `{}` is {}, which JSON cannot express; request binary output",
            output.name, output.dtype
        );
        return Err(Failure::new(Code::Malformed, message));
    }
    let elements: u64 = output.shape.iter().product();
    let (name, dtype) = (output.name.clone(), output.dtype);
    let flat = Tensor::new(name, dtype, vec![elements], output.into_data())
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    write_tensor(json, &flat)
        .map_err(|error| Failure::new(Code::Malformed, format!("{error}; request binary output")))
}

#[cfg(test)]
mod tests;
