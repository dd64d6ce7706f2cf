//! The inference server: models loaded as plugins, batched task by task, served over HTTP.

pub mod batching;
pub mod clock;
pub mod error;
pub mod http;
pub mod model;
pub mod protocol;
