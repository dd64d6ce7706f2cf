//! Errors of the command.

use std::io;

use crate::client::{QueryError, ServerArgsError};
use crate::json::JsonError;

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The server cannot be reached with these arguments.
    #[error(transparent)]
    Server(#[from] ServerArgsError),
    /// The server did not answer a request, or with an error.
    #[error(transparent)]
    Request(#[from] QueryError),
    /// The reply is that of another program.
    #[error("{url} did not return a list of models; is it an inference-server?")]
    Foreign {
        /// The URL of the request.
        url: String,
        /// The cause.
        #[source]
        source: JsonError,
    },
    /// A header is not valid in a request.
    #[error("cannot build a request to {url}")]
    Build {
        /// The URL of the request.
        url: String,
        /// The cause.
        #[source]
        source: hyper::http::Error,
    },
    /// The server is not ready. Its state was printed.
    #[error("the server is not ready: {why}")]
    NotReady {
        /// The models that are not ready.
        why: String,
    },
    /// The terminal cannot be used.
    #[error("cannot use the terminal; `--json` prints the state without it")]
    Terminal(#[source] io::Error),
    /// Standard output cannot be written to.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// The state cannot be encoded.
    #[error("cannot encode the state as JSON")]
    Json(#[source] serde_json::Error),
    /// The event loop cannot be started.
    #[error("cannot set up the event loop")]
    Runtime(#[source] io::Error),
}

impl StatusError {
    /// 2 for errors in the command line, 3 for a server that is not ready, 1 for all others.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Server(error) => error.exit_code(),
            Self::NotReady { .. } => 3,
            _ => 1,
        }
    }
}
