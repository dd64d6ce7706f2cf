//! Loads plugins: from a file to a [`Model`], or to an error that says what to do.
//!
//! The steps of a load, each in a module of its own: the file is copied to a path of its own (`copy`), its header is read
//! (`header`), it is opened in a child process (`trial`) and only then in this one (`open`, which checks its types with
//! `layout`), the plugin loads its model with its settings, and what the model declares is checked (`plugin_abi::check`).
//! `plugin_model` then stands between the model and the rest of the server, with `convert` and `sink` for the values that
//! pass. When the model is gone, `reclaim` gives back what it can of the memory of the library, which stays.
//!
//! The `unsafe` code is in `open` and in `reclaim`.
//!
//! Owned by `app`. Knows nothing of configuration, batching or the network.

mod convert;
mod error;
mod header;
mod host_log;
mod inspect;
mod layout;
mod missing_file;
#[allow(
    unsafe_code,
    reason = "opening a library and believing its types cannot be checked by the compiler"
)]
mod open;
mod plugin_model;
mod plugin_sink;
mod probe;
#[allow(unsafe_code, reason = "advice on memory is given by its address")]
mod reclaim;
mod scratch;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plugin_abi::manifest::{LoadContext, ModelManifest, PluginManifest};
use plugin_abi::{check, codes};

pub use error::LoadError;
pub use header::{HeaderError, LibraryFacts};
pub use inspect::{CheckExample, Inspection, Probe, inspect, probe_plugin};
pub use open::OpenError;
pub use probe::{TRIAL_COMMAND, Trial, TrialError, TrialProgram, run_trial, trial_load};
pub use scratch::{CopyError, PluginCopy, Scratch};

use crate::crash;
use crate::json;
use crate::model::Model;
use open::OpenedPlugin;
use plugin_model::PluginModel;

/// Loads plugins for the lifetime of the server.
#[derive(Debug)]
pub struct Loader {
    scratch: Arc<Scratch>,
    program: TrialProgram,
}

/// A loaded model.
pub struct Loaded {
    /// The model. Dropping the last reference drops the plugin's model, never the library.
    pub model: Arc<dyn Model>,
    /// What the plugin says of itself.
    pub plugin: PluginManifest,
}

/// A plugin that has been copied, checked and tried, and is yet to be opened: here, or in a process of its own.
#[derive(Debug)]
pub struct Staged {
    /// The copy to open. Its folder goes when this is dropped.
    pub copy: PluginCopy,
    /// What the header says.
    pub facts: LibraryFacts,
    /// What the plugin says of itself.
    pub trial: Trial,
}

impl Loader {
    /// Makes a scratch folder in `scratch_parent`, which has to allow executing and is better not in memory, and cleans
    /// up after dead servers there. `program` is this server, with what makes it call [`run_trial`].
    pub fn new(scratch_parent: &Path, program: TrialProgram) -> Result<Self, LoadError> {
        Ok(Self {
            scratch: Scratch::new(scratch_parent)?,
            program,
        })
    }

    /// This server's own folder for what is not to outlive it; the next server removes what a crash has left.
    pub fn scratch_folder(&self) -> &Path {
        self.scratch.folder()
    }

    /// Copies, checks and tries a plugin without opening it in this process. `options` are for the program of the trial.
    pub fn stage(
        &self,
        path: &Path,
        options: &[String],
        trial_timeout: Duration,
    ) -> Result<Staged, LoadError> {
        // All checks read the copy: the file may be overwritten between any two of them.
        let copy = self.scratch.copy(path).map_err(|error| match error {
            CopyError::Source(error) => LoadError::Header(error),
            other => LoadError::Copy(other),
        })?;
        let facts = header::check(copy.file())?;
        let trial = trial_load(&self.program, options, copy.file(), trial_timeout)?;
        Ok(Staged { copy, facts, trial })
    }
}

impl Staged {
    /// Loads a model into this process. Blocks, for as long as the plugin takes to load; nothing of an earlier load of the
    /// same file is shared.
    pub fn load(self, context: &LoadContext) -> Result<Loaded, LoadError> {
        let model = load_model(self.copy.file(), context)?;
        Ok(Loaded {
            model: Arc::new(model.into_plugin_model(&context.model, Some(self.copy))),
            plugin: self.trial.manifest,
        })
    }
}

/// Opens a [`Staged`] copy in this process and loads a model with it. For child processes, which are handed the path by the
/// server that staged it; the server keeps the [`Staged`] for as long as they run.
pub fn load_staged(file: &Path, context: &LoadContext) -> Result<Arc<dyn Model>, LoadError> {
    Ok(Arc::new(
        load_model(file, context)?.into_plugin_model(&context.model, None),
    ))
}

/// A model whose manifest has been read and checked.
struct CheckedModel {
    model: plugin_abi::Model,
    manifest: ModelManifest,
}

impl CheckedModel {
    fn into_plugin_model(self, name: &str, copy: Option<PluginCopy>) -> PluginModel {
        PluginModel::new(name, self.model, self.manifest, copy)
    }
}

fn load_model(file: &Path, context: &LoadContext) -> Result<CheckedModel, LoadError> {
    crash::within(&context.model, "", || load_checked(file, context))
}

fn load_checked(file: &Path, context: &LoadContext) -> Result<CheckedModel, LoadError> {
    let plugin = OpenedPlugin::open(file)?;
    let json = serde_json::to_string(context).map_err(LoadError::Context)?;
    let model = plugin
        .load(&json, host_log::host_for(&context.model))
        .map_err(|error| refused(&error))?;
    let manifest: ModelManifest = json::from_str(&model.manifest()).map_err(LoadError::ManifestSyntax)?;
    let findings = check::model(&manifest);
    if !findings.is_empty() {
        return Err(LoadError::Manifest(findings));
    }
    Ok(CheckedModel { model, manifest })
}

fn refused(error: &plugin_abi::RawError) -> LoadError {
    const MOST_MESSAGE: usize = 16 << 10;
    let message = cut(&error.message, MOST_MESSAGE).to_owned();
    match error.kind {
        codes::error::SETTINGS => LoadError::Settings {
            key: error.key.to_string(),
            message,
        },
        codes::error::PANIC => LoadError::Panicked(message),
        _ => LoadError::Refused(message),
    }
}

/// The first `most` bytes of a text, less if that would split a character.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}
