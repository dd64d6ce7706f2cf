//! The error format of each protocol. Errors about the path, method or encoding of a request also use the format of
//! the client's protocol.

use serde_json::json;

use super::v1;
use crate::api::{Failure, ItemCount};
use crate::routes::{self, TaskRoute};

/// The JSON format of an error reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorFormat {
    /// `{"error": {"code", "message", "request_id"}}`
    Native,
    /// `{"error": "text"}`, of the Open Inference Protocol.
    OpenInference,
    /// `{"error": "text"}`, of KServe's V1 protocol and TensorFlow Serving.
    V1,
    /// `{"error": {"message", "type", "param", "code"}}`
    OpenAi,
    /// `{"error", "error_type", "message"}`: the first two of text-embeddings-inference, the last of Cohere and vLLM.
    Rerank,
}

impl ErrorFormat {
    /// Returns the error format for a path.
    pub(crate) fn of(path: &str) -> Self {
        let below_model = || Some(routes::below_model(path)?.1);
        let route = routes::find(path).or_else(below_model);
        if route == Some(&routes::TEI_INFO) || route == Some(&routes::HEALTH) && path != "/health" {
            return Self::Rerank;
        }
        if let Some(task) = route.and_then(|route| route.task) {
            return Self::of_task(task);
        }
        if path == "/v2" || path.starts_with("/v2/") {
            Self::OpenInference
        } else if path.starts_with("/openai/") {
            Self::OpenAi
        } else if v1::owns(path) {
            Self::V1
        } else {
            Self::Native
        }
    }

    /// Returns the error format for a request. Only at `/` does it depend on the method.
    pub(crate) fn of_request(is_post: bool, path: &str) -> Self {
        match routes::find_for(is_post, path) == Some(&routes::TEI_ROOT) {
            true => Self::of_task(TaskRoute::TeiRoot),
            false => Self::of(path),
        }
    }

    /// Returns the error format of a route that runs a task.
    pub(crate) fn of_task(task: TaskRoute) -> Self {
        match task {
            TaskRoute::Task | TaskRoute::Default => Self::Native,
            TaskRoute::V1 => Self::V1,
            TaskRoute::V2 => Self::OpenInference,
            TaskRoute::Embeddings => Self::OpenAi,
            // All others are of Cohere, vLLM and text-embeddings-inference.
            _ => Self::Rerank,
        }
    }

    /// Writes the body of an error reply.
    pub(crate) fn write(self, failure: &Failure, request_id: Option<&str>) -> Vec<u8> {
        let message = failure.client_message();
        let body = match self {
            Self::Native => {
                let mut error = json!({"code": failure.code.name(), "message": message});
                if let Some(id) = request_id {
                    error["request_id"] = id.into();
                }
                json!({ "error": error })
            }
            Self::OpenInference | Self::V1 => json!({"error": message}),
            Self::Rerank => json!({
                "error": message,
                "error_type": rerank_error_type(failure),
                "message": message,
            }),
            Self::OpenAi => {
                let of_client = failure.code.status() < 500;
                let kind = if of_client {
                    "invalid_request_error"
                } else {
                    "server_error"
                };
                json!({"error": {
                    "message": message,
                    "type": kind,
                    "param": failure.param,
                    "code": failure.code.name(),
                }})
            }
        };
        body.to_string().into_bytes()
    }
}

/// The error type in text-embeddings-inference.
fn rerank_error_type(failure: &Failure) -> &'static str {
    match failure.code.status() {
        _ if failure.item_count == Some(ItemCount::Zero) => "Empty",
        424 => "Backend",
        429 => "Overloaded",
        503 => "Unhealthy",
        500.. => "Backend",
        _ => "Validation",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Code;

    #[test]
    fn the_path_determines_the_error_format() {
        assert_eq!(ErrorFormat::of("/v1/models"), ErrorFormat::Native);
        assert_eq!(ErrorFormat::of("/v2"), ErrorFormat::OpenInference);
        assert_eq!(ErrorFormat::of("/v2/nowhere"), ErrorFormat::OpenInference);
        assert_eq!(ErrorFormat::of("/v20"), ErrorFormat::Native);
        assert_eq!(ErrorFormat::of("/v2/rerank"), ErrorFormat::Rerank);
        for path in [
            "/rerank",
            "/score",
            "/embed",
            "/tokenize",
            "/info",
            "/v2/embed",
            "/m/embed",
            "/org/m/rerank",
            "/m/info",
            "/m/health",
        ] {
            assert_eq!(ErrorFormat::of(path), ErrorFormat::Rerank, "{path}");
        }
        for path in ["/", "/health", "/nowhere"] {
            assert_eq!(ErrorFormat::of(path), ErrorFormat::Native, "{path}");
        }
        assert_eq!(ErrorFormat::of_request(true, "/"), ErrorFormat::Rerank);
        assert_eq!(ErrorFormat::of_request(false, "/"), ErrorFormat::Native);
        assert_eq!(ErrorFormat::of_request(true, "/nowhere"), ErrorFormat::Native);
        for path in [
            "/v1/embeddings",
            "/openai/deployments/m/embeddings",
            "/openai/v1/x",
        ] {
            assert_eq!(ErrorFormat::of(path), ErrorFormat::OpenAi);
        }
        assert_eq!(ErrorFormat::of("/v1/models/m:predict"), ErrorFormat::V1);
    }

    #[test]
    fn errors_are_json_in_every_format() {
        let failure = Failure::new(Code::InvalidInput, "a \"quoted\" thing").with_param("input");
        let write = |error_format: ErrorFormat| {
            String::from_utf8(error_format.write(&failure, Some("r1"))).expect("JSON is text")
        };
        assert_eq!(
            write(ErrorFormat::Native),
            r#"{"error":{"code":"invalid_input","message":"a \"quoted\" thing","request_id":"r1"}}"#
        );
        assert_eq!(
            write(ErrorFormat::OpenInference),
            r#"{"error":"a \"quoted\" thing"}"#
        );
        assert_eq!(
            write(ErrorFormat::OpenAi),
            r#"{"error":{"code":"invalid_input","message":"a \"quoted\" thing","param":"input","type":"invalid_request_error"}}"#
        );
    }
}
