//! The values that travel between clients and models, apart from any wire format.
//!
//! Knows nothing of HTTP, of plugins or of threads. All payloads are [`bytes::Bytes`], so that an item can be a slice of
//! the body it came in.

mod value;

pub use plugin_abi::DType;
pub use value::{ItemInput, Tensor, TensorError, Value, byte_strings};
