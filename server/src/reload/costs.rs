//! What the batches of a model cost, as its calibration says, and the memory that they may use.

use std::path::Path;

use plugin_abi::manifest::ModelManifest;

use super::calibrate::{CalibrateOptions, calibrate_model, calibration_key};
use super::load::LoadEnvironment;
use super::model_failure::{ModelError, ModelFailure};
use crate::batcher::cost_model::TaskCosts;
use crate::calibration::{Calibration, CalibrationError, CalibrationKey, MemorySource};
use crate::config::{CalibrationSource, ModelSettings};
use crate::error::Chain;
use crate::resources::MemoryBudget;
use crate::system_memory::free_memory;

/// Maximum memory of a measured batch if the model has no budget, as a percentage of the free memory.
const MEASURED_PERCENT: MemoryBudget = MemoryBudget::Percent(50);

/// The same if the system does not report its free memory.
const MEASURED_BYTES: u64 = 1 << 30;

/// What is known about the costs of a loaded model.
#[derive(Debug, Default)]
pub(super) struct LoadedCosts {
    /// By task, in the order of the manifest. Empty if the model is not calibrated.
    pub(super) tasks: Vec<TaskCosts>,
    /// In bytes.
    pub(super) memory_budget: Option<u64>,
    /// Whether the calibration measured the memory of processes.
    pub(super) is_process_memory: bool,
}

/// Reads the calibration of a model that has been loaded, or measures the model, and resolves its memory budget. A
/// calibration of something else is not used.
pub(super) fn load_costs(
    environment: &LoadEnvironment,
    settings: &ModelSettings,
    manifest: &ModelManifest,
) -> Result<LoadedCosts, ModelFailure> {
    let fail = |error: ModelError| ModelFailure::new(settings, Some(settings.location()), error);
    let Some(source) = &settings.calibration else {
        if environment.server_memory.is_some() {
            log::warn!(
                "model `{}` has no calibration: its batches do not count for `memory_budget` in [server]; add `calibration = \"auto\"`",
                settings.name
            );
        }
        return Ok(LoadedCosts::default());
    };
    let budget = settings.memory_budget.map(|budget| {
        let unknown = ModelError::UnknownMemory("the system does not report its free memory");
        budget.bytes(free_memory()).ok_or(unknown)
    });
    let memory_budget = budget.transpose().map_err(fail)?;
    let key = calibration_key(environment, settings, manifest)
        .map_err(|error| fail(ModelError::CalibrationKey(error)))?;
    let calibration = match source {
        CalibrationSource::File(file) => match Calibration::read(file, &key) {
            Ok(calibration) => Some(calibration),
            Err(stale @ (CalibrationError::Stale { .. } | CalibrationError::Version { .. })) => {
                log::warn!("model `{}`: {stale}; it is not used", settings.name);
                None
            }
            Err(error) => return Err(fail(error.into())),
        },
        CalibrationSource::Auto => read_or_measure(environment, settings, &key, memory_budget),
    };
    let Some(calibration) = calibration else {
        warn_about_unmeasured(settings, manifest, &[]);
        return Ok(LoadedCosts {
            memory_budget,
            ..LoadedCosts::default()
        });
    };
    let is_process_memory = calibration.memory_source == MemorySource::Process;
    if let Some(budget) = settings.memory_budget {
        check_budget(settings, budget, memory_budget, is_process_memory).map_err(fail)?;
    }
    let tasks = tasks_of(manifest, &calibration);
    warn_about_unmeasured(settings, manifest, &tasks);
    Ok(LoadedCosts {
        tasks,
        memory_budget,
        is_process_memory,
    })
}

/// The calibration that the server has written for this model, or a new one. `None` if the model cannot be measured: it then
/// serves without predictions.
fn read_or_measure(
    environment: &LoadEnvironment,
    settings: &ModelSettings,
    key: &CalibrationKey,
    memory_budget: Option<u64>,
) -> Option<Calibration> {
    let model = &settings.name;
    let file = Calibration::default_path(&settings.base_dir, model);
    match Calibration::read(&file, key) {
        Ok(calibration) => return Some(calibration),
        Err(CalibrationError::Missing { .. }) => {
            log::info!("model `{model}` has no calibration; measuring its batches");
        }
        Err(error) => log::warn!("model `{model}`: {}; measuring its batches again", Chain(&error)),
    }
    let options = CalibrateOptions {
        task: None,
        budget: memory_budget
            .or_else(|| MEASURED_PERCENT.bytes(free_memory()))
            .unwrap_or(MEASURED_BYTES),
        max_time: settings.calibration_timeout,
        checks: 0,
        requests: None,
    };
    let calibrated = match calibrate_model(environment, settings, &options, &mut |_| {}) {
        Ok(calibrated) => calibrated,
        Err(error) => {
            log::warn!(
                "model `{model}` is not calibrated: {}; its batches are not predicted",
                Chain(&error)
            );
            return None;
        }
    };
    for (task, reason) in &calibrated.unmeasured {
        log::info!("model `{model}`: task `{task}` is not calibrated: {reason}");
    }
    write(model, &calibrated.calibration, &file);
    Some(calibrated.calibration)
}

/// Keeps a calibration for the next load.
fn write(model: &str, calibration: &Calibration, file: &Path) {
    match calibration.write(file) {
        Ok(()) => log::info!("wrote the calibration of model `{model}` to {}", file.display()),
        Err(error) => log::warn!(
            "model `{model}`: {}; it will be measured again by the next load",
            Chain(&error)
        ),
    }
}

/// Logs a budget that was a percentage.
fn check_budget(
    settings: &ModelSettings,
    budget: MemoryBudget,
    bytes: Option<u64>,
    is_process_memory: bool,
) -> Result<(), ModelError> {
    if let (MemoryBudget::Percent(_), Some(bytes)) = (budget, bytes) {
        if !is_process_memory {
            return Err(ModelError::UnknownMemory(
                "the model uses memory of a device or an arena and does not report how much of it is free",
            ));
        }
        log::info!(
            "model `{}`: its batches may use {} MiB of memory",
            settings.name,
            bytes >> 20
        );
    }
    Ok(())
}

/// The costs of each task, in the order of the manifest.
fn tasks_of(manifest: &ModelManifest, calibration: &Calibration) -> Vec<TaskCosts> {
    let of_task = |name: &str| calibration.task(name).cloned().unwrap_or_default();
    manifest.tasks.iter().map(|task| of_task(&task.name)).collect()
}

/// Warns about the tasks whose batches a budget does not limit because their memory was not measured.
fn warn_about_unmeasured(settings: &ModelSettings, manifest: &ModelManifest, tasks: &[TaskCosts]) {
    let unmeasured: Vec<String> = manifest
        .tasks
        .iter()
        .enumerate()
        .filter(|(index, _)| tasks.get(*index).is_none_or(|costs| costs.memory.is_none()))
        .map(|(_, task)| format!("`{}`", task.name))
        .collect();
    if settings.memory_budget.is_some() && !unmeasured.is_empty() {
        log::warn!(
            "model `{}`: `memory_budget` does not limit the batches of the tasks {}, whose memory was not measured",
            settings.name,
            unmeasured.join(", ")
        );
    }
}
