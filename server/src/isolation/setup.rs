//! What passes when a child starts: what it is to load, and what became of it.

use std::path::PathBuf;

use plugin_abi::manifest::LoadContext;
use serde::{Deserialize, Serialize};

use super::confine::Confinement;

/// What a child is told first. It applies all of it before it opens the plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// The server's process. A child that finds another parent has been orphaned already, and ends.
    pub parent: u32,
    /// Level of the log, as text; what is below is not sent.
    pub log_level: String,
    /// What it confines itself to.
    pub confinement: Confinement,
    /// The copy of the plugin that has been staged for it.
    pub file: PathBuf,
    /// What the plugin is told.
    pub context: LoadContext,
}

/// Why a plugin could not be loaded in a child.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum LoadFailure {
    /// A setting is missing or wrong.
    #[error("{message}")]
    Settings {
        /// Dotted path of the key below `[models.settings]`; empty if no single key is at fault.
        key: String,
        /// What, got, expected.
        message: String,
    },
    /// The process cannot be confined as configured.
    #[error("{0}")]
    Confine(String),
    /// The library cannot be opened there, although it could in the trial.
    #[error("{0}")]
    Open(String),
    /// The plugin could not load its model.
    #[error("{0}")]
    Plugin(String),
    /// The plugin panicked while it loaded its model.
    #[error("{0}")]
    Panicked(String),
    /// What the model says of itself cannot be served.
    #[error("{0}")]
    Manifest(String),
}
