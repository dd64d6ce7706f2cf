//! The service layer, which all protocols share: addressing, request options, conversion between tensors and items,
//! model metadata, API keys, the access log, and error codes.
//!
//! It does not know wire formats or sockets. `http` and `grpc` depend on it and never on each other.

pub mod access_log;
mod api_keys;
mod call;
mod failure;
pub mod load_report;
pub mod model_control;
pub mod open_inference;
mod request_options;
pub mod request_parameters;
mod request_record;
pub mod tensors;

pub use api_keys::ApiKeys;
pub use call::{Call, DEFAULT_SIGNATURE, VERSION, is_ready};
pub use failure::{Code, Failure, MAX_MESSAGE};
pub use request_options::{RequestOptions, request_id, trace_id};
pub use request_record::RequestRecord;

/// Limits on the content of a request body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Maximum number of items in a request.
    pub items: usize,
    /// Maximum nesting depth of JSON, counting the outermost array or object.
    pub depth: usize,
}
