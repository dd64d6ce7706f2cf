//! Models in child processes: whatever a plugin does to its process, the server loses time and nothing else.
//!
//! [`IsolatedModel`] is a [`Model`](crate::model::Model) like any other, so the queue, the batcher, deadlines and metrics
//! stay where they are, in the server, and know nothing of processes. Each of its workers is a child: this same program,
//! which loads the plugin's staged copy and runs it ([`run_child`]).
//!
//! # The life of a child
//! 1. A *keeper*, a thread of its own, launches it (`process`) and hands it its connections (`handover`).
//! 2. The child asks the kernel to end it when the keeper ends, and so when the server ends, however that happens. Then it
//!    hears what it is to load ([`Setup`]), restricts itself, and opens the plugin.
//! 3. The server warms it up, as it would a model of its own, and puts it into the `pool` of those that serve.
//! 4. It serves: batches and preparations come over lanes (`transport`, `frame`, `wire`), its log and what it prints go to
//!    the server's log (`outputs`, `records`).
//! 5. If it is lost, whoever is speaking with it ends it for certain and learns how it ended. The batch that it held comes
//!    back to the engine as [`BatchError::WorkerLost`](crate::model::BatchError::WorkerLost), which runs it again, and then
//!    item by item, to find the one that is to blame; `remote` says how innocent bystanders are kept out of it.
//! 6. The keeper starts the next one, at once or after a pause that grows (`supervisor`).
//! 7. When the model is dropped, the child is told so by its lanes being closed, drops its own, and ends; one that does not
//!    is ended. Nothing of it is left: a reload gives back all of its memory.
//!
//! # What a child is believed
//! Nothing. What it sends is checked as it is read, and a child that sends what is no answer to the question is ended. Its
//! numbers are never used as a length or an index without a look at what is there.
//!
//! Owned by `reload`, as every model. Knows neither where plugins come from nor how they are opened: whoever runs the
//! child brings that along.

mod backoff;
mod child;
mod child_sink;
mod codec;
pub mod confine;
mod descriptor_passing;
mod isolated_model;
mod lane;
mod log_reader;
mod log_records;
mod messages;
mod pool;
mod process;
mod remote;
mod setup;
#[allow(
    unsafe_code,
    reason = "memory that another process has, too, is reached by its address"
)]
mod shared_memory;
mod supervisor;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

pub use child::run_child;
pub use isolated_model::{IsolatedModel, Isolation};
pub use process::{OpenFiles, Program};
pub use setup::{LoadFailure, Setup};

use confine::EnclosureError;

use crate::model::Model;

/// The hidden command of this program that calls [`run_child`]; the name of the model follows.
pub const CHILD_COMMAND: &str = "model-process";

/// Runs a fresh child once, before it serves.
pub type WarmUp = Box<dyn Fn(&dyn Model) -> Result<(), WarmUpError> + Send + Sync>;

/// The files that the children of one model load. A child that is started later loads the same ones, whatever became of
/// them since.
pub trait ModelFiles: Send + Sync {
    /// The first children have loaded the model, which reports that it has read these files as well.
    fn loaded(&self, reported: &[PathBuf]);

    /// The directory that a child that is started now has in place of the configuration's; `None` if no file has changed.
    fn directory(&self) -> Result<Option<PathBuf>, ChangedFiles>;

    /// Whether a child that was started later has read none of the files as they are by now.
    fn check(&self, reported: &[PathBuf]) -> Result<(), ChangedFiles>;
}

/// A model whose files never change.
impl ModelFiles for () {
    fn loaded(&self, _reported: &[PathBuf]) {}

    fn directory(&self) -> Result<Option<PathBuf>, ChangedFiles> {
        Ok(None)
    }

    fn check(&self, _reported: &[PathBuf]) -> Result<(), ChangedFiles> {
        Ok(())
    }
}

/// Files have changed since the model was loaded from them, and cannot be had as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its files changed since it was loaded; reload the configuration to load the new ones")]
pub struct ChangedFiles;

/// Why a model is not warm.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("warm-up of task `{task}` failed: example {example}: {reason}")]
pub struct WarmUpError {
    /// The task.
    pub task: String,
    /// Which of its examples, from 1.
    pub example: usize,
    /// What the model said.
    pub reason: String,
}

/// Why there is no child that serves.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system refused a process, a thread or a descriptor.
    #[error("the system refused to start a process for it")]
    Spawn(#[source] io::Error),
    /// The machine does not have what is configured.
    #[error(transparent)]
    Enclose(#[from] EnclosureError),
    /// The plugin could not be loaded there.
    #[error(transparent)]
    Load(#[from] LoadFailure),
    /// The thread that starts the process panicked; the log has the message.
    #[error("the thread that starts its process panicked")]
    Supervisor,
    /// It was lost meanwhile. Says how it ended.
    #[error("its process {0} while it was loaded")]
    Died(String),
    /// It is not warm.
    #[error(transparent)]
    WarmUp(WarmUpError),
    /// It would not start from the files that the model was loaded from.
    #[error(transparent)]
    ChangedFiles(#[from] ChangedFiles),
    /// The plugin, or the files that it reads, gave another model than before.
    #[error("the model has other tasks than before; reload the configuration")]
    Changed,
}
