//! Errors of the command.

use std::io;
use std::path::PathBuf;

use crate::client::{QueryError, ServerArgsError};
use crate::html_report::PlotError;
use crate::json::JsonError;

/// Why the command failed. Failures of single requests are not errors: they are counted.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Neither a model nor files to compare are given.
    #[error("no model given: use --model with a name that the server lists in /v1/models")]
    NoModel,
    /// The server cannot be reached with these arguments.
    #[error(transparent)]
    Server(#[from] ServerArgsError),
    /// Ctrl-C was pressed.
    #[error("interrupted: {measured} of {planned} steps were measured{}", if *.partial { ", the last one in part" } else { "" })]
    Interrupted {
        /// Steps that were measured.
        measured: usize,
        /// Steps that were planned.
        planned: usize,
        /// Whether the last of the measured steps was cut short.
        partial: bool,
    },
    /// Standard output cannot be written to.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// The event loop cannot be started.
    #[error("cannot set up the event loop")]
    Runtime(#[source] io::Error),
    /// The thread of the pacer cannot be started.
    #[error("cannot start the pacer thread")]
    Thread(#[source] io::Error),
    /// The server did not describe the model.
    #[error(transparent)]
    NoDescription(#[from] QueryError),
    /// The reply is that of another program, or of another version.
    #[error("{url} did not return the description of a model; is it an inference-server?")]
    Foreign {
        /// The URL of the request.
        url: String,
        /// The cause.
        #[source]
        source: JsonError,
    },
    /// The model is not ready.
    #[error("model `{model}` is not ready; its state is `{state}`{}", reason_of(.reason))]
    NotReady {
        /// The model.
        model: String,
        /// Its state.
        state: String,
        /// The reason, if the server reports one.
        reason: Option<String>,
    },
    /// The model has several tasks, and none was selected.
    #[error("model `{model}` has no default task: select one of its tasks with --task: {tasks}")]
    NoTask {
        /// The model.
        model: String,
        /// The tasks of the model.
        tasks: String,
    },
    /// The model does not have the task.
    #[error("model `{model}` has no task `{task}`; its tasks are {tasks}")]
    UnknownTask {
        /// The model.
        model: String,
        /// The requested task.
        task: String,
        /// The tasks of the model.
        tasks: String,
    },
    /// The task has no example to send.
    #[error("task `{task}` of model `{model}` declares no example: provide a request with --body FILE")]
    NoExample {
        /// The model.
        model: String,
        /// The task.
        task: String,
    },
    /// The names are not valid in a path, or the content type is not valid in a header.
    #[error("cannot build a request for model `{model}`, task `{task}`, content type `{content_type}`")]
    Request {
        /// The model.
        model: String,
        /// The task.
        task: String,
        /// The content type of the body.
        content_type: String,
        /// The cause.
        #[source]
        source: hyper::http::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// A file is not a report.
    #[error("{} is not a report of `inference-server bench --json`", .path.display())]
    NotAReport {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: JsonError,
    },
    /// A report has another format version.
    #[error("{} has format version {found}, expected {expected}: measure again with this program", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version of the file.
        found: u32,
        /// The version that this program writes.
        expected: u32,
    },
    /// A file cannot be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The report cannot be encoded.
    #[error("cannot encode the report as JSON")]
    Json(#[source] serde_json::Error),
    /// A plot cannot be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// No request of a step succeeded.
    #[error("no request succeeded with {load}: {why}")]
    NothingSucceeded {
        /// The load of the step.
        load: String,
        /// The first failure of the step.
        why: String,
    },
}

impl BenchError {
    /// 2 for errors in the command line, like clap; 1 for all others.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoModel | Self::NoTask { .. } | Self::UnknownTask { .. } => 2,
            Self::Server(error) => error.exit_code(),
            _ => 1,
        }
    }
}

fn reason_of(reason: &Option<String>) -> String {
    reason
        .as_ref()
        .map_or_else(String::new, |reason| format!(": {reason}"))
}
