//! From a configuration to live models: what is wanted is compared with what there is, new generations are loaded beside
//! the old ones, and the registry is swapped in one step.
//!
//! Owned by the roof, which calls it from one thread. Any failure of a reload leaves everything as it was. At start there
//! is nothing to protect: each model goes live as soon as it is ready, and one that fails does not hold up the others.

mod fingerprint;
mod load;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batcher::DispatchReason;
use crate::clock;
use crate::config::{ModelSettings, TaskSettings};
use crate::engine::{Engine, EngineConfig, TaskLimits, Workers};
use crate::metrics::{Metrics, ReloadResult};
use crate::registry::{Generation, ModelEntry, ModelState, Registry, Snapshot};
use fingerprint::Fingerprint;
use load::{Ready, load_all, task_settings};
use plan::{Present, Step, Wanted, plan};

pub use load::{DecodeExample, LoadContext, ModelError, ModelFailure};

/// A generation that serves no more, until its workers have ended.
struct Retired {
    model: String,
    number: u64,
    workers: Workers,
}

/// A model that serves: what is kept beside its entry in the registry.
struct Serving {
    fingerprint: Fingerprint,
    workers: Workers,
}

/// Applies configurations. See the module.
pub struct Reloader {
    context: Arc<LoadContext>,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    prepare_pool: Arc<rayon::ThreadPool>,
    model_nice: i32,
    timeout: Duration,
    serving: BTreeMap<String, Serving>,
    retired: Vec<Retired>,
    generations: u64,
}

/// What a reload did, for the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Models that have a new generation.
    pub loaded: Vec<String>,
    /// Models whose generation is used in another way.
    pub reconfigured: Vec<String>,
    /// Models that are gone.
    pub removed: Vec<String>,
    /// Models that stayed as they were.
    pub kept: usize,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        for (verb, models) in [
            ("loaded", &self.loaded),
            ("reconfigured", &self.reconfigured),
            ("removed", &self.removed),
        ] {
            if !models.is_empty() {
                write!(f, "{separator}{verb} {}", models.join(", "))?;
                separator = "; ";
            }
        }
        if self.kept > 0 || separator.is_empty() {
            write!(f, "{separator}{} unchanged", self.kept)?;
        }
        Ok(())
    }
}

impl Reloader {
    /// A reloader that has no models yet.
    pub fn new(
        context: LoadContext,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        prepare_pool: Arc<rayon::ThreadPool>,
        model_nice: u8,
        timeout: Duration,
    ) -> Self {
        Self {
            context: Arc::new(context),
            registry,
            metrics,
            prepare_pool,
            model_nice: i32::from(model_nice),
            timeout,
            serving: BTreeMap::new(),
            retired: Vec::new(),
            generations: 0,
        }
    }

    /// Loads the first configuration. Blocks; each model is published as it becomes ready.
    ///
    /// # Errors
    /// The models that do not serve, and why; they are in the registry as failed.
    pub fn start(&mut self, models: &[ModelSettings]) -> Result<(), Vec<ModelFailure>> {
        let entry = |settings: &ModelSettings| {
            Arc::new(ModelEntry {
                settings: settings.clone(),
                state: ModelState::Loading,
                tasks: Vec::new(),
                default_task: None,
                last_reload_error: None,
            })
        };
        for model in models {
            self.metrics.set_model(&model.name, None);
        }
        self.registry
            .publish(Snapshot::default().next(models.iter().map(entry)));
        let fingerprints: BTreeMap<&str, Fingerprint> = models
            .iter()
            .map(|model| (model.name.as_str(), Fingerprint::of(model)))
            .collect();
        let mut failures = Vec::new();
        let loads = load_all(&self.context, models, self.timeout);
        for (settings, result) in loads {
            let name = settings.name.clone();
            let fingerprint = fingerprints.get(name.as_str()).cloned().unwrap_or_default();
            let result = result.and_then(|ready| self.go_live(settings.clone(), ready));
            let entry = match result {
                Ok((entry, workers)) => {
                    self.serving
                        .insert(name.clone(), Serving { fingerprint, workers });
                    entry
                }
                Err(failure) => {
                    let state = ModelState::Failed {
                        reason: failure.public_reason(),
                    };
                    failures.push(failure);
                    ModelEntry {
                        settings,
                        state,
                        tasks: Vec::new(),
                        default_task: None,
                        last_reload_error: None,
                    }
                }
            };
            self.metrics
                .set_model(&name, entry.generation().map(|generation| generation.number));
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
        let fingerprints: Vec<Fingerprint> = models.iter().map(Fingerprint::of).collect();
        let (steps, removed) = self.plan(&old, models, &fingerprints);
        let to_load: Vec<ModelSettings> = models
            .iter()
            .zip(&steps)
            .filter_map(|(settings, step)| match step {
                Step::Load(reason) => {
                    log::info!("reload: loading model `{}` ({})", settings.name, reason.as_str());
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
                (Step::Load(_), _, Some((entry, workers))) => {
                    self.serve(&name, Serving { fingerprint, workers });
                    summary.loaded.push(name);
                    entry
                }
                (Step::Reconfigure, Some(kept), _) => {
                    summary.reconfigured.push(name);
                    reconfigured(&kept, settings)
                }
                (_, Some(kept), _) => {
                    summary.kept += 1;
                    ModelEntry {
                        last_reload_error: None,
                        ..kept.as_ref().clone()
                    }
                }
                // A model to load is in `ready`, and one to keep is in the old snapshot.
                (_, None, _) => continue,
            };
            entries.push(Arc::new(entry));
        }
        let next = old.next(entries);
        for entry in next.models() {
            apply_limits(entry);
            self.metrics.set_model(
                entry.name(),
                entry.generation().map(|generation| generation.number),
            );
        }
        self.registry.publish(next);
        for name in &summary.removed {
            self.remove(&old, name);
        }
        self.forget_lost_tasks(&old);
        self.metrics
            .count_reload(ReloadResult::Success, clock::unix_seconds());
        Ok(summary)
    }

    /// Takes note of a reload that did not come to models: the configuration could not be read. `reason` is fit for clients.
    pub fn reload_refused(&mut self, reason: &str) {
        self.metrics
            .count_reload(ReloadResult::Failure, clock::unix_seconds());
        let old = self.registry.snapshot();
        let noted = old.models().map(|entry| {
            Arc::new(ModelEntry {
                last_reload_error: Some(reason.to_owned()),
                ..entry.as_ref().clone()
            })
        });
        self.registry.publish(old.next(noted));
    }

    /// Joins the workers of retired generations that have drained. Returns whether some have not.
    pub fn reap(&mut self) -> bool {
        let (ended, draining) = std::mem::take(&mut self.retired)
            .into_iter()
            .partition(|retired| retired.workers.is_finished());
        self.retired = draining;
        for Retired {
            model,
            number,
            workers,
        } in ended
        {
            workers.join();
            self.metrics.generation_ended();
            log::debug!("generation {number} of model `{model}` has drained");
        }
        !self.retired.is_empty()
    }

    /// Takes all models out of service, lets them finish what is queued, and waits for that until `deadline`.
    ///
    /// # Errors
    /// The models whose workers were still busy then.
    pub fn shut_down(&mut self, deadline: Instant) -> Result<(), Vec<String>> {
        let old = self.registry.snapshot();
        self.registry.publish(old.next([]));
        for (name, serving) in std::mem::take(&mut self.serving) {
            self.retire(&old, &name, serving);
        }
        if clock::now() >= deadline {
            old.models()
                .filter_map(|entry| entry.generation())
                .for_each(|generation| generation.engine.abort());
        }
        drop(old);
        while self.reap() && clock::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        if self.retired.is_empty() {
            return Ok(());
        }
        Err(self.retired.iter().map(|retired| retired.model.clone()).collect())
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
                let fingerprint = self.serving.get(entry.name()).map(|serving| &serving.fingerprint);
                (
                    entry.name(),
                    Present {
                        settings: &entry.settings,
                        fingerprint,
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
    ) -> Result<BTreeMap<String, (ModelEntry, Workers)>, Vec<ModelFailure>> {
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
        for (model, (entry, workers)) in live {
            let number = entry.generation().map_or(0, |generation| generation.number);
            if old.model(&model).is_none() {
                self.forget_model(&entry);
            }
            drop(entry);
            self.retired.push(Retired {
                model,
                number,
                workers,
            });
        }
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
                Some(_) => failure.public_reason(),
                None => format!("model `{}`: {}", failure.model, failure.public_reason()),
            });
            Arc::new(ModelEntry {
                last_reload_error: reason,
                ..entry.as_ref().clone()
            })
        });
        self.registry.publish(old.next(noted));
    }

    /// Starts the engine of a loaded model.
    fn go_live(
        &mut self,
        settings: ModelSettings,
        ready: Ready,
    ) -> Result<(ModelEntry, Workers), ModelFailure> {
        let Ready {
            loaded,
            tasks,
            default_task,
        } = ready;
        let limits: Vec<TaskLimits> = tasks.iter().map(limits_of).collect();
        let config = EngineConfig {
            name: &settings.name,
            tasks: &limits,
            workers: settings.workers.get(),
            nice: self.model_nice,
            prepare_pool: self.prepare_pool.clone(),
        };
        let manifest = loaded.model.manifest().clone();
        let (engine, workers) =
            Engine::start(loaded.model, &config, &self.metrics).map_err(|error| ModelFailure {
                model: settings.name.clone(),
                location: None,
                error: error.into(),
            })?;
        self.generations += 1;
        self.metrics.generation_loaded();
        let generation = Arc::new(Generation {
            number: self.generations,
            manifest,
            plugin: loaded.plugin,
            created: clock::unix_seconds(),
            engine,
        });
        log::info!(
            "model `{}` is ready: generation {}, tasks {}",
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
            },
            workers,
        ))
    }

    fn serve(&mut self, name: &str, serving: Serving) {
        let old = self.registry.snapshot();
        if let Some(before) = self.serving.insert(name.to_owned(), serving) {
            self.retire(&old, name, before);
        }
    }

    fn retire(&mut self, old: &Snapshot, name: &str, serving: Serving) {
        let number = old
            .model(name)
            .and_then(|entry| entry.generation())
            .map_or(0, |generation| generation.number);
        self.retired.push(Retired {
            model: name.to_owned(),
            number,
            workers: serving.workers,
        });
    }

    fn remove(&mut self, old: &Snapshot, name: &str) {
        if let Some(serving) = self.serving.remove(name) {
            self.retire(old, name, serving);
        }
        if let Some(entry) = old.model(name) {
            self.forget_model(entry);
        }
    }

    fn forget_model(&self, entry: &ModelEntry) {
        let tasks = entry.task_manifests().iter().map(|task| task.name.as_str());
        self.metrics.remove_model(
            entry.name(),
            tasks,
            &DispatchReason::ALL.map(DispatchReason::as_str),
        );
    }

    /// Tasks that a model had before and has no more are no longer reported.
    fn forget_lost_tasks(&self, old: &Snapshot) {
        let new = self.registry.snapshot();
        for entry in old.models() {
            let Some(now) = new.model(entry.name()) else {
                continue;
            };
            for task in entry
                .task_manifests()
                .iter()
                .filter(|task| now.task_index(&task.name).is_none())
            {
                let reasons = DispatchReason::ALL.map(DispatchReason::as_str);
                self.metrics.remove_task(entry.name(), &task.name, &reasons);
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
    }
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
