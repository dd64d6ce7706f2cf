//! KServe's V1 protocol and TensorFlow Serving's REST protocol, which share their paths and most of their messages.
//!
//! `predict_handlers` runs a task: [`predict_request`] reads rows (`instances`) or columns (`inputs`) as items, and
//! [`predict_reply`] writes the reply in the same form. `model_status` describes models. A model is addressed as
//! `model` or `model.task`. A TensorFlow Serving signature is a task, and `serving_default` is the default task.

pub(super) mod model_status;
pub(super) mod predict_handlers;
pub mod predict_reply;
pub mod predict_request;

/// Whether a path belongs only to this protocol, so that its errors use the format of this protocol. The path
/// `/v1/models/{model}` is shared with other protocols.
pub(super) fn owns(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/v1/models/") else {
        return false;
    };
    let is_own = |segment: &str| matches!(segment, "versions" | "labels" | "metadata");
    let segments: Vec<&str> = rest.split('/').collect();
    match segments.as_slice() {
        [.., model] if segments.len() <= 2 && model.contains(':') => true,
        [_, "tasks", ..] => false,
        // The name of a model may have a slash.
        [_, second, rest @ ..] => is_own(second) || rest.first().is_some_and(|third| is_own(third)),
        [] | [_] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_the_protocol_unless_another_protocol_shares_it() {
        for path in [
            "/v1/models/m:predict",
            "/v1/models/m:classify",
            "/v1/models/m/versions/1",
            "/v1/models/m/versions/1:predict",
            "/v1/models/m/labels/stable:predict",
            "/v1/models/m/metadata",
            "/v1/models/n/m:predict",
            "/v1/models/n/m/metadata",
        ] {
            assert!(owns(path), "{path}");
        }
        for path in [
            "/v1/models",
            "/v1/models/",
            "/v1/models/m",
            "/v1/models/m/predict",
            "/v1/models/m/tasks/a:b/predict",
            "/v1/models/m/tasks/versions/predict",
            "/v1/models/n/m",
            "/v1/models/n/m/tasks/versions/predict",
            "/v1/embeddings",
            "/versions/1",
        ] {
            assert!(!owns(path), "{path}");
        }
    }
}
