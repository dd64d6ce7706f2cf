//! Takes a request of the Open Inference Protocol apart: JSON, and behind it the tensors that are sent as they are.
//!
//! A header says how long the JSON is; without one all of the body is JSON. Nothing here knows what the tensors mean to
//! the task: see [`crate::api::tensors`].

use bytes::{BufMut as _, Bytes, BytesMut};
use plugin_abi::manifest::{Kind, TaskManifest};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::api::request_parameters::Parameters;
use crate::api::tensors::{self, Input, MediaTypes, Spec};
use crate::api::{BodyLimits, Code, Failure};
use crate::codec::bounded_json::AtMost;
use crate::codec::data_uri;
use crate::codec::read_elements;
use crate::http::native::envelope::{check_depth, check_utf8};
use crate::json::{self, JsonError, Object};
use crate::values::{DType, byte_strings};

/// The header that says how long the JSON is.
pub(crate) const HEADER_LENGTH: &str = "inference-header-content-length";

/// A request, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct InferRequest {
    /// The client's own name of the request, which goes into the reply.
    pub id: Option<String>,
    /// Its tensors, not checked against anything but themselves.
    pub inputs: Vec<Input>,
    /// Its parameters.
    pub parameters: Parameters,
    /// How the outputs are wanted.
    pub wanted: Wanted,
}

/// Which outputs a client wants, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of them, as binary or as JSON.
    All {
        /// As binary.
        binary: bool,
    },
    /// These.
    These(Vec<WantedOutput>),
}

impl Wanted {
    /// Whether any output is wanted as JSON.
    pub fn has_json(&self) -> bool {
        match self {
            Self::All { binary } => !binary,
            Self::These(outputs) => outputs.iter().any(|output| !output.binary),
        }
    }
}

/// One output that a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedOutput {
    /// Its name.
    pub name: String,
    /// As binary rather than as JSON.
    pub binary: bool,
}

/// Why a body is no request.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("header Inference-Header-Content-Length: expected a number of bytes, got `{0}`")]
    HeaderLength(String),
    #[error("header Inference-Header-Content-Length is {length}, but the body has only {body} bytes")]
    HeaderTooLong { length: usize, body: usize },
    #[error("malformed request body: {0}")]
    Malformed(JsonError),
    #[error(
        "malformed request body: {error}; header Inference-Header-Content-Length says that the JSON ends at byte {length}"
    )]
    MalformedPart { error: JsonError, length: usize },
    #[error(
        "the body has {rest} bytes after the JSON, which ends at byte {length}; if they are binary tensors, send the \
         header Inference-Header-Content-Length: {length}"
    )]
    MissingHeader { rest: usize, length: usize },
    #[error("input `{name}`: unknown datatype `{datatype}`; known: {known}")]
    Datatype {
        name: String,
        datatype: String,
        known: String,
    },
    #[error("input `{name}`: shape {shape:?} has a negative dimension")]
    NegativeDimension { name: String, shape: Vec<i64> },
    #[error("input `{0}` has both `data` and `binary_data_size`; send one of them")]
    BothForms(String),
    #[error(
        "input `{0}` has no data; expected `data`, or `parameters.binary_data_size` and the bytes behind the JSON"
    )]
    NoData(String),
    #[error("input `{name}` has {dtype} data as JSON; {dtype} can only be sent as binary data")]
    OnlyBinary { name: String, dtype: DType },
    #[error("input `{name}`: {problem}")]
    Data { name: String, problem: String },
    #[error("input `{name}` has {got} elements in `data`, but its shape {shape:?} has {expected}")]
    Elements {
        name: String,
        got: u64,
        shape: Vec<u64>,
        expected: String,
    },
    #[error("input `{name}` takes {wanted} bytes of binary data, but only {left} of {all} are left")]
    BinaryTooShort {
        name: String,
        wanted: u64,
        left: usize,
        all: usize,
    },
    #[error("the body has {all} bytes of binary data, but the inputs take only {taken}")]
    BinaryTooLong { taken: usize, all: usize },
    #[error("{what} `{name}` is in shared memory, which this server does not support; send it in the body")]
    SharedMemory { what: &'static str, name: String },
    #[error("output `{0}`: `classification` is not supported; a task that classifies says so itself")]
    Classification(String),
    #[error("a raw body is one input of one item, but the task takes {0} inputs")]
    RawInputs(usize),
    #[error("a raw body is one tensor, but input `{0}` is a sequence of tensors")]
    RawSequence(String),
    #[error("a raw body of {bytes} bytes does not make input `{name}` of {dtype} {shape:?}")]
    RawShape {
        name: String,
        bytes: usize,
        dtype: DType,
        shape: Vec<i64>,
    },
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::new(Code::Malformed, error.to_string())
    }
}

/// Maximum number of inputs, and of outputs, that a request names.
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

/// Reads the header that says how long the JSON is.
pub(crate) fn header_length(value: Option<&[u8]>) -> Result<Option<usize>, Failure> {
    let Some(value) = value else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(value);
    match text.trim().parse() {
        Ok(length) => Ok(Some(length)),
        Err(_) => {
            let text = text.chars().take(40).collect();
            Err(ReadError::HeaderLength(text).into())
        }
    }
}

/// Takes a body apart, whose first `json_length` bytes are JSON; all of it, if that is not said. None of it, if that is
/// zero: then the body is the single input of the task.
pub fn read_request(
    body: &Bytes,
    json_length: Option<usize>,
    task: &TaskManifest,
    limits: BodyLimits,
) -> Result<InferRequest, Failure> {
    let (json, has_header) = match json_length {
        Some(0) => return Ok(read_raw(body, task)?),
        Some(length) if length > body.len() => {
            let body = body.len();
            return Err(ReadError::HeaderTooLong { length, body }.into());
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
    let wanted = read_wanted(
        request.outputs.map_or_else(Vec::new, |outputs| outputs.0),
        &parameters,
    )?;
    if let Wanted::These(outputs) = &wanted {
        tensors::check_requested(task, outputs.iter().map(|output| output.name.as_str()))?;
    }
    let mut binary = Binary {
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
        wanted,
    })
}

/// Reads the JSON of a request, whose length a header may have stated.
fn read_json(json: &[u8], has_header: bool, limits: BodyLimits) -> Result<RequestJson<'_>, Failure> {
    let text = check_utf8(json)?;
    check_depth(json, limits.depth)?;
    match json::from_str::<Object<RequestJson<'_>>>(text) {
        Ok(Object(request)) => Ok(request),
        Err(error) if has_header => {
            let length = json.len();
            Err(ReadError::MalformedPart { error, length }.into())
        }
        Err(error) => Err(ReadError::Malformed(error).into()),
    }
}

/// The error of a body that goes on after its JSON, although no header states the length of the JSON.
fn missing_header(body: &[u8]) -> Option<ReadError> {
    let mut documents = serde_json::Deserializer::from_slice(body).into_iter::<IgnoredAny>();
    documents.next()?.ok()?;
    let length = documents.byte_offset();
    let rest = body.len() - length;
    (!body[length..].trim_ascii().is_empty()).then_some(ReadError::MissingHeader { rest, length })
}

fn read_wanted(outputs: Vec<Object<OutputJson>>, parameters: &Parameters) -> Result<Wanted, ReadError> {
    if outputs.is_empty() {
        return Ok(Wanted::All {
            binary: parameters.binary_output,
        });
    }
    let wanted = |Object(output): Object<OutputJson>| {
        let Object(parameters) = output.parameters.unwrap_or_default();
        if parameters.shared_memory_region.is_some() {
            return Err(ReadError::SharedMemory {
                what: "output",
                name: output.name,
            });
        }
        if parameters.classification.is_some_and(|classes| classes > 0) {
            return Err(ReadError::Classification(output.name));
        }
        Ok(WantedOutput {
            name: output.name,
            // What the request says as a whole does not count for an output that is named, and so it is at Triton.
            binary: parameters.binary_data.unwrap_or(false),
        })
    };
    let wanted = outputs.into_iter().map(wanted).collect::<Result<Vec<_>, _>>()?;
    Ok(Wanted::These(wanted))
}

/// What comes behind the JSON, taken piece by piece.
struct Binary {
    data: Bytes,
    taken: usize,
}

impl Binary {
    fn take(&mut self, name: &str, wanted: u64) -> Result<Bytes, ReadError> {
        let left = self.data.len() - self.taken;
        match usize::try_from(wanted) {
            Ok(length) if length <= left => {
                let start = self.taken;
                self.taken += length;
                Ok(self.data.slice(start..self.taken))
            }
            _ => Err(ReadError::BinaryTooShort {
                name: name.to_owned(),
                wanted,
                left,
                all: self.data.len(),
            }),
        }
    }

    fn finish(self) -> Result<(), ReadError> {
        if self.taken == self.data.len() {
            return Ok(());
        }
        Err(ReadError::BinaryTooLong {
            taken: self.taken,
            all: self.data.len(),
        })
    }
}

fn read_input(
    input: InputJson<'_>,
    binary: &mut Binary,
    task: &TaskManifest,
    limits: BodyLimits,
) -> Result<Input, Failure> {
    let name = input.name;
    let Some(dtype) = DType::from_name(&input.datatype) else {
        let unknown = ReadError::Datatype {
            datatype: input.datatype.chars().take(40).collect(),
            known: DType::all().map(DType::name).collect::<Vec<_>>().join(", "),
            name,
        };
        return Err(unknown.into());
    };
    let shape: Result<Vec<u64>, _> = input.shape.0.iter().map(|&dim| u64::try_from(dim)).collect();
    let Ok(shape) = shape else {
        let shape = input.shape.0;
        return Err(ReadError::NegativeDimension { name, shape }.into());
    };
    let max = tensors::max_elements(task, &name, &shape, limits)?;
    let Object(parameters) = input.parameters.unwrap_or_default();
    if parameters.shared_memory_region.is_some() {
        return Err(ReadError::SharedMemory { what: "input", name }.into());
    }
    let content_type = parameters.content_type.unwrap_or_default();
    let mut media_types = None;
    let data = match (input.data, parameters.binary_data_size) {
        (Some(_), Some(_)) => return Err(ReadError::BothForms(name).into()),
        (None, None) => return Err(ReadError::NoData(name).into()),
        (None, Some(size)) => binary.take(&name, size)?,
        (Some(data), None) => {
            let data = read_json_data(&name, dtype, &shape, max, data.get())?;
            if task.input.kinds.contains(&Kind::Bytes) && dtype == DType::Bytes {
                let decoded = decode_texts(&name, data, &content_type)?;
                media_types = decoded.media_types;
                decoded.data
            } else {
                data
            }
        }
    };
    Ok(Input {
        name,
        dtype,
        shape,
        data,
        media_types: media_types.unwrap_or_else(|| MediaTypes::Shared(media_type(&content_type))),
    })
}

/// The media type that a `content_type` names. Names of encodings, such as MLServer's `np` and `str`, state nothing that
/// the datatype does not.
fn media_type(content_type: &str) -> String {
    if content_type.contains('/') {
        content_type.to_owned()
    } else {
        String::new()
    }
}

/// Reads `data`: flat, or nested as the shape says.
fn read_json_data(
    name: &str,
    dtype: DType,
    shape: &[u64],
    max: Option<u64>,
    text: &str,
) -> Result<Bytes, ReadError> {
    if matches!(dtype, DType::Fp16 | DType::Bf16) {
        let name = name.to_owned();
        return Err(ReadError::OnlyBinary { name, dtype });
    }
    let product = |dims: &[u64]| {
        dims.iter()
            .try_fold(1u64, |product, &dim| product.checked_mul(dim))
    };
    let expected = product(shape);
    let max = max.into_iter().chain(expected).min();
    let (data, dims) = read_elements(text, dtype, max).map_err(|problem| ReadError::Data {
        name: name.to_owned(),
        problem,
    })?;
    let got = product(&dims).unwrap_or(u64::MAX);
    if dims.is_empty() && !shape.is_empty() {
        return Err(ReadError::Data {
            name: name.to_owned(),
            problem: "`data` is not an array".to_owned(),
        });
    }
    if Some(got) != expected {
        return Err(ReadError::Elements {
            name: name.to_owned(),
            got,
            shape: shape.to_vec(),
            expected: expected.map_or("too many".to_owned(), |expected| expected.to_string()),
        });
    }
    // An empty array hides the dimensions within it.
    let hides_dimensions = got == 0 && shape.starts_with(&dims);
    if dims.len() > 1 && dims != shape && !hides_dimensions {
        return Err(ReadError::Data {
            name: name.to_owned(),
            problem: format!("`data` is nested as {dims:?}, but the shape is {shape:?}"),
        });
    }
    Ok(data)
}

/// Strings that stand for bytes, decoded.
struct DecodedTexts {
    data: Bytes,
    /// One for each element if an element states its own.
    media_types: Option<MediaTypes>,
}

/// Decodes strings that stand for bytes: data URIs, and base64 if the client declares it. A data URI states the media type
/// of its own element.
fn decode_texts(name: &str, data: Bytes, content_type: &str) -> Result<DecodedTexts, ReadError> {
    let is_base64 = content_type == "base64";
    let has_uris = byte_strings(&data).any(|element| data_uri::is_one(&element));
    if !is_base64 && !has_uris {
        let media_types = None;
        return Ok(DecodedTexts { data, media_types });
    }
    let mut decoded = BytesMut::with_capacity(data.len());
    let mut media_types = Vec::new();
    for (at, element) in byte_strings(&data).enumerate() {
        let bytes = if data_uri::is_one(&element) {
            data_uri::decode(&element).map(|uri| (uri.data, uri.media_type))
        } else if is_base64 {
            data_uri::decode_base64(&element).map(|data| (data, String::new()))
        } else {
            Ok((element.to_vec(), media_type(content_type)))
        };
        let (bytes, element_type) = bytes.map_err(|problem| ReadError::Data {
            name: name.to_owned(),
            problem: format!("element {at}: {problem}"),
        })?;
        // What is decoded is shorter than what was read, whose length fitted.
        decoded.put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        decoded.put_slice(&bytes);
        if has_uris {
            media_types.push(element_type);
        }
    }
    Ok(DecodedTexts {
        data: decoded.freeze(),
        media_types: has_uris.then_some(MediaTypes::Each(media_types)),
    })
}

/// Reads a body that is the data of the single input.
fn read_raw(body: &Bytes, task: &TaskManifest) -> Result<InferRequest, ReadError> {
    let specs = tensors::inputs(task);
    let [spec] = specs.as_slice() else {
        return Err(ReadError::RawInputs(specs.len()));
    };
    if spec.sequence {
        return Err(ReadError::RawSequence(spec.name.to_owned()));
    }
    let (shape, data) = match spec.dtype.size() {
        Some(size) => (raw_shape(spec, body.len(), size)?, body.clone()),
        None => {
            let length = u32::try_from(body.len()).map_err(|_| raw_mismatch(spec, body.len()))?;
            let mut element = BytesMut::with_capacity(4 + body.len());
            element.put_u32_le(length);
            element.put_slice(body);
            (vec![1; spec.shape().len()], element.freeze())
        }
    };
    Ok(InferRequest {
        id: None,
        inputs: vec![Input {
            name: spec.name.to_owned(),
            dtype: spec.dtype,
            shape,
            data,
            media_types: MediaTypes::default(),
        }],
        parameters: Parameters::default(),
        wanted: Wanted::All { binary: true },
    })
}

/// The shape of that many bytes. If the item has an open dimension there is one item, otherwise as many as the bytes make.
fn raw_shape(spec: &Spec<'_>, bytes: usize, size: usize) -> Result<Vec<u64>, ReadError> {
    let open = spec.item_shape.iter().filter(|&&dim| dim < 0).count();
    let mut shape = spec.shape();
    match open {
        _ if spec.unranked => return Err(raw_mismatch(spec, bytes)),
        1 if spec.batched => shape[0] = 1,
        0 | 1 => {}
        _ => return Err(raw_mismatch(spec, bytes)),
    }
    let known = shape
        .iter()
        .filter_map(|&dim| u64::try_from(dim).ok())
        .try_fold(size as u64, u64::checked_mul)
        .filter(|&known| known > 0 && (bytes as u64).is_multiple_of(known))
        .ok_or_else(|| raw_mismatch(spec, bytes))?;
    let open = bytes as u64 / known;
    if open != 1 && shape.iter().all(|&dim| dim >= 0) {
        return Err(raw_mismatch(spec, bytes));
    }
    Ok(shape
        .iter()
        .map(|&dim| u64::try_from(dim).unwrap_or(open))
        .collect())
}

fn raw_mismatch(spec: &Spec<'_>, bytes: usize) -> ReadError {
    ReadError::RawShape {
        name: spec.name.to_owned(),
        bytes,
        dtype: spec.dtype,
        shape: spec.shape(),
    }
}

#[cfg(test)]
mod tests;
