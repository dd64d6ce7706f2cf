//! Settings of a model.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::isolation::Isolation;
use super::place::UncomparedLocation;
use super::task::{BatchingLayers, TaskOverrides};
use crate::config::error::{ConfigWarning, Location, Origin};
use crate::config::lints::process_key_without_process;
use crate::digest::Digest;
use crate::resources::{MemoryBudget, Resources};

/// One model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSettings {
    /// Name, unique among the models.
    pub name: String,
    /// The file of the plugin, which may not exist.
    pub plugin: PathBuf,
    /// The expected digest of that file.
    pub sha256: Option<Digest>,
    /// The files in further directories of the search path, if the plugin is given by name. Empty once
    /// [`Settings::find_plugins`] has found it.
    pub(in crate::config) plugin_alternatives: Vec<PathBuf>,
    /// Where the plugin runs.
    pub isolation: Isolation,
    /// Number of threads or processes that run batches concurrently.
    pub workers: NonZeroUsize,
    /// Limits of each worker process.
    pub resources: Resources,
    /// Maximum memory of its batches that run at the same time.
    pub memory_budget: Option<MemoryBudget>,
    /// Where the cost of its batches is known from.
    pub calibration: Option<CalibrationSource>,
    /// Timeout of measuring it during the load.
    pub calibration_timeout: Duration,
    /// Niceness of its workers, 0 to 19, if it overrides that of all models.
    pub nice: Option<u8>,
    /// Whether the examples of the model run before it serves.
    pub warm_up: bool,
    /// Task of requests that do not name one.
    pub default_task: Option<String>,
    /// Description of the model.
    pub description: Option<String>,
    /// Default deadline of a request.
    pub request_timeout: Duration,
    /// How clients of embeddings use it.
    pub embeddings: EmbeddingSettings,
    /// The settings that are passed to the plugin, always an object.
    pub settings: serde_json::Value,
    /// Directory of the configuration file, where the plugin's relative paths start.
    pub base_dir: PathBuf,
    pub(in crate::config) batching: BatchingLayers,
    pub(in crate::config) tasks: BTreeMap<String, TaskOverrides>,
    pub(in crate::config) places: ModelPlaces,
}

impl ModelSettings {
    /// The additional paths of tasks. The plugin may not have these tasks.
    pub fn routes(&self) -> impl Iterator<Item = &str> {
        let routes = self.tasks.values().filter_map(|task| task.route.as_ref());
        routes.map(|route| route.value.as_str())
    }

    /// The tasks that have a table in the file, and its place. The plugin may not have these tasks.
    pub fn configured_tasks(&self) -> impl Iterator<Item = (&str, Location)> {
        self.tasks
            .iter()
            .map(|(name, task)| (name.as_str(), task.header.0.clone()))
    }

    /// The tasks that have an additional path, and that path.
    pub fn configured_routes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tasks
            .iter()
            .filter_map(|(name, task)| Some((name.as_str(), task.route.as_ref()?.value.as_str())))
    }

    /// Where a setting of the plugin is written, by its path, such as `image.size`, `labels.0` or `labels[0]`. If it is not
    /// written, the innermost table or array that would contain it; `None` if the model has no settings.
    pub fn locate(&self, key_path: &str) -> Option<Location> {
        let dotted = key_path.replace('[', ".").replace(']', "");
        let mut path = dotted.as_str();
        loop {
            if let Some(place) = self.places.settings.get(path) {
                return Some(place.0.clone());
            }
            if path.is_empty() {
                return None;
            }
            path = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        }
    }

    /// Lints for a model that runs in a thread because neither the configuration nor the plugin requests a process.
    pub fn warnings_in_thread(&self) -> Vec<ConfigWarning> {
        if !matches!(self.isolation, Isolation::AsDeclared(_)) {
            return Vec::new();
        }
        let keys = self.places.process_keys.iter();
        keys.map(|(key, place)| process_key_without_process(key, Origin::File(place.0.clone())))
            .collect()
    }

    /// Where the model is written.
    pub fn location(&self) -> Location {
        self.places.model.0.clone()
    }

    /// The file of the plugin for error messages. If it was not found, all directories that were searched.
    pub fn plugin_text(&self) -> String {
        let mut text = self.plugin.display().to_string();
        for file in &self.plugin_alternatives {
            text.push_str(&format!(", {}", file.display()));
        }
        text
    }

    /// Where the name or path of the plugin is written.
    pub fn plugin_location(&self) -> Location {
        self.places.plugin.0.clone()
    }

    /// Where the default task is written, if it is set.
    pub fn default_task_location(&self) -> Option<Location> {
        self.places.default_task.as_ref().map(|place| place.0.clone())
    }

    /// Whether the change to `new` requires a new generation of the model. Other differences, such as in batching, only change
    /// how the loaded model is used.
    pub fn needs_reload(&self, new: &Self) -> bool {
        self.plugin != new.plugin
            || self.sha256 != new.sha256
            || self.settings != new.settings
            || self.base_dir != new.base_dir
            || self.isolation != new.isolation
            || self.workers != new.workers
            || self.resources != new.resources
            || self.calibration != new.calibration
            // A share of the memory that is free when the model is loaded.
            || (self.memory_budget != new.memory_budget
                && matches!(new.memory_budget, Some(MemoryBudget::Percent(_))))
            || self.nice != new.nice
            || self.warm_up != new.warm_up
    }
}

/// How clients of OpenAI, Cohere and text-embeddings-inference use the embeddings of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingSettings {
    /// What happens if a client requests another number of dimensions.
    pub dimensions: Dimensions,
    /// The vocabulary of token ids.
    pub token_ids: TokenIds,
    /// Task or prompt for Cohere's input type `search_query`.
    pub search_query: Option<String>,
    /// For `search_document`.
    pub search_document: Option<String>,
    /// For `classification`.
    pub classification: Option<String>,
    /// For `clustering`.
    pub clustering: Option<String>,
}

/// What happens if a client requests another number of dimensions than that of the embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimensions {
    /// The request is rejected.
    Fixed,
    /// The embeddings are truncated.
    Truncate,
}

/// The vocabulary of token ids in requests for embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenIds {
    /// OpenAI's.
    Cl100kBase,
    /// That of the model.
    Model,
    /// Token ids are rejected.
    Reject,
}

/// Where the cost of a model's batches is known from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalibrationSource {
    /// The server measures it while it loads the model, if it has no valid measurements.
    Auto,
    /// This file, which may not exist.
    File(PathBuf),
}

/// The places of the parts of a model.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct ModelPlaces {
    pub(in crate::config) model: UncomparedLocation,
    pub(in crate::config) plugin: UncomparedLocation,
    pub(in crate::config) default_task: Option<UncomparedLocation>,
    /// The keys that have an effect only on worker processes.
    pub(in crate::config) process_keys: Vec<(&'static str, UncomparedLocation)>,
    /// By dotted path. The empty path is the table itself.
    pub(in crate::config) settings: BTreeMap<String, UncomparedLocation>,
}
