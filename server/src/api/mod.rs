//! What all protocols have in common: whom a request is addressed to, how its tensors become items and outcomes become
//! tensors, what a model tells of itself, and what errors are called.
//!
//! Knows no wire format and no socket: `http` and `grpc` stand on this and never on each other.

pub mod access_log;
mod api_keys;
mod call;
mod failure;
pub mod model_control;
pub mod open_inference;
mod request_options;
pub mod request_parameters;
mod request_record;
pub mod tensors;

pub use api_keys::Keys;
pub use call::{Call, DEFAULT_SIGNATURE, VERSION, is_ready};
pub use failure::{Code, Failure, MAX_MESSAGE};
pub use request_options::{Hints, request_id, trace_id};
pub use request_record::RequestRecord;

/// Bounds of one request body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Most items in a request.
    pub items: usize,
    /// Deepest nesting of arrays and objects in JSON, the outermost included.
    pub depth: usize,
}
