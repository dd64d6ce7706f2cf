//! Loads plugins: turns a file into a [`Model`], or into an error that says how to fix the problem.
//!
//! The steps of a load, one module each:
//!
//! 1. `scratch` copies the file to a path that was never used before, and `trust` checks who can change the file, and the
//!    content of the copy.
//! 2. `header` reads its ELF header.
//! 3. `probe` opens it in a child process.
//! 4. `open` opens it in this process, and `layout` compares its types with the server's.
//! 5. The plugin loads its model with its settings, and `plugin_abi::check` checks what the model declares.
//!
//! Afterwards `plugin_model` adapts the model to the rest of the server, with `convert` and `plugin_sink` for the values that
//! cross the boundary. The library stays mapped when the model is dropped; `reclaim` then frees as much of its memory as
//! possible.
//!
//! The `unsafe` code is in `open` and `reclaim`. The module does not know about configuration, batching or the network.

mod convert;
mod error;
mod header;
mod host_log;
mod inspect;
mod layout;
mod missing_file;
#[allow(
    unsafe_code,
    reason = "the compiler cannot check that opening a library is sound and that its types are as declared"
)]
mod open;
mod plugin_model;
mod plugin_sink;
mod probe;
#[allow(unsafe_code, reason = "`madvise` takes an address")]
mod reclaim;
mod scratch;
mod trust;

use std::fs::Metadata;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plugin_abi::manifest::{LoadContext, ModelManifest, PluginManifest};
use plugin_abi::{check, codes};

pub use error::LoadError;
pub use header::{HeaderError, LibraryFacts};
pub use inspect::{CheckExample, Inspection, PluginProbe, inspect, probe_plugin, probe_trusted_plugin};
pub use open::OpenError;
pub use probe::{PROBE_COMMAND, ProbeError, ProbeProgram, ProbeReport, probe_library, run_probe};
pub use scratch::{CopyError, PluginCopy, Scratch};
pub use trust::{FileTrust, UntrustedFile};

use crate::crash;
use crate::json;
use crate::model::Model;
use open::OpenedPlugin;
use plugin_model::PluginModel;

/// Loads plugins for the lifetime of the server.
#[derive(Debug)]
pub struct Loader {
    scratch: Arc<Scratch>,
    program: ProbeProgram,
}

/// A loaded model.
pub struct Loaded {
    /// The model. Dropping the last reference drops the plugin's model, never the library.
    pub model: Arc<dyn Model>,
    /// The manifest of the plugin.
    pub plugin: PluginManifest,
}

/// A plugin that has been copied, checked and probed, and can be opened in this process or in a child process.
#[derive(Debug)]
pub struct Staged {
    /// The copy to open. Its directory is removed when this is dropped.
    pub copy: PluginCopy,
    /// Properties of the library from its header.
    pub facts: LibraryFacts,
    /// The report of the process that probed it.
    pub report: ProbeReport,
}

impl Loader {
    /// Creates a scratch directory in `scratch_parent`, and removes the directories that servers left there when they
    /// crashed. The file system must allow execution; a memory file system is not recommended, because mapped copies use
    /// its space. `program` must call [`run_probe`].
    pub fn new(scratch_parent: &Path, program: ProbeProgram) -> Result<Self, LoadError> {
        Ok(Self {
            scratch: Scratch::new(scratch_parent)?,
            program,
        })
    }

    /// The scratch directory of this process. If the process crashes, the next server removes it.
    pub fn scratch_directory(&self) -> &Path {
        self.scratch.path()
    }

    /// Copies, checks and probes a plugin without opening it in this process. Its code runs only if its file obeys `trust`.
    /// `options` are passed to the probe program.
    pub fn stage(
        &self,
        path: &Path,
        trust: &FileTrust,
        options: &[String],
        probe_timeout: Duration,
    ) -> Result<Staged, LoadError> {
        // All checks read the copy, because the file may be overwritten between any two of them.
        let check_source = |metadata: &Metadata| trust.check_writers(metadata);
        let copy = self
            .scratch
            .copy(path, check_source)
            .map_err(|error| match error {
                CopyError::Source(error) => LoadError::Header(error),
                CopyError::Untrusted(error) => LoadError::Untrusted(error),
                other => LoadError::Copy(other),
            })?;
        trust.check_content(copy.file())?;
        let facts = header::check(copy.file())?;
        let report = probe_library(&self.program, options, copy.file(), probe_timeout)?;
        Ok(Staged { copy, facts, report })
    }
}

impl Staged {
    /// Loads a model into this process. Blocks while the plugin loads it. Shares nothing with earlier loads of the same
    /// file.
    pub fn load(self, context: &LoadContext) -> Result<Loaded, LoadError> {
        let model = load_model(self.copy.file(), context)?;
        Ok(Loaded {
            model: Arc::new(model.into_plugin_model(&context.model, Some(self.copy))),
            plugin: self.report.manifest,
        })
    }
}

/// Opens a [`Staged`] copy in this process and loads a model with it. Called in child processes with the path that the server
/// staged. The server keeps the [`Staged`] while child processes use it.
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
        .map_err(|error| load_error(&error))?;
    let manifest: ModelManifest = json::from_str(&model.manifest()).map_err(LoadError::ManifestSyntax)?;
    let findings = check::model(&manifest);
    if !findings.is_empty() {
        return Err(LoadError::Manifest(findings));
    }
    Ok(CheckedModel { model, manifest })
}

fn load_error(error: &plugin_abi::RawError) -> LoadError {
    const MAX_MESSAGE_BYTES: usize = 16 << 10;
    let message = truncate(&error.message, MAX_MESSAGE_BYTES).to_owned();
    match error.kind {
        codes::error::SETTINGS => LoadError::Settings {
            key: error.key.to_string(),
            message,
        },
        codes::error::PANIC => LoadError::Panicked(message),
        _ => LoadError::Plugin(message),
    }
}

/// The first `max_bytes` bytes of a text, or fewer to end at a character boundary.
fn truncate(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

#[cfg(test)]
mod tests;
