//! Errors of the command.

use std::io;
use std::path::PathBuf;

use crate::client::{QueryError, ServerArgsError};

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The server cannot be reached with these arguments.
    #[error(transparent)]
    Server(#[from] ServerArgsError),
    /// The name of the server has no address.
    #[error(transparent)]
    Address(#[from] QueryError),
    /// The label is invalid.
    #[error("the label has control characters; use other text in --label")]
    Label,
    /// The input cannot be read.
    #[error("cannot read {}", file.display())]
    Input {
        /// The file.
        file: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The output or the progress cannot be read or written.
    #[error("cannot write {}", file.display())]
    Output {
        /// The file.
        file: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The output has results of a run that has finished, or of another program.
    #[error(
        "{} has content, and there is no progress of an interrupted run: choose another --output, or use --restart to replace it",
        .0.display()
    )]
    OutputExists(PathBuf),
    /// The progress is that of other arguments.
    #[error(
        "{} is the progress of another run ({found}), not of this one ({expected}): use the same arguments as before, or \
         --restart to begin again",
        file.display()
    )]
    OtherRun {
        /// The file.
        file: PathBuf,
        /// What the progress says.
        found: String,
        /// What the arguments say.
        expected: String,
    },
    /// The output is not what an interrupted run has written.
    #[error("{}:{line} is not a result of this command; use --restart to replace the file", file.display())]
    ForeignOutput {
        /// The file.
        file: PathBuf,
        /// The number of the line.
        line: u64,
    },
    /// The event loop cannot be started.
    #[error("cannot set up the event loop")]
    Runtime(#[source] io::Error),
    /// The server did not answer for too long.
    #[error("no reply from {url} for {} s: {why}; run the command again to continue", patience.as_secs())]
    NoServer {
        /// The address.
        url: String,
        /// For how long the command has tried.
        patience: std::time::Duration,
        /// The last failure.
        why: String,
    },
    /// The server rejects every submission.
    #[error("line {line}: the server rejected the job with {status}: {message}")]
    Rejected {
        /// The line of the input.
        line: u64,
        /// The status.
        status: u16,
        /// The message of the server.
        message: String,
    },
    /// Some requests failed.
    #[error("{failed} of {all} requests failed; their lines in {} have the errors", file.display())]
    Failed {
        /// Number of requests that failed.
        failed: u64,
        /// Number of requests.
        all: u64,
        /// The output.
        file: PathBuf,
    },
}

impl BatchError {
    /// 2 for errors in the command line, 1 for all others.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Server(error) => error.exit_code(),
            Self::Label => 2,
            _ => 1,
        }
    }
}
