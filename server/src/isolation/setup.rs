//! What the server sends when it starts a child process, and the error that the child returns if it fails.

use std::path::PathBuf;

use plugin_abi::manifest::LoadContext;
use serde::{Deserialize, Serialize};

use super::confine::Confinement;

/// What a child process loads. It applies all settings before it opens the plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// Process id of the server. A child with another parent has been orphaned, and exits.
    pub parent: u32,
    /// Maximum log level, as text. Records below it are not sent.
    pub log_level: String,
    /// How the process confines itself.
    pub confinement: Confinement,
    /// The staged copy of the plugin.
    pub file: PathBuf,
    /// The context for the plugin.
    pub context: LoadContext,
}

/// Why a child process could not load its model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum LoadFailure {
    /// A setting is missing or invalid.
    #[error("{message}")]
    Settings {
        /// Dotted path of the key below `[models.settings]`. Empty if no single key is at fault.
        key: String,
        /// What is wrong, what was found and what was expected.
        message: String,
    },
    /// The process cannot be confined as configured.
    #[error("{0}")]
    Confine(String),
    /// The library cannot be opened, although the probe succeeded.
    #[error("{0}")]
    Open(String),
    /// The plugin reported that it cannot load its model.
    #[error("{0}")]
    Plugin(String),
    /// The plugin panicked while loading its model.
    #[error("{0}")]
    Panicked(String),
    /// The model's manifest is invalid or not supported.
    #[error("{0}")]
    Manifest(String),
}
