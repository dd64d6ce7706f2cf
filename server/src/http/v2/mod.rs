//! The Open Inference Protocol over REST, as Triton's and KServe's clients speak it, with the binary tensor extension.
//!
//! `metadata_handlers` answers what the server and its models are, `infer_handler` runs a task: `infer_request` takes a request apart, `infer_response`
//! puts the reply together. What tensors mean to a task is in [`crate::api::tensors`].

pub(super) mod infer_handler;
pub mod infer_request;
pub mod infer_response;
pub(super) mod metadata_handlers;

use serde::Deserialize;

/// The part of a path that says which model is meant.
#[derive(Debug, Deserialize)]
pub(super) struct Name {
    /// `model` or `model.task`.
    model: String,
    version: Option<String>,
}
