//! How a failure looks in each family of protocols. A client that speaks one of them is told in its own way also what is
//! wrong with its path, its method or the encoding of its body.

use serde_json::json;

use super::v1;
use crate::api::Failure;

/// A family of protocols, as far as its errors go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `{"error": {"code", "message", "request_id"}}`
    Native,
    /// `{"error": "text"}`, of the Open Inference Protocol.
    OpenInference,
    /// The same, of KServe's V1 protocol and TensorFlow Serving.
    V1,
    /// `{"error": {"message", "type", "param", "code"}}`
    OpenAi,
}

impl Dialect {
    /// The family that a path belongs to.
    pub(crate) fn of(path: &str) -> Self {
        if path == "/v2" || path.starts_with("/v2/") {
            Self::OpenInference
        } else if path == "/v1/embeddings" {
            Self::OpenAi
        } else if v1::owns(path) {
            Self::V1
        } else {
            Self::Native
        }
    }

    /// The body of an answer that is a failure.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Code;

    #[test]
    fn a_path_tells_the_dialect() {
        assert_eq!(Dialect::of("/v1/models"), Dialect::Native);
        assert_eq!(Dialect::of("/v2"), Dialect::OpenInference);
        assert_eq!(Dialect::of("/v2/nowhere"), Dialect::OpenInference);
        assert_eq!(Dialect::of("/v20"), Dialect::Native);
        assert_eq!(Dialect::of("/v1/embeddings"), Dialect::OpenAi);
        assert_eq!(Dialect::of("/v1/models/m:predict"), Dialect::V1);
    }

    #[test]
    fn an_error_is_json_in_every_dialect() {
        let failure = Failure::new(Code::InvalidInput, "a \"quoted\" thing").about("input");
        let write =
            |dialect: Dialect| String::from_utf8(dialect.write(&failure, Some("r1"))).expect("JSON is text");
        assert_eq!(
            write(Dialect::Native),
            r#"{"error":{"code":"invalid_input","message":"a \"quoted\" thing","request_id":"r1"}}"#
        );
        assert_eq!(write(Dialect::OpenInference), r#"{"error":"a \"quoted\" thing"}"#);
        assert_eq!(
            write(Dialect::OpenAi),
            r#"{"error":{"code":"invalid_input","message":"a \"quoted\" thing","param":"input","type":"invalid_request_error"}}"#
        );
    }
}
