//! Conversion of items and outputs from and to their JSON form on the server's native routes.

use abi_stable::std_types::{RSlice, RStr};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use plugin_abi::codes::kind;
use plugin_abi::manifest::{Kind, TensorManifest, ValueManifest};
use plugin_abi::{DType, RawValue, check, json_error};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::input::Value;
use crate::json_bytes::JsonBytes;
use crate::tensor::{TensorOutput, TensorView};

/// An owned item.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum OwnedValue {
    Text(String),
    Bytes(Vec<u8>, String),
    Json(String),
    Tensors(Vec<TensorOutput>),
}

impl OwnedValue {
    pub(super) fn with_raw<R>(&self, call: impl FnOnce(RawValue<'_>) -> R) -> R {
        with_all_raw(&[self], |raw| call(raw[0]))
    }
}

/// Calls `call` with all values in the form of the ABI.
pub(super) fn with_all_raw<R>(values: &[&OwnedValue], call: impl FnOnce(&[RawValue<'_>]) -> R) -> R {
    let tensors: Vec<Vec<_>> = values
        .iter()
        .map(|value| match value {
            OwnedValue::Tensors(tensors) => tensors.iter().map(TensorOutput::raw).collect(),
            _ => Vec::new(),
        })
        .collect();
    let raw: Vec<_> = values
        .iter()
        .zip(&tensors)
        .map(|(value, tensors)| {
            let (kind, data, media_type) = match value {
                OwnedValue::Text(text) => (kind::TEXT, text.as_bytes(), ""),
                OwnedValue::Bytes(data, media_type) => (kind::BYTES, &data[..], &media_type[..]),
                OwnedValue::Json(document) => (kind::JSON, document.as_bytes(), ""),
                OwnedValue::Tensors(_) => (kind::TENSORS, &[][..], ""),
            };
            RawValue {
                kind,
                reserved: 0,
                data: RSlice::from(data),
                media_type: RStr::from(media_type),
                tensors: RSlice::from(&tensors[..]),
                reserved_word: 0,
            }
        })
        .collect();
    call(&raw)
}

/// Converts an item from JSON by the rules of the server's native routes.
pub(super) fn read(item: &Json, input: &ValueManifest) -> Result<OwnedValue, String> {
    let preferred: &[Kind] = match item {
        Json::String(_) => &[Kind::Text, Kind::Json, Kind::Bytes, Kind::Tensors],
        Json::Array(_) => &[Kind::Tensors, Kind::Json],
        Json::Object(members)
            if input.kinds.len() > 1 && input.kinds.contains(&Kind::Bytes) && members.contains_key("b64") =>
        {
            &[Kind::Bytes]
        }
        Json::Object(_) => &[Kind::Json, Kind::Tensors, Kind::Bytes],
        Json::Number(_) | Json::Bool(_) => &[Kind::Json, Kind::Tensors],
        Json::Null => &[Kind::Json],
    };
    match preferred.iter().find(|kind| input.kinds.contains(kind)) {
        Some(Kind::Text) => Ok(OwnedValue::Text(item.as_str().unwrap_or_default().to_owned())),
        Some(Kind::Json) => Ok(OwnedValue::Json(item.to_string())),
        Some(Kind::Bytes) => read_bytes(item, input),
        Some(Kind::Tensors) => read_tensors(item, &input.tensors).map(OwnedValue::Tensors),
        None => {
            let kinds: Vec<&str> = input.kinds.iter().map(|kind| kind.name()).collect();
            Err(format!("got {item}, expected {}", kinds.join(" or ")))
        }
    }
}

/// Converts an output to JSON.
pub(super) fn write(raw: &RawValue<'_>) -> Result<Json, String> {
    match Value::new(raw).map_err(|error| error.to_string())? {
        Value::Text(text) => Ok(json!(text)),
        Value::Bytes(item) if item.media_type.is_empty() => Ok(json!({"b64": BASE64.encode(item.data)})),
        Value::Bytes(item) => Ok(json!({"b64": BASE64.encode(item.data), "media_type": item.media_type})),
        Value::Json(document) => {
            serde_json::from_slice(document).map_err(|error| format!("the output is not valid JSON: {error}"))
        }
        Value::Tensors(tensors) => {
            let named = tensors
                .iter()
                .map(|tensor| Ok((tensor.name().to_owned(), nested(&tensor)?)));
            named.collect::<Result<_, _>>().map(Json::Object)
        }
    }
}

/// Converts a tensor to nested arrays.
pub(super) fn nested(tensor: &TensorView<'_>) -> Result<Json, String> {
    macro_rules! numbers {
        ($rust:ty) => {
            tensor
                .data()
                .chunks_exact(size_of::<$rust>())
                .map(|bytes| json!(bytemuck::pod_read_unaligned::<$rust>(bytes)))
                .collect()
        };
    }
    let flat: Vec<Json> = match tensor.dtype() {
        DType::Bool => tensor.data().iter().map(|byte| json!(*byte != 0)).collect(),
        DType::Uint8 => numbers!(u8),
        DType::Uint16 => numbers!(u16),
        DType::Uint32 => numbers!(u32),
        DType::Uint64 => numbers!(u64),
        DType::Int8 => numbers!(i8),
        DType::Int16 => numbers!(i16),
        DType::Int32 => numbers!(i32),
        DType::Int64 => numbers!(i64),
        DType::Fp32 => numbers!(f32),
        DType::Fp64 => numbers!(f64),
        DType::Bytes => {
            let strings = tensor.byte_strings().map_err(|error| error.to_string())?;
            strings
                .into_iter()
                .map(|string| json!(String::from_utf8_lossy(string)))
                .collect()
        }
        DType::Fp16 | DType::Bf16 => {
            return Err(format!(
                "tensor `{}`: {} is not supported in tests",
                tensor.name(),
                tensor.dtype().name()
            ));
        }
    };
    let mut flat = flat.into_iter();
    Ok(nest(&mut flat, tensor.shape()))
}

fn nest(flat: &mut impl Iterator<Item = Json>, shape: &[u64]) -> Json {
    match shape.split_first() {
        Some((rows, inner)) => (0..*rows).map(|_| nest(flat, inner)).collect(),
        None => flat.next().unwrap_or_default(),
    }
}

fn read_bytes(item: &Json, input: &ValueManifest) -> Result<OwnedValue, String> {
    let JsonBytes { data, media_type } =
        JsonBytes::deserialize(item).map_err(|error| json_error::message(&error))?;
    if !media_type.is_empty() && !check::accepts_media_type(input, &media_type) {
        return Err(format!(
            "media type `{media_type}` is not supported, expected {}",
            input.media_types.join(", ")
        ));
    }
    Ok(OwnedValue::Bytes(data, media_type))
}

fn read_tensors(item: &Json, declared: &[TensorManifest]) -> Result<Vec<TensorOutput>, String> {
    match (item, declared) {
        (Json::Object(named), _) => {
            let mut tensors = Vec::new();
            for tensor in declared {
                match named.get(&tensor.name) {
                    _ if tensor.sequence => tensors.extend(read_sequence(named, tensor)?),
                    Some(values) => tensors.push(read_tensor(values, tensor)?),
                    None => return Err(format!("missing tensor `{}`", tensor.name)),
                }
            }
            let is_read = |name: &str| tensors.iter().any(|tensor: &TensorOutput| tensor.name() == name);
            match named.keys().find(|name| !is_read(name)) {
                Some(unknown) => Err(format!("unknown tensor `{unknown}`")),
                None => Ok(tensors),
            }
        }
        (values, [only]) if !only.sequence => Ok(vec![read_tensor(values, only)?]),
        _ => Err(format!(
            "got {item}, expected an object of {} tensors",
            declared.len()
        )),
    }
}

/// Reads the tensors `name.0`, `name.1` and so on, up to the first one that is missing.
fn read_sequence(
    named: &serde_json::Map<String, Json>,
    declared: &TensorManifest,
) -> Result<Vec<TensorOutput>, String> {
    (0..)
        .map(|position| format!("{}.{position}", declared.name))
        .map_while(|name| Some((named.get(&name)?, name)))
        .map(|(values, name)| {
            let member = TensorManifest {
                name,
                ..declared.clone()
            };
            read_tensor(values, &member)
        })
        .collect()
}

fn read_tensor(values: &Json, declared: &TensorManifest) -> Result<TensorOutput, String> {
    let (mut shape, mut flat) = (Vec::new(), Vec::new());
    flatten(values, 0, &mut shape, &mut flat);
    let name = declared.name.clone();
    let resolved = match declared.unranked {
        true => Some(shape.clone()),
        false => resolve_shape(&shape, &declared.shape),
    };
    let shape = resolved.ok_or_else(|| {
        format!(
            "tensor `{name}`: got shape {shape:?}, expected {:?}",
            declared.shape
        )
    })?;
    let dtype =
        DType::from_name(&declared.dtype).ok_or_else(|| format!("unknown datatype {}", declared.dtype))?;
    let is_missing = values.is_null() && declared.shape.iter().all(|&size| size == 1);
    let elements = flat.iter().map(|value| match dtype {
        DType::Fp32 if is_missing => Ok(f32::NAN.to_le_bytes().to_vec()),
        DType::Fp64 if is_missing => Ok(f64::NAN.to_le_bytes().to_vec()),
        _ => element(value, dtype),
    });
    let data = elements
        .collect::<Result<Vec<_>, _>>()
        .map_err(|problem| format!("tensor `{name}`: {problem}"))?
        .concat();
    let tensor = TensorOutput::from_bytes(name, dtype, &shape, data);
    tensor.check()?;
    Ok(tensor)
}

/// Returns the shape of the data: that of the nested arrays, or for flat data the one that follows from its length and the
/// declared shape.
fn resolve_shape(got: &[usize], declared: &[i64]) -> Option<Vec<usize>> {
    let fits = |(&got, &expected): (&usize, &i64)| expected < 0 || got as u64 == expected.unsigned_abs();
    if got.len() == declared.len() && got.iter().zip(declared).all(fits) {
        return Some(got.to_vec());
    }
    if got.is_empty() && declared.iter().all(|&size| size == 1) {
        return Some(vec![1; declared.len()]);
    }
    if got.contains(&0) && got.len() < declared.len() {
        // The dimensions below an empty array do not show in the data, but are known if they are fixed.
        let (outer, inner) = declared.split_at(got.len());
        let inner: Option<Vec<usize>> = inner.iter().map(|&size| usize::try_from(size).ok()).collect();
        if let Some(inner) = inner
            && got.iter().zip(outer).all(fits)
        {
            return Some([got, &inner].concat());
        }
    }
    let &[length] = got else { return None };
    let sizes = declared.iter().filter(|&&expected| expected >= 0);
    let known = sizes.map(|&size| size as usize).product::<usize>();
    let open = declared.iter().filter(|&&expected| expected < 0).count();
    let is_whole = match open {
        0 => known == length,
        1 => known > 0 && length % known == 0,
        _ => false,
    };
    let size = |&expected: &i64| usize::try_from(expected).unwrap_or(length / known.max(1));
    is_whole.then(|| declared.iter().map(size).collect())
}

/// Converts one element to little-endian bytes.
fn element(value: &Json, dtype: DType) -> Result<Vec<u8>, String> {
    macro_rules! number {
        ($rust:ty) => {
            serde_json::from_value::<$rust>(value.clone())
                .map(|number| number.to_le_bytes().to_vec())
                .map_err(|error| json_error::message(&error))
        };
    }
    match dtype {
        DType::Uint8 => number!(u8),
        DType::Uint16 => number!(u16),
        DType::Uint32 => number!(u32),
        DType::Uint64 => number!(u64),
        DType::Int8 => number!(i8),
        DType::Int16 => number!(i16),
        DType::Int32 => number!(i32),
        DType::Int64 => number!(i64),
        DType::Fp32 => match value.as_f64() {
            Some(number) if (number as f32).is_finite() => Ok((number as f32).to_le_bytes().to_vec()),
            _ => Err(format!("got {value}, expected a number in the range of FP32")),
        },
        DType::Fp64 => number!(f64),
        DType::Bool => match value.as_bool() {
            Some(value) => Ok(vec![u8::from(value)]),
            None => Err(format!("got {value}, expected true or false")),
        },
        DType::Bytes => match value.as_str() {
            Some(text) => Ok([&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()),
            None => Err(format!("got {value}, expected a string")),
        },
        DType::Fp16 | DType::Bf16 => Err(format!("{} is not supported in tests", dtype.name())),
    }
}

/// Collects the shape and the elements of nested arrays. For ragged arrays they do not match, which the tensor's check detects.
fn flatten<'a>(values: &'a Json, depth: usize, shape: &mut Vec<usize>, flat: &mut Vec<&'a Json>) {
    match values {
        Json::Array(rows) => {
            if shape.len() == depth {
                shape.push(rows.len());
            }
            rows.iter().for_each(|row| flatten(row, depth + 1, shape, flat));
        }
        value => flat.push(value),
    }
}
