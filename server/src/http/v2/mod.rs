//! The Open Inference Protocol over REST, as Triton's and KServe's clients speak it, with the binary tensor extension.
//!
//! [`info`] answers what the server and its models are, [`infer`] runs a task: [`read`] takes a request apart, [`write`]
//! puts the reply together. What tensors mean to a task is in [`crate::api::tensors`].

pub(super) mod infer;
pub(super) mod info;
pub mod read;
pub mod write;

use serde::Deserialize;

/// The part of a path that says which model is meant.
#[derive(Debug, Deserialize)]
pub(super) struct Name {
    /// `model` or `model.task`.
    model: String,
    version: Option<String>,
}
