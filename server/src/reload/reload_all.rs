//! Reloads the whole configuration, all or nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::activation::limits_of;
use super::fingerprint::Fingerprint;
use super::load::{default_task, task_settings};
use super::model_failure::ModelFailure;
use super::plan::{Current, Desired, Step, plan};
use super::{Reloader, reported_files};
use crate::clock;
use crate::config::ModelSettings;
use crate::engine::TaskLimits;
use crate::metrics::ReloadResult;
use crate::registry::{ModelEntry, ModelState, Snapshot};
use crate::resources::MemoryBudget;

/// The outcome of a reload, for the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Models with a new generation.
    pub loaded: Vec<String>,
    /// Models whose generation was kept with new settings.
    pub reconfigured: Vec<String>,
    /// Models that were removed.
    pub removed: Vec<String>,
    /// Number of models that did not change.
    pub kept: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    /// Applies a configuration to the running server, all or nothing. Blocks until the new state is live.
    ///
    /// # Errors
    /// The models that could not be loaded, with the reasons. Nothing has changed.
    pub fn reload(&mut self, models: &[ModelSettings]) -> Result<Summary, Vec<ModelFailure>> {
        self.reap();
        let old = self.registry.snapshot();
        let since = clock::unix_time();
        let fingerprint_of = |settings: &ModelSettings| {
            let serving = old.model(&settings.name);
            Fingerprint::of(settings).with_reported(serving.map_or(&[], |entry| reported_files(entry)))
        };
        let fingerprints: Vec<Fingerprint> = models.iter().map(fingerprint_of).collect();
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
        let mut ready = self.load_all_or_none(&old, &to_load)?;
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
                    let fingerprint = fingerprint.with_reported_by_load(reported_files(&entry), since);
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
                // Cannot happen: a model to load is in `ready`, and a model to keep is in the old snapshot.
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
        self.remove_stale_tasks();
        self.metrics
            .count_reload(ReloadResult::Success, clock::unix_seconds());
        Ok(summary)
    }

    fn plan(
        &self,
        old: &Snapshot,
        models: &[ModelSettings],
        fingerprints: &[Fingerprint],
    ) -> (Vec<Step>, Vec<String>) {
        let current: BTreeMap<&str, Current<'_>> = old
            .models()
            .map(|entry| {
                let fingerprint = self.generations.fingerprint(entry.name());
                (
                    entry.name(),
                    Current {
                        settings: &entry.settings,
                        fingerprint,
                        unloaded: matches!(entry.state, ModelState::Unloaded),
                    },
                )
            })
            .collect();
        let desired: Vec<Desired<'_>> = models
            .iter()
            .zip(fingerprints)
            .map(|(settings, fingerprint)| Desired {
                settings,
                fingerprint,
            })
            .collect();
        plan(&current, &desired)
    }
}

/// The entry of a kept generation with new settings.
fn reconfigured(kept: &ModelEntry, settings: &ModelSettings) -> ModelEntry {
    let resolved = task_settings(settings, kept.task_manifests());
    let default_task = default_task(settings, kept.task_manifests());
    ModelEntry {
        settings: settings.clone(),
        state: kept.state.clone(),
        tasks: resolved,
        default_task,
        memory_budget: match settings.memory_budget {
            Some(MemoryBudget::Bytes(bytes)) => Some(bytes),
            // Otherwise a new generation would have been loaded.
            Some(MemoryBudget::Percent(_)) => kept.memory_budget,
            None => None,
        },
        last_reload_error: None,
        last_tasks: kept.last_tasks.clone(),
    }
}

fn apply_limits(entry: &ModelEntry) {
    if let Some(generation) = entry.generation() {
        let limits: Vec<TaskLimits> = entry.tasks.iter().map(limits_of).collect();
        generation.engine.reconfigure(&limits);
        generation.engine.set_memory_budget(entry.memory_budget);
    }
}
