//! Limits of worker processes as plain values. `config` parses them, and `isolation` enforces them.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// Limits and environment of each worker process of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Maximum memory in bytes.
    pub max_memory: Option<u64>,
    /// The CPUs on which it runs.
    pub cpus: Option<Cpus>,
    /// Environment variables in addition to those of the server.
    pub env: BTreeMap<String, Secret>,
    /// Whether it is sandboxed.
    pub sandbox: Sandbox,
}

/// The CPUs of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cpus {
    /// This many CPUs, which the server chooses.
    Count(NonZeroUsize),
    /// The CPUs with these numbers.
    These(Vec<usize>),
}

impl Cpus {
    /// Number of CPUs.
    pub fn count(&self) -> usize {
        match self {
            Self::Count(count) => count.get(),
            Self::These(cpus) => cpus.len(),
        }
    }
}

/// Whether a process is prevented from using the network and writing files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sandbox {
    /// No sandbox.
    #[default]
    Off,
    /// Sandboxed; if the kernel does not support it, the process does not start.
    On,
    /// Sandboxed as far as the kernel supports it.
    BestEffort,
}
