//! A model as its author writes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plugin_abi::manifest;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::LoadError;
use crate::task::Tasks;

/// A model: what is loaded once and then called, from several threads at once, for every batch.
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
    /// What `[models.settings]` of the configuration is read into; [`NoSettings`] if there is nothing to set.
    ///
    /// Add `#[serde(deny_unknown_fields)]`, so that a misspelt key is an error and not silently ignored.
    type Settings: DeserializeOwned + JsonSchema;

    /// Loads the model. Runs once for each configured model, and again at each reload, while the old one still serves.
    ///
    /// # Errors
    /// The model cannot be loaded. The server keeps serving what it had, and shows the message to its operator.
    fn load(settings: Self::Settings, context: &LoadContext) -> Result<Self, LoadError>;

    /// The tasks of every model of this plugin. Where they depend on the settings, return [`Tasks::new`] and override
    /// [`configured_tasks`](Self::configured_tasks).
    fn tasks() -> Tasks<Self>;

    /// The tasks of this model.
    fn configured_tasks(&self) -> Tasks<Self> {
        Self::tasks()
    }

    /// Where the plugin would rather run, if the configuration does not say.
    fn isolation() -> Option<manifest::Isolation> {
        None
    }

    /// Files that the model was loaded from beside those that its settings name, by absolute paths. When one of them
    /// changes, a reload of the configuration loads the model again.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Facts about the loaded model for people, such as the runtime that was chosen and why, by `snake_case` names. The server
    /// shows them to every client that may list models: no paths and no secrets. A text longer than the server accepts is
    /// cut.
    fn details(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Framework or format that the model runs on, for clients that ask (`onnx`, `pytorch`).
    fn platform() -> &'static str {
        "rust"
    }
}

/// Settings of a model that has none.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// Where and for whom a model is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadContext {
    /// The configured name of the model.
    pub model: String,
    /// Folder of the configuration file.
    pub base_dir: PathBuf,
    /// How many batches may run at once, at least 1.
    pub workers: usize,
    /// How many threads one batch should compute with, at least 1. Each plugin has thread pools of its own: size them by this.
    pub threads: usize,
    /// Whether another process has loaded this model before with the same settings: a further worker, or the successor of one
    /// that died. What is worth one line in the log need not be logged again.
    pub is_repeated: bool,
}

impl LoadContext {
    pub(crate) fn new(context: &manifest::LoadContext) -> Self {
        Self {
            model: context.model.clone(),
            base_dir: context.base_dir.clone(),
            workers: context.workers.max(1) as usize,
            threads: context.threads.max(1) as usize,
            is_repeated: context.is_repeated,
        }
    }

    /// A path of the settings: relative ones start from the folder of the configuration file.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.base_dir.join(path)
    }
}
