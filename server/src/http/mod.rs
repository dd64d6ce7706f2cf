//! The HTTP side: native routes, their bodies and their documentation.
//!
//! Owned by `app`, which binds it. Never computes what a model computes, and keeps what takes long off its event loops.

mod access;
pub mod body;
pub mod encode;
pub mod envelope;
pub mod error;
mod headers;
mod info;
mod item;
pub mod openapi;
mod predict;
mod receive;
mod respond;
mod server;
mod tensor_json;

pub use item::decode_example;
pub use server::Server;
