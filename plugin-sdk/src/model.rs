//! The trait that plugin authors implement for a model, and the context in which a model is loaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plugin_abi::manifest;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::LoadError;
use crate::task::Tasks;

/// A model. It is loaded once and then called for every batch, from several threads concurrently.
///
/// ```
/// use plugin_sdk::prelude::*;
///
/// #[derive(Deserialize, JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// struct Settings {
///     greeting: String,
/// }
///
/// struct Greeter {
///     greeting: String,
/// }
///
/// impl Model for Greeter {
///     type Settings = Settings;
///
///     fn load(settings: Settings, _context: &LoadContext) -> Result<Self, LoadError> {
///         Ok(Self { greeting: settings.greeting })
///     }
///
///     fn tasks() -> Tasks<Self> {
///         Tasks::new().add("greet", Greet)
///     }
/// }
///
/// struct Greet;
///
/// impl Task<Greeter> for Greet {
///     type Input = Text;
///     type Output = Text;
///
///     fn predict(&self, model: &Greeter, batch: Batch<&str>) -> BatchResult<String> {
///         batch.map(|name| format!("{}, {name}!", model.greeting))
///     }
/// }
///
/// plugin_sdk::export_model!(Greeter);
/// # let greeter = plugin_sdk::testing::Harness::<Greeter>::load(json!({"greeting": "Hello"})).expect("loads");
/// # assert_eq!(greeter.predict("greet", &[json!("Ada")]), [Ok(json!("Hello, Ada!"))]);
/// ```
pub trait Model: Sized + Send + Sync + 'static {
    /// Type that `[models.settings]` of the configuration is deserialized into. [`NoSettings`] if the model has no settings.
    ///
    /// Add `#[serde(deny_unknown_fields)]`, so that a misspelled key is an error instead of being ignored.
    type Settings: DeserializeOwned + JsonSchema;

    /// Loads the model. Called once for each configured model, and again at a reload, while the old instance keeps serving.
    ///
    /// # Errors
    /// The model cannot be loaded. The server shows the message to the operator and keeps serving the old instance, if any.
    fn load(settings: Self::Settings, context: &LoadContext) -> Result<Self, LoadError>;

    /// Returns the tasks of every model of this plugin. If they depend on the settings, return [`Tasks::new`] and override
    /// [`configured_tasks`](Self::configured_tasks).
    fn tasks() -> Tasks<Self>;

    /// Returns the tasks of this model.
    fn configured_tasks(&self) -> Tasks<Self> {
        Self::tasks()
    }

    /// Returns the isolation that the plugin prefers. The configuration takes precedence.
    fn isolation() -> Option<manifest::Isolation> {
        None
    }

    /// Returns the absolute paths of files that the model was loaded from, in addition to those named in its settings. If one
    /// of them changes, a reload of the configuration loads the model again.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Returns human-readable facts about the loaded model, such as the selected runtime and the reason, by `snake_case` names.
    /// The server shows them to every client that may list models, so they must not contain paths or secrets. Texts that are
    /// longer than the server accepts are truncated.
    fn details(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Returns the memory that the model has allocated from a device or an arena, and starts a new measurement of its peak.
    /// `None` if it is not known: the server then measures the memory of the process.
    ///
    /// Called by `inference-server calibrate` before and after batches, never during one.
    fn memory_usage(&self) -> Option<MemoryUsage> {
        None
    }

    /// Returns the framework or format of the model (`onnx`, `pytorch`), as reported to clients.
    fn platform() -> &'static str {
        "rust"
    }
}

/// Memory of a model, in bytes, as [`Model::memory_usage`] reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUsage {
    /// In use now.
    pub current: u64,
    /// Maximum in use since the previous report, or since the model was loaded.
    pub peak: u64,
}

/// The settings type of a model without settings.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// Context in which a model is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadContext {
    /// The configured name of the model.
    pub model: String,
    /// Directory of the configuration file.
    pub base_dir: PathBuf,
    /// Maximum number of batches that run concurrently. At least 1.
    pub workers: usize,
    /// Number of threads that one batch should use. At least 1. Each plugin has its own thread pools and should size them
    /// accordingly.
    pub threads: usize,
    /// Whether another process has already loaded this model with the same settings, as for a second worker or a restarted
    /// one. Log lines about the load need not be repeated.
    pub is_repeated: bool,
    /// Whether the memory of batches is predicted, or is measured for such predictions. A model that has the choice should then
    /// return the memory of a batch to the system after it, instead of keeping it for the next batch.
    pub is_calibrated: bool,
}

impl LoadContext {
    pub(crate) fn new(context: &manifest::LoadContext) -> Self {
        Self {
            model: context.model.clone(),
            base_dir: context.base_dir.clone(),
            workers: context.workers.max(1) as usize,
            threads: context.threads.max(1) as usize,
            is_repeated: context.is_repeated,
            is_calibrated: context.is_calibrated,
        }
    }

    /// Resolves a path from the settings. Relative paths are relative to the directory of the configuration file.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.base_dir.join(path)
    }
}
