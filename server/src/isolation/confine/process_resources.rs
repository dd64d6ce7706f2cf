//! The server's side of confinement: resources that it allocates for a child process, and detection of exceeded limits.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

use tempfile::TempDir;

use super::cgroup::{Cgroup, DelegatedCgroup};
use super::cpus::{self, CpuError};
use super::{Confinement, SandboxSettings, memory};
use crate::resources::{Resources, Sandbox};
use crate::secret::Secret;

/// Why resources cannot be allocated as configured.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// The configured CPUs are not available.
    #[error(transparent)]
    Cpus(#[from] CpuError),
    /// The CPUs of the server are unknown.
    #[error("cannot determine which CPUs the server can use")]
    Affinity(#[source] io::Error),
    /// The scratch directory could not be created.
    #[error("cannot create a scratch directory in {}", parent.display())]
    Scratch {
        /// Its parent directory.
        parent: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A process exceeded its memory limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryExcess {
    /// The memory that it used, if known.
    used: Option<u64>,
    limit: u64,
}

impl fmt::Display for MemoryExcess {
    /// Formats a predicate, such as in "worker process 0 used 300 MiB …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes >> 20;
        match self.used {
            Some(used) => write!(f, "used {} MiB of memory", mebibytes(used))?,
            None => write!(f, "ran out of memory")?,
        }
        write!(f, " (`max_memory` is {} MiB)", mebibytes(self.limit))
    }
}

/// Allocates the resources of child processes for the lifetime of the server.
#[derive(Debug)]
pub struct ResourceAllocator {
    scratch_parent: PathBuf,
    delegated: Option<DelegatedCgroup>,
}

/// The resources of one child process. Must be dropped after the process has exited.
#[derive(Debug)]
pub struct ProcessResources {
    confinement: Confinement,
    env: BTreeMap<String, Secret>,
    max_memory: Option<u64>,
    cgroup: Option<Cgroup>,
    _scratch: Option<TempDir>,
}

impl ResourceAllocator {
    /// Scratch directories of sandboxes are created in `scratch_parent`. Without [`claim_cgroup`](Self::claim_cgroup), processes
    /// limit their memory themselves.
    pub fn new(scratch_parent: PathBuf) -> Self {
        Self {
            scratch_parent,
            delegated: None,
        }
    }

    /// Makes the kernel limit the memory of child processes, if a cgroup has been delegated to this process. Must be called before
    /// any child process is started, because a cgroup that contains other processes cannot be divided.
    pub fn claim_cgroup(&mut self) {
        match DelegatedCgroup::claim() {
            Ok(delegated) => {
                log::info!("the kernel enforces `max_memory`, in {delegated}");
                self.delegated = Some(delegated);
            }
            Err(error) => log::info!(
                "`max_memory` is enforced by RLIMIT_DATA and by polling, because no cgroup has been delegated to the server ({error})"
            ),
        }
    }

    /// Allocates the resources of the process with the number `slot` of a model.
    ///
    /// # Errors
    ///
    /// If the configured resources are not available.
    pub fn allocate(
        &self,
        resources: &Resources,
        model: &str,
        slot: usize,
    ) -> Result<ProcessResources, ResourceError> {
        let cpus = match &resources.cpus {
            None => Vec::new(),
            Some(requested) => {
                let allowed = cpus::allowed().map_err(ResourceError::Affinity)?;
                cpus::choose(requested, &allowed, model, slot)?
            }
        };
        let scratch = match resources.sandbox {
            Sandbox::Off => None,
            Sandbox::On | Sandbox::BestEffort => Some(self.create_scratch(model)?),
        };
        let mut env = resources.env.clone();
        if let Some(scratch) = &scratch {
            let directory = scratch.path().to_string_lossy().into_owned();
            env.entry("TMPDIR".to_owned()).or_insert(Secret::new(directory));
        }
        let cgroup = resources
            .max_memory
            .and_then(|bytes| self.create_cgroup(&format!("{model}.{slot}"), bytes));
        Ok(ProcessResources {
            confinement: Confinement {
                max_data: resources.max_memory.filter(|_| cgroup.is_none()),
                cpus,
                sandbox: scratch.as_ref().map(|scratch| SandboxSettings {
                    scratch: Some(scratch.path().to_owned()),
                    best_effort: resources.sandbox == Sandbox::BestEffort,
                }),
            },
            env,
            max_memory: resources.max_memory,
            cgroup,
            _scratch: scratch,
        })
    }

    fn create_scratch(&self, model: &str) -> Result<TempDir, ResourceError> {
        tempfile::Builder::new()
            .prefix(&format!("{model}-scratch-"))
            .tempdir_in(&self.scratch_parent)
            .map_err(|source| ResourceError::Scratch {
                parent: self.scratch_parent.clone(),
                source,
            })
    }

    /// A cgroup, if possible. Otherwise the process limits itself and its memory is polled.
    fn create_cgroup(&self, name: &str, max_memory: u64) -> Option<Cgroup> {
        match self.delegated.as_ref()?.create_cgroup(name, max_memory) {
            Ok(cgroup) => Some(cgroup),
            Err(error) => {
                log::warn!(
                    "cannot create a cgroup for {name}, so its memory is limited by RLIMIT_DATA and polling: {error}"
                );
                None
            }
        }
    }
}

impl ProcessResources {
    /// The confinement that the process must apply to itself.
    pub fn confinement(&self) -> &Confinement {
        &self.confinement
    }

    /// Environment variables of the process.
    pub fn env(&self) -> &BTreeMap<String, Secret> {
        &self.env
    }

    /// Adds the process, which must not have started its work.
    ///
    /// # Errors
    ///
    /// If the process cannot be moved into its cgroup. Its memory is then not limited, and it must be killed.
    pub fn add_process(&self, pid: u32) -> io::Result<()> {
        match &self.cgroup {
            Some(cgroup) => cgroup.add_process(pid),
            None => Ok(()),
        }
    }

    /// Whether [`memory_excess`](Self::memory_excess) must be polled.
    pub fn needs_memory_polling(&self) -> bool {
        self.max_memory.is_some() && self.cgroup.is_none()
    }

    /// Returns the memory usage of the process if it exceeds the limit.
    pub fn memory_excess(&self, pid: u32) -> Option<MemoryExcess> {
        let limit = self.max_memory?;
        let used = memory::memory_usage(pid)?;
        (used > limit).then_some(MemoryExcess {
            used: Some(used),
            limit,
        })
    }

    /// Whether the kernel has killed the process because of the memory limit of its cgroup.
    pub fn oom_kill(&self) -> Option<MemoryExcess> {
        let limit = self.max_memory?;
        let was_killed = self.cgroup.as_ref()?.had_oom_kill();
        was_killed.then_some(MemoryExcess { used: None, limit })
    }
}
