//! Which models there are, and which generation of each serves.
//!
//! Readers take a [`Snapshot`] and keep it for as long as they answer one request; a reload swaps in another in one step.
//! A generation lives until the last snapshot and the last request that hold it are gone.

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

pub use state_metrics::ModelStates;
pub use trials::TaskTrial;

/// One loaded life of a model.
pub struct Generation {
    /// Counts up through all generations of the process, from 1.
    pub number: u64,
    /// What the model is.
    pub manifest: ModelManifest,
    /// What its plugin is.
    pub plugin: PluginManifest,
    /// Unix time at which it was ready.
    pub created: u64,
    /// What loading it has tried of each task.
    pub trials: Vec<TaskTrial>,
    /// What runs it.
    pub engine: Engine,
}

/// Whether a model serves.
#[derive(Clone)]
pub enum ModelState {
    /// It is being loaded for the first time.
    Loading,
    /// It serves.
    Ready(Arc<Generation>),
    /// It could not be loaded.
    Failed {
        /// What went wrong.
        reason: Reason,
    },
    /// A client has unloaded it. A load request or the next reload loads it again.
    Unloaded,
}

/// Why a model was not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// For every client: names no path and no setting.
    pub public: String,
    /// For the operator, as in the log.
    pub full: String,
}

impl Reason {
    /// The text for a client that is the operator, or is not.
    pub fn text(&self, to_operator: bool) -> &str {
        if to_operator { &self.full } else { &self.public }
    }
}

/// A configured model.
#[derive(Clone)]
pub struct ModelEntry {
    /// As configured.
    pub settings: ModelSettings,
    /// Whether it serves.
    pub state: ModelState,
    /// Settings of each task of the manifest; empty until it is ready.
    pub tasks: Vec<TaskSettings>,
    /// Index of the task that is meant when a client names none.
    pub default_task: Option<usize>,
    /// Why the last reload did not change this model; `None` if it succeeded.
    pub last_reload_error: Option<Reason>,
    /// Names of the tasks that the model had when it last served; `None` if it never has.
    pub last_tasks: Option<Vec<String>>,
}

impl ModelEntry {
    /// A model of which no generation serves.
    pub fn without_generation(settings: ModelSettings, state: ModelState) -> Self {
        Self {
            settings,
            state,
            tasks: Vec::new(),
            default_task: None,
            last_reload_error: None,
            last_tasks: None,
        }
    }

    /// The same model after it was unloaded. The names of its tasks stay known.
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

    /// The same model after a reload that did not change it, which failed for `reason` or went well.
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

    /// A sentence about the model: the operator's, or else its plugin's.
    pub fn description(&self) -> Option<&str> {
        let plugins = || {
            self.generation()
                .map(|generation| generation.plugin.description.as_str())
        };
        let description = self.settings.description.as_deref().or_else(plugins);
        description.filter(|description| !description.is_empty())
    }

    /// The generation that serves, if one does.
    pub fn generation(&self) -> Option<&Arc<Generation>> {
        match &self.state {
            ModelState::Ready(generation) => Some(generation),
            ModelState::Loading | ModelState::Failed { .. } | ModelState::Unloaded => None,
        }
    }

    /// Whether the model can run a batch now, or why not. `None` while no generation serves.
    pub fn health(&self) -> Option<Health> {
        self.generation().map(|generation| generation.engine.health())
    }

    /// Why the model cannot run a batch now, for every client. `None` if it can, is still being loaded, or was unloaded.
    pub fn reason(&self) -> Option<String> {
        self.reason_for(false)
    }

    /// As [`reason`](Self::reason), in full if the client is the operator.
    pub fn reason_for(&self, operator: bool) -> Option<String> {
        match (&self.state, self.health()) {
            (ModelState::Failed { reason }, _) => Some(reason.text(operator).to_owned()),
            (_, Some(Health::Recovering { reason } | Health::CrashLoop { reason })) => Some(reason),
            (ModelState::Loading | ModelState::Ready(_) | ModelState::Unloaded, _) => None,
        }
    }

    /// Whether a generation serves and can run a batch now.
    pub fn is_ready(&self) -> bool {
        self.health() == Some(Health::Ready)
    }

    /// The tasks of the generation that serves, in the order of their indices.
    pub fn task_manifests(&self) -> &[TaskManifest] {
        self.generation()
            .map_or(&[], |generation| &generation.manifest.tasks)
    }

    /// Whether no generation serves and the model may have a task of this name once it is loaded: it had one when it
    /// last served, or it has never served.
    fn may_have_task(&self, name: &str) -> bool {
        self.generation().is_none()
            && match &self.last_tasks {
                Some(tasks) => tasks.iter().any(|task| task == name),
                None => !name.is_empty(),
            }
    }

    /// Index of a task.
    pub fn task_index(&self, name: &str) -> Option<usize> {
        self.task_manifests().iter().position(|task| task.name == name)
    }
}

/// All models at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Counts up with every change; 0 before the first configuration has been looked at.
    pub version: u64,
    models: BTreeMap<String, Arc<ModelEntry>>,
    routes: BTreeMap<String, (String, usize)>,
    /// `model.task` of every task. Names are looked up whole, as models and tasks may have dots in theirs.
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

    /// All models, by name.
    pub fn models(&self) -> impl Iterator<Item = &Arc<ModelEntry>> {
        self.models.values()
    }

    /// The model and task behind one of the operator's own routes.
    pub fn route(&self, path: &str) -> Option<(&Arc<ModelEntry>, usize)> {
        let (model, task) = self.routes.get(path)?;
        Some((self.models.get(model)?, *task))
    }

    /// The model and task behind a name in protocols that have one name for both: the name of a model, or `model.task`. A
    /// model whose name is another model's `model.task` takes precedence. The task of a model that does not serve has no
    /// index yet.
    pub fn named(&self, name: &str) -> Option<(&Arc<ModelEntry>, Option<usize>)> {
        if let Some(entry) = self.models.get(name) {
            return Some((entry, None));
        }
        if let Some((model, task)) = self.tasks.get(name) {
            return Some((self.models.get(model)?, Some(*task)));
        }
        // Both names may contain dots; the longest name of a model takes precedence.
        let unready = name.rmatch_indices('.').find_map(|(dot, _)| {
            let entry = self.models.get(&name[..dot])?;
            entry.may_have_task(&name[dot + 1..]).then_some(entry)
        });
        unready.map(|entry| (entry, None))
    }

    /// All names that [`named`](Self::named) knows.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        let models = self.models.keys();
        models.chain(self.tasks.keys()).map(String::as_str)
    }

    /// Whether the configuration has been looked at and every model that is meant to serve can run a batch now.
    pub fn all_ready(&self) -> bool {
        let as_meant =
            |entry: &Arc<ModelEntry>| entry.is_ready() || matches!(entry.state, ModelState::Unloaded);
        self.version > 0 && self.models.values().all(as_meant)
    }
}

/// The operator's routes to the tasks of a model. Those of a model that does not serve are known from its settings: a
/// request is told that the model is unavailable, whatever the index of the task will be.
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

/// The present snapshot, and whether the server still takes work.
#[derive(Default)]
pub struct Registry {
    current: ArcSwap<Snapshot>,
    draining: AtomicBool,
}

impl Registry {
    /// The models as they are now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Swaps in another state. Only the reloader does so.
    pub fn publish(&self, snapshot: Snapshot) {
        self.current.store(Arc::new(snapshot));
    }

    /// From now on the server is not ready: it finishes what it has.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the server is on its way out.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether the server takes work for all of its models.
    pub fn is_ready(&self) -> bool {
        !self.is_draining() && self.current.load().all_ready()
    }
}
