//! The JSON form of items and outputs on the server's native routes.

use abi_stable::std_types::{RSlice, RStr};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use plugin_abi::RawValue;
use plugin_abi::codes::kind;
use plugin_abi::manifest::{Kind, TensorManifest, ValueManifest};
use serde_json::{Value as Json, json};

use crate::input::Value;
use crate::tensor::{TensorOutput, TensorView};
use plugin_abi::DType;

/// An item in memory of its own.
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

/// Lends all values in the form of the ABI.
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

/// Reads an item. The kind is the first that the task takes and that the item can be.
pub(super) fn read(item: &Json, input: &ValueManifest) -> Result<OwnedValue, String> {
    let takes = |kind| input.kinds.contains(&kind);
    if let (Json::String(text), true) = (item, takes(Kind::Text)) {
        return Ok(OwnedValue::Text(text.clone()));
    }
    if takes(Kind::Bytes) && (item.get("b64").is_some() || input.kinds == [Kind::Bytes]) {
        return read_bytes(item);
    }
    if takes(Kind::Json) {
        return Ok(OwnedValue::Json(item.to_string()));
    }
    if takes(Kind::Tensors) {
        return read_tensors(item, &input.tensors).map(OwnedValue::Tensors);
    }
    Err(format!("got {item}, expected a value of kind {:?}", input.kinds))
}

/// Writes an output.
pub(super) fn write(raw: &RawValue<'_>) -> Result<Json, String> {
    match Value::new(raw).map_err(|error| error.to_string())? {
        Value::Text(text) => Ok(json!(text)),
        Value::Bytes(item) if item.media_type.is_empty() => Ok(json!({"b64": BASE64.encode(item.data)})),
        Value::Bytes(item) => Ok(json!({"b64": BASE64.encode(item.data), "media_type": item.media_type})),
        Value::Json(document) => {
            serde_json::from_slice(document).map_err(|error| format!("output is not JSON: {error}"))
        }
        Value::Tensors(tensors) => {
            let named = tensors
                .iter()
                .map(|tensor| Ok((tensor.name().to_owned(), nested(&tensor)?)));
            named.collect::<Result<_, _>>().map(Json::Object)
        }
    }
}

/// A tensor as nested arrays.
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
                "tensor `{}`: {} has no JSON form in tests",
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

fn read_bytes(item: &Json) -> Result<OwnedValue, String> {
    let b64 = item["b64"]
        .as_str()
        .ok_or_else(|| format!("got {item}, expected {{\"b64\": …, \"media_type\": …}}"))?;
    let data = BASE64
        .decode(b64)
        .map_err(|error| format!("`b64` is not base64: {error}"))?;
    Ok(OwnedValue::Bytes(
        data,
        item["media_type"].as_str().unwrap_or("").to_owned(),
    ))
}

fn read_tensors(item: &Json, declared: &[TensorManifest]) -> Result<Vec<TensorOutput>, String> {
    match (item, declared) {
        (Json::Object(named), _) => {
            let read = |tensor: &TensorManifest| match named.get(&tensor.name) {
                Some(values) => read_tensor(values, tensor),
                None => Err(format!("missing tensor `{}`", tensor.name)),
            };
            declared.iter().map(read).collect()
        }
        (values, [only]) => Ok(vec![read_tensor(values, only)?]),
        _ => Err(format!(
            "got {item}, expected an object of {} tensors",
            declared.len()
        )),
    }
}

fn read_tensor(values: &Json, declared: &TensorManifest) -> Result<TensorOutput, String> {
    let (mut shape, mut flat) = (Vec::new(), Vec::new());
    flatten(values, 0, &mut shape, &mut flat);
    // A flat array is allowed where the declared shape says how to read it.
    if shape.len() == 1 && declared.shape.iter().all(|dimension| *dimension >= 0) {
        shape = declared
            .shape
            .iter()
            .map(|dimension| *dimension as usize)
            .collect();
    }
    let name = declared.name.clone();
    let dtype =
        DType::from_name(&declared.dtype).ok_or_else(|| format!("unknown datatype {}", declared.dtype))?;
    let wrong = |value: &&Json| format!("tensor `{name}`: {value} is not a {}", dtype.name());
    macro_rules! numbers {
        ($rust:ty, $read:ident) => {{
            let read = |value: &&Json| {
                let number = value.$read().map(|number| number as $rust);
                number.ok_or_else(|| wrong(value))
            };
            TensorOutput::new(
                name.clone(),
                &shape,
                flat.iter().map(read).collect::<Result<Vec<$rust>, _>>()?,
            )
        }};
    }
    let tensor = match dtype {
        DType::Bool => {
            let read = |value: &&Json| value.as_bool().map(u8::from).ok_or_else(|| wrong(value));
            TensorOutput::from_bytes(
                name.clone(),
                dtype,
                &shape,
                flat.iter().map(read).collect::<Result<_, _>>()?,
            )
        }
        DType::Uint8 => numbers!(u8, as_u64),
        DType::Uint16 => numbers!(u16, as_u64),
        DType::Uint32 => numbers!(u32, as_u64),
        DType::Uint64 => numbers!(u64, as_u64),
        DType::Int8 => numbers!(i8, as_i64),
        DType::Int16 => numbers!(i16, as_i64),
        DType::Int32 => numbers!(i32, as_i64),
        DType::Int64 => numbers!(i64, as_i64),
        DType::Fp32 => numbers!(f32, as_f64),
        DType::Fp64 => numbers!(f64, as_f64),
        DType::Bytes => {
            let read = |value: &&Json| value.as_str().map(str::to_owned).ok_or_else(|| wrong(value));
            let strings: Vec<String> = flat.iter().map(read).collect::<Result<_, _>>()?;
            TensorOutput::byte_strings(name.clone(), &shape, strings)
        }
        DType::Fp16 | DType::Bf16 => return Err(format!("{} has no JSON form in tests", dtype.name())),
    };
    tensor.check()?;
    Ok(tensor)
}

/// Ragged arrays give a shape that the number of values contradicts, which the tensor's own check finds.
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
