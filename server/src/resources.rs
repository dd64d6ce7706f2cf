//! Limits of models and of worker processes as plain values. `config` parses them; `engine` and `isolation` enforce them.

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

/// Maximum memory of batches that run at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryBudget {
    /// This many bytes.
    Bytes(u64),
    /// A share of the memory that is free when the model is loaded, 1 to 100.
    Percent(u8),
}

impl MemoryBudget {
    /// The budget in bytes if `free` bytes are free. `None` if it depends on that and nothing is known about it.
    pub fn bytes(self, free: Option<u64>) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Percent(percent) => Some((u128::from(free?) * u128::from(percent) / 100) as u64),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_one_of_the_free_memory() {
        assert_eq!(MemoryBudget::Percent(80).bytes(Some(1000)), Some(800));
        assert_eq!(MemoryBudget::Percent(100).bytes(Some(u64::MAX)), Some(u64::MAX));
        assert_eq!(MemoryBudget::Percent(80).bytes(None), None);
        assert_eq!(MemoryBudget::Bytes(7).bytes(None), Some(7));
    }
}
