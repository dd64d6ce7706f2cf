//! Errors of the tensors of a request.

use crate::api::failure::{Code, Failure};
use crate::values::{DType, TensorError};

/// Why the tensors of a request do not match its task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorsError {
    /// The task has no such tensor.
    #[error("unknown input `{name}`{hint}; expected {expected}")]
    Unknown {
        /// The name in the request.
        name: String,
        /// A suggestion, as a phrase; may be empty.
        hint: String,
        /// The inputs of the task.
        expected: String,
    },
    /// A required tensor is missing.
    #[error("missing input `{name}`; expected {expected}")]
    Missing {
        /// Name of the tensor.
        name: String,
        /// The inputs of the task.
        expected: String,
    },
    /// The name of a sequence instead of the names of its tensors.
    #[error("input `{name}` is a sequence of tensors: send them as `{name}.0`, `{name}.1`, …")]
    Sequence {
        /// Name of the sequence.
        name: String,
    },
    /// An input appears twice.
    #[error("duplicate input `{name}`")]
    Duplicate {
        /// Name of the tensor.
        name: String,
    },
    /// The element type differs from the declared one.
    #[error("input `{name}` has datatype {got}, expected {expected}")]
    Datatype {
        /// Name of the tensor.
        name: String,
        /// The datatype in the request.
        got: DType,
        /// The declared datatype.
        expected: DType,
    },
    /// The shape differs from the declared one.
    #[error("input `{name}` has shape {got:?}, expected {expected:?}, where -1 means any size")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// The shape in the request.
        got: Vec<u64>,
        /// The declared shape.
        expected: Vec<i64>,
    },
    /// Two inputs have different numbers of items.
    #[error(
        "input `{name}` has {got} items, but input `{other}` has {expected}; the first dimensions must be equal"
    )]
    Count {
        /// Name of the tensor.
        name: String,
        /// Number of items of the tensor.
        got: u64,
        /// Name of the first tensor.
        other: String,
        /// Number of items of the first tensor.
        expected: u64,
    },
    /// The batch dimension is zero.
    #[error("input `{name}` has no items: the shape is {got:?}; expected at least one item")]
    NoItems {
        /// Name of the tensor.
        name: String,
        /// The shape in the request.
        got: Vec<u64>,
    },
    /// The request has too many items.
    #[error("input `{name}` has {got} items, expected at most {limit} per request")]
    TooManyItems {
        /// Name of the tensor.
        name: String,
        /// Number of items in the request.
        got: u64,
        /// Maximum number of items.
        limit: usize,
    },
    /// The data does not match the shape.
    #[error("{0}")]
    Data(#[from] TensorError),
    /// An element of a text tensor is not UTF-8.
    #[error("input `{name}`: element {at} is not UTF-8: invalid byte at offset {offset}")]
    NotUtf8 {
        /// Name of the tensor.
        name: String,
        /// Index of the element.
        at: usize,
        /// Offset of the first invalid byte.
        offset: usize,
    },
    /// An element of a JSON tensor is not JSON.
    #[error("input `{name}`: element {at} is not JSON: {problem}")]
    NotJson {
        /// Name of the tensor.
        name: String,
        /// Index of the element.
        at: usize,
        /// Why it is not JSON.
        problem: String,
    },
    /// An output is requested twice.
    #[error("duplicate output `{name}`; request each output once")]
    DuplicateOutput {
        /// Name of the tensor.
        name: String,
    },
    /// The task has no such output.
    #[error("unknown output `{name}`{hint}; expected {expected}")]
    UnknownOutput {
        /// The name in the request.
        name: String,
        /// A suggestion, as a phrase; may be empty.
        hint: String,
        /// The outputs of the task.
        expected: String,
    },
}

impl From<TensorsError> for Failure {
    fn from(error: TensorsError) -> Self {
        Self::new(Code::Malformed, error.to_string())
    }
}
