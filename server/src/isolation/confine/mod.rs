//! Confines child processes: limits their memory and CPUs and, with a sandbox, their access to files and the network.
//!
//! The server allocates [`ProcessResources`] for each child: a scratch directory, environment variables and, if the system
//! permits it, a cgroup. The child receives its [`Confinement`] and applies it first, while it has only one thread, so that all
//! threads of the plugin inherit it.
//!
//! The module does not know about models, batches or the network protocol.

mod cgroup;
mod cpus;
mod memory;
mod process_resources;
#[cfg(feature = "sandbox")]
mod sandbox;
#[cfg(not(feature = "sandbox"))]
mod without_sandbox;

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use cpus::CpuError;
pub use process_resources::{MemoryExcess, ProcessResources, ResourceAllocator, ResourceError};
pub use sandbox::SandboxError;
#[cfg(not(feature = "sandbox"))]
use without_sandbox as sandbox;

use crate::resources::Sandbox;

/// The option with which the plugin probe receives its [`Confinement`], as JSON.
pub const CONFINE_OPTION: &str = "confine";

/// The restrictions that a child process applies to itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Maximum number of bytes of data, if no cgroup limits them.
    max_data: Option<u64>,
    /// The CPUs that the process may use. Empty for all CPUs of the server.
    cpus: Vec<usize>,
    /// The sandbox, if it is enabled.
    sandbox: Option<SandboxSettings>,
}

/// Parameters of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SandboxSettings {
    /// The only directory in which files may be changed, if any.
    scratch: Option<PathBuf>,
    /// Whether the process runs even if the kernel does not support all of it.
    best_effort: bool,
}

/// Why a process cannot be confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The memory limit could not be set.
    #[error("cannot limit the memory of the process")]
    Memory(#[source] io::Error),
    /// The CPUs could not be set.
    #[error("cannot pin the process to CPUs {0}")]
    Cpus(String, #[source] io::Error),
    /// The sandbox could not be set up.
    #[error("cannot enter the sandbox")]
    Sandbox(#[from] SandboxError),
}

impl Confinement {
    /// The confinement of a process that only opens a plugin. `None` if the sandbox is off.
    pub fn for_probe(sandbox: Sandbox) -> Option<Self> {
        (sandbox != Sandbox::Off).then(|| Self {
            sandbox: Some(SandboxSettings {
                scratch: None,
                best_effort: sandbox == Sandbox::BestEffort,
            }),
            ..Self::default()
        })
    }

    /// Confines this process permanently. Must be called while the calling thread is the only one.
    ///
    /// # Errors
    ///
    /// If the kernel rejects a restriction. The process must then exit, because restrictions that were applied cannot be undone.
    pub fn apply(&self) -> Result<(), ConfineError> {
        if !self.cpus.is_empty() {
            cpus::pin_current_thread(&self.cpus)
                .map_err(|source| ConfineError::Cpus(cpus::format_ranges(&self.cpus), source))?;
        }
        if let Some(bytes) = self.max_data {
            memory::limit_data(bytes).map_err(ConfineError::Memory)?;
        }
        // Last, because it forbids system calls that the other restrictions may need.
        if let Some(settings) = &self.sandbox {
            sandbox::enter(settings)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
