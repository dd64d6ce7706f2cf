//! Writes replies as JSON, straight from tensor data into one buffer.
//!
//! An output that JSON cannot express (NaN, bytes that are no text) becomes an error of its item, so the status of a
//! reply is known only here.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use half::{bf16, f16};
use plugin_abi::check::media_type_matches;
use serde_json::ser::{CompactFormatter, Formatter as _};

use super::request_items::Form;
use crate::api::{Code, Failure, MAX_MESSAGE};
use crate::codec::media_types::essence;
use crate::error::ItemError;
use crate::http::error_format::Dialect;
use crate::values::{DType, Tensor, Value, byte_strings};

/// What a reply is about.
#[derive(Clone, Copy, Debug)]
pub struct ReplyHead<'a> {
    /// Name of the model.
    pub model: &'a str,
    /// Name of the task.
    pub task: &'a str,
    /// How the items were sent.
    pub form: Form,
    /// Time that the items spent in `predict_batch`.
    pub inference: Duration,
    /// Goes into the error, if all items failed.
    pub request_id: Option<&'a str>,
}

/// A reply on its way out.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedReply {
    /// HTTP status.
    pub status: u16,
    /// JSON.
    pub body: Vec<u8>,
}

/// Writes a reply. It is a success if at least one item is; else its status is that of the most severe error.
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
    let mut succeeded = 0;
    let mut worst: Option<Failure> = None;
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
                write_error(&mut body, &failure, None);
                if worst.as_ref().is_none_or(|worst| worst.code < failure.code) {
                    worst = Some(Failure {
                        message: at_item(head.form, index, &failure.message),
                        ..failure
                    });
                }
            }
        }
    }
    let failed = worst.filter(|_| succeeded == 0);
    if let (Form::Single, Some(failure)) = (head.form, &failed) {
        return EncodedReply {
            status: failure.code.status(),
            body: Dialect::Native.write(failure, head.request_id),
        };
    }
    if head.form == Form::List {
        body.push(b']');
    }
    body.extend(b",\"inference_time\":");
    write_number(&mut body, head.inference.as_secs_f64(), |f, out, value| {
        f.write_f64(out, value)
    });
    let mut status = 200;
    if let Some(failure) = &failed {
        status = failure.code.status();
        body.push(b',');
        // The object of `write_error` without its opening brace: the error becomes a member of the reply.
        let start = body.len();
        write_error(&mut body, failure, head.request_id);
        body.remove(start);
        return EncodedReply { status, body };
    }
    body.push(b'}');
    EncodedReply { status, body }
}

/// The only output as it is, if it is bytes and the client accepts its media type by name. Its item may be sent as
/// `input`, as a raw body, or as a list of one.
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

/// About how many bytes the outcomes take as JSON.
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

/// The maximum number of bytes that the outcomes take as JSON, which also bounds how long writing them takes.
pub(in crate::http) fn max_size(outcomes: &[Result<Value, ItemError>]) -> usize {
    let sizes = outcomes.iter().map(|outcome| match outcome {
        Ok(value) => max_value_size(value),
        Err(_) => 64 + max_string_size(MAX_MESSAGE),
    });
    sizes.fold(0, |sum: usize, size| sum.saturating_add(size).saturating_add(1))
}

fn max_value_size(value: &Value) -> usize {
    match value {
        Value::Text(text) => max_string_size(text.len()),
        Value::Json(json) => json.len(),
        Value::Bytes { data, media_type } => {
            data.len().div_ceil(3) * 4 + max_string_size(media_type.len()) + 32
        }
        Value::Tensors(tensors) => {
            let sizes = tensors
                .iter()
                .map(|tensor| max_string_size(tensor.name().len()) + 2 + max_tensor_size(tensor));
            sizes.fold(2, usize::saturating_add)
        }
    }
}

/// Every character of a string may have to be escaped, as `\u0000` at worst.
fn max_string_size(length: usize) -> usize {
    length.saturating_mul(6).saturating_add(2)
}

fn max_tensor_size(tensor: &Tensor) -> usize {
    let element = match tensor.dtype() {
        DType::Uint8 | DType::Int8 => 4,
        DType::Bool | DType::Uint16 | DType::Int16 => 6,
        DType::Uint32 | DType::Int32 => 11,
        DType::Fp16 | DType::Bf16 | DType::Fp32 => 24,
        DType::Uint64 | DType::Int64 => 20,
        DType::Fp64 => 32,
        DType::Bytes => 2,
    };
    let texts = match tensor.dtype() {
        DType::Bytes => tensor.data().len().saturating_mul(6),
        _ => 0,
    };
    // At worst each element has all brackets to itself; without elements, up to a thousand empty lists have.
    let brackets = 2 * tensor.shape().len() + 1;
    let elements = match tensor.elements() {
        0 => 1001,
        elements => elements,
    };
    elements.saturating_mul(element + brackets).saturating_add(texts)
}

/// Why an output cannot be JSON.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum OutputError {
    #[error("output `{name}` has {value} at element {at}, which JSON cannot express")]
    NotFinite { name: String, value: f64, at: usize },
    #[error("output `{name}` has bytes at element {at} that are not UTF-8, which JSON cannot express")]
    NotText { name: String, at: usize },
    #[error("the output is declared as text but is not UTF-8")]
    TextNotUtf8,
}

impl Failure {
    fn from_output(error: OutputError) -> Self {
        Self::new(Code::ModelFault, error.to_string())
    }
}

fn at_item(form: Form, index: usize, message: &str) -> String {
    match form {
        Form::Single => message.to_owned(),
        Form::List => format!("every item failed; inputs[{index}]: {message}"),
    }
}

fn write_error(body: &mut Vec<u8>, failure: &Failure, request_id: Option<&str>) {
    body.extend(Dialect::Native.write(failure, request_id));
}

pub(in crate::http) fn write_value(body: &mut Vec<u8>, value: &Value) -> Result<(), OutputError> {
    match value {
        Value::Text(text) => {
            let text = std::str::from_utf8(text).map_err(|_| OutputError::TextNotUtf8)?;
            write_string(body, text);
        }
        Value::Json(json) => body.extend_from_slice(json),
        Value::Bytes { data, media_type } => {
            body.extend(b"{\"b64\":\"");
            write_base64(body, data);
            body.push(b'"');
            if !media_type.is_empty() {
                body.extend(b",\"media_type\":");
                write_string(body, media_type);
            }
            body.push(b'}');
        }
        Value::Tensors(tensors) => {
            body.push(b'{');
            for (index, tensor) in tensors.iter().enumerate() {
                if index > 0 {
                    body.push(b',');
                }
                write_string(body, tensor.name());
                body.push(b':');
                write_tensor(body, tensor)?;
            }
            body.push(b'}');
        }
    }
    Ok(())
}

fn write_base64(body: &mut Vec<u8>, data: &[u8]) {
    let start = body.len();
    body.resize(start + data.len().div_ceil(3) * 4, 0);
    // The room is exact, so this cannot fail; were it to, the output would be cut and not wrong.
    let written = STANDARD.encode_slice(data, &mut body[start..]).unwrap_or(0);
    body.truncate(start + written);
}

/// Writes a JSON string; writing to a buffer in memory does not fail.
pub(in crate::http) fn write_string(body: &mut Vec<u8>, text: &str) {
    let _ = serde_json::to_writer(body, text);
}

fn write_number<T>(
    body: &mut Vec<u8>,
    value: T,
    write: impl Fn(&mut CompactFormatter, &mut Vec<u8>, T) -> std::io::Result<()>,
) {
    let _ = write(&mut CompactFormatter, body, value);
}

pub(in crate::http) fn write_tensor(body: &mut Vec<u8>, tensor: &Tensor) -> Result<(), OutputError> {
    let not_finite = |at: usize, value: f64| OutputError::NotFinite {
        name: tensor.name().to_owned(),
        value,
        at,
    };
    macro_rules! integers {
        ($type:ty, $write:ident) => {
            write_fixed(body, tensor, |out, _, bytes| {
                write_number(out, <$type>::from_le_bytes(bytes), |f, out, value| {
                    f.$write(out, value)
                });
                Ok(())
            })
        };
    }
    macro_rules! floats {
        ($type:ty, $as:ident, $write:ident) => {
            write_fixed(body, tensor, |out, at, bytes| {
                let value = <$as>::from(<$type>::from_le_bytes(bytes));
                if !value.is_finite() {
                    return Err(not_finite(at, value.into()));
                }
                write_number(out, value, |f, out, value| f.$write(out, value));
                Ok(())
            })
        };
    }
    match tensor.dtype() {
        DType::Bool => write_fixed(body, tensor, |out, _, [byte]: [u8; 1]| {
            out.extend_from_slice(if byte == 0 { b"false" } else { b"true" });
            Ok(())
        }),
        DType::Uint8 => integers!(u8, write_u8),
        DType::Uint16 => integers!(u16, write_u16),
        DType::Uint32 => integers!(u32, write_u32),
        DType::Uint64 => integers!(u64, write_u64),
        DType::Int8 => integers!(i8, write_i8),
        DType::Int16 => integers!(i16, write_i16),
        DType::Int32 => integers!(i32, write_i32),
        DType::Int64 => integers!(i64, write_i64),
        DType::Fp16 => floats!(f16, f32, write_f32),
        DType::Bf16 => floats!(bf16, f32, write_f32),
        DType::Fp32 => floats!(f32, f32, write_f32),
        DType::Fp64 => floats!(f64, f64, write_f64),
        DType::Bytes => {
            let elements = byte_strings(tensor.data());
            write_nested(body, tensor.shape(), elements, |out, at, element| {
                let text = std::str::from_utf8(&element).map_err(|_| OutputError::NotText {
                    name: tensor.name().to_owned(),
                    at,
                })?;
                write_string(out, text);
                Ok(())
            })
        }
    }
}

/// Writes a tensor of byte strings as objects with base64.
pub(in crate::http) fn write_b64_tensor(body: &mut Vec<u8>, tensor: &Tensor) -> Result<(), OutputError> {
    write_nested(
        body,
        tensor.shape(),
        byte_strings(tensor.data()),
        |out, _, element| {
            out.extend(b"{\"b64\":\"");
            write_base64(out, &element);
            out.extend(b"\"}");
            Ok(())
        },
    )
}

/// Writes a tensor of elements of `N` bytes.
fn write_fixed<const N: usize>(
    body: &mut Vec<u8>,
    tensor: &Tensor,
    write: impl FnMut(&mut Vec<u8>, usize, [u8; N]) -> Result<(), OutputError>,
) -> Result<(), OutputError> {
    let (elements, _) = tensor.data().as_chunks::<N>();
    write_nested(body, tensor.shape(), elements.iter().copied(), write)
}

/// Writes elements as arrays nested by `shape`: after each element, as many brackets close and open again as dimensions
/// have come to their end.
fn write_nested<T>(
    body: &mut Vec<u8>,
    shape: &[u64],
    elements: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, usize, T) -> Result<(), OutputError>,
) -> Result<(), OutputError> {
    if shape.contains(&0) {
        write_empty(body, shape);
        return Ok(());
    }
    let Some((&row, outer)) = shape.split_last() else {
        return elements
            .enumerate()
            .try_for_each(|(at, element)| write(body, at, element));
    };
    body.extend(shape.iter().map(|_| b'['));
    let mut left_in_row = row;
    let mut left: Vec<u64> = outer.to_vec();
    for (at, element) in elements.enumerate() {
        if at > 0 {
            if left_in_row > 0 {
                body.push(b',');
            } else {
                left_in_row = row;
                let ended = 1 + advance(outer, &mut left);
                write_turn(body, ended);
            }
        }
        write(body, at, element)?;
        left_in_row -= 1;
    }
    body.extend(shape.iter().map(|_| b']'));
    Ok(())
}

/// Counts one step of the innermost dimension; how many dimensions have come to their end with it.
fn advance(shape: &[u64], left: &mut [u64]) -> usize {
    let mut ended = 0;
    for (left, &size) in left.iter_mut().zip(shape).rev() {
        *left -= 1;
        if *left > 0 {
            break;
        }
        *left = size;
        ended += 1;
    }
    ended
}

/// Closes so many arrays and opens as many.
fn write_turn(body: &mut Vec<u8>, arrays: usize) {
    body.extend(std::iter::repeat_n(b']', arrays));
    body.push(b',');
    body.extend(std::iter::repeat_n(b'[', arrays));
}

/// Writes a tensor without elements. One that is empty in an inner dimension only would be a list of empty lists, as long
/// as the outer dimensions say, which no data bounds; past a thousand it is written as an empty list.
fn write_empty(body: &mut Vec<u8>, shape: &[u64]) {
    let outer: Vec<u64> = shape.iter().copied().take_while(|&dim| dim > 0).collect();
    let lists = outer
        .iter()
        .try_fold(1u64, |product, &dim| product.checked_mul(dim));
    let Some(lists @ 0..=1000) = lists else {
        body.extend(b"[]");
        return;
    };
    let mut left = outer.clone();
    body.extend(outer.iter().map(|_| b'['));
    for index in 0..lists {
        if index > 0 {
            // The innermost list is the empty one, which opens and closes by itself.
            let ended = advance(&outer, &mut left);
            write_turn(body, ended);
        }
        body.extend(b"[]");
    }
    body.extend(outer.iter().map(|_| b']'));
}

#[cfg(test)]
mod tests;
