//! From a configuration to live models: what is wanted is compared with what there is, new generations are loaded beside
//! the old ones, and the registry is swapped in one step.
//!
//! Owned by the application, which calls it from one thread. Any failure of a reload leaves everything as it was. At start there
//! is nothing to protect: each model goes live as soon as it is ready, and one that fails does not hold up the others.

mod failure;
mod fingerprint;
mod generations;
mod load;
mod load_threads;
mod loaded_files;
mod plan;
mod summary;
mod warm_up;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_abi::manifest::ModelManifest;

use crate::clock;
use crate::config::{ModelSettings, TaskSettings};
use crate::engine::{self, Engine, EngineConfig, TaskLimits};
use crate::metrics::{Metrics, ReloadResult};
use crate::registry::{Generation, ModelEntry, ModelState, Reason, Registry, Snapshot, TaskTrial};
use fingerprint::Fingerprint;
use generations::{Generations, Started};
use load::{Ready, load_all, task_settings};
use plan::{Present, Step, Wanted, plan};

pub use failure::{ModelError, ModelFailure, RouteTaken};
pub use load::{LoadContext, probe_options};
pub use summary::Summary;

/// Applies configurations. See the module.
pub struct Reloader {
    context: Arc<LoadContext>,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    prepare_pool: Arc<rayon::ThreadPool>,
    timeout: Duration,
    drain_timeout: Duration,
    generations: Generations,
}

impl Reloader {
    /// A reloader that has no models yet.
    pub fn new(
        context: LoadContext,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        prepare_pool: Arc<rayon::ThreadPool>,
        timeout: Duration,
        drain_timeout: Duration,
    ) -> Self {
        Self {
            context: Arc::new(context),
            registry,
            prepare_pool,
            timeout,
            drain_timeout,
            generations: Generations::new(metrics.clone()),
            metrics,
        }
    }

    /// The scratch directory of this process.
    pub fn scratch_directory(&self) -> &Path {
        self.context.loader.scratch_directory()
    }

    /// Loads the first configuration. Blocks; each model is published as it becomes ready.
    ///
    /// # Errors
    /// The models that do not serve, and why; they are in the registry as failed.
    pub fn start(&mut self, models: &[ModelSettings]) -> Result<(), Vec<ModelFailure>> {
        let entry = |settings: &ModelSettings| {
            let state = ModelState::Loading;
            Arc::new(ModelEntry::without_generation(settings.clone(), state))
        };
        for model in models {
            self.metrics.add_model(&model.name);
        }
        self.registry
            .publish(Snapshot::default().next(models.iter().map(entry)));
        let fingerprints: BTreeMap<&str, Fingerprint> = models
            .iter()
            .map(|model| (model.name.as_str(), Fingerprint::of(model)))
            .collect();
        let mut failures = Vec::new();
        let since = clock::unix_time();
        let loads = load_all(&self.context, models, self.timeout);
        for (settings, result) in loads {
            let name = settings.name.clone();
            let fingerprint = fingerprints.get(name.as_str()).cloned().unwrap_or_default();
            let result = result.and_then(|ready| self.go_live(settings.clone(), ready));
            let entry = match result {
                Ok((entry, started)) => {
                    let fingerprint = fingerprint.with_loaded(files_of(&entry), since);
                    self.generations.serve(&name, fingerprint, started);
                    entry
                }
                Err(failure) => {
                    let state = ModelState::Failed {
                        reason: failure.reason(),
                    };
                    failures.push(failure);
                    ModelEntry::without_generation(settings, state)
                }
            };
            self.replace_entry(entry);
        }
        if failures.is_empty() {
            Ok(())
        } else {
            Err(failures)
        }
    }

    /// Applies a configuration to the running server, all or nothing. Blocks until the new state is live.
    ///
    /// # Errors
    /// The models that could not be loaded, and why. Nothing has changed then.
    pub fn reload(&mut self, models: &[ModelSettings]) -> Result<Summary, Vec<ModelFailure>> {
        self.reap();
        let old = self.registry.snapshot();
        let since = clock::unix_time();
        let look = |settings: &ModelSettings| {
            let serving = old.model(&settings.name);
            Fingerprint::of(settings).with(serving.map_or(&[], |entry| files_of(entry)))
        };
        let fingerprints: Vec<Fingerprint> = models.iter().map(look).collect();
        let (steps, removed) = self.plan(&old, models, &fingerprints);
        let to_load: Vec<ModelSettings> = models
            .iter()
            .zip(&steps)
            .filter_map(|(settings, step)| match step {
                Step::Load(reason) => {
                    log::info!(model = settings.name.as_str(); "reload: loading model `{}` ({reason})", settings.name);
                    Some(settings.clone())
                }
                Step::Reconfigure | Step::Keep => None,
            })
            .collect();
        let mut ready = self.load_or_fail(&old, &to_load)?;
        let mut summary = Summary {
            removed,
            ..Summary::default()
        };
        let mut entries = Vec::with_capacity(models.len());
        for ((settings, step), fingerprint) in models.iter().zip(&steps).zip(fingerprints) {
            let name = settings.name.clone();
            let kept = old.model(&name).cloned();
            let entry = match (step, kept, ready.remove(&name)) {
                (Step::Load(_), _, Some((entry, started))) => {
                    let fingerprint = fingerprint.with_loaded(files_of(&entry), since);
                    self.generations.serve(&name, fingerprint, started);
                    summary.loaded.push(name);
                    entry
                }
                (Step::Reconfigure, Some(kept), _) => {
                    summary.reconfigured.push(name);
                    reconfigured(&kept, settings)
                }
                (_, Some(kept), _) => {
                    summary.kept += 1;
                    kept.after_reload(None)
                }
                // A model to load is in `ready`, and one to keep is in the old snapshot.
                (_, None, _) => continue,
            };
            entries.push(Arc::new(entry));
        }
        let next = old.next(entries);
        for entry in next.models() {
            apply_limits(entry);
        }
        self.registry.publish(next);
        for name in &summary.removed {
            self.generations.remove(name);
            self.metrics.remove_model(name);
        }
        self.remove_lost_tasks();
        self.metrics
            .count_reload(ReloadResult::Success, clock::unix_seconds());
        Ok(summary)
    }

    /// Loads one model as these settings have it, beside the one that serves. Blocks until it is live. One that serves
    /// under the same settings from the same files is left alone.
    ///
    /// # Errors
    /// Why it could not be loaded. Nothing has changed then.
    pub fn load(&mut self, settings: &ModelSettings) -> Result<(), Vec<ModelFailure>> {
        self.reap();
        let old = self.registry.snapshot();
        let since = clock::unix_time();
        let name = settings.name.as_str();
        let present = old.model(name);
        let fingerprint = Fingerprint::of(settings).with(present.map_or(&[], |entry| files_of(entry)));
        let serves = present.is_some_and(|entry| entry.settings == *settings);
        if serves && self.generations.fingerprint(name) == Some(&fingerprint) {
            return Ok(());
        }
        // In one configuration every route is unique, but the other models may have been loaded from an earlier one.
        if let Some(failure) = route_conflict(&old, settings) {
            let failures = vec![failure];
            self.note_failures(&failures);
            return Err(failures);
        }
        let mut ready = self.load_or_fail(&old, std::slice::from_ref(settings))?;
        if let Some((entry, started)) = ready.remove(name) {
            let fingerprint = fingerprint.with_loaded(files_of(&entry), since);
            self.generations.serve(name, fingerprint, started);
            self.replace_entry(entry);
            self.remove_lost_tasks();
        }
        self.metrics
            .count_reload(ReloadResult::Success, clock::unix_seconds());
        Ok(())
    }

    /// Takes one model out of service; it finishes what it has. Returns whether there is such a model.
    pub fn unload(&mut self, name: &str) -> bool {
        let old = self.registry.snapshot();
        let Some(entry) = old.model(name) else {
            return false;
        };
        self.replace_entry(entry.unloaded());
        self.generations.remove(name);
        true
    }

    /// Records a reload that failed before any model: the configuration could not be read.
    pub fn reload_refused(&mut self, reason: &Reason) {
        self.metrics
            .count_reload(ReloadResult::Failure, clock::unix_seconds());
        let old = self.registry.snapshot();
        let noted = old
            .models()
            .map(|entry| Arc::new(entry.after_reload(Some(reason.clone()))));
        self.registry.publish(old.next(noted));
    }

    /// Joins the generations that have drained. Returns whether some have not.
    pub fn reap(&mut self) -> bool {
        self.generations.reap(self.drain_timeout)
    }

    /// Takes all models out of service, lets them finish what is queued, and waits for that until `deadline`. If all
    /// requests have been `answered`, nobody needs the batches that still run: processes are killed in the middle of them.
    ///
    /// # Errors
    /// The models whose workers were still busy then.
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
        // A generation that still runs at the deadline is reported by the caller.
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

    fn plan(
        &self,
        old: &Snapshot,
        models: &[ModelSettings],
        fingerprints: &[Fingerprint],
    ) -> (Vec<Step>, Vec<String>) {
        let present: BTreeMap<&str, Present<'_>> = old
            .models()
            .map(|entry| {
                let fingerprint = self.generations.fingerprint(entry.name());
                (
                    entry.name(),
                    Present {
                        settings: &entry.settings,
                        fingerprint,
                        unloaded: matches!(entry.state, ModelState::Unloaded),
                    },
                )
            })
            .collect();
        let wanted: Vec<Wanted<'_>> = models
            .iter()
            .zip(fingerprints)
            .map(|(settings, fingerprint)| Wanted {
                settings,
                fingerprint,
            })
            .collect();
        plan(&present, &wanted)
    }

    /// Loads all of `models` and starts their engines, or none.
    fn load_or_fail(
        &mut self,
        old: &Snapshot,
        models: &[ModelSettings],
    ) -> Result<BTreeMap<String, (ModelEntry, Started)>, Vec<ModelFailure>> {
        let mut live = BTreeMap::new();
        let mut failures = Vec::new();
        let loads: Vec<_> = load_all(&self.context, models, self.timeout).collect();
        for (settings, result) in loads {
            let name = settings.name.clone();
            match result {
                Ok(ready) if failures.is_empty() => match self.go_live(settings, ready) {
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
        self.remove_lost_tasks();
        self.note_failures(&failures);
        Err(failures)
    }

    fn note_failures(&self, failures: &[ModelFailure]) {
        self.metrics
            .count_reload(ReloadResult::Failure, clock::unix_seconds());
        let old = self.registry.snapshot();
        let noted = old.models().map(|entry| {
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
        self.registry.publish(old.next(noted));
    }

    /// Starts the engine of a loaded model.
    fn go_live(
        &mut self,
        settings: ModelSettings,
        ready: Ready,
    ) -> Result<(ModelEntry, Started), ModelFailure> {
        let Ready {
            loaded,
            isolated,
            tasks,
            default_task,
            trials,
        } = ready;
        let limits: Vec<TaskLimits> = tasks.iter().map(limits_of).collect();
        let manifest = loaded.model.manifest().clone();
        let config = EngineConfig {
            name: &settings.name,
            tasks: &limits,
            workers: settings.workers.get(),
            nice: self.context.nice_of(&settings),
            prepare_pool: self.prepare_pool_of(&settings, &manifest, isolated)?,
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
        let untried = match generation.trials.contains(&TaskTrial::Succeeded) {
            true => "",
            false => "; nothing has been computed yet",
        };
        log::info!(
            "model `{}` is ready: generation {}, tasks {}{untried}",
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
                last_reload_error: None,
                last_tasks: None,
            },
            started,
        ))
    }

    /// The threads on which a model's items are prepared. Those of a model with processes of its own only wait for these,
    /// and may wait long, so they are no threads of other models.
    fn prepare_pool_of(
        &self,
        settings: &ModelSettings,
        manifest: &ModelManifest,
        isolated: bool,
    ) -> Result<Arc<rayon::ThreadPool>, ModelFailure> {
        let prepares = manifest.tasks.iter().any(|task| task.prepares);
        if !prepares || !isolated {
            return Ok(self.prepare_pool.clone());
        }
        let name = format!("prepare {}", settings.name);
        let (threads, nice) = (self.context.prepare_threads, self.context.nice_of(settings));
        engine::prepare_pool(&name, threads, nice)
            .map_err(|error| ModelFailure::new(settings, None, io::Error::other(error)))
    }

    /// Tasks that a model no longer has are no longer reported.
    fn remove_lost_tasks(&self) {
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

/// The entry of a generation that is kept, under other settings.
fn reconfigured(kept: &ModelEntry, settings: &ModelSettings) -> ModelEntry {
    let resolved = task_settings(settings, kept.task_manifests());
    let default_task = load::default_task(settings, kept.task_manifests());
    ModelEntry {
        settings: settings.clone(),
        state: kept.state.clone(),
        tasks: resolved,
        default_task,
        last_reload_error: None,
        last_tasks: kept.last_tasks.clone(),
    }
}

/// The first short route of a model that another live model has.
fn route_conflict(live: &Snapshot, settings: &ModelSettings) -> Option<ModelFailure> {
    settings.configured_routes().find_map(|(task, route)| {
        let (owner, owner_task) = live.route(route)?;
        let owner_task = owner.task_manifests().get(owner_task)?.name.clone();
        (owner.name() != settings.name).then(|| {
            let taken = RouteTaken {
                route: route.to_owned(),
                task: task.to_owned(),
                owner: owner.name().to_owned(),
                owner_task,
            };
            let error = ModelError::RouteTaken(Box::new(taken));
            ModelFailure::new(settings, Some(settings.location()), error)
        })
    })
}

/// The files that the model has reported, if it serves.
fn files_of(entry: &ModelEntry) -> &[PathBuf] {
    entry
        .generation()
        .map_or(&[], |generation| &generation.manifest.files)
}

fn apply_limits(entry: &ModelEntry) {
    if let Some(generation) = entry.generation() {
        let limits: Vec<TaskLimits> = entry.tasks.iter().map(limits_of).collect();
        generation.engine.reconfigure(&limits);
    }
}

fn limits_of(settings: &TaskSettings) -> TaskLimits {
    TaskLimits {
        batching: settings.batching,
        max_queue_size: settings.max_queue_size,
        max_queue_weight: settings.max_queue_weight,
    }
}
