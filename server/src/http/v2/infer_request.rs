//! Reads an inference request: JSON, optionally followed by binary tensor data.
//!
//! A header states the length of the JSON. Without it, the whole body is JSON. [`crate::api::tensors`] matches the
//! tensors with the task.

use bytes::{BufMut as _, Bytes, BytesMut};
use plugin_abi::manifest::{Kind, TaskManifest};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::infer_request_error::InferRequestError;
use super::raw_body::read_raw_body;
use crate::api::request_parameters::Parameters;
use crate::api::tensors::{self, InputTensor, MediaTypes};
use crate::api::{BodyLimits, Failure};
use crate::codec::bounded_json::AtMost;
use crate::codec::{data_uri, read_elements};
use crate::http::native::envelope::{check_depth, check_utf8};
use crate::json::{self, Object};
use crate::values::{DType, byte_strings};

/// The header with the length of the JSON.
pub(crate) const HEADER_LENGTH: &str = "inference-header-content-length";

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct InferRequest {
    /// The id that the client gave the request, which the response repeats.
    pub id: Option<String>,
    /// The input tensors, not checked against the task.
    pub inputs: Vec<InputTensor>,
    /// The parameters.
    pub parameters: Parameters,
    /// The requested outputs.
    pub requested: RequestedOutputs,
}

/// The requested outputs and their form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestedOutputs {
    /// All outputs.
    All {
        /// As binary data instead of JSON.
        binary: bool,
    },
    /// Only these outputs.
    Named(Vec<RequestedOutput>),
}

impl RequestedOutputs {
    /// Whether any output is requested as JSON.
    pub fn has_json(&self) -> bool {
        match self {
            Self::All { binary } => !binary,
            Self::Named(outputs) => outputs.iter().any(|output| !output.binary),
        }
    }
}

/// One requested output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedOutput {
    /// Name of the output.
    pub name: String,
    /// As binary data instead of JSON.
    pub binary: bool,
}

/// Maximum number of inputs, and of outputs, in a request.
const MAX_TENSORS: usize = 1024;

/// Maximum number of dimensions of a tensor.
const MAX_DIMENSIONS: usize = 64;

#[derive(Deserialize)]
struct RequestJson<'a> {
    id: Option<String>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    inputs: AtMost<Object<InputJson<'a>>, MAX_TENSORS>,
    outputs: Option<AtMost<Object<OutputJson>, MAX_TENSORS>>,
}

#[derive(Deserialize)]
struct InputJson<'a> {
    name: String,
    shape: AtMost<i64, MAX_DIMENSIONS>,
    datatype: String,
    parameters: Option<Object<InputParameters>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InputParameters {
    binary_data_size: Option<u64>,
    content_type: Option<String>,
    shared_memory_region: Option<String>,
}

#[derive(Deserialize)]
struct OutputJson {
    name: String,
    parameters: Option<Object<OutputParameters>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OutputParameters {
    binary_data: Option<bool>,
    classification: Option<u64>,
    shared_memory_region: Option<String>,
}

/// Parses the header with the length of the JSON.
pub(crate) fn header_length(value: Option<&[u8]>) -> Result<Option<usize>, Failure> {
    let Some(value) = value else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(value);
    match text.trim().parse() {
        Ok(length) => Ok(Some(length)),
        Err(_) => {
            let text = text.chars().take(40).collect();
            Err(InferRequestError::HeaderLength(text).into())
        }
    }
}

/// Reads a request. The first `json_length` bytes of the body are JSON, or the whole body if there is no length. If
/// the length is zero, the body is the data of the task's only input.
///
/// # Errors
/// If the body is not a request.
pub fn read_request(
    body: &Bytes,
    json_length: Option<usize>,
    task: &TaskManifest,
    limits: BodyLimits,
) -> Result<InferRequest, Failure> {
    let (json, has_header) = match json_length {
        Some(0) => return Ok(read_raw_body(body, task)?),
        Some(length) if length > body.len() => {
            let body = body.len();
            return Err(InferRequestError::HeaderTooLong { length, body }.into());
        }
        Some(length) => (&body[..length], true),
        None => (&body[..], false),
    };
    let request = read_json(json, has_header, limits).map_err(|failure| {
        let missing = if has_header { None } else { missing_header(body) };
        missing.map_or(failure, Failure::from)
    })?;
    let parameters = match request.parameters {
        Some(parameters) => Parameters::read_json(parameters.get(), task)?,
        None => Parameters::default(),
    };
    let requested = read_requested_outputs(
        request.outputs.map_or_else(Vec::new, |outputs| outputs.0),
        &parameters,
    )?;
    if let RequestedOutputs::Named(outputs) = &requested {
        tensors::check_requested(task, outputs.iter().map(|output| output.name.as_str()))?;
    }
    let mut binary = BinaryData {
        data: body.slice(json.len()..),
        taken: 0,
    };
    let inputs = request
        .inputs
        .0
        .into_iter()
        .map(|Object(input)| read_input(input, &mut binary, task, limits))
        .collect::<Result<Vec<_>, _>>()?;
    binary.finish()?;
    Ok(InferRequest {
        id: request.id.filter(|id| !id.is_empty()),
        inputs,
        parameters,
        requested,
    })
}

/// Reads the JSON of a request. `has_header` states whether its length comes from a header.
fn read_json(json: &[u8], has_header: bool, limits: BodyLimits) -> Result<RequestJson<'_>, Failure> {
    let text = check_utf8(json)?;
    check_depth(json, limits.depth)?;
    match json::from_str::<Object<RequestJson<'_>>>(text) {
        Ok(Object(request)) => Ok(request),
        Err(error) if has_header => {
            let length = json.len();
            Err(InferRequestError::MalformedPart { error, length }.into())
        }
        Err(error) => Err(InferRequestError::Malformed(error).into()),
    }
}

/// Returns the error for a body that continues after the JSON without a header that states the length of the JSON.
fn missing_header(body: &[u8]) -> Option<InferRequestError> {
    let mut documents = serde_json::Deserializer::from_slice(body).into_iter::<IgnoredAny>();
    documents.next()?.ok()?;
    let length = documents.byte_offset();
    let rest = body.len() - length;
    (!body[length..].trim_ascii().is_empty()).then_some(InferRequestError::MissingHeader { rest, length })
}

fn read_requested_outputs(
    outputs: Vec<Object<OutputJson>>,
    parameters: &Parameters,
) -> Result<RequestedOutputs, InferRequestError> {
    if outputs.is_empty() {
        return Ok(RequestedOutputs::All {
            binary: parameters.binary_output,
        });
    }
    let requested = |Object(output): Object<OutputJson>| {
        let Object(parameters) = output.parameters.unwrap_or_default();
        if parameters.shared_memory_region.is_some() {
            return Err(InferRequestError::SharedMemory {
                what: "output",
                name: output.name,
            });
        }
        if parameters.classification.is_some_and(|classes| classes > 0) {
            return Err(InferRequestError::Classification(output.name));
        }
        Ok(RequestedOutput {
            name: output.name,
            // As in Triton, `binary_data_output` of the request does not apply to outputs that are requested by name.
            binary: parameters.binary_data.unwrap_or(false),
        })
    };
    let requested = outputs
        .into_iter()
        .map(requested)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(RequestedOutputs::Named(requested))
}

/// The binary data after the JSON, of which each input takes a part.
struct BinaryData {
    data: Bytes,
    taken: usize,
}

impl BinaryData {
    fn take(&mut self, name: &str, requested: u64) -> Result<Bytes, InferRequestError> {
        let left = self.data.len() - self.taken;
        match usize::try_from(requested) {
            Ok(length) if length <= left => {
                let start = self.taken;
                self.taken += length;
                Ok(self.data.slice(start..self.taken))
            }
            _ => Err(InferRequestError::BinaryTooShort {
                name: name.to_owned(),
                requested,
                left,
                all: self.data.len(),
            }),
        }
    }

    fn finish(self) -> Result<(), InferRequestError> {
        if self.taken == self.data.len() {
            return Ok(());
        }
        Err(InferRequestError::BinaryTooLong {
            taken: self.taken,
            all: self.data.len(),
        })
    }
}

fn read_input(
    input: InputJson<'_>,
    binary: &mut BinaryData,
    task: &TaskManifest,
    limits: BodyLimits,
) -> Result<InputTensor, Failure> {
    let name = input.name;
    let Some(dtype) = DType::from_name(&input.datatype) else {
        let unknown = InferRequestError::Datatype {
            datatype: input.datatype.chars().take(40).collect(),
            known: DType::all().map(DType::name).collect::<Vec<_>>().join(", "),
            name,
        };
        return Err(unknown.into());
    };
    let shape: Result<Vec<u64>, _> = input.shape.0.iter().map(|&dim| u64::try_from(dim)).collect();
    let Ok(shape) = shape else {
        let shape = input.shape.0;
        return Err(InferRequestError::NegativeDimension { name, shape }.into());
    };
    let max = tensors::max_elements(task, &name, &shape, limits)?;
    let Object(parameters) = input.parameters.unwrap_or_default();
    if parameters.shared_memory_region.is_some() {
        return Err(InferRequestError::SharedMemory { what: "input", name }.into());
    }
    let content_type = parameters.content_type.unwrap_or_default();
    let mut media_types = None;
    let data = match (input.data, parameters.binary_data_size) {
        (Some(_), Some(_)) => return Err(InferRequestError::BothForms(name).into()),
        (None, None) => return Err(InferRequestError::NoData(name).into()),
        (None, Some(size)) => binary.take(&name, size)?,
        (Some(data), None) => {
            tensors::check_datatype(task, &name, dtype)?;
            let data = read_json_data(&name, dtype, &shape, max, data.get())?;
            if task.input.kinds.contains(&Kind::Bytes) && dtype == DType::Bytes {
                let decoded = decode_strings(&name, data, &content_type)?;
                media_types = decoded.media_types;
                decoded.data
            } else {
                data
            }
        }
    };
    Ok(InputTensor {
        name,
        dtype,
        shape,
        data,
        media_types: media_types.unwrap_or_else(|| MediaTypes::Shared(media_type(&content_type))),
    })
}

/// Returns the media type in a `content_type`; empty for encodings such as MLServer's `np` and `str`, which the
/// datatype already implies.
fn media_type(content_type: &str) -> String {
    if content_type.contains('/') {
        content_type.to_owned()
    } else {
        String::new()
    }
}

/// Reads `data`, which is a flat array or nested according to the shape.
fn read_json_data(
    name: &str,
    dtype: DType,
    shape: &[u64],
    max: Option<u64>,
    text: &str,
) -> Result<Bytes, InferRequestError> {
    if matches!(dtype, DType::Fp16 | DType::Bf16) {
        let name = name.to_owned();
        return Err(InferRequestError::OnlyBinary { name, dtype });
    }
    let product = |dims: &[u64]| {
        dims.iter()
            .try_fold(1u64, |product, &dim| product.checked_mul(dim))
    };
    let expected = product(shape);
    let max = max.into_iter().chain(expected).min();
    let (data, dims) = read_elements(text, dtype, max).map_err(|problem| InferRequestError::Data {
        name: name.to_owned(),
        problem,
    })?;
    let got = product(&dims).unwrap_or(u64::MAX);
    if dims.is_empty() && !shape.is_empty() {
        return Err(InferRequestError::Data {
            name: name.to_owned(),
            problem: "expected `data` to be an array".to_owned(),
        });
    }
    if Some(got) != expected {
        return Err(InferRequestError::Elements {
            name: name.to_owned(),
            got,
            shape: shape.to_vec(),
            expected: expected.map_or("more than 2^64".to_owned(), |expected| expected.to_string()),
        });
    }
    // The dimensions below an empty array are not visible in JSON.
    let hides_dimensions = got == 0 && shape.starts_with(&dims);
    if dims.len() > 1 && dims != shape && !hides_dimensions {
        return Err(InferRequestError::Data {
            name: name.to_owned(),
            problem: format!("`data` has shape {dims:?}, expected {shape:?}"),
        });
    }
    Ok(data)
}

/// Bytes decoded from strings.
struct DecodedStrings {
    data: Bytes,
    /// One per element, if any element is a data URI.
    media_types: Option<MediaTypes>,
}

/// Decodes the strings of an input of kind bytes: data URIs, and base64 if the client declares it. A data URI sets
/// the media type of its element.
fn decode_strings(name: &str, data: Bytes, content_type: &str) -> Result<DecodedStrings, InferRequestError> {
    let is_base64 = content_type == "base64";
    let has_uris = byte_strings(&data).any(|element| data_uri::is_data_uri(&element));
    if !is_base64 && !has_uris {
        let media_types = None;
        return Ok(DecodedStrings { data, media_types });
    }
    let mut decoded = BytesMut::with_capacity(data.len());
    let mut media_types = Vec::new();
    for (at, element) in byte_strings(&data).enumerate() {
        let bytes = if data_uri::is_data_uri(&element) {
            data_uri::decode(&element).map(|uri| (uri.data, uri.media_type))
        } else if is_base64 {
            data_uri::decode_base64(&element).map(|data| (data, String::new()))
        } else {
            Ok((element.to_vec(), media_type(content_type)))
        };
        let (bytes, element_type) = bytes.map_err(|problem| InferRequestError::Data {
            name: name.to_owned(),
            problem: format!("element {at}: {problem}"),
        })?;
        // Decoding makes an element shorter, so its length still fits.
        decoded.put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        decoded.put_slice(&bytes);
        if has_uris {
            media_types.push(element_type);
        }
    }
    Ok(DecodedStrings {
        data: decoded.freeze(),
        media_types: has_uris.then_some(MediaTypes::Each(media_types)),
    })
}

#[cfg(test)]
mod tests;
