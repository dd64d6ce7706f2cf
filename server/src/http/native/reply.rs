//! Writes native replies as JSON into one buffer.
//!
//! An output that JSON cannot express, such as NaN, fails its item, so the status of a reply is known only after
//! encoding.

use std::time::Duration;

use plugin_abi::check::media_type_matches;

use super::request_items::Form;
use crate::api::{Code, Failure, MAX_MESSAGE};
use crate::codec::media_types::essence;
use crate::codec::{OutputError, max_string_size, max_value_size, write_f64, write_string, write_value};
use crate::error::ItemError;
use crate::http::error_format::ErrorFormat;
use crate::values::{DType, Tensor, Value};

/// The parts of a reply other than the outcomes.
#[derive(Clone, Copy, Debug)]
pub struct ReplyHead<'a> {
    /// Name of the model.
    pub model: &'a str,
    /// Name of the task.
    pub task: &'a str,
    /// The form of the request.
    pub form: Form,
    /// Size of the request body in bytes, which limits the size of the errors.
    pub request_size: usize,
    /// Time spent in `predict_batch`.
    pub inference: Duration,
    /// The request id, for the error of a request in which all items failed.
    pub request_id: Option<&'a str>,
}

/// The errors of all items take at most this many bytes per byte of the request, so that a small request cannot cause a large
/// reply. Outputs are limited by the model alone.
pub const MAX_ERROR_FACTOR: usize = 64;

/// Size up to which errors are complete, whatever the size of the request.
const SMALL_REPLY: usize = 4096;

/// An encoded reply.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedReply {
    /// HTTP status.
    pub status: u16,
    /// The JSON body.
    pub body: Vec<u8>,
}

/// Writes a reply. It succeeds if at least one item did; otherwise, its status is that of the most severe error.
pub fn encode_reply(head: &ReplyHead<'_>, outcomes: &[Result<Value, ItemError>]) -> EncodedReply {
    let mut body = Vec::with_capacity(estimated_size(outcomes) + 128);
    body.extend(b"{\"model\":");
    write_string(&mut body, head.model);
    body.extend(b",\"task\":");
    write_string(&mut body, head.task);
    body.extend(match head.form {
        Form::List => b",\"outputs\":[".as_slice(),
        Form::Single => b",\"output\":",
    });
    let max_error = (MAX_ERROR_FACTOR * head.request_size + SMALL_REPLY) / outcomes.len().max(1);
    let mut succeeded = 0;
    let mut most_severe: Option<Failure> = None;
    for (index, outcome) in outcomes.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        let start = body.len();
        let result = match outcome {
            Ok(value) => write_value(&mut body, value).map_err(Failure::from_output),
            Err(error) => Err(Failure::from(error)),
        };
        match result {
            Ok(()) => succeeded += 1,
            Err(failure) => {
                body.truncate(start);
                write_item_error(&mut body, &failure, max_error);
                if most_severe
                    .as_ref()
                    .is_none_or(|most_severe| most_severe.code < failure.code)
                {
                    most_severe = Some(Failure {
                        message: item_message(head.form, index, &failure.message),
                        ..failure
                    });
                }
            }
        }
    }
    let failed = most_severe.filter(|_| succeeded == 0);
    if let (Form::Single, Some(failure)) = (head.form, &failed) {
        return EncodedReply {
            status: failure.code.status(),
            body: ErrorFormat::Native.write(failure, head.request_id),
        };
    }
    if head.form == Form::List {
        body.push(b']');
    }
    body.extend(b",\"inference_time\":");
    write_f64(&mut body, head.inference.as_secs_f64());
    let mut status = 200;
    if let Some(failure) = &failed {
        status = failure.code.status();
        body.push(b',');
        // Without the opening brace of its object, the error becomes a member of the reply.
        let start = body.len();
        write_error(&mut body, failure, head.request_id);
        body.remove(start);
        return EncodedReply { status, body };
    }
    body.push(b'}');
    EncodedReply { status, body }
}

/// Returns the only output as a raw body, if it has kind bytes and the client explicitly accepts its media type. The
/// form of the request does not matter.
pub fn raw_output<'a>(
    accept: Option<&str>,
    outcomes: &'a [Result<Value, ItemError>],
) -> Option<(&'a bytes::Bytes, &'a str)> {
    let [Ok(Value::Bytes { data, media_type })] = outcomes else {
        return None;
    };
    let media_type = if media_type.is_empty() {
        "application/octet-stream"
    } else {
        media_type.as_str()
    };
    let wanted = accept?
        .split(',')
        .map(essence)
        .any(|range| range != "*/*" && media_type_matches(&range, &essence(media_type)));
    wanted.then_some((data, media_type))
}

/// Estimates the size of the outcomes as JSON, in bytes.
fn estimated_size(outcomes: &[Result<Value, ItemError>]) -> usize {
    outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(Value::Text(text)) => text.len() + text.len() / 16 + 3,
            Ok(Value::Json(json)) => json.len() + 1,
            Ok(Value::Bytes { data, media_type }) => data.len() / 3 * 4 + media_type.len() + 40,
            Ok(Value::Tensors(tensors)) => tensors.iter().map(estimated_tensor_size).sum(),
            Err(_) => 128,
        })
        .sum()
}

fn estimated_tensor_size(tensor: &Tensor) -> usize {
    let per_element = match tensor.dtype() {
        DType::Bool => 6,
        DType::Uint8 | DType::Int8 => 4,
        DType::Uint16 | DType::Int16 => 6,
        DType::Uint32 | DType::Int32 | DType::Fp32 => 12,
        DType::Fp16 | DType::Bf16 => 12,
        DType::Uint64 | DType::Int64 | DType::Fp64 => 20,
        DType::Bytes => return tensor.data().len() + tensor.name().len() + 8,
    };
    tensor.elements() * per_element + tensor.name().len() + 8
}

/// Returns the maximum size of the outcomes as JSON in bytes, which also limits the time for writing them.
pub(in crate::http) fn max_size(outcomes: &[Result<Value, ItemError>]) -> usize {
    let sizes = outcomes.iter().map(|outcome| match outcome {
        Ok(value) => max_value_size(value),
        Err(_) => 64 + max_string_size(MAX_MESSAGE),
    });
    sizes.fold(0, |sum: usize, size| sum.saturating_add(size).saturating_add(1))
}

impl Failure {
    fn from_output(error: OutputError) -> Self {
        Self::new(Code::ModelFault, error.to_string())
    }
}

fn item_message(form: Form, index: usize, message: &str) -> String {
    match form {
        Form::Single => message.to_owned(),
        Form::List => format!("all items failed; inputs[{index}]: {message}"),
    }
}

/// Writes the error of an item, and shortens its message until it takes at most `max_size` bytes.
fn write_item_error(body: &mut Vec<u8>, failure: &Failure, max_size: usize) {
    let start = body.len();
    write_error(body, failure, None);
    let mut length = failure.message.len().min(MAX_MESSAGE);
    while body.len() - start > max_size && length > 0 {
        length /= 2;
        body.truncate(start);
        write_error(body, &failure.shortened(length), None);
    }
}

fn write_error(body: &mut Vec<u8>, failure: &Failure, request_id: Option<&str>) {
    body.extend(ErrorFormat::Native.write(failure, request_id));
}

#[cfg(test)]
mod tests;
