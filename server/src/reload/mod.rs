//! Turns a configuration into live models.
//!
//! A reload compares the desired models with the current ones, loads new generations while the old ones keep serving, and
//! swaps the registry in one step. If anything fails, nothing changes. At startup there is nothing to protect: each model goes
//! live as soon as it is ready, and a failed model does not delay the others.
//!
//! The application owns the [`Reloader`] and calls it from one thread.

mod activation;
mod calibrate;
mod costs;
mod fingerprint;
mod generations;
mod load;
mod load_threads;
mod load_unload;
mod loaded_files;
mod model_failure;
mod plan;
mod reload_all;
mod startup;
mod warm_up;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::config::ModelSettings;
use crate::metrics::{Metrics, ReloadResult};
use crate::registry::{ModelEntry, Reason, Registry, Snapshot};
use generations::{Generations, StartedGeneration};
use load::load_all;

pub use calibrate::{
    CalibrateError, CalibrateOptions, Calibrated, TaskProgress, calibrate_model, calibration_key,
};
pub use load::{LoadEnvironment, probe_options};
pub use model_failure::{ModelError, ModelFailure, RouteTaken};
pub use reload_all::Summary;

/// Loads, replaces and unloads models, and publishes the result in the registry.
pub struct Reloader {
    environment: Arc<LoadEnvironment>,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    timeout: Duration,
    drain_timeout: Duration,
    generations: Generations,
}

impl Reloader {
    /// Creates a reloader without models.
    pub fn new(
        environment: LoadEnvironment,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        timeout: Duration,
        drain_timeout: Duration,
    ) -> Self {
        Self {
            environment: Arc::new(environment),
            registry,
            timeout,
            drain_timeout,
            generations: Generations::new(metrics.clone()),
            metrics,
        }
    }

    /// The scratch directory of this process.
    pub fn scratch_directory(&self) -> &Path {
        self.environment.loader.scratch_directory()
    }

    /// Records a reload that failed because the configuration is invalid.
    pub fn record_config_error(&mut self, reason: &Reason) {
        self.metrics
            .count_reload(ReloadResult::Failure, clock::unix_seconds());
        let old = self.registry.snapshot();
        let entries = old
            .models()
            .map(|entry| Arc::new(entry.after_reload(Some(reason.clone()))));
        self.registry.publish(old.next(entries));
    }

    /// Joins the workers of generations that have drained. Returns whether others are still draining.
    pub fn reap(&mut self) -> bool {
        self.generations.reap(self.drain_timeout)
    }

    /// Unloads all models and waits until `deadline` for their queues to drain. If all requests have been `answered`, the
    /// outcomes of running batches are not needed, and worker processes are killed immediately.
    ///
    /// # Errors
    /// The models whose workers were still busy at the deadline.
    pub fn shut_down(&mut self, deadline: Instant, answered: bool) -> Result<(), Vec<String>> {
        let old = self.registry.snapshot();
        self.registry.publish(old.next([]));
        self.generations.remove_all();
        if answered || clock::now() >= deadline {
            old.models()
                .filter_map(|entry| entry.generation())
                .for_each(|generation| generation.engine.abort());
        }
        drop(old);
        if answered {
            self.generations.stop_running();
        }
        // The caller reports generations that are still running at the deadline.
        while self.generations.reap(Duration::MAX) && clock::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        let draining = self.generations.draining();
        if draining.is_empty() {
            Ok(())
        } else {
            Err(draining)
        }
    }

    /// Loads all `models` and starts their engines, or none.
    fn load_all_or_none(
        &mut self,
        old: &Snapshot,
        models: &[ModelSettings],
    ) -> Result<BTreeMap<String, (ModelEntry, StartedGeneration)>, Vec<ModelFailure>> {
        let mut live = BTreeMap::new();
        let mut failures = Vec::new();
        let loads: Vec<_> = load_all(&self.environment, models, self.timeout).collect();
        for (settings, result) in loads {
            let name = settings.name.clone();
            match result {
                Ok(ready) if failures.is_empty() => match self.start_engine(settings, ready) {
                    Ok(entry) => drop(live.insert(name, entry)),
                    Err(failure) => failures.push(failure),
                },
                Ok(_) => {}
                Err(failure) => failures.push(failure),
            }
        }
        if failures.is_empty() {
            return Ok(live);
        }
        for (model, (entry, started)) in live {
            drop(entry);
            self.generations.retire(&model, started);
        }
        for settings in models
            .iter()
            .filter(|settings| old.model(&settings.name).is_none())
        {
            self.metrics.remove_model(&settings.name);
        }
        self.remove_stale_tasks();
        self.record_failures(&failures);
        Err(failures)
    }

    fn record_failures(&self, failures: &[ModelFailure]) {
        self.metrics
            .count_reload(ReloadResult::Failure, clock::unix_seconds());
        let old = self.registry.snapshot();
        let entries = old.models().map(|entry| {
            let own = failures.iter().find(|failure| failure.model == entry.name());
            let reason = own.or(failures.first()).map(|failure| match own {
                Some(_) => failure.reason(),
                None => Reason {
                    public: format!("model `{}`: {}", failure.model, failure.public_reason()),
                    full: failure.to_string(),
                },
            });
            Arc::new(entry.after_reload(reason))
        });
        self.registry.publish(old.next(entries));
    }

    /// Removes the metrics of tasks that a model no longer has.
    fn remove_stale_tasks(&self) {
        for entry in self.registry.snapshot().models() {
            if entry.generation().is_some() {
                self.metrics
                    .retain_tasks(entry.name(), |task| entry.task_index(task).is_some());
            }
        }
    }

    fn replace_entry(&self, entry: ModelEntry) {
        let old = self.registry.snapshot();
        let others = old.models().filter(|other| other.name() != entry.name()).cloned();
        let entries: Vec<Arc<ModelEntry>> = others.chain([Arc::new(entry.clone())]).collect();
        self.registry.publish(old.next(entries));
    }
}

/// The files that the model has reported, if it is serving.
fn reported_files(entry: &ModelEntry) -> &[PathBuf] {
    entry
        .generation()
        .map_or(&[], |generation| &generation.manifest.files)
}
