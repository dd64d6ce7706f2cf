//! The HTTP server: connections, the routes of all protocols over HTTP, and their documentation.
//!
//! `app` owns and binds it. It never runs a model, and runs long computations on blocking threads, off the event
//! loops.

mod compression;
mod counted_reply;
#[cfg(feature = "docs")]
mod documentation;
mod embeddings;
mod error_format;
mod exchange;
mod html_page;
mod jobs;
mod landing_page;
mod middleware;
mod monitoring;
pub mod native;
mod offload;
pub mod openapi;
mod request_body;
mod request_headers;
mod rerank;
mod respond;
mod route_handlers;
mod server;
mod service;
mod task_routes;
mod tei;
mod transport;
#[cfg(feature = "ui")]
mod ui;
mod unsupported;
pub mod v1;
pub mod v2;

pub use jobs::{JobExecutor, describe_job_for_webhook};
pub use server::{Server, StartError};
pub use transport::Heartbeats;
