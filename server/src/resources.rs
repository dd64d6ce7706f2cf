//! What a model that runs in processes of its own may use, as plain values: configuration states them, isolation enforces
//! them.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// Bounds and surroundings of each process of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Most memory in bytes.
    pub max_memory: Option<u64>,
    /// Which processors.
    pub cpus: Option<Cpus>,
    /// Variables in the environment beside those of the server.
    pub env: BTreeMap<String, Secret>,
    /// What else is forbidden.
    pub sandbox: Sandbox,
}

/// Processors of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cpus {
    /// So many, chosen by the server.
    Count(NonZeroUsize),
    /// These, by their number.
    These(Vec<usize>),
}

impl Cpus {
    /// How many they are.
    pub fn count(&self) -> usize {
        match self {
            Self::Count(count) => count.get(),
            Self::These(cpus) => cpus.len(),
        }
    }
}

/// Whether a process is kept from the network and from writing files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sandbox {
    /// It is not.
    #[default]
    Off,
    /// It is, or does not start.
    On,
    /// As far as the kernel can.
    BestEffort,
}
