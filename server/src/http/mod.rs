//! The HTTP side: native routes, their bodies and their documentation.
//!
//! Owned by `app`, which binds it. Never computes what a model computes, and keeps what takes long off its event loops.

pub mod body;
pub mod encode;
pub mod envelope;
pub mod error;
mod item;
pub mod openapi;
mod tensor_json;
