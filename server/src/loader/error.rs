//! Why a model could not be loaded.

use plugin_abi::check::Finding;

use super::header::HeaderError;
use super::open::OpenError;
use super::probe::TrialError;
use super::scratch::CopyError;
use crate::json::JsonError;

/// Why a plugin could not be loaded or looked at.
///
/// No message names the plugin's file or the model: whoever loads it knows both, and says so where it belongs.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is no plugin for this machine.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The file cannot be copied to where it can be opened.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The plugin did not survive being opened in a process of its own.
    #[error(transparent)]
    Trial(#[from] TrialError),
    /// The plugin cannot be opened here, although it could in the trial.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A setting is missing or wrong.
    #[error("{message}")]
    Settings {
        /// Dotted path of the key below `[models.settings]`; empty if no single key is at fault.
        key: String,
        /// What, got, expected.
        message: String,
    },
    /// The plugin could not load its model.
    #[error("the plugin cannot load the model: {0}")]
    Refused(String),
    /// The plugin panicked while it loaded its model.
    #[error("the plugin panicked while it loaded the model: {0}")]
    Panicked(String),
    /// What the model says of itself is no manifest.
    #[error("the model's manifest cannot be read")]
    ManifestSyntax(#[source] JsonError),
    /// What the model declares cannot be served.
    #[error("{}", list(.0))]
    Manifest(Vec<Finding>),
    /// The settings cannot be passed on.
    #[error("the settings cannot be passed to the plugin")]
    Context(#[source] serde_json::Error),
}

fn list(findings: &[Finding]) -> String {
    let messages: Vec<String> = findings.iter().map(ToString::to_string).collect();
    messages.join("; ")
}
