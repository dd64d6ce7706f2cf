//! Loading: from the settings of one model to a model that has been warmed up and checked against them.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use plugin_abi::manifest::{LoadContext as PluginContext, TaskManifest};

use crate::batching::DeclaredLimits;
use crate::clock;
use crate::config::{Location, ModelSettings, ProcessSettings, TaskSettings};
use crate::error::ItemError;
use crate::isolation::confine::{CONFINE_OPTION, Confinement, Enclosures};
use crate::isolation::{self, IsolatedModel, LoadFailure, Program, Setup, StartError, WarmUp, WarmUpError};
use crate::loader::{LoadError, Loaded, Loader, Staged};
use crate::metrics::Metrics;
use crate::model::{BatchItem, Model, OutputSink, SinkStatus};
use crate::priority;
use crate::protocol::{ItemInput, Tensor, Value};

/// Reads an example of a task, which has the JSON form of the native routes.
pub type DecodeExample = fn(&TaskManifest, &serde_json::Value) -> Result<ItemInput, ItemError>;

/// What every load needs.
pub struct LoadContext {
    /// Opens plugins.
    pub loader: Loader,
    /// How long opening a plugin may take before its settings are known.
    pub trial_timeout: Duration,
    /// Cores that the workers of one model share.
    pub cores: usize,
    /// Reads the examples for the warm-up.
    pub decode_example: DecodeExample,
    /// How to start a process for a model.
    pub program: Program,
    /// How many items such a process prepares at the same time.
    pub prepare_threads: usize,
    /// Where such processes live.
    pub enclosures: Arc<Enclosures>,
    /// Scheduling niceness of what runs a model that has none of its own.
    pub model_nice: i32,
    /// How long such a process may take to load its model.
    pub start_timeout: Duration,
    /// Where such processes are counted.
    pub metrics: Arc<Metrics>,
}

impl LoadContext {
    /// Scheduling niceness of whatever computes a model.
    pub(super) fn nice_of(&self, settings: &ModelSettings) -> i32 {
        settings.nice.map_or(self.model_nice, i32::from)
    }
}

/// Why a model does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Its plugin could not be loaded.
    #[error("cannot load its plugin {}", file.display())]
    Load {
        /// The plugin's file.
        file: PathBuf,
        /// Why.
        source: Box<LoadError>,
    },
    /// There is no process that runs it.
    #[error("cannot load its plugin {} in a process of its own", file.display())]
    Process {
        /// The plugin's file.
        file: PathBuf,
        /// Why.
        source: Box<StartError>,
    },
    /// The plugin refused its settings.
    #[error("{0}")]
    Settings(String),
    /// `[models.tasks.…]` names a task that it does not have.
    #[error("it has no task `{task}`; its tasks are {known}")]
    UnknownTask {
        /// As configured.
        task: String,
        /// Those that it has.
        known: String,
    },
    /// Its first run failed.
    #[error(transparent)]
    WarmUp(#[from] WarmUpError),
    /// Loading took too long. Its thread cannot be stopped and goes on alone.
    #[error("loading and warm-up took longer than `reload_timeout`, {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The system refused a thread.
    #[error("cannot start its threads")]
    Threads(#[from] io::Error),
}

/// A model that does not serve.
#[derive(Debug)]
pub struct ModelFailure {
    /// Its name.
    pub model: String,
    /// What to look at in the configuration.
    pub location: Option<Location>,
    /// What went wrong.
    pub error: ModelError,
}

impl ModelFailure {
    /// The failure as clients may see it: without paths and settings, which are in the log.
    pub fn public_reason(&self) -> String {
        match &self.error {
            ModelError::Load { source, .. } => public_load_reason(source).to_owned(),
            ModelError::Process { source, .. } => public_start_reason(source).to_owned(),
            ModelError::Settings(_) => "the plugin refused its settings; see the server's log".to_owned(),
            ModelError::UnknownTask { .. } => "a task is configured that the model does not have".to_owned(),
            error @ (ModelError::WarmUp(_) | ModelError::TimedOut(_)) => error.to_string(),
            ModelError::Threads(_) => "the system refused to start its threads".to_owned(),
        }
    }
}

fn public_start_reason(error: &StartError) -> &'static str {
    match error {
        StartError::Spawn(_) => "the system refused to start a process for it",
        StartError::Enclose(_) | StartError::Load(LoadFailure::Confine(_)) => {
            "its process cannot be confined as configured; see the server's log"
        }
        StartError::Load(LoadFailure::Panicked(_)) => {
            "the plugin panicked while it loaded the model; see the server's log"
        }
        StartError::Load(LoadFailure::Manifest(_)) => "the model's manifest is wrong; see the server's log",
        StartError::Load(_) => "the plugin refused to load the model; see the server's log",
        StartError::Died(_) => "its process ended while it loaded the model; see the server's log",
        StartError::WarmUp(_) => "its warm-up failed; see the server's log",
        StartError::Changed => "the model has other tasks than before",
    }
}

fn public_load_reason(error: &LoadError) -> &'static str {
    match error {
        LoadError::Header(_) | LoadError::Copy(_) => "its plugin file cannot be used; see the server's log",
        LoadError::Trial(_) | LoadError::Open(_) => "its plugin cannot be opened; see the server's log",
        LoadError::Settings { .. } | LoadError::Context(_) => {
            "the plugin refused its settings; see the server's log"
        }
        LoadError::Refused(_) => "the plugin refused to load the model; see the server's log",
        LoadError::Panicked(_) => "the plugin panicked while it loaded the model; see the server's log",
        LoadError::ManifestSyntax(_) | LoadError::Manifest(_) => {
            "the model's manifest is wrong; see the server's log"
        }
    }
}

impl fmt::Display for ModelFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        write!(f, "model `{}`: {}", self.model, self.error)?;
        let mut source = std::error::Error::source(&self.error);
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// A model that can go live.
pub(super) struct Ready {
    pub(super) loaded: Loaded,
    /// Whether it has processes of its own.
    pub(super) isolated: bool,
    pub(super) tasks: Vec<TaskSettings>,
    pub(super) default_task: Option<usize>,
}

/// Loads models side by side, each on a thread of its own, and yields them in the order in which they end. One that takes
/// longer than `timeout` fails. The threads and processes that come of it have the niceness of the model.
pub(super) fn load_all(
    context: &Arc<LoadContext>,
    models: &[ModelSettings],
    timeout: Duration,
) -> impl Iterator<Item = (ModelSettings, Result<Ready, ModelFailure>)> + use<> {
    let deadline = clock::now() + timeout;
    let (sender, receiver) = channel();
    let mut waiting: Vec<ModelSettings> = models.to_vec();
    for settings in models {
        let (context, settings, sender) = (context.clone(), settings.clone(), sender.clone());
        let name = settings.name.clone();
        let spawned = thread::Builder::new().name(format!("load {name}")).spawn({
            let sender = sender.clone();
            move || {
                priority::give_way(context.nice_of(&settings));
                let result = load(&context, &settings);
                // A receiver that is gone has given this load up as too slow.
                let _ = sender.send((settings.name, result));
            }
        });
        if let Err(error) = spawned {
            let failure = ModelFailure {
                model: name.clone(),
                location: None,
                error: error.into(),
            };
            let _ = sender.send((name, Err(failure)));
        }
    }
    drop(sender);
    std::iter::from_fn(move || {
        if waiting.is_empty() {
            return None;
        }
        match receiver.recv_timeout(deadline.saturating_duration_since(clock::now())) {
            Ok((name, result)) => {
                let position = waiting.iter().position(|settings| settings.name == name)?;
                Some((waiting.swap_remove(position), result))
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let settings = waiting.pop()?;
                let error = ModelError::TimedOut(timeout);
                let failure = ModelFailure {
                    model: settings.name.clone(),
                    location: Some(settings.location()),
                    error,
                };
                Some((settings, Err(failure)))
            }
        }
    })
}

fn load(context: &LoadContext, settings: &ModelSettings) -> Result<Ready, ModelFailure> {
    let fail = |location, error| ModelFailure {
        model: settings.name.clone(),
        location,
        error,
    };
    let staged = context
        .loader
        .stage(&settings.plugin, &trial_options(settings), context.trial_timeout)
        .map_err(|error| not_loaded(settings, error))?;
    let process = settings.isolation.process(staged.trial.manifest.isolation);
    let loaded = match process {
        None => load_here(context, settings, staged)?,
        Some(process) => load_in_processes(context, settings, process, staged)?,
    };
    let manifests = &loaded.model.manifest().tasks;
    let known = || {
        manifests
            .iter()
            .map(|task| format!("`{}`", task.name))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let written = settings
        .configured_tasks()
        .map(|(task, location)| (task, Some(location)));
    let default = settings
        .default_task
        .as_deref()
        .map(|task| (task, settings.default_task_location()));
    for (task, location) in written.chain(default) {
        if manifests.iter().all(|manifest| manifest.name != task) {
            return Err(fail(
                location,
                ModelError::UnknownTask {
                    task: task.to_owned(),
                    known: known(),
                },
            ));
        }
    }
    // Each process of a model was warmed up when it was started.
    if settings.warm_up && process.is_none() {
        warm_up(context.decode_example, loaded.model.as_ref(), settings)
            .map_err(|error| fail(Some(settings.location()), error.into()))?;
    }
    let tasks = task_settings(settings, manifests);
    let default_task = default_task(settings, manifests);
    Ok(Ready {
        loaded,
        isolated: process.is_some(),
        tasks,
        default_task,
    })
}

/// What the process is told that tries the plugin: a sandbox holds from the first line of the plugin's code.
fn trial_options(settings: &ModelSettings) -> Vec<String> {
    let confinement = Confinement::of_trial(settings.resources.sandbox);
    let json = confinement.and_then(|confinement| serde_json::to_string(&confinement).ok());
    json.map(|json| format!("--{CONFINE_OPTION}={json}"))
        .into_iter()
        .collect()
}

/// Loads a model into this process.
fn load_here(
    context: &LoadContext,
    settings: &ModelSettings,
    staged: Staged,
) -> Result<Loaded, ModelFailure> {
    let context = plugin_context(context, settings, settings.workers.get());
    staged.load(&context).map_err(|error| match error {
        LoadError::Settings { key, message } => settings_refused(settings, &key, message),
        error => not_loaded(settings, error),
    })
}

/// Starts the processes that load and warm up the model.
fn load_in_processes(
    context: &LoadContext,
    settings: &ModelSettings,
    process: ProcessSettings,
    staged: Staged,
) -> Result<Loaded, ModelFailure> {
    let plugin = staged.trial.manifest.clone();
    // A plugin whose tasks depend on its settings does not name them here.
    let tasks = &plugin.tasks;
    let prepares = tasks.is_empty() || tasks.iter().any(|task| task.prepares);
    let warm_up: WarmUp = if settings.warm_up {
        let (decode_example, settings) = (context.decode_example, settings.clone());
        Box::new(move |model| warm_up(decode_example, model, &settings))
    } else {
        Box::new(|_| Ok(()))
    };
    let isolated = IsolatedModel::start(
        isolation::Isolation {
            program: context.program.clone(),
            setup: Setup {
                parent: std::process::id(),
                log_level: log::max_level().to_string(),
                confinement: Confinement::default(),
                file: staged.copy.file().to_owned(),
                // Each process has one model to itself.
                context: plugin_context(context, settings, 1),
            },
            settings: process,
            resources: settings.resources.clone(),
            enclosures: context.enclosures.clone(),
            workers: settings.workers.get(),
            prepare_lanes: if prepares { context.prepare_threads } else { 1 },
            start_timeout: context.start_timeout,
            warm_up,
            files: Box::new(staged),
        },
        context.metrics.workers(&settings.name),
    );
    let model = isolated.map_err(|error| match error {
        StartError::Load(LoadFailure::Settings { key, message }) => settings_refused(settings, &key, message),
        StartError::WarmUp(error) => ModelFailure {
            model: settings.name.clone(),
            location: Some(settings.location()),
            error: error.into(),
        },
        source => ModelFailure {
            model: settings.name.clone(),
            location: Some(settings.plugin_location()),
            error: ModelError::Process {
                file: settings.plugin.clone(),
                source: Box::new(source),
            },
        },
    })?;
    Ok(Loaded {
        model: Arc::new(model),
        plugin,
    })
}

/// What the plugin is told. `workers` share one loaded model.
fn plugin_context(context: &LoadContext, settings: &ModelSettings, workers: usize) -> PluginContext {
    let threads = match &settings.resources.cpus {
        Some(cpus) => cpus.count(),
        None => (context.cores / settings.workers.get()).max(1),
    };
    PluginContext {
        model: settings.name.clone(),
        settings: settings.settings.clone(),
        base_dir: settings.base_dir.clone(),
        workers: u32::try_from(workers).unwrap_or(u32::MAX),
        threads: u32::try_from(threads).unwrap_or(u32::MAX),
    }
}

fn settings_refused(settings: &ModelSettings, key: &str, message: String) -> ModelFailure {
    let named = if key.is_empty() {
        message
    } else {
        format!("[models.settings] `{key}`: {message}")
    };
    ModelFailure {
        model: settings.name.clone(),
        location: settings.locate(key).or_else(|| Some(settings.location())),
        error: ModelError::Settings(named),
    }
}

fn not_loaded(settings: &ModelSettings, error: LoadError) -> ModelFailure {
    ModelFailure {
        model: settings.name.clone(),
        location: Some(settings.plugin_location()),
        error: ModelError::Load {
            file: settings.plugin.clone(),
            source: Box::new(error),
        },
    }
}

/// The settings of each task, with the limits that the manifest declares.
pub(super) fn task_settings(settings: &ModelSettings, tasks: &[TaskManifest]) -> Vec<TaskSettings> {
    tasks
        .iter()
        .map(|task| settings.task(&task.name, &DeclaredLimits::from(&task.limits)))
        .collect()
}

/// The task that is meant when a client names none: the configured one, or the only one.
pub(super) fn default_task(settings: &ModelSettings, tasks: &[TaskManifest]) -> Option<usize> {
    match &settings.default_task {
        Some(name) => tasks.iter().position(|task| task.name == *name),
        None => (tasks.len() == 1).then_some(0),
    }
}

/// Runs the first example of every task as a batch of one and, where batches are allowed, as a batch of two.
fn warm_up(
    decode_example: DecodeExample,
    model: &dyn Model,
    settings: &ModelSettings,
) -> Result<(), WarmUpError> {
    for (index, task) in model.manifest().tasks.iter().enumerate() {
        let Some(example) = task.examples.first() else {
            continue;
        };
        let fail = |reason: String| WarmUpError {
            task: task.name.clone(),
            reason,
        };
        let limits = settings.task(&task.name, &DeclaredLimits::from(&task.limits));
        let input = decode_example(task, example).map_err(|error| fail(format!("its example: {error}")))?;
        for size in 1..=limits.batching.max_batch_size.get().min(2) {
            run_once(model, index, task, &input, size).map_err(fail)?;
        }
    }
    Ok(())
}

fn run_once(
    model: &dyn Model,
    index: usize,
    task: &TaskManifest,
    input: &ItemInput,
    size: usize,
) -> Result<(), String> {
    let prepared = if task.prepares {
        let prepare = |_| model.prepare(index, input).map_err(|error| error.to_string());
        (0..size).map(prepare).collect::<Result<Vec<_>, _>>()?
    } else {
        Vec::new()
    };
    let items: Vec<BatchItem<'_>> = (0..size)
        .map(|item| BatchItem {
            input,
            prepared: prepared.get(item),
        })
        .collect();
    let mut outcomes = WarmUpSink {
        items: size,
        answered: 0,
        failure: None,
    };
    model
        .predict_batch(0, index, &items, &mut outcomes)
        .map_err(|error| error.to_string())?;
    match outcomes {
        WarmUpSink {
            failure: Some(failure),
            ..
        } => Err(failure),
        WarmUpSink { answered, items, .. } if answered != items => {
            Err(format!("{answered} outcomes for a batch of {items} items"))
        }
        _ => Ok(()),
    }
}

/// Counts outcomes and keeps the first failure.
struct WarmUpSink {
    items: usize,
    answered: usize,
    failure: Option<String>,
}

impl OutputSink for WarmUpSink {
    fn emit(&mut self, _index: usize, _value: Value, more: bool) -> SinkStatus {
        self.answered += usize::from(!more);
        SinkStatus::Taken
    }

    fn emit_batch(&mut self, _tensors: Vec<Tensor>) -> SinkStatus {
        self.answered += self.items;
        SinkStatus::Taken
    }

    fn fail(&mut self, _index: usize, error: ItemError) -> SinkStatus {
        self.failure.get_or_insert(error.to_string());
        self.answered += 1;
        SinkStatus::Taken
    }
}
