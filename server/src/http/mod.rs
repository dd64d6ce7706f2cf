//! The HTTP side: the routes of every protocol that is spoken over HTTP, their bodies and their documentation.
//!
//! Owned by `app`, which binds it. Never computes what a model computes, and keeps what takes long off its event loops.

mod compression;
mod documentation;
mod embeddings;
mod error_format;
mod landing_page;
mod middleware;
mod monitoring;
pub mod native;
pub mod openapi;
mod request_body;
mod respond;
mod server;
mod transport;
pub mod v1;
pub mod v2;

pub use server::Server;
