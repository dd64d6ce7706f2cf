//! Models in child processes, so that a faulty plugin cannot harm the server or other models.
//!
//! [`IsolatedModel`] implements [`Model`]. The queue, the batcher, deadlines and metrics stay in the
//! server and do not depend on processes. Each worker of an isolated model is a child process: this same program, which
//! loads the plugin's staged copy and runs it ([`run_child`]).
//!
//! # Life of a child process
//! 1. A `supervisor` thread starts it (`process`) and sends it its connections (`descriptor_passing`).
//! 2. The child asks the kernel to kill it when the supervisor thread exits, and thus when the server exits for any reason.
//!    Then it receives what to load ([`Setup`]), confines itself, and opens the plugin.
//! 3. The server warms it up and adds it to the `pool`.
//! 4. It serves. Batches and items to prepare are sent over channels (`channel`, `messages`, `encoding`). Its log records and its
//!    output go to the server's log (`log_reader`, `log_records`).
//! 5. If it fails, the thread that detects the failure kills it and determines the reason. The batch that it held returns to
//!    the engine as [`BatchError::WorkerLost`](crate::model::BatchError::WorkerLost). The engine runs it again, and then item by
//!    item to find the one that causes the failure; `remote` explains how other items are protected from being blamed.
//! 6. The supervisor restarts it, immediately or after a delay (`backoff`).
//! 7. When the model is dropped, its channels are closed, which tells the child to drop the model and exit. A child that does not
//!    exit in time is killed. A reload therefore frees all memory of the old model.
//!
//! # Trust
//! Messages from a child are not trusted. They are checked when they are decoded, and a child that sends an invalid message
//! is killed. Lengths and indices from a child are checked before they are used.
//!
//! The module does not know where plugins come from or how they are opened: the caller of [`run_child`] passes a function
//! that opens them.

mod backoff;
mod batch_memory;
mod channel;
mod child;
mod child_sink;
pub mod confine;
mod descriptor_passing;
mod encoding;
mod event_fd;
mod isolated_model;
mod log_reader;
mod log_records;
mod measurement;
mod messages;
mod pool;
mod process;
mod process_memory;
mod published_processes;
mod remote;
mod setup;
#[allow(
    unsafe_code,
    reason = "memory that is shared with another process is accessed by its address"
)]
mod shared_memory;
mod supervisor;

use std::io;
use std::path::PathBuf;

pub use child::run_child;
pub use isolated_model::{IsolatedModel, IsolationOptions};
pub use measurement::MeasureError;
pub use process::{OpenFiles, Program};
pub use setup::{LoadFailure, Setup};

use confine::ResourceError;

use crate::model::Model;

/// The hidden command of this program that calls [`run_child`]. The name of the model follows it.
pub const CHILD_COMMAND: &str = "model-process";

/// Warms up a new child process before it serves.
pub type WarmUp = Box<dyn Fn(&dyn Model) -> Result<(), WarmUpError> + Send + Sync>;

/// The files from which the child processes of one model load it. Processes that start later load the same content, even if
/// the files have changed since.
pub trait ModelFiles: Send + Sync {
    /// Called after the first processes have loaded the model. `reported` are the files that the model has read.
    fn loaded(&self, reported: &[PathBuf]);

    /// The directory that a new process must use instead of the configuration's. `None` if no file has changed.
    fn directory(&self) -> Result<Option<PathBuf>, ChangedFiles>;

    /// Checks that a process that was started later has not read any changed file.
    fn check(&self, reported: &[PathBuf]) -> Result<(), ChangedFiles>;
}

/// For a model whose files never change.
impl ModelFiles for () {
    fn loaded(&self, _reported: &[PathBuf]) {}

    fn directory(&self) -> Result<Option<PathBuf>, ChangedFiles> {
        Ok(None)
    }

    fn check(&self, _reported: &[PathBuf]) -> Result<(), ChangedFiles> {
        Ok(())
    }
}

/// Files have changed since the model was loaded and cannot be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model's files changed after it was loaded; reload the configuration to load the new ones")]
pub struct ChangedFiles;

/// Why the warm-up of a model failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("warm-up of task `{task}` failed: example {example}: {reason}")]
pub struct WarmUpError {
    /// Name of the task.
    pub task: String,
    /// Number of the example, from 1.
    pub example: usize,
    /// The error of the model.
    pub reason: String,
}

/// Why a child process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A process, a thread or a file descriptor could not be created.
    #[error("cannot start a worker process")]
    Spawn(#[source] io::Error),
    /// The configured resources are not available.
    #[error(transparent)]
    Resources(#[from] ResourceError),
    /// The plugin failed to load.
    #[error(transparent)]
    Load(#[from] LoadFailure),
    /// The supervisor thread panicked. The panic message is in the log.
    #[error("the thread that starts the worker process panicked")]
    Supervisor,
    /// The process exited or was killed while loading. The text describes how.
    #[error("the worker process {0} while loading the model")]
    Exited(String),
    /// The warm-up failed.
    #[error(transparent)]
    WarmUp(WarmUpError),
    /// The files from which the model was loaded have changed.
    #[error(transparent)]
    ChangedFiles(#[from] ChangedFiles),
    /// The plugin, or the files that it reads, define another model than before.
    #[error("the model's tasks changed after it was loaded; reload the configuration")]
    ManifestChanged,
}

#[cfg(test)]
mod tests;
