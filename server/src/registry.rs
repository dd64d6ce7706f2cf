//! The configured models and the generation of each that is serving.
//!
//! A reader takes a [`Snapshot`] and uses it for one request. A reload publishes a new snapshot in one step. A generation
//! lives until the last snapshot and the last request that refer to it are dropped.

mod state_metrics;
mod trials;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use plugin_abi::manifest::{ModelManifest, PluginManifest, TaskManifest};

use crate::config::{ModelSettings, TaskSettings};
use crate::engine::Engine;
use crate::model::Health;

pub use state_metrics::ModelStateMetrics;
pub use trials::TaskTrial;

/// One loaded instance of a model.
pub struct Generation {
    /// Number of the generation, counted from 1 over all models of the process.
    pub number: u64,
    /// The manifest of the model.
    pub manifest: ModelManifest,
    /// The manifest of the plugin.
    pub plugin: PluginManifest,
    /// Unix time at which it became ready.
    pub created: u64,
    /// The outcome of the first computation of each task, as of the load.
    pub trials: Vec<TaskTrial>,
    /// The engine that runs it.
    pub engine: Engine,
}

/// The state of a configured model.
#[derive(Clone)]
pub enum ModelState {
    /// The model is being loaded for the first time.
    Loading,
    /// The model is serving.
    Ready(Arc<Generation>),
    /// The model could not be loaded.
    Failed {
        /// The reason.
        reason: Reason,
    },
    /// A client has unloaded it. A load request or the next reload loads it again.
    Unloaded,
}

/// Why a model was not loaded, for two audiences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// For all clients: without paths and settings.
    pub public: String,
    /// For operators, as in the log.
    pub full: String,
}

impl Reason {
    /// The text for an operator or for another client.
    pub fn text(&self, for_operator: bool) -> &str {
        if for_operator { &self.full } else { &self.public }
    }
}

/// A configured model.
#[derive(Clone)]
pub struct ModelEntry {
    /// Its settings.
    pub settings: ModelSettings,
    /// Its state.
    pub state: ModelState,
    /// Settings of each task in the manifest. Empty until the model is ready.
    pub tasks: Vec<TaskSettings>,
    /// Index of the task for requests that do not name one.
    pub default_task: Option<usize>,
    /// Maximum memory of its batches in bytes, as resolved when it was loaded.
    pub memory_budget: Option<u64>,
    /// Why the last reload failed. `None` if it succeeded.
    pub last_reload_error: Option<Reason>,
    /// Names of the tasks that the model had when it last served. `None` if it has never served.
    pub last_tasks: Option<Vec<String>>,
}

impl ModelEntry {
    /// A model without a generation.
    pub fn without_generation(settings: ModelSettings, state: ModelState) -> Self {
        Self {
            settings,
            state,
            tasks: Vec::new(),
            default_task: None,
            memory_budget: None,
            last_reload_error: None,
            last_tasks: None,
        }
    }

    /// This model after it was unloaded. Keeps the names of its tasks.
    pub fn unloaded(&self) -> Self {
        let tasks = self.task_manifests().iter().map(|task| task.name.clone());
        Self {
            last_tasks: match self.generation() {
                Some(_) => Some(tasks.collect()),
                None => self.last_tasks.clone(),
            },
            ..Self::without_generation(self.settings.clone(), ModelState::Unloaded)
        }
    }

    /// This model after a reload that did not replace it: one that failed for `reason`, or one that succeeded.
    pub fn after_reload(&self, reason: Option<Reason>) -> Self {
        Self {
            last_reload_error: reason,
            ..self.clone()
        }
    }

    /// The configured name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// The model's description from the configuration, or else the description of its plugin.
    pub fn description(&self) -> Option<&str> {
        let of_plugin = || {
            self.generation()
                .map(|generation| generation.plugin.description.as_str())
        };
        let description = self.settings.description.as_deref().or_else(of_plugin);
        description.filter(|description| !description.is_empty())
    }

    /// The generation that is serving, if any.
    pub fn generation(&self) -> Option<&Arc<Generation>> {
        match &self.state {
            ModelState::Ready(generation) => Some(generation),
            ModelState::Loading | ModelState::Failed { .. } | ModelState::Unloaded => None,
        }
    }

    /// Whether the model can run a batch now. `None` if no generation is serving.
    pub fn health(&self) -> Option<Health> {
        self.generation().map(|generation| generation.engine.health())
    }

    /// Why the model cannot run a batch now, for all clients. `None` if it can, is being loaded, or was unloaded.
    pub fn reason(&self) -> Option<String> {
        self.reason_for(false)
    }

    /// Like [`reason`](Self::reason), with the full reason for operators.
    pub fn reason_for(&self, operator: bool) -> Option<String> {
        match (&self.state, self.health()) {
            (ModelState::Failed { reason }, _) => Some(reason.text(operator).to_owned()),
            (
                _,
                Some(
                    Health::Recovering { reason } | Health::CrashLoop { reason } | Health::Failed { reason },
                ),
            ) => Some(reason),
            (ModelState::Loading | ModelState::Ready(_) | ModelState::Unloaded, _) => None,
        }
    }

    /// Whether a generation is serving and can run a batch now.
    pub fn is_ready(&self) -> bool {
        self.health() == Some(Health::Ready)
    }

    /// The tasks of the generation that is serving. Empty if there is none.
    pub fn task_manifests(&self) -> &[TaskManifest] {
        self.generation()
            .map_or(&[], |generation| &generation.manifest.tasks)
    }

    /// Whether the model is not serving but may have a task with this name once it is loaded: it had one when it last served,
    /// or it has never served.
    fn may_have_task(&self, name: &str) -> bool {
        self.generation().is_none()
            && match &self.last_tasks {
                Some(tasks) => tasks.iter().any(|task| task == name),
                None => !name.is_empty(),
            }
    }

    /// Index of a task in [`task_manifests`](Self::task_manifests).
    pub fn task_index(&self, name: &str) -> Option<usize> {
        self.task_manifests().iter().position(|task| task.name == name)
    }
}

/// All models at one point in time.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Increases with every change. 0 until the first configuration has been read.
    pub version: u64,
    models: BTreeMap<String, Arc<ModelEntry>>,
    routes: BTreeMap<String, (String, usize)>,
    /// All tasks by `model.task`. The whole name is the key, because names of models and tasks can contain dots.
    tasks: BTreeMap<String, (String, usize)>,
}

impl Snapshot {
    /// The next snapshot, with these models.
    pub fn next(&self, models: impl IntoIterator<Item = Arc<ModelEntry>>) -> Self {
        let models: BTreeMap<String, Arc<ModelEntry>> = models
            .into_iter()
            .map(|entry| (entry.name().to_owned(), entry))
            .collect();
        let routes = models.values().flat_map(|entry| routes_of(entry)).collect();
        let tasks = models
            .values()
            .flat_map(|entry| {
                let of_task = |(index, task): (usize, &TaskManifest)| {
                    let name = format!("{}.{}", entry.name(), task.name);
                    (name, (entry.name().to_owned(), index))
                };
                entry.task_manifests().iter().enumerate().map(of_task)
            })
            .collect();
        Self {
            version: self.version + 1,
            models,
            routes,
            tasks,
        }
    }

    /// A model by its name.
    pub fn model(&self, name: &str) -> Option<&Arc<ModelEntry>> {
        self.models.get(name)
    }

    /// All models in the order of their names.
    pub fn models(&self) -> impl Iterator<Item = &Arc<ModelEntry>> + Clone {
        self.models.values()
    }

    /// The model and task of a short route.
    pub fn route(&self, path: &str) -> Option<(&Arc<ModelEntry>, usize)> {
        let (model, task) = self.routes.get(path)?;
        Some((self.models.get(model)?, *task))
    }

    /// The model and task of a name in protocols that have one name for both: the name of a model, or `model.task`. The name of
    /// a model takes precedence over an equal `model.task` of another model. The index is `None` for the name of a model and for
    /// a task of a model that is not serving.
    pub fn named(&self, name: &str) -> Option<(&Arc<ModelEntry>, Option<usize>)> {
        if let Some(entry) = self.models.get(name) {
            return Some((entry, None));
        }
        if let Some((model, task)) = self.tasks.get(name) {
            return Some((self.models.get(model)?, Some(*task)));
        }
        // Both names can contain dots. The longest model name takes precedence.
        let unready = name.rmatch_indices('.').find_map(|(dot, _)| {
            let entry = self.models.get(&name[..dot])?;
            entry.may_have_task(&name[dot + 1..]).then_some(entry)
        });
        unready.map(|entry| (entry, None))
    }

    /// All names that [`named`](Self::named) finds for models that are serving.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        let models = self.models.keys();
        models.chain(self.tasks.keys()).map(String::as_str)
    }

    /// Whether the configuration has been read and every model that was not unloaded can run a batch now.
    pub fn all_ready(&self) -> bool {
        let is_ready_or_unloaded =
            |entry: &Arc<ModelEntry>| entry.is_ready() || matches!(entry.state, ModelState::Unloaded);
        self.version > 0 && self.models.values().all(is_ready_or_unloaded)
    }
}

/// The short routes of a model. For a model that is not serving they come from its settings, so that requests get the error
/// that the model is unavailable. The task index does not matter in that case.
fn routes_of(entry: &ModelEntry) -> Vec<(String, (String, usize))> {
    let target = |task| (entry.name().to_owned(), task);
    if entry.generation().is_none() {
        return entry
            .settings
            .routes()
            .map(|route| (route.to_owned(), target(0)))
            .collect();
    }
    let routes = entry.tasks.iter().enumerate();
    routes
        .filter_map(|(task, settings)| Some((settings.route.clone()?, target(task))))
        .collect()
}

/// Publishes snapshots, and records whether the server is shutting down.
#[derive(Default)]
pub struct Registry {
    current: ArcSwap<Snapshot>,
    draining: AtomicBool,
}

impl Registry {
    /// The current snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Replaces the current snapshot. Only called by the reloader.
    pub fn publish(&self, snapshot: Snapshot) {
        self.current.store(Arc::new(snapshot));
    }

    /// Makes the server report "not ready" while it finishes accepted requests.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the server is shutting down.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether the server accepts requests for all of its models.
    pub fn is_ready(&self) -> bool {
        !self.is_draining() && self.current.load().all_ready()
    }
}
