//! Errors of inference requests.

use crate::api::{Code, Failure};
use crate::json::JsonError;
use crate::values::DType;

/// Why a body is not a valid request.
#[derive(Debug, thiserror::Error)]
pub(super) enum InferRequestError {
    #[error("invalid value `{0}` for header Inference-Header-Content-Length: expected a number of bytes")]
    HeaderLength(String),
    #[error("header Inference-Header-Content-Length is {length}, but the body has only {body} bytes")]
    HeaderTooLong { length: usize, body: usize },
    #[error("malformed request body: {0}")]
    Malformed(JsonError),
    #[error(
        "malformed request body: {error}; the JSON has {length} bytes according to the header Inference-Header-Content-Length"
    )]
    MalformedPart { error: JsonError, length: usize },
    #[error(
        "the body has {rest} bytes after the JSON; to send binary tensors, set the header \
        Inference-Header-Content-Length: {length}"
    )]
    MissingHeader { rest: usize, length: usize },
    #[error("input `{name}`: unknown datatype `{datatype}`; expected one of {known}")]
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
        "input `{0}` has no data; expected `data`, or `parameters.binary_data_size` and binary data after the JSON"
    )]
    NoData(String),
    #[error("input `{name}`: {dtype} must be sent as binary data, not as JSON")]
    OnlyBinary { name: String, dtype: DType },
    #[error("input `{name}`: {problem}")]
    Data { name: String, problem: String },
    #[error("input `{name}` has `data` of length {got}, expected {expected} for shape {shape:?}")]
    Elements {
        name: String,
        got: u64,
        shape: Vec<u64>,
        expected: String,
    },
    #[error(
        "input `{name}` has {requested} bytes of binary data, but the body has only {left} left of {all}"
    )]
    BinaryTooShort {
        name: String,
        requested: u64,
        left: usize,
        all: usize,
    },
    #[error("the body has {all} bytes of binary data, but the inputs have only {taken}")]
    BinaryTooLong { taken: usize, all: usize },
    #[error("{what} `{name}`: shared memory is not supported; send the tensor in the body")]
    SharedMemory { what: &'static str, name: String },
    #[error("output `{0}`: `classification` is not supported; remove the parameter")]
    Classification(String),
    #[error("a raw body is a single input, but the task takes {0} inputs")]
    RawInputs(usize),
    #[error("a raw body is a single tensor, but input `{0}` is a sequence of tensors")]
    RawSequence(String),
    #[error("a raw body of {bytes} bytes does not match input `{name}` {dtype} {shape:?}")]
    RawShape {
        name: String,
        bytes: usize,
        dtype: DType,
        shape: Vec<i64>,
    },
}

impl From<InferRequestError> for Failure {
    fn from(error: InferRequestError) -> Self {
        Self::new(Code::Malformed, error.to_string())
    }
}
