//! The Open Inference Protocol over REST, for clients of Triton and KServe, with the binary tensor data extension.
//!
//! `infer_handler` runs a task: [`infer_request`] reads the request, and [`infer_response`] writes the response.
//! `metadata_handlers` describes the server and its models, and `repository_handlers` lists, loads and unloads
//! models.

pub(super) mod infer_handler;
pub mod infer_request;
mod infer_request_error;
pub mod infer_response;
pub(super) mod metadata_handlers;
mod raw_body;
pub(super) mod repository_handlers;
