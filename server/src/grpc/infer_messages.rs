//! Reads inference requests and writes their responses.
//!
//! Tensors are either raw bytes, which remain slices of the message, or typed lists. The response uses the form of
//! the request. [`crate::api::tensors`] matches the tensors with the task.

use bytes::{BufMut as _, Bytes, BytesMut};
use plugin_abi::manifest::TaskManifest;
use prost::Message as _;
use serde_json::Value as Json;

use super::message_codec::count_elements;
use super::proto::infer_parameter::ParameterChoice;
use super::proto::model_infer_request::InferInputTensor;
use super::proto::model_infer_response::InferOutputTensor;
use super::proto::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};
use crate::api::request_parameters::Parameters;
use crate::api::tensors::{
    InputTensor, MediaTypes, OutputTensor, check_requested, choose_outputs, items_from_tensors, max_elements,
    tensors_from_outcomes,
};
use crate::api::{BodyLimits, Code, Failure};
use crate::byte_budget::{MAX_UNCOUNTED, Reservation};
use crate::engine::Outcome;
use crate::error::ItemError;
use crate::values::{DType, ItemInput, byte_strings};

/// A request that is ready to be queued.
pub(super) struct InferRequest {
    pub(super) items: Vec<Result<ItemInput, ItemError>>,
    pub(super) parameters: Parameters,
    pub(super) requested: RequestedOutputs,
}

/// The requested outputs and their form.
pub(super) struct RequestedOutputs {
    /// Names of the outputs in order; empty for all outputs.
    names: Vec<String>,
    /// Raw bytes instead of typed lists.
    raw: bool,
}

fn malformed(message: String) -> Failure {
    Failure::new(Code::Malformed, message)
}

/// Reads a request. `decoded` grows by the memory of what is decoded from typed lists.
pub(super) fn read_request(
    request: ModelInferRequest,
    task: &TaskManifest,
    limits: BodyLimits,
    decoded: &mut Reservation,
) -> Result<InferRequest, Failure> {
    let ModelInferRequest {
        inputs,
        outputs,
        raw_input_contents: raw,
        parameters,
        ..
    } = request;
    let parameters = parameters.into_iter().map(|(name, value)| (name, json(value)));
    let parameters = Parameters::read(parameters, task)?;
    for output in &outputs {
        let classes = output.parameters.get("classification").cloned().map(json);
        if classes.is_some_and(|classes| classes.as_i64() != Some(0)) {
            let name = &output.name;
            return Err(malformed(format!(
                "output `{name}`: `classification` is not supported; remove the parameter"
            )));
        }
        reject_shared_memory(
            "output",
            &output.name,
            output.parameters.contains_key(SHARED_MEMORY),
        )?;
    }
    let names: Vec<String> = outputs.into_iter().map(|output| output.name).collect();
    check_requested(task, names.iter().map(String::as_str))?;
    if !raw.is_empty() && raw.len() != inputs.len() {
        return Err(malformed(format!(
            "`raw_input_contents` has {} elements, but there are {} inputs; expected one element per input",
            raw.len(),
            inputs.len()
        )));
    }
    let is_raw = !raw.is_empty();
    let mut raw = raw.into_iter();
    let inputs = inputs
        .into_iter()
        .map(|input| read_input(input, raw.next(), task, limits, decoded))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(InferRequest {
        items: items_from_tensors(task, inputs, &parameters.for_task, limits)?,
        parameters,
        requested: RequestedOutputs { names, raw: is_raw },
    })
}

/// Parameter of tensors in shared memory.
const SHARED_MEMORY: &str = "shared_memory_region";

fn reject_shared_memory(what: &str, name: &str, is_shared: bool) -> Result<(), Failure> {
    if !is_shared {
        return Ok(());
    }
    Err(malformed(format!(
        "{what} `{name}`: shared memory is not supported; send the tensor in the message"
    )))
}

fn json(parameter: InferParameter) -> Json {
    match parameter.parameter_choice {
        None => Json::Null,
        Some(ParameterChoice::BoolParam(value)) => value.into(),
        Some(ParameterChoice::Int64Param(value)) => value.into(),
        Some(ParameterChoice::Uint64Param(value)) => value.into(),
        Some(ParameterChoice::DoubleParam(value)) => value.into(),
        Some(ParameterChoice::StringParam(value)) => value.into(),
    }
}

fn read_input(
    input: InferInputTensor,
    raw: Option<Bytes>,
    task: &TaskManifest,
    limits: BodyLimits,
    decoded: &mut Reservation,
) -> Result<InputTensor, Failure> {
    let InferInputTensor {
        name,
        datatype,
        shape,
        parameters,
        contents,
    } = input;
    reject_shared_memory("input", &name, parameters.contains_key(SHARED_MEMORY))?;
    let Some(dtype) = DType::from_name(&datatype) else {
        let datatype: String = datatype.chars().take(40).collect();
        let known = DType::all().map(DType::name).collect::<Vec<_>>().join(", ");
        return Err(malformed(format!(
            "input `{name}`: unknown datatype `{datatype}`; expected one of {known}"
        )));
    };
    let sizes: Result<Vec<u64>, _> = shape.iter().map(|&dim| u64::try_from(dim)).collect();
    let Ok(sizes) = sizes else {
        return Err(malformed(format!(
            "input `{name}`: shape {shape:?} has a negative dimension"
        )));
    };
    let data = match (raw, contents.is_empty()) {
        (Some(_), false) => {
            return Err(malformed(format!(
                "input `{name}` has both `contents` and `raw_input_contents`; send one of them"
            )));
        }
        (Some(raw), true) => raw,
        (None, false) => {
            let max = max_elements(task, &name, &sizes, limits)?;
            decode_contents(&name, dtype, &sizes, max, contents, decoded)?
        }
        // A tensor without elements has no data.
        (None, true) if sizes.contains(&0) => Bytes::new(),
        (None, true) => {
            return Err(malformed(format!(
                "input `{name}` has no data; expected `contents` or `raw_input_contents`"
            )));
        }
    };
    let media_type = match parameters.into_iter().find(|(name, _)| name == "content_type") {
        Some((_, value)) => json(value)
            .as_str()
            .filter(|kind| kind.contains('/'))
            .unwrap_or_default()
            .to_owned(),
        None => String::new(),
    };
    Ok(InputTensor {
        name,
        dtype,
        shape: sizes,
        data,
        media_types: MediaTypes::Shared(media_type),
    })
}

/// Maximum memory of an element while a typed list is decoded: in a list, whose capacity may be twice its length, and in the
/// tensor. A byte string is a [`Bytes`] in the list, and has a length in the tensor.
const NUMBER_SIZE: u64 = 3 * 8;
const BYTE_STRING_SIZE: u64 = 2 * size_of::<Bytes>() as u64 + 4;

/// Decodes typed lists after checking that they have no more elements than the shape and the task allow. Their memory is
/// reserved before, and `decoded` keeps that of the tensor.
fn decode_contents(
    name: &str,
    dtype: DType,
    shape: &[u64],
    max: Option<u64>,
    contents: Bytes,
    decoded: &mut Reservation,
) -> Result<Bytes, Failure> {
    let product = shape
        .iter()
        .try_fold(1u64, |product, &dim| product.checked_mul(dim));
    let max = max.into_iter().chain(product).min().unwrap_or(u64::MAX);
    let invalid = |problem: String| malformed(format!("input `{name}`: {problem}"));
    let elements = count_elements(&contents) as u64;
    if elements > max {
        return Err(invalid(format!(
            "`contents` has {elements} elements, expected at most {max} for shape {shape:?}"
        )));
    }
    let before = decoded.bytes();
    let max_size = match dtype {
        DType::Bytes => elements * BYTE_STRING_SIZE + contents.len() as u64,
        _ => elements * NUMBER_SIZE,
    };
    if max_size > MAX_UNCOUNTED {
        decoded.grow(max_size)?;
    }
    let contents = InferTensorContents::decode(contents)
        .map_err(|error| invalid(format!("malformed `contents`: {error}")))?;
    let data = read_contents(dtype, contents).map_err(invalid)?;
    decoded.shrink_to(before + data.len() as u64);
    Ok(data)
}

/// Converts a typed list to little-endian bytes.
fn read_contents(dtype: DType, contents: InferTensorContents) -> Result<Bytes, String> {
    fn all<T, const N: usize>(elements: Vec<T>, bytes: impl Fn(T) -> [u8; N]) -> Result<Bytes, String> {
        Ok(elements.into_iter().flat_map(bytes).collect::<Vec<u8>>().into())
    }
    fn narrow<T: Copy + std::fmt::Display, U: TryFrom<T>, const N: usize>(
        elements: Vec<T>,
        dtype: DType,
        bytes: impl Fn(U) -> [u8; N],
    ) -> Result<Bytes, String> {
        let mut data = BytesMut::with_capacity(elements.len() * N);
        for (at, element) in elements.into_iter().enumerate() {
            let narrow = U::try_from(element)
                .map_err(|_| format!("element {at}: {element} is out of range for {dtype}"))?;
            data.put_slice(&bytes(narrow));
        }
        Ok(data.freeze())
    }
    match dtype {
        DType::Bool => all(contents.bool_contents, |value| [u8::from(value)]),
        DType::Int8 => narrow(contents.int_contents, dtype, i8::to_le_bytes),
        DType::Int16 => narrow(contents.int_contents, dtype, i16::to_le_bytes),
        DType::Int32 => all(contents.int_contents, i32::to_le_bytes),
        DType::Int64 => all(contents.int64_contents, i64::to_le_bytes),
        DType::Uint8 => narrow(contents.uint_contents, dtype, u8::to_le_bytes),
        DType::Uint16 => narrow(contents.uint_contents, dtype, u16::to_le_bytes),
        DType::Uint32 => all(contents.uint_contents, u32::to_le_bytes),
        DType::Uint64 => all(contents.uint64_contents, u64::to_le_bytes),
        DType::Fp32 => all(contents.fp32_contents, f32::to_le_bytes),
        DType::Fp64 => all(contents.fp64_contents, f64::to_le_bytes),
        DType::Fp16 | DType::Bf16 => Err(format!("{dtype} must be sent in `raw_input_contents`")),
        DType::Bytes => {
            let elements = contents.bytes_contents;
            let mut data = BytesMut::with_capacity(elements.iter().map(|element| 4 + element.len()).sum());
            for element in elements {
                let length =
                    u32::try_from(element.len()).map_err(|_| "an element is longer than 4 GiB".to_owned())?;
                data.put_u32_le(length);
                data.put_slice(&element);
            }
            Ok(data.freeze())
        }
    }
}

/// Writes the outputs of a response. The caller sets the model and the id.
pub(super) fn write_response(
    task: &TaskManifest,
    outcomes: Vec<Outcome>,
    requested: &RequestedOutputs,
) -> Result<ModelInferResponse, Failure> {
    let mut outputs = tensors_from_outcomes(task, outcomes)?;
    if !requested.names.is_empty() {
        let names = requested.names.iter().map(String::as_str);
        let chosen = choose_outputs(task, &outputs, names)?.into_iter();
        outputs = chosen.map(|(_, output)| output).collect();
    }
    let only_raw = |output: &OutputTensor| matches!(output.dtype, DType::Fp16 | DType::Bf16);
    let raw = requested.raw || outputs.iter().any(only_raw);
    let mut response = ModelInferResponse::default();
    for output in outputs {
        response.outputs.push(InferOutputTensor {
            name: output.name.clone(),
            datatype: output.dtype.name().to_owned(),
            shape: output
                .shape
                .iter()
                .map(|&dim| i64::try_from(dim).unwrap_or(i64::MAX))
                .collect(),
            parameters: Default::default(),
            contents: (!raw).then(|| write_contents(&output)),
        });
        if raw {
            response.raw_output_contents.push(output.into_data());
        }
    }
    Ok(response)
}

/// Converts the elements to a typed list.
fn write_contents(output: &OutputTensor) -> InferTensorContents {
    fn all<T, const N: usize>(output: &OutputTensor, element: impl Fn([u8; N]) -> T) -> Vec<T> {
        let rows = output.rows.iter();
        rows.flat_map(|row| row.as_chunks::<N>().0)
            .map(|bytes| element(*bytes))
            .collect()
    }
    let mut contents = InferTensorContents::default();
    match output.dtype {
        DType::Bool => contents.bool_contents = all(output, |[byte]| byte != 0),
        DType::Int8 => contents.int_contents = all(output, |bytes| i8::from_le_bytes(bytes).into()),
        DType::Int16 => contents.int_contents = all(output, |bytes| i16::from_le_bytes(bytes).into()),
        DType::Int32 => contents.int_contents = all(output, i32::from_le_bytes),
        DType::Int64 => contents.int64_contents = all(output, i64::from_le_bytes),
        DType::Uint8 => contents.uint_contents = all(output, |[byte]| byte.into()),
        DType::Uint16 => contents.uint_contents = all(output, |bytes| u16::from_le_bytes(bytes).into()),
        DType::Uint32 => contents.uint_contents = all(output, u32::from_le_bytes),
        DType::Uint64 => contents.uint64_contents = all(output, u64::from_le_bytes),
        DType::Fp32 => contents.fp32_contents = all(output, f32::from_le_bytes),
        DType::Fp64 => contents.fp64_contents = all(output, f64::from_le_bytes),
        DType::Bytes => contents.bytes_contents = output.rows.iter().flat_map(byte_strings).collect(),
        // Always raw.
        DType::Fp16 | DType::Bf16 => {}
    }
    contents
}

#[cfg(test)]
mod tests;
