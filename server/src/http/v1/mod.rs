//! KServe's V1 protocol and TensorFlow Serving's REST protocol, which share their paths and most of their messages.
//!
//! `predict_handlers` runs a task: `predict_request` turns rows (`instances`) or columns (`inputs`) into items, `predict_reply` puts the reply
//! together in the same form. `model_status` describes models. A model is called `model` or `model.task`; a signature of
//! TensorFlow Serving is a task, and `serving_default` is the default task.

pub(super) mod model_status;
pub(super) mod predict_handlers;
pub mod predict_reply;
pub mod predict_request;

use serde::Deserialize;

/// The part of a path that names a model.
#[derive(Debug, Deserialize)]
pub(super) struct Name {
    /// `model` or `model.task`.
    model: String,
    version: Option<String>,
}

/// Whether a path belongs to this protocol alone, and its errors are texts. `GET /v1/models/{model}` belongs to other
/// protocols as well.
pub(super) fn owns(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/v1/models/") else {
        return false;
    };
    let mut segments = rest.split('/');
    let model = segments.next().unwrap_or_default();
    match segments.next() {
        None => model.contains(':'),
        Some(segment) => matches!(segment, "versions" | "labels" | "metadata"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_the_protocol_if_no_other_protocol_has_it() {
        for path in [
            "/v1/models/m:predict",
            "/v1/models/m:classify",
            "/v1/models/m/versions/1",
            "/v1/models/m/versions/1:predict",
            "/v1/models/m/labels/stable:predict",
            "/v1/models/m/metadata",
        ] {
            assert!(owns(path), "{path}");
        }
        for path in [
            "/v1/models",
            "/v1/models/",
            "/v1/models/m",
            "/v1/models/m/predict",
            "/v1/models/m/tasks/a:b/predict",
            "/v1/embeddings",
            "/versions/1",
        ] {
            assert!(!owns(path), "{path}");
        }
    }
}
