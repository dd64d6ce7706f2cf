//! The server's side of a confinement: what it prepares for a child, and how it sees that a child has gone too far.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

use tempfile::TempDir;

use super::cgroup::{Delegated, Group};
use super::cpus::{self, CpuError};
use super::{Confinement, SandboxPlan, memory};
use crate::resources::{Resources, Sandbox};
use crate::secret::Secret;

/// Why a child cannot be started as configured.
#[derive(Debug, thiserror::Error)]
pub enum EnclosureError {
    /// The processors are not there.
    #[error(transparent)]
    Cpus(#[from] CpuError),
    /// The system does not say which processors there are.
    #[error("cannot tell which processors the server may use")]
    Affinity(#[source] io::Error),
    /// The scratch folder cannot be made.
    #[error("cannot make a scratch folder in {}", parent.display())]
    Scratch {
        /// Where.
        parent: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// More memory than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    /// What was held, where that is known.
    held: Option<u64>,
    most: u64,
}

impl fmt::Display for Excess {
    /// What follows "its process".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes >> 20;
        match self.held {
            Some(held) => write!(f, "held {} MiB", mebibytes(held))?,
            None => write!(f, "ran out of memory")?,
        }
        write!(f, ", and `max_memory` is {} MiB", mebibytes(self.most))
    }
}

/// Makes enclosures, all of the server's life.
#[derive(Debug)]
pub struct Enclosures {
    scratch_parent: PathBuf,
    delegated: Option<Delegated>,
}

/// What belongs to one child. To be dropped after its end.
#[derive(Debug)]
pub struct Enclosure {
    confinement: Confinement,
    env: BTreeMap<String, Secret>,
    max_memory: Option<u64>,
    group: Option<Group>,
    _scratch: Option<TempDir>,
}

impl Enclosures {
    /// Scratch folders of sandboxes are made in `scratch_parent`. Children limit their memory themselves.
    pub fn new(scratch_parent: PathBuf) -> Self {
        Self {
            scratch_parent,
            delegated: None,
        }
    }

    /// Has the kernel limit the memory of children, if a cgroup has been delegated to this process. To be called before any
    /// child is started, for whatever reason: a group that holds other processes cannot be divided.
    pub fn take_over_cgroup(&mut self) {
        match Delegated::take_over() {
            Ok(delegated) => {
                log::info!("`max_memory` is kept by the kernel, in {delegated}");
                self.delegated = Some(delegated);
            }
            Err(error) => log::info!(
                "`max_memory` is kept by RLIMIT_DATA and by watching: no cgroup has been delegated to the server ({error})"
            ),
        }
    }

    /// An enclosure for the child in this slot of a model.
    ///
    /// # Errors
    ///
    /// If the machine does not have what is configured.
    pub fn enclose(
        &self,
        resources: &Resources,
        model: &str,
        slot: usize,
    ) -> Result<Enclosure, EnclosureError> {
        let cpus = match &resources.cpus {
            None => Vec::new(),
            Some(wanted) => {
                let allowed = cpus::allowed().map_err(EnclosureError::Affinity)?;
                cpus::choose(wanted, &allowed, model, slot)?
            }
        };
        let scratch = match resources.sandbox {
            Sandbox::Off => None,
            Sandbox::On | Sandbox::BestEffort => Some(self.scratch(model)?),
        };
        let mut env = resources.env.clone();
        if let Some(scratch) = &scratch {
            let folder = scratch.path().to_string_lossy().into_owned();
            env.entry("TMPDIR".to_owned()).or_insert(Secret::new(folder));
        }
        let group = resources
            .max_memory
            .and_then(|bytes| self.group(&format!("{model}.{slot}"), bytes));
        Ok(Enclosure {
            confinement: Confinement {
                max_data: resources.max_memory.filter(|_| group.is_none()),
                cpus,
                sandbox: scratch.as_ref().map(|scratch| SandboxPlan {
                    scratch: Some(scratch.path().to_owned()),
                    best_effort: resources.sandbox == Sandbox::BestEffort,
                }),
            },
            env,
            max_memory: resources.max_memory,
            group,
            _scratch: scratch,
        })
    }

    fn scratch(&self, model: &str) -> Result<TempDir, EnclosureError> {
        tempfile::Builder::new()
            .prefix(&format!("{model}-scratch-"))
            .tempdir_in(&self.scratch_parent)
            .map_err(|source| EnclosureError::Scratch {
                parent: self.scratch_parent.clone(),
                source,
            })
    }

    /// A cgroup, where there can be one; elsewhere the child limits itself and is watched.
    fn group(&self, name: &str, max_memory: u64) -> Option<Group> {
        match self.delegated.as_ref()?.group(name, max_memory) {
            Ok(group) => Some(group),
            Err(error) => {
                log::warn!("no cgroup can be made for {name}, its memory is limited in another way: {error}");
                None
            }
        }
    }
}

impl Enclosure {
    /// What the child is to apply to itself.
    pub fn confinement(&self) -> &Confinement {
        &self.confinement
    }

    /// Variables for the child's environment.
    pub fn env(&self) -> &BTreeMap<String, Secret> {
        &self.env
    }

    /// Takes in the child's process, before it does anything of note.
    ///
    /// # Errors
    ///
    /// If the process cannot be moved into its cgroup. Then its memory has no bound, and it must not go on.
    pub fn admit(&self, pid: u32) -> io::Result<()> {
        match &self.group {
            Some(group) => group.admit(pid),
            None => Ok(()),
        }
    }

    /// Whether somebody has to look at [`excess`](Self::excess) from time to time.
    pub fn needs_watching(&self) -> bool {
        self.max_memory.is_some() && self.group.is_none()
    }

    /// What the child's process holds past its limit, if it does.
    pub fn excess(&self, pid: u32) -> Option<Excess> {
        let most = self.max_memory?;
        let held = memory::held_by(pid)?;
        (held > most).then_some(Excess {
            held: Some(held),
            most,
        })
    }

    /// What the kernel has ended the child for, if it has for want of memory in its cgroup.
    pub fn overrun(&self) -> Option<Excess> {
        let most = self.max_memory?;
        let ended = self.group.as_ref()?.ran_out_of_memory();
        ended.then_some(Excess { held: None, most })
    }
}
