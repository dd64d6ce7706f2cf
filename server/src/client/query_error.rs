//! Why a server could not be asked.

use super::{Failure, FailureKind, ServerUrl, Variables};

/// Why a server did not answer a request about its state or its models.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Nothing listens at the address.
    #[error(
        "no server at {url}: {why}; start one with `inference-server --config models.toml`, or set its address with --url"
    )]
    NoServer {
        /// The address.
        url: String,
        /// The error of the operating system.
        why: String,
    },
    /// The request failed.
    #[error("request to {url} failed with {kind}: {message}{}", hint_of(*.kind, .key_variable))]
    Failed {
        /// The URL of the request.
        url: String,
        /// The kind of failure.
        kind: FailureKind,
        /// The message of the server.
        message: String,
        /// The environment variable of the key.
        key_variable: &'static str,
    },
}

impl QueryError {
    /// The error for the failure of a request to a route of the server.
    pub(crate) fn new<V: Variables>(server: &ServerUrl, route: &str, failure: Failure) -> Self {
        match failure.kind {
            FailureKind::Connect => Self::NoServer {
                url: server.to_string(),
                why: failure.message,
            },
            kind => Self::Failed {
                url: server.url_of(route),
                kind,
                message: failure.message,
                key_variable: V::KEY,
            },
        }
    }
}

fn hint_of(kind: FailureKind, key_variable: &str) -> String {
    match kind {
        FailureKind::Status(401) => format!("; set a key with --key or {key_variable}"),
        _ => String::new(),
    }
}
