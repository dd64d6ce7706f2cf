//! Where the plugin of a model runs, and how its worker processes are supervised.

use std::time::Duration;

use plugin_abi::manifest;

/// Where the plugin of a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// In the server's process.
    Thread,
    /// In dedicated worker processes.
    Process(ProcessSettings),
    /// As the plugin declares, otherwise in the server's process.
    AsDeclared(ProcessSettings),
}

impl Isolation {
    /// The settings of its worker processes, if it has any. `declared` is the preference of the plugin.
    pub fn process(self, declared: Option<manifest::Isolation>) -> Option<ProcessSettings> {
        match self {
            Self::Thread => None,
            Self::Process(settings) => Some(settings),
            Self::AsDeclared(settings) => {
                (declared == Some(manifest::Isolation::Process)).then_some(settings)
            }
        }
    }
}

/// How the worker processes of a model are supervised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessSettings {
    /// What happens to the batch of a process that exits.
    pub on_crash: OnCrash,
    /// Maximum time that a process may take to prepare an item, or to run a batch without an output.
    pub predict_timeout: Duration,
    /// Backoff before the second consecutive restart, which doubles with each further one.
    pub restart_delay: Duration,
    /// Maximum backoff.
    pub max_restart_delay: Duration,
}

/// What happens to the batch of a process that exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCrash {
    /// It runs again, and then item by item.
    Retry,
    /// It fails.
    Fail,
}
