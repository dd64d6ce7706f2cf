//! Loads one model: from its settings to a model that has been warmed up and checked against them.

use std::any::Any;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use plugin_abi::manifest::{LoadContext, TaskManifest};

use super::costs::{LoadedCosts, load_costs};
use super::load_threads;
use super::loaded_files::LoadedFiles;
use super::model_failure::{ModelError, ModelFailure};
use super::warm_up::{WarmUpOutcome, skipped_warm_up, warm_up};
use crate::batching::DeclaredLimits;
use crate::clock;
use crate::config::{ModelSettings, ProcessSettings, TaskSettings};
use crate::engine::ServerMemory;
use crate::isolation::confine::{CONFINE_OPTION, Confinement, ResourceAllocator};
use crate::isolation::{self, IsolatedModel, Program, Setup, WarmUp, WarmUpError};
use crate::loader::{FileTrust, Loaded, Loader, Staged};
use crate::metrics::Metrics;
use crate::registry::TaskTrial;

/// What all loads share.
pub struct LoadEnvironment {
    /// Opens plugins.
    pub loader: Loader,
    /// Timeout of opening a plugin in the probe process.
    pub probe_timeout: Duration,
    /// Number of cores that the workers of one model share.
    pub cores: usize,
    /// How to start a worker process.
    pub program: Program,
    /// Number of items that a worker process prepares concurrently.
    pub prepare_threads: usize,
    /// Allocates the resources of worker processes.
    pub resource_allocator: Arc<ResourceAllocator>,
    /// Niceness of models that do not configure their own.
    pub model_nice: i32,
    /// Timeout of loading a model in a worker process.
    pub start_timeout: Duration,
    /// Metrics of worker processes.
    pub metrics: Arc<Metrics>,
    /// The memory that the batches of all models share, if it is limited.
    pub server_memory: Option<Arc<ServerMemory>>,
    /// Whether plugins are loaded whose files other users can change.
    pub allow_writable_plugins: bool,
}

impl LoadEnvironment {
    /// Niceness of everything that runs a model.
    pub(super) fn nice_of(&self, settings: &ModelSettings) -> i32 {
        settings.nice.map_or(self.model_nice, i32::from)
    }

    /// The requirements for the file of a model's plugin.
    pub(super) fn trust_of(&self, settings: &ModelSettings) -> FileTrust {
        FileTrust {
            sha256: settings.sha256,
            allow_writable: self.allow_writable_plugins,
        }
    }
}

/// A model that is ready to serve.
pub(super) struct LoadedModel {
    pub(super) loaded: Loaded,
    pub(super) tasks: Vec<TaskSettings>,
    pub(super) default_task: Option<usize>,
    /// The outcome of the first computation of each task.
    pub(super) trials: Vec<TaskTrial>,
    pub(super) costs: LoadedCosts,
}

/// Loads models concurrently, each on a thread of [`load_threads`], and yields them in the order in which they finish. A
/// load fails if it takes longer than `timeout`. The threads and processes that it starts inherit the model's niceness.
pub(super) fn load_all(
    environment: &Arc<LoadEnvironment>,
    models: &[ModelSettings],
    timeout: Duration,
) -> impl Iterator<Item = (ModelSettings, Result<LoadedModel, ModelFailure>)> + use<> {
    let (for_load, for_nice) = (environment.clone(), environment.clone());
    run_all(
        move |settings| load(&for_load, settings),
        move |settings| for_nice.nice_of(settings),
        models,
        timeout,
    )
}

/// Runs `load` for each model on a thread with the model's niceness. If a load panics, it fails with the panic message.
fn run_all<T, F, N>(
    load: F,
    nice_of: N,
    models: &[ModelSettings],
    timeout: Duration,
) -> impl Iterator<Item = (ModelSettings, Result<T, ModelFailure>)> + use<T, F, N>
where
    T: Send + 'static,
    F: Fn(&ModelSettings) -> Result<T, ModelFailure> + Send + Sync + 'static,
    N: Fn(&ModelSettings) -> i32,
{
    let load = Arc::new(load);
    let deadline = clock::now() + timeout;
    let (sender, receiver) = channel();
    let mut waiting: Vec<ModelSettings> = models.to_vec();
    for settings in models {
        let work = {
            let (load, settings) = (load.clone(), settings.clone());
            move || load(&settings)
        };
        let deliver = {
            let (settings, sender) = (settings.clone(), sender.clone());
            move |result: std::thread::Result<_>| {
                let result = result.unwrap_or_else(|panic| {
                    let error = ModelError::Panicked(panic_message(panic.as_ref()));
                    Err(ModelFailure::new(&settings, Some(settings.location()), error))
                });
                // The receiver is gone if the load has timed out.
                let _ = sender.send((settings.name, result));
            }
        };
        if let Err(error) = load_threads::run(nice_of(settings), work, deliver) {
            let failure = ModelFailure::new(settings, None, error);
            let _ = sender.send((settings.name.clone(), Err(failure)));
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
                let failure = ModelFailure::new(&settings, Some(settings.location()), error);
                Some((settings, Err(failure)))
            }
        }
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}

fn load(environment: &LoadEnvironment, settings: &ModelSettings) -> Result<LoadedModel, ModelFailure> {
    let staged = environment
        .loader
        .stage(
            &settings.plugin,
            &environment.trust_of(settings),
            &probe_options(settings),
            environment.probe_timeout,
        )
        .map_err(|error| ModelFailure::from_load_error(settings, error))?;
    let process = settings.isolation.process(staged.report.manifest.isolation);
    if process.is_none() {
        let warnings = settings.warnings_in_thread();
        warnings.iter().for_each(|warning| log::warn!("{warning}"));
    }
    let outcome_in_process = Arc::new(OnceLock::new());
    let loaded = match process {
        None => load_here(environment, settings, staged)?,
        Some(process) => {
            load_in_processes(environment, settings, process, staged, outcome_in_process.clone())?
        }
    };
    let manifests = &loaded.model.manifest().tasks;
    let known = || {
        manifests
            .iter()
            .map(|task| format!("`{}`", task.name))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let configured = settings
        .configured_tasks()
        .map(|(task, location)| (task, Some(location)));
    let default = settings
        .default_task
        .as_deref()
        .map(|task| (task, settings.default_task_location()));
    for (task, location) in configured.chain(default) {
        if manifests.iter().all(|manifest| manifest.name != task) {
            let (task, known) = (task.to_owned(), known());
            let error = ModelError::UnknownTask { task, known };
            return Err(ModelFailure::new(settings, location, error));
        }
    }
    // Worker processes are warmed up when they start.
    let warmed_up = match outcome_in_process.get() {
        Some(warmed_up) => warmed_up.clone(),
        None if settings.warm_up => {
            let warmed_up = warm_up(loaded.model.as_ref(), settings)
                .map_err(|error| ModelFailure::new(settings, Some(settings.location()), error))?;
            log_failed_examples(settings, &warmed_up.failures);
            warmed_up
        }
        None => skipped_warm_up(manifests),
    };
    let tasks = task_settings(settings, manifests);
    let default_task = default_task(settings, manifests);
    let costs = load_costs(environment, settings, loaded.model.manifest())?;
    Ok(LoadedModel {
        loaded,
        tasks,
        default_task,
        trials: warmed_up.trials,
        costs,
    })
}

/// Warns about examples that failed in the warm-up of a model that serves nevertheless.
fn log_failed_examples(settings: &ModelSettings, failures: &[WarmUpError]) {
    for failure in failures {
        log::warn!(
            "model `{}`: {failure}; the model serves, but its documentation shows an example that fails with these settings",
            settings.name
        );
    }
}

/// The options of the plugin probe. A sandbox is in effect before the plugin's code runs.
pub fn probe_options(settings: &ModelSettings) -> Vec<String> {
    let confinement = Confinement::for_probe(settings.resources.sandbox);
    let json = confinement.and_then(|confinement| serde_json::to_string(&confinement).ok());
    json.map(|json| format!("--{CONFINE_OPTION}={json}"))
        .into_iter()
        .collect()
}

/// Loads a model into this process.
fn load_here(
    environment: &LoadEnvironment,
    settings: &ModelSettings,
    staged: Staged,
) -> Result<Loaded, ModelFailure> {
    let context = load_context(environment, settings, settings.workers.get());
    staged
        .load(&context)
        .map_err(|error| ModelFailure::from_load_error(settings, error))
}

/// Starts the worker processes, which load and warm up the model.
fn load_in_processes(
    environment: &LoadEnvironment,
    settings: &ModelSettings,
    process: ProcessSettings,
    staged: Staged,
    warmed_up: Arc<OnceLock<WarmUpOutcome>>,
) -> Result<Loaded, ModelFailure> {
    let plugin = staged.report.manifest.clone();
    // A plugin whose tasks depend on its settings does not list them in its manifest.
    let tasks = &plugin.tasks;
    let prepares = tasks.is_empty() || tasks.iter().any(|task| task.prepares);
    let warm_up: WarmUp = if settings.warm_up {
        let settings = settings.clone();
        Box::new(move |model| {
            let outcome = warm_up(model, &settings)?;
            // Reported once: the outcome is the same in the model's other processes and in those that replace them.
            warmed_up.get_or_init(|| {
                log_failed_examples(&settings, &outcome.failures);
                outcome
            });
            Ok(())
        })
    } else {
        Box::new(|_| Ok(()))
    };
    let file = staged.copy.file().to_owned();
    let kept_files = file.with_file_name(".loaded-files");
    let files = LoadedFiles::before_load(settings, kept_files, Box::new(staged), clock::unix_time());
    let isolated = IsolatedModel::start(
        isolation::IsolationOptions {
            program: environment.program.clone(),
            setup: Setup {
                parent: std::process::id(),
                log_level: log::max_level().to_string(),
                confinement: Confinement::default(),
                file,
                // Each process has its own instance of the model.
                context: load_context(environment, settings, 1),
            },
            settings: process,
            resources: settings.resources.clone(),
            resource_allocator: environment.resource_allocator.clone(),
            workers: settings.workers.get(),
            prepare_channels: if prepares { environment.prepare_threads } else { 1 },
            start_timeout: environment.start_timeout,
            warm_up,
            files: Arc::new(files),
        },
        environment.metrics.workers(&settings.name),
    );
    let model = isolated.map_err(|error| ModelFailure::from_start_error(settings, error))?;
    Ok(Loaded {
        model: Arc::new(model),
        plugin,
    })
}

/// The context for the plugin. `workers` is the number of workers that share one loaded model.
pub(super) fn load_context(
    environment: &LoadEnvironment,
    settings: &ModelSettings,
    workers: usize,
) -> LoadContext {
    let threads = match &settings.resources.cpus {
        Some(cpus) => cpus.count(),
        None => (environment.cores / settings.workers.get()).max(1),
    };
    LoadContext {
        model: settings.name.clone(),
        settings: settings.settings.clone(),
        base_dir: settings.base_dir.clone(),
        workers: u32::try_from(workers).unwrap_or(u32::MAX),
        threads: u32::try_from(threads).unwrap_or(u32::MAX),
        is_repeated: false,
        is_calibrated: settings.calibration.is_some(),
    }
}

/// The settings of each task, combined with the limits that the manifest declares.
pub(super) fn task_settings(settings: &ModelSettings, tasks: &[TaskManifest]) -> Vec<TaskSettings> {
    tasks
        .iter()
        .map(|task| settings.task(&task.name, &DeclaredLimits::from(&task.limits)))
        .collect()
}

/// The task for requests that do not name one: the configured default, the one that the plugin declares, or the only task.
pub(super) fn default_task(settings: &ModelSettings, tasks: &[TaskManifest]) -> Option<usize> {
    match &settings.default_task {
        Some(name) => tasks.iter().position(|task| task.name == *name),
        None => {
            let declared = tasks.iter().position(|task| task.default);
            declared.or((tasks.len() == 1).then_some(0))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::config::{Facts, Overrides, Source, resolve};

    fn models() -> Vec<ModelSettings> {
        let source = Source {
            file_name: "models.toml",
            text: "[[models]]\nname = 'good'\nplugin = 'a'\n[[models]]\nname = 'bad'\nplugin = 'b'\n",
            base_dir: Path::new("/etc"),
        };
        let facts = Facts {
            executable_dir: PathBuf::from("/opt"),
            cores: std::num::NonZeroUsize::MIN,
            temp_dir: PathBuf::from("/tmp"),
            memory: Some(8 << 30),
        };
        let settings = resolve(source, &BTreeMap::new(), &Overrides::none(), &facts);
        settings.expect("the configuration is valid").models
    }

    #[test]
    fn a_panic_during_a_load_is_reported_with_its_message() {
        let load = |settings: &ModelSettings| match settings.name.as_str() {
            "good" => Ok(()),
            name => panic!("no luck with {name}"),
        };
        let results: BTreeMap<String, Result<(), String>> =
            run_all(load, |_| 0, &models(), Duration::from_secs(3600))
                .map(|(settings, result)| (settings.name, result.map_err(|failure| failure.to_string())))
                .collect();
        let expected =
            "models.toml:4:1: model `bad`: loading the model panicked: no luck with bad".to_owned();
        assert_eq!(results["good"], Ok(()));
        assert_eq!(results["bad"], Err(expected));
    }
}
