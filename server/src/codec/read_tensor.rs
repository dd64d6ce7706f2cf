//! Reads tensors from JSON directly into little-endian bytes, without recursion and without building a tree.
//!
//! The text is known to be one valid JSON document, so the reader only checks that it is a tensor.

use bytes::Bytes;
use half::{bf16, f16};
use plugin_abi::manifest::TensorManifest;

use super::read_item::{JsonForm, b64_object};
use crate::error::ItemError;
use crate::json::{self, object_end, string_end};
use crate::values::{DType, Tensor};

/// Reads nested or flat arrays, or a scalar, as the declared tensor. A tensor of one element can be a scalar, such as
/// a column of a row, or `null`, which means a missing value and is NaN for floats. `name` is the declared name, or
/// the name of a tensor in the declared sequence.
///
/// # Errors
/// If the elements or the shape do not match the declaration.
pub fn read_tensor(text: &str, name: &str, declared: &TensorManifest) -> Result<Tensor, ItemError> {
    let dtype = DType::from_name(&declared.dtype)
        .ok_or_else(|| ItemError::Fault(format!("tensor `{name}`: unknown datatype `{}`", declared.dtype)))?;
    let invalid = |message: String| ItemError::Invalid(format!("tensor `{name}`: {message}"));
    let max = declared_elements(&declared.shape).filter(|_| !declared.unranked);
    let mut reader = Reader::new(dtype, max);
    match missing_value(dtype).filter(|_| text == "null" && max == Some(1)) {
        Some(nan) => reader.data = nan,
        None => reader.read(text).map_err(invalid)?,
    }
    let shape = match declared.unranked {
        true => reader.dims,
        false => resolve_shape(&reader.dims, &declared.shape).map_err(invalid)?,
    };
    Tensor::new(name, dtype, shape, Bytes::from(reader.data))
        .map_err(|error| ItemError::Invalid(error.to_string()))
}

/// Returns the NaN that represents a missing value; `None` for types without NaN.
fn missing_value(dtype: DType) -> Option<Vec<u8>> {
    Some(match dtype {
        DType::Fp64 => f64::NAN.to_le_bytes().to_vec(),
        DType::Fp32 => f32::NAN.to_le_bytes().to_vec(),
        DType::Fp16 => f16::NAN.to_le_bytes().to_vec(),
        DType::Bf16 => bf16::NAN.to_le_bytes().to_vec(),
        _ => return None,
    })
}

/// Returns the number of elements of a declared shape; `None` if a dimension has any size.
fn declared_elements(shape: &[i64]) -> Option<u64> {
    let sizes = shape.iter().map(|&dim| u64::try_from(dim).ok());
    sizes
        .into_iter()
        .try_fold(1u64, |product, size| product.checked_mul(size?))
}

/// Reads nested or flat arrays of elements. Returns the elements and the lengths of the arrays, outermost first.
/// Reading stops soon after `max` elements.
///
/// # Errors
/// Names the invalid element, or states that the arrays are ragged.
pub fn read_elements(text: &str, dtype: DType, max: Option<u64>) -> Result<(Bytes, Vec<u64>), String> {
    let mut reader = Reader::new(dtype, max);
    reader.read(text)?;
    Ok((Bytes::from(reader.data), reader.dims))
}

/// Determines the shape of the data: that of the nested arrays or, for a flat array, the one that follows from the
/// declared shape and the length.
fn resolve_shape(got: &[u64], declared: &[i64]) -> Result<Vec<u64>, String> {
    let fits = |(&got, &want): (&u64, &i64)| want < 0 || u64::try_from(want) == Ok(got);
    if got.len() == declared.len() && got.iter().zip(declared).all(fits) {
        return Ok(got.to_vec());
    }
    if got.is_empty() && declared.iter().all(|&dim| dim == 1) {
        return Ok(vec![1; declared.len()]);
    }
    if got.contains(&0) && got.len() < declared.len() {
        // The dimensions below an empty array are not visible in JSON. They are known if they are fixed.
        let (outer, inner) = declared.split_at(got.len());
        let inner: Option<Vec<u64>> = inner.iter().map(|&dim| u64::try_from(dim).ok()).collect();
        if let Some(inner) = inner
            && got.iter().zip(outer).all(fits)
        {
            return Ok([got, &inner].concat());
        }
    }
    let known = declared
        .iter()
        .filter_map(|&dim| u64::try_from(dim).ok())
        .try_fold(1u64, u64::checked_mul);
    let open = declared.iter().filter(|&&dim| dim < 0).count();
    if let (&[length], Some(known)) = (got, known) {
        let rest = length.checked_div(known).unwrap_or(0);
        let whole = if open == 0 {
            known == length
        } else {
            open == 1 && known > 0 && rest * known == length
        };
        if whole {
            return Ok(declared
                .iter()
                .map(|&dim| u64::try_from(dim).unwrap_or(rest))
                .collect());
        }
    }
    let flat = match known {
        Some(known) if open == 0 => format!(" or a flat array of {known}"),
        Some(known) if open == 1 => format!(" or a flat array of a multiple of {known}"),
        _ => String::new(),
    };
    Err(format!("expected shape {declared:?}{flat}, got {got:?}"))
}

/// How many elements beyond the maximum are counted, so that an error can state their number. Tensors can take
/// several times the memory of their text, so reading stops after that.
const MAX_EXCESS: u64 = 65_536;

struct Reader {
    dtype: DType,
    /// Reading stops after this many elements.
    max: Option<u64>,
    data: Vec<u8>,
    /// Number of elements read.
    elements: usize,
    /// Length of the arrays at each depth, known after the first one was closed.
    dims: Vec<u64>,
    /// Whether the length at each depth is known.
    closed: Vec<bool>,
    /// Number of children of each open array so far.
    open: Vec<u64>,
    /// Depth of the elements, known after the first one.
    leaf_depth: Option<usize>,
}

impl Reader {
    fn new(dtype: DType, max: Option<u64>) -> Self {
        Self {
            dtype,
            max,
            data: Vec::new(),
            elements: 0,
            dims: Vec::new(),
            closed: Vec::new(),
            open: Vec::new(),
            leaf_depth: None,
        }
    }

    fn read(&mut self, text: &str) -> Result<(), String> {
        let bytes = text.as_bytes();
        // A rough estimate: a number and its comma take at least two characters.
        let elements = self
            .max
            .map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        self.data
            .reserve(elements.min(bytes.len() / 4) * self.dtype.size().unwrap_or(1));
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            at = match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b',' => at + 1,
                b'[' => {
                    self.open_array()?;
                    at + 1
                }
                b']' => {
                    self.close_array()?;
                    at + 1
                }
                b'{' if self.dtype == DType::Bytes => {
                    let end = object_end(bytes, at) + 1;
                    self.element(&text[at..end])?;
                    end
                }
                b'{' => return Err(self.unexpected(JsonForm::Object)),
                b'"' => {
                    let end = string_end(bytes, at) + 1;
                    self.element(&text[at..end])?;
                    end
                }
                _ => {
                    let length = bytes[at..]
                        .iter()
                        .position(|b| matches!(b, b',' | b']' | b' ' | b'\t' | b'\r' | b'\n'))
                        .unwrap_or(bytes.len() - at);
                    self.element(&text[at..at + length])?;
                    at + length
                }
            };
        }
        Ok(())
    }

    fn open_array(&mut self) -> Result<(), String> {
        if self.leaf_depth == Some(self.open.len()) {
            return Err(self.ragged());
        }
        self.count_child();
        self.open.push(0);
        if self.dims.len() < self.open.len() {
            self.dims.push(0);
            self.closed.push(false);
        }
        Ok(())
    }

    fn close_array(&mut self) -> Result<(), String> {
        let depth = self.open.len() - 1;
        let children = self.open.pop().unwrap_or_default();
        if self.closed[depth] && self.dims[depth] != children {
            return Err(self.ragged());
        }
        self.closed[depth] = true;
        self.dims[depth] = children;
        Ok(())
    }

    fn element(&mut self, token: &str) -> Result<(), String> {
        let depth = self.open.len();
        if *self.leaf_depth.get_or_insert(depth) != depth || self.dims.len() != depth {
            return Err(self.ragged());
        }
        if let Some(max) = self
            .max
            .filter(|&max| self.elements as u64 >= max.saturating_add(MAX_EXCESS))
        {
            return Err(format!(
                "more than {} elements, expected at most {max}",
                self.elements
            ));
        }
        self.count_child();
        push_element(self.dtype, token, &mut self.data)
            .map_err(|error| format!("element {}: {error}", self.elements))?;
        self.elements += 1;
        Ok(())
    }

    fn count_child(&mut self) {
        if let Some(parent) = self.open.last_mut() {
            *parent += 1;
        }
    }

    fn ragged(&self) -> String {
        format!(
            "nested arrays have different lengths or depths near element {}",
            self.elements
        )
    }

    fn unexpected(&self, form: JsonForm) -> String {
        format!(
            "element {}: expected {}, got {}",
            self.elements,
            expected_form(self.dtype),
            form.name()
        )
    }
}

/// The JSON form of an element, for error messages.
fn expected_form(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "true or false",
        DType::Bytes => "a string or {\"b64\": …}",
        DType::Fp16 | DType::Fp32 | DType::Fp64 | DType::Bf16 => "a number",
        _ => "an integer",
    }
}

fn push_element(dtype: DType, token: &str, data: &mut Vec<u8>) -> Result<(), String> {
    let form = JsonForm::of(token);
    let mismatch = || format!("expected {}, got {}", expected_form(dtype), form.name());
    match dtype {
        DType::Bool => match token {
            "true" => data.push(1),
            "false" => data.push(0),
            _ => return Err(mismatch()),
        },
        DType::Bytes => match form {
            JsonForm::String => push_string(token, data)?,
            JsonForm::Object => {
                let element = b64_object(token).ok_or_else(mismatch)??;
                push_bytes(&element, data)?;
            }
            _ => return Err(mismatch()),
        },
        _ if form != JsonForm::Number => return Err(mismatch()),
        DType::Fp64 => data.extend(float::<f64>(token, dtype, f64::is_finite)?.to_le_bytes()),
        DType::Fp32 => data.extend(float::<f32>(token, dtype, f32::is_finite)?.to_le_bytes()),
        DType::Fp16 => {
            let value = f16::from_f64(float::<f64>(token, dtype, f64::is_finite)?);
            if !value.is_finite() {
                return Err(format!("{token} is out of range for {dtype}"));
            }
            data.extend(value.to_le_bytes());
        }
        DType::Bf16 => {
            let value = bf16::from_f64(float::<f64>(token, dtype, f64::is_finite)?);
            if !value.is_finite() {
                return Err(format!("{token} is out of range for {dtype}"));
            }
            data.extend(value.to_le_bytes());
        }
        DType::Uint8 => data.extend(integer::<u8>(token, dtype)?.to_le_bytes()),
        DType::Uint16 => data.extend(integer::<u16>(token, dtype)?.to_le_bytes()),
        DType::Uint32 => data.extend(integer::<u32>(token, dtype)?.to_le_bytes()),
        DType::Uint64 => data.extend(integer::<u64>(token, dtype)?.to_le_bytes()),
        DType::Int8 => data.extend(integer::<i8>(token, dtype)?.to_le_bytes()),
        DType::Int16 => data.extend(integer::<i16>(token, dtype)?.to_le_bytes()),
        DType::Int32 => data.extend(integer::<i32>(token, dtype)?.to_le_bytes()),
        DType::Int64 => data.extend(integer::<i64>(token, dtype)?.to_le_bytes()),
    }
    Ok(())
}

fn push_string(token: &str, data: &mut Vec<u8>) -> Result<(), String> {
    let decoded;
    let inner = &token[1..token.len() - 1];
    let string = if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        inner
    } else {
        decoded = json::from_str::<String>(token)
            .map_err(|error| format!("invalid string: {}", error.message()))?;
        &decoded
    };
    push_bytes(string.as_bytes(), data)
}

fn push_bytes(element: &[u8], data: &mut Vec<u8>) -> Result<(), String> {
    let length = u32::try_from(element.len()).map_err(|_| "the element is longer than 4 GiB".to_owned())?;
    data.extend(length.to_le_bytes());
    data.extend(element);
    Ok(())
}

fn float<T>(token: &str, dtype: DType, is_finite: impl Fn(T) -> bool) -> Result<T, String>
where
    T: std::str::FromStr + Copy,
{
    match token.parse::<T>() {
        Ok(value) if is_finite(value) => Ok(value),
        _ => Err(format!("{token} is out of range for {dtype}")),
    }
}

fn integer<T>(token: &str, dtype: DType) -> Result<T, String>
where
    T: std::str::FromStr + TryFrom<i64>,
{
    // Parsed as i64 first, because `-0` is an integer in JSON but no unsigned type parses it. Larger values are
    // parsed as the target type.
    if let Ok(small) = token.parse::<i64>() {
        return T::try_from(small).map_err(|_| format!("{token} is out of range for {dtype}"));
    }
    if token.contains(['.', 'e', 'E']) {
        return Err(format!("expected an integer for {dtype}, got {token}"));
    }
    token
        .parse::<T>()
        .map_err(|_| format!("{token} is out of range for {dtype}"))
}

#[cfg(test)]
mod tests;
