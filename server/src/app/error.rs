//! Why a command of the server failed, and its exit code.

use std::io;
use std::path::PathBuf;

#[cfg(feature = "calibrate")]
use super::calibrate::CalibrateCommandError;
use super::service_manager::SocketError;
#[cfg(feature = "traces")]
use crate::api::traces;
use crate::config::ConfigErrors;
use crate::http;
use crate::jobs::StoreError;
use crate::loader::LoadError;
use crate::open_files::TooFewFiles;
use crate::reload::ModelFailure;

/// Why the server did not start, or did not shut down cleanly.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}", file.display())]
    ReadConfig {
        /// The path as it was given.
        file: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The configuration has errors.
    #[error("{0}")]
    Config(ConfigErrors),
    /// The server cannot listen on the address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Host and port.
        address: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The sockets of the service manager cannot be used.
    #[error("cannot use the sockets that the service manager passed")]
    PassedSockets(#[from] SocketError),
    /// The loader cannot be set up.
    #[error("cannot set up the plugin loader")]
    Loader(#[source] LoadError),
    /// The metrics are invalid.
    #[error("cannot set up the metrics")]
    Metrics(#[from] prometheus::Error),
    /// The jobs that were stored cannot be read.
    #[error("cannot open the store of jobs")]
    Jobs(#[from] StoreError),
    /// Traces cannot be exported.
    #[cfg(feature = "traces")]
    #[error(transparent)]
    Traces(#[from] traces::StartError),
    /// The limit on open files is too low.
    #[error(transparent)]
    OpenFiles(#[from] TooFewFiles),
    /// The memory budget is a percentage, and the system does not report how much memory is free.
    #[error(
        "cannot compute `memory_budget` in [server] from a percentage: the system does not report its free memory; use a size such as \"2GiB\""
    )]
    UnknownMemory,
    /// A thread, the runtime or another resource of the operating system is not available.
    #[error("operating system error")]
    System(#[from] io::Error),
    /// Models failed to load.
    #[error("{}", list(.0))]
    Models(Vec<ModelFailure>),
    /// A model could not be measured.
    #[cfg(feature = "calibrate")]
    #[error(transparent)]
    Calibrate(#[from] CalibrateCommandError),
    /// A termination signal arrived before the command had finished.
    #[error("interrupted")]
    Interrupted,
    /// A server panicked or cannot continue. The log has the cause.
    #[error("the {0} server stopped unexpectedly")]
    Server(&'static str),
    /// The thread that loads models panicked. The log has the cause.
    #[error("the thread that loads models stopped unexpectedly")]
    ModelThread,
    /// The drain deadline passed, or a second termination signal arrived.
    #[error("shutdown incomplete: {0}")]
    IncompleteShutdown(String),
}

impl From<http::StartError> for AppError {
    fn from(error: http::StartError) -> Self {
        match error {
            http::StartError::Listen { address, source } => Self::Listen { address, source },
            http::StartError::System(error) => Self::System(error),
        }
    }
}

impl AppError {
    /// 2 for errors of the configuration, like usage errors; 1 for all others.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ReadConfig { .. } | Self::Config(_) => 2,
            #[cfg(feature = "calibrate")]
            Self::Calibrate(error) => error.exit_code(),
            _ => 1,
        }
    }
}

fn list(failures: &[ModelFailure]) -> String {
    failures
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}
