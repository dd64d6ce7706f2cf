//! What a child process is confined to: memory, processors, and in a sandbox also files and network.
//!
//! The server makes an [`Enclosure`] for each child: its folder, its environment and, where the system lets it, its
//! cgroup. The child is told its [`Confinement`] and applies it first of all, on its only thread, so that every thread
//! that the plugin starts inherits it.
//!
//! Owned by the rest of `isolation`. Knows nothing of models, batches or the network protocol.

mod cgroup;
mod cpus;
mod memory;
mod process_resources;
mod sandbox;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use cpus::CpuError;
pub use process_resources::{Enclosure, EnclosureError, Enclosures, Excess};
pub use sandbox::SandboxError;

use crate::resources::Sandbox;

/// The option by which the process that tries a plugin is told its [`Confinement`], as JSON.
pub const CONFINE_OPTION: &str = "confine";

/// What one child applies to itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Most bytes that it may allocate, where no cgroup counts them.
    max_data: Option<u64>,
    /// The processors that it may run on; all that the server may, if there is none.
    cpus: Vec<usize>,
    /// The sandbox, if there is one.
    sandbox: Option<SandboxPlan>,
}

/// A sandbox to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SandboxPlan {
    /// The only folder in which files may be changed, if there is one.
    scratch: Option<PathBuf>,
    /// Whether the child goes on where the kernel lacks a part.
    best_effort: bool,
}

/// Why a child cannot be confined as it should.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The limit of memory was refused.
    #[error("cannot limit the memory of the process")]
    Memory(#[source] io::Error),
    /// The choice of processors was refused.
    #[error("cannot run on the processors {0}")]
    Cpus(String, #[source] io::Error),
    /// The sandbox was refused.
    #[error("cannot be put into its sandbox")]
    Sandbox(#[from] SandboxError),
}

impl Confinement {
    /// For a process that is to open a plugin and nothing else. None where there is to be no sandbox.
    pub fn for_probe(sandbox: Sandbox) -> Option<Self> {
        (sandbox != Sandbox::Off).then(|| Self {
            sandbox: Some(SandboxPlan {
                scratch: None,
                best_effort: sandbox == Sandbox::BestEffort,
            }),
            ..Self::default()
        })
    }

    /// Confines this process from now on. To be called while the calling thread is its only one.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a part. The process must not go on then: what is already applied cannot be undone.
    pub fn apply(&self) -> Result<(), ConfineError> {
        if !self.cpus.is_empty() {
            cpus::pin(&self.cpus).map_err(|source| ConfineError::Cpus(cpus::show(&self.cpus), source))?;
        }
        if let Some(bytes) = self.max_data {
            memory::limit_data(bytes).map_err(ConfineError::Memory)?;
        }
        // Last: it forbids things that the others might need.
        if let Some(plan) = &self.sandbox {
            sandbox::enter(plan)?;
        }
        Ok(())
    }
}
