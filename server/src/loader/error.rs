//! Errors of loading a plugin.

use plugin_abi::check::Finding;

use super::header::HeaderError;
use super::open::OpenError;
use super::probe::ProbeError;
use super::scratch::CopyError;
use super::trust::UntrustedFile;
use crate::json::JsonError;

/// Why a plugin could not be loaded or inspected.
///
/// Messages do not name the plugin's file or the model. The caller knows both and adds them.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not a plugin for this machine.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The file cannot be copied to the scratch directory.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// Other users can change the file, or it does not have the expected content.
    #[error(transparent)]
    Untrusted(#[from] UntrustedFile),
    /// The plugin probe failed.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The plugin cannot be opened in this process, although the probe succeeded.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A setting is missing or invalid.
    #[error("{message}")]
    Settings {
        /// Dotted path of the key below `[models.settings]`. Empty if no single key is at fault.
        key: String,
        /// What is wrong, what was found and what was expected.
        message: String,
    },
    /// The plugin reported that it cannot load its model.
    #[error("the plugin cannot load the model: {0}")]
    Plugin(String),
    /// The plugin panicked while loading its model.
    #[error("the plugin panicked while loading the model: {0}")]
    Panicked(String),
    /// The model's manifest cannot be parsed.
    #[error("the model's manifest is invalid")]
    ManifestSyntax(#[source] JsonError),
    /// The server does not support what the model declares.
    #[error("{}", list(.0))]
    Manifest(Vec<Finding>),
    /// The settings cannot be serialized.
    #[error("the settings cannot be passed to the plugin")]
    Context(#[source] serde_json::Error),
}

fn list(findings: &[Finding]) -> String {
    let messages: Vec<String> = findings.iter().map(ToString::to_string).collect();
    messages.join("; ")
}
