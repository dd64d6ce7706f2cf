//! What all protocols have in common: whom a request is addressed to, how its tensors become items and outcomes become
//! tensors, what a model tells of itself, and what errors are called.
//!
//! Knows no wire format and no socket: `http` and `grpc` stand on this and never on each other.

pub mod access;
pub mod bounded_json;
mod call;
pub mod control;
pub mod describe;
mod error;
mod hints;
mod keys;
pub mod media_types;
pub mod parameters;
mod record;
pub mod tensors;

pub use call::{Call, DEFAULT_SIGNATURE, VERSION, is_ready};
pub use error::{Code, Failure, MAX_MESSAGE, nearest};
pub use hints::{Hints, request_id, trace_id};
pub use keys::Keys;
pub use record::RequestRecord;

/// Bounds of one request body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Most items in a request.
    pub items: usize,
    /// Deepest nesting of arrays and objects in JSON, the outermost included.
    pub depth: usize,
}
