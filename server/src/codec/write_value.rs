//! Writes output values as JSON, directly from tensor data into one buffer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use half::{bf16, f16};
use serde_json::ser::{CompactFormatter, Formatter as _};

use crate::values::{DType, Tensor, Value, byte_strings};

/// Why JSON cannot express an output.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OutputError {
    /// A float is NaN or infinite.
    #[error("element {at} of output `{name}` is {value}, which JSON cannot express")]
    NotFinite {
        /// Name of the tensor.
        name: String,
        /// The value.
        value: f64,
        /// Index of the element.
        at: usize,
    },
    /// A byte string is not UTF-8.
    #[error("element {at} of output `{name}` is not UTF-8, which JSON cannot express")]
    NotText {
        /// Name of the tensor.
        name: String,
        /// Index of the element.
        at: usize,
    },
    /// A text is not UTF-8.
    #[error("the output is not UTF-8, although the task declares it as text")]
    TextNotUtf8,
}

/// Returns the maximum size of a value as JSON in bytes.
pub fn max_value_size(value: &Value) -> usize {
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

/// Returns the maximum size of a string of `length` bytes as JSON. In the worst case, every byte is escaped as `\u0000`.
pub fn max_string_size(length: usize) -> usize {
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
    // In the worst case, every element has its own brackets. Without elements, there are up to a thousand empty
    // arrays.
    let brackets = 2 * tensor.shape().len() + 1;
    let elements = match tensor.elements() {
        0 => 1001,
        elements => elements,
    };
    elements.saturating_mul(element + brackets).saturating_add(texts)
}

/// Writes a value.
///
/// # Errors
/// If JSON cannot express it.
pub fn write_value(body: &mut Vec<u8>, value: &Value) -> Result<(), OutputError> {
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
        Value::Tensors(tensors) => write_object(body, by_name(tensors), write_tensor)?,
    }
    Ok(())
}

/// Writes an object with these members, whose values `write` writes.
///
/// # Errors
/// The first error of `write`.
pub fn write_object<'a, T>(
    body: &mut Vec<u8>,
    members: impl IntoIterator<Item = (&'a str, T)>,
    write: impl Fn(&mut Vec<u8>, T) -> Result<(), OutputError>,
) -> Result<(), OutputError> {
    write_separated(body, *b"{}", members, |body, (name, value)| {
        write_string(body, name);
        body.push(b':');
        write(body, value)
    })
}

/// Writes an array with these elements, each of which `write` writes.
///
/// # Errors
/// The first error of `write`.
pub fn write_list<T>(
    body: &mut Vec<u8>,
    elements: impl IntoIterator<Item = T>,
    write: impl Fn(&mut Vec<u8>, T) -> Result<(), OutputError>,
) -> Result<(), OutputError> {
    write_separated(body, *b"[]", elements, write)
}

/// The tensors as members of an object.
pub fn by_name(tensors: &[Tensor]) -> impl Iterator<Item = (&str, &Tensor)> {
    tensors.iter().map(|tensor| (tensor.name(), tensor))
}

fn write_separated<T>(
    body: &mut Vec<u8>,
    [open, close]: [u8; 2],
    elements: impl IntoIterator<Item = T>,
    write: impl Fn(&mut Vec<u8>, T) -> Result<(), OutputError>,
) -> Result<(), OutputError> {
    body.push(open);
    for (index, element) in elements.into_iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        write(body, element)?;
    }
    body.push(close);
    Ok(())
}

fn write_base64(body: &mut Vec<u8>, data: &[u8]) {
    let start = body.len();
    body.resize(start + data.len().div_ceil(3) * 4, 0);
    // The buffer has exactly the required size, so this cannot fail. If it did, the output would be truncated.
    let written = STANDARD.encode_slice(data, &mut body[start..]).unwrap_or(0);
    body.truncate(start + written);
}

/// Writes a JSON string. Writing to memory cannot fail.
pub fn write_string(body: &mut Vec<u8>, text: &str) {
    let _ = serde_json::to_writer(body, text);
}

/// Writes a JSON number. Writing to memory cannot fail.
pub fn write_f64(body: &mut Vec<u8>, value: f64) {
    write_number(body, value, |f, out, value| f.write_f64(out, value));
}

fn write_number<T>(
    body: &mut Vec<u8>,
    value: T,
    write: impl Fn(&mut CompactFormatter, &mut Vec<u8>, T) -> std::io::Result<()>,
) {
    let _ = write(&mut CompactFormatter, body, value);
}

/// Writes the elements of a tensor as nested arrays.
///
/// # Errors
/// If JSON cannot express an element.
pub fn write_tensor(body: &mut Vec<u8>, tensor: &Tensor) -> Result<(), OutputError> {
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

/// Writes a tensor of byte strings as `{"b64": …}` objects.
pub fn write_b64_tensor(body: &mut Vec<u8>, tensor: &Tensor) -> Result<(), OutputError> {
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

/// Writes a tensor with elements of `N` bytes.
fn write_fixed<const N: usize>(
    body: &mut Vec<u8>,
    tensor: &Tensor,
    write: impl FnMut(&mut Vec<u8>, usize, [u8; N]) -> Result<(), OutputError>,
) -> Result<(), OutputError> {
    let (elements, _) = tensor.data().as_chunks::<N>();
    write_nested(body, tensor.shape(), elements.iter().copied(), write)
}

/// Writes elements as arrays nested according to `shape`. After each element, one bracket closes and opens for every
/// dimension that is complete.
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
                write_brackets(body, ended);
            }
        }
        write(body, at, element)?;
        left_in_row -= 1;
    }
    body.extend(shape.iter().map(|_| b']'));
    Ok(())
}

/// Advances the innermost dimension by one. Returns the number of dimensions that are complete.
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

/// Closes and opens this many arrays.
fn write_brackets(body: &mut Vec<u8>, arrays: usize) {
    body.extend(std::iter::repeat_n(b']', arrays));
    body.push(b',');
    body.extend(std::iter::repeat_n(b'[', arrays));
}

/// Writes a tensor without elements. If only an inner dimension is zero, it is an array of empty arrays. Since no
/// data limits the outer dimensions, a tensor with more than a thousand empty arrays is written as one empty array.
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
            // The innermost array is the empty one, which is written separately.
            let ended = advance(&outer, &mut left);
            write_brackets(body, ended);
        }
        body.extend(b"[]");
    }
    body.extend(outer.iter().map(|_| b']'));
}

#[cfg(test)]
mod tests;
