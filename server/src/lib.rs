//! The inference server: models loaded as plugins, batched task by task, served over HTTP.

pub mod api;
pub mod app;
pub mod batch_context;
pub mod batcher;
pub mod batching;
pub mod bench;
pub mod cli;
pub mod clock;
pub mod config;
pub mod console;
#[allow(
    unsafe_code,
    reason = "signal handlers and exit handlers are functions of the C library"
)]
pub mod crash;
pub mod engine;
pub mod error;
pub mod exit_status;
pub mod grpc;
pub mod http;
pub mod init;
pub mod isolation;
pub mod json;
pub mod loader;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod open_files;
pub mod priority;
pub mod protocol;
pub mod registry;
pub mod reload;
pub mod resources;
pub mod routes;
pub mod secret;
pub mod signals;
