//! The HTTP side: the routes of every protocol that is spoken over HTTP, their bodies and their documentation.
//!
//! Owned by `app`, which binds it. Never computes what a model computes, and keeps what takes long off its event loops.

mod access;
pub mod body;
mod compress;
pub mod data_uri;
mod dialect;
mod docs;
mod embeddings;
pub mod encode;
pub mod envelope;
mod info;
mod item;
mod landing;
pub mod openapi;
mod predict;
mod receive;
mod respond;
mod server;
pub mod tensor_json;
mod transport;
pub mod v1;
pub mod v2;

pub use item::decode_example;
pub use server::Server;
