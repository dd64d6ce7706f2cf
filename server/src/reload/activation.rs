//! Starts the engine of a loaded model.

use std::sync::Arc;

use super::Reloader;
use super::generations::StartedGeneration;
use super::load::LoadedModel;
use super::model_failure::ModelFailure;
use crate::clock;
use crate::config::{ModelSettings, TaskSettings};
use crate::engine::{Costs, Engine, EngineConfig, TaskLimits};
use crate::registry::{Generation, ModelEntry, ModelState, TaskTrial};

impl Reloader {
    /// Starts the engine of a loaded model.
    pub(super) fn start_engine(
        &mut self,
        settings: ModelSettings,
        ready: LoadedModel,
    ) -> Result<(ModelEntry, StartedGeneration), ModelFailure> {
        let LoadedModel {
            loaded,
            tasks,
            default_task,
            trials,
            costs,
        } = ready;
        let limits: Vec<TaskLimits> = tasks.iter().map(limits_of).collect();
        let manifest = loaded.model.manifest().clone();
        let config = EngineConfig {
            name: &settings.name,
            tasks: &limits,
            workers: settings.workers.get(),
            nice: self.environment.nice_of(&settings),
            prepare_threads: self.environment.prepare_threads,
            costs: Costs {
                tasks: costs.tasks,
                memory_budget: costs.memory_budget,
                is_process_memory: costs.is_process_memory,
                server_memory: self.environment.server_memory.clone(),
            },
        };
        let (engine, workers) = Engine::start(loaded.model, &config, &self.metrics)
            .map_err(|error| ModelFailure::new(&settings, None, error))?;
        let started = self.generations.start(workers);
        let generation = Arc::new(Generation {
            number: started.number,
            manifest,
            plugin: loaded.plugin,
            created: clock::unix_seconds(),
            trials,
            engine,
        });
        let suffix = match generation.trials.contains(&TaskTrial::Succeeded) {
            true => "",
            false => "; nothing has been computed yet",
        };
        log::info!(
            "model `{}` is ready: generation {}, tasks {}{suffix}",
            settings.name,
            generation.number,
            generation
                .manifest
                .tasks
                .iter()
                .map(|task| task.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        );
        let state = ModelState::Ready(generation);
        Ok((
            ModelEntry {
                settings,
                state,
                tasks,
                default_task,
                memory_budget: costs.memory_budget,
                last_reload_error: None,
                last_tasks: None,
            },
            started,
        ))
    }
}

pub(super) fn limits_of(settings: &TaskSettings) -> TaskLimits {
    TaskLimits {
        batching: settings.batching,
        max_queue_size: settings.max_queue_size,
        max_queue_weight: settings.max_queue_weight,
    }
}
