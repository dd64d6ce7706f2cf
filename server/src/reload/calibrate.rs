//! Measures the batches of a model in a dedicated process.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plugin_abi::manifest::{LoadContext, ModelManifest};

use super::fingerprint::Fingerprint;
use super::load::{LoadEnvironment, load_context, probe_options};
use super::model_failure::ModelFailure;
use super::warm_up::warm_up;
use crate::batching::DeclaredLimits;
use crate::calibration::{
    Calibration, CalibrationKey, Items, ItemsError, MeasureError, MeasureOptions, Measured, MeasuredProcess,
    ProcessError, Progress, RecordedItem, Session, measure_task,
};
use crate::clock;
use crate::config::{ModelSettings, OnCrash, ProcessSettings};
use crate::error::Chain;
use crate::isolation::confine::Confinement;
use crate::isolation::{self, IsolatedModel, IsolationOptions, Setup, StartError};
use crate::loader::Staged;
use crate::metrics::{Buckets, Metrics};
use crate::model::{MemoryReading, Model};
use crate::resources::Resources;

/// Maximum number of items in a measured batch, unless the configuration or the plugin allows more.
const MAX_ITEMS: u64 = 64;

/// Batches of several items are measured up to this multiple of `max_batch_weight`, so that a higher limit can be suggested.
const COST_FACTOR: u64 = 4;

/// Maximum weight of an item that a plugin is asked for.
const MAX_SAMPLED_WEIGHT: u64 = 1 << 20;

/// Timeout of a batch. A longer one would be of no use.
const BATCH_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// How a model is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct CalibrateOptions {
    /// The only task to measure. `None` for all tasks for which there are items.
    pub task: Option<String>,
    /// Maximum memory of a batch, above the idle process, in bytes.
    pub budget: u64,
    /// Maximum time for the measurements of all tasks.
    pub max_time: Duration,
    /// Number of random batches with which each fit is checked.
    pub checks: usize,
    /// The items of the batches. `None` if the plugin creates them.
    pub requests: Option<Vec<RecordedItem>>,
}

/// The task that is being measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TaskProgress<'a> {
    /// Its name.
    pub task: &'a str,
    /// How far its measurements are.
    pub progress: Progress,
    /// Number of tasks after it.
    pub tasks_left: usize,
}

/// The result of measuring a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibrated {
    /// The measurements.
    pub calibration: Calibration,
    /// The tasks without items, and the reason.
    pub unmeasured: Vec<(String, String)>,
}

/// Why a model could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// The model does not load.
    #[error("{0}")]
    Load(Box<ModelFailure>),
    /// The model has no such task.
    #[error("model `{model}` has no task `{task}`; its tasks are {known}")]
    UnknownTask {
        /// Name of the model.
        model: String,
        /// The requested task.
        task: String,
        /// Its tasks.
        known: String,
    },
    /// A task could not be measured.
    #[error("cannot measure model `{model}`")]
    Measure {
        /// Name of the model.
        model: String,
        /// The cause.
        source: MeasureError,
    },
    /// No task has items.
    #[error("cannot measure model `{model}`: {}", reasons.join("; "))]
    NoItems {
        /// Name of the model.
        model: String,
        /// The reason for each task.
        reasons: Vec<String>,
    },
    /// A file of the model cannot be read.
    #[error("cannot read the files of model `{model}`")]
    Files {
        /// Name of the model.
        model: String,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// The process that runs the batches.
struct CalibratedProcess(IsolatedModel);

impl MeasuredProcess for CalibratedProcess {
    fn model(&self) -> &dyn Model {
        &self.0
    }

    fn start_measurement(&self) -> Result<MemoryReading, ProcessError> {
        self.0.start_measurement().map_err(process_error)
    }

    fn read_measurement(&self) -> Result<MemoryReading, ProcessError> {
        self.0.read_measurement().map_err(process_error)
    }
}

fn process_error(error: isolation::MeasureError) -> ProcessError {
    match error {
        isolation::MeasureError::Lost(how) => ProcessError::Lost(how),
        error @ isolation::MeasureError::Kernel { .. } => ProcessError::Unusable(Chain(&error).to_string()),
    }
}

/// The key of a loaded model: identifies what a calibration is valid for.
///
/// # Errors
/// A file of the model cannot be read.
pub fn calibration_key(
    environment: &LoadEnvironment,
    settings: &ModelSettings,
    manifest: &ModelManifest,
) -> io::Result<CalibrationKey> {
    let fingerprint = Fingerprint::of(settings);
    let named = fingerprint.named_files().filter(|file| **file != settings.plugin);
    let reported = manifest.files.iter().filter(|file| file.is_file());
    let files: Vec<&Path> = named.chain(reported).map(PathBuf::as_path).collect();
    CalibrationKey::of(Measured {
        plugin: &settings.plugin,
        files: &files,
        settings: &settings.settings,
        details: &manifest.details,
        threads: load_context(environment, settings, 1).threads,
    })
}

/// Measures the batches of a model in a dedicated process, and fits cost models to them. Blocks until this is complete.
///
/// # Errors
/// The model does not load, has no such task or no items, or a batch fails for another reason than memory.
pub fn calibrate_model(
    environment: &LoadEnvironment,
    settings: &ModelSettings,
    options: &CalibrateOptions,
    report: &mut dyn FnMut(TaskProgress<'_>),
) -> Result<Calibrated, CalibrateError> {
    let staged = environment
        .loader
        .stage(
            &settings.plugin,
            &environment.trust_of(settings),
            &probe_options(settings),
            environment.probe_timeout,
        )
        .map_err(|error| load_failure(ModelFailure::from_load_error(settings, error)))?;
    let mut failure = None;
    let mut is_repeated = false;
    let mut start = || {
        let started = start_process(environment, settings, &staged, is_repeated);
        is_repeated = true;
        started.map(CalibratedProcess).map_err(|error| {
            let message = Chain(&error).to_string();
            failure = Some(error);
            ProcessError::Unusable(message)
        })
    };
    let session = Session::<CalibratedProcess>::new(&mut start);
    let mut session = match session {
        Ok(session) => session,
        Err(error) => {
            return Err(match failure {
                Some(start) => load_failure(ModelFailure::from_start_error(settings, start)),
                None => measure_error(settings, error.into()),
            });
        }
    };
    let manifest = session.model().manifest().clone();
    let indices = selected(settings, &manifest, options.task.as_deref())?;
    let key = calibration_key(environment, settings, &manifest).map_err(|source| CalibrateError::Files {
        model: settings.name.clone(),
        source,
    })?;
    let (memory_source, idle_bytes) = (session.memory_source(), session.idle_bytes());
    let mut measured = BTreeMap::new();
    let mut unmeasured = Vec::new();
    let deadline = clock::now() + options.max_time;
    for (nth, &index) in indices.iter().enumerate() {
        let task = &manifest.tasks[index].name;
        let items = match items_of(session.model(), index, options.requests.as_deref()) {
            Ok(items) => items,
            Err(error @ (ItemsError::NoSamples { .. } | ItemsError::NotRecorded { .. }))
                if options.task.is_none() =>
            {
                unmeasured.push((task.clone(), error.to_string()));
                continue;
            }
            Err(error) => return Err(measure_error(settings, error.into())),
        };
        let tasks_left = indices.len() - nth - 1;
        let left = deadline.saturating_duration_since(clock::now());
        let max_time = left / u32::try_from(tasks_left + 1).unwrap_or(u32::MAX);
        let measure = MeasureOptions {
            checks: options.checks,
            ..measure_options(settings, &manifest, index, options.budget, max_time)
        };
        let mut report_task = |progress| {
            report(TaskProgress {
                task,
                progress,
                tasks_left,
            });
        };
        let measurement = measure_task(&mut session, index, &items, measure, &mut report_task)
            .map_err(|error| measure_error(settings, error))?;
        measured.insert(task.clone(), measurement);
    }
    if measured.is_empty() {
        return Err(CalibrateError::NoItems {
            model: settings.name.clone(),
            reasons: unmeasured.into_iter().map(|(_, reason)| reason).collect(),
        });
    }
    let now = clock::unix_seconds();
    let calibration = Calibration::new(&settings.name, key, now, memory_source, idle_bytes, measured);
    Ok(Calibrated {
        calibration,
        unmeasured,
    })
}

fn load_failure(failure: ModelFailure) -> CalibrateError {
    CalibrateError::Load(Box::new(failure))
}

fn measure_error(settings: &ModelSettings, source: MeasureError) -> CalibrateError {
    CalibrateError::Measure {
        model: settings.name.clone(),
        source,
    }
}

/// The indices of the tasks to measure.
fn selected(
    settings: &ModelSettings,
    manifest: &ModelManifest,
    task: Option<&str>,
) -> Result<Vec<usize>, CalibrateError> {
    let Some(task) = task else {
        return Ok((0..manifest.tasks.len()).collect());
    };
    match manifest.tasks.iter().position(|known| known.name == task) {
        Some(index) => Ok(vec![index]),
        None => {
            let known = manifest.tasks.iter().map(|task| format!("`{}`", task.name));
            Err(CalibrateError::UnknownTask {
                model: settings.name.clone(),
                task: task.to_owned(),
                known: known.collect::<Vec<_>>().join(", "),
            })
        }
    }
}

fn items_of(model: &dyn Model, index: usize, requests: Option<&[RecordedItem]>) -> Result<Items, ItemsError> {
    match requests {
        Some(recorded) => Items::recorded(model, index, recorded),
        None => Items::sampled(model, index, MAX_SAMPLED_WEIGHT),
    }
}

fn measure_options(
    settings: &ModelSettings,
    manifest: &ModelManifest,
    index: usize,
    budget: u64,
    max_time: Duration,
) -> MeasureOptions {
    let task = &manifest.tasks[index];
    let batching = settings
        .task(&task.name, &DeclaredLimits::from(&task.limits))
        .batching;
    let declared = task.limits.max_batch_size.map(|size| size as u64);
    MeasureOptions {
        rule: batching.weight_rule,
        max_items: declared
            .unwrap_or(MAX_ITEMS)
            .max(batching.max_batch_size.get() as u64),
        max_cost: batching
            .max_batch_weight
            .map_or(u64::MAX, |weight| weight.saturating_mul(COST_FACTOR)),
        budget,
        max_time,
        checks: 0,
    }
}

/// Starts a process that loads and warms up the model.
fn start_process(
    environment: &LoadEnvironment,
    settings: &ModelSettings,
    staged: &Staged,
    is_repeated: bool,
) -> Result<IsolatedModel, StartError> {
    let configured = settings.isolation.process(staged.report.manifest.isolation);
    let process = ProcessSettings {
        // A batch that fails is measured as such.
        on_crash: OnCrash::Retry,
        predict_timeout: BATCH_TIMEOUT,
        restart_delay: BATCH_TIMEOUT,
        max_restart_delay: BATCH_TIMEOUT,
    };
    // The metrics of the server are about the processes that serve.
    let metrics = Metrics::new(Buckets::NONE).map_err(|error| StartError::Spawn(io::Error::other(error)))?;
    let for_warm_up = settings.clone();
    IsolatedModel::start(
        IsolationOptions {
            program: environment.program.clone(),
            setup: Setup {
                parent: std::process::id(),
                log_level: log::max_level().to_string(),
                confinement: Confinement::default(),
                file: staged.copy.file().to_owned(),
                context: LoadContext {
                    is_repeated,
                    is_calibrated: true,
                    ..load_context(environment, settings, 1)
                },
            },
            settings: process,
            resources: match configured {
                Some(_) => settings.resources.clone(),
                None => Resources::default(),
            },
            resource_allocator: environment.resource_allocator.clone(),
            workers: 1,
            prepare_channels: 1,
            start_timeout: environment.start_timeout,
            warm_up: Box::new(move |model| warm_up(model, &for_warm_up).map(drop)),
            files: Arc::new(()),
        },
        metrics.workers(&settings.name),
    )
}
