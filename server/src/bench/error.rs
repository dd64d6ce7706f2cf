//! Why the command comes to nothing.

use std::io;
use std::path::PathBuf;

use super::client::FailureKind;
use crate::json::JsonError;

/// What the person at the terminal is told. Failures of single requests are no errors: they are counted.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Neither a model nor files to compare.
    #[error("no model is named: give one with --model, as the server's /v1/models lists them")]
    NoModel,
    /// A header of the command line cannot be sent.
    #[error("--header number {position}: {problem}; expected NAME:VALUE")]
    Header {
        /// Its position among the headers, from 1. The header itself may hold a secret.
        position: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The API key cannot be sent.
    #[error("the key has characters that a header cannot carry; check --key or INFERENCE_BENCH_KEY")]
    Key,
    /// Ctrl-C was pressed.
    #[error("interrupted: {measured} of {planned} steps were measured{}", if *.partial { ", the last one in part" } else { "" })]
    Interrupted {
        /// Steps that were measured.
        measured: usize,
        /// Steps that were asked for.
        planned: usize,
        /// Whether the last of the measured steps was cut short.
        partial: bool,
    },
    /// Standard output cannot be written to.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// The system has no runtime for it.
    #[error("cannot set up the event loop")]
    Runtime(#[source] io::Error),
    /// The system has no thread for the pacer.
    #[error("cannot start the thread that paces the requests")]
    Thread(#[source] io::Error),
    /// Nobody listens.
    #[error(
        "no server answers at {url}: {why}; is it running? start it with `inference-server --config models.toml`, \
         or say where it is with --url"
    )]
    NoServer {
        /// Where it was looked for.
        url: String,
        /// What the system said.
        why: String,
    },
    /// The server refuses to tell about the model.
    #[error("{url} answered {kind}: {message}{}", hint_of(*.kind))]
    Refused {
        /// What was asked.
        url: String,
        /// How it failed.
        kind: FailureKind,
        /// In the server's words.
        message: String,
    },
    /// What answers is another program, or another version.
    #[error("what {url} answers is not a description of a model; is it an inference-server?")]
    Foreign {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        #[source]
        source: JsonError,
    },
    /// The model does not serve.
    #[error("model `{model}` is not ready, its state is {state}{}", reason_of(.reason))]
    NotReady {
        /// Which.
        model: String,
        /// Its state.
        state: String,
        /// Why, where the server says it.
        reason: Option<String>,
    },
    /// Several tasks, none chosen.
    #[error("model `{model}` has no default task: choose one with --task, of {tasks}")]
    NoTask {
        /// Which.
        model: String,
        /// Their names.
        tasks: String,
    },
    /// No such task.
    #[error("model `{model}` has no task `{task}`, expected one of {tasks}")]
    UnknownTask {
        /// Which.
        model: String,
        /// As given.
        task: String,
        /// Those that are.
        tasks: String,
    },
    /// Nothing to send.
    #[error("task `{task}` of model `{model}` declares no example to send: give a request with --body FILE")]
    NoExample {
        /// Which.
        model: String,
        /// Which.
        task: String,
    },
    /// The names do not make a path, or the content type no header.
    #[error("cannot make a request for model `{model}`, task `{task}`, content type `{content_type}`")]
    Request {
        /// Which.
        model: String,
        /// Which.
        task: String,
        /// Of the body.
        content_type: String,
        /// What is wrong with it.
        #[source]
        source: hyper::http::Error,
    },
    /// A file that cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that is no report.
    #[error("{} is not a report of `inference-server bench --json`", .path.display())]
    NotAReport {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: JsonError,
    },
    /// A report of another version of the program.
    #[error("{} has version {got}, expected {expected}: measure again with this program", .path.display())]
    Version {
        /// Which.
        path: PathBuf,
        /// As it says.
        got: u32,
        /// As this program writes.
        expected: u32,
    },
    /// A file that cannot be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A report cannot be written down.
    #[error("cannot write the report as JSON")]
    Json(#[source] serde_json::Error),
    /// A plot cannot be drawn.
    #[error("cannot draw the plot `{plot}`: {why}")]
    Plot {
        /// Its title.
        plot: &'static str,
        /// Why.
        why: String,
    },
    /// A step without one success.
    #[error("no request succeeded with {load}: {why}")]
    NothingSucceeded {
        /// The load of the step.
        load: String,
        /// The first failure of it.
        why: String,
    },
}

impl BenchError {
    /// 2 for what is wrong with the command line, as clap has it; 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoModel
            | Self::NoTask { .. }
            | Self::UnknownTask { .. }
            | Self::Header { .. }
            | Self::Key => 2,
            _ => 1,
        }
    }
}

fn reason_of(reason: &Option<String>) -> String {
    reason
        .as_ref()
        .map_or_else(String::new, |reason| format!(": {reason}"))
}

fn hint_of(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Status(401) => "; give a key with --key or INFERENCE_BENCH_KEY",
        _ => "",
    }
}
