//! Loads and unloads a single model on request of a client.

use super::fingerprint::Fingerprint;
use super::model_failure::{ModelError, ModelFailure, RouteTaken};
use super::{Reloader, reported_files};
use crate::clock;
use crate::config::ModelSettings;
use crate::metrics::ReloadResult;
use crate::registry::Snapshot;

impl Reloader {
    /// Loads one model with these settings while its current generation keeps serving. Blocks until it is live. Does nothing if
    /// the model already serves with the same settings and files.
    ///
    /// # Errors
    /// Why it could not be loaded. Nothing has changed.
    pub fn load(&mut self, settings: &ModelSettings) -> Result<(), Vec<ModelFailure>> {
        self.reap();
        let old = self.registry.snapshot();
        let since = clock::unix_time();
        let name = settings.name.as_str();
        let current = old.model(name);
        let fingerprint =
            Fingerprint::of(settings).with_reported(current.map_or(&[], |entry| reported_files(entry)));
        let is_serving = current.is_some_and(|entry| entry.settings == *settings);
        if is_serving && self.generations.fingerprint(name) == Some(&fingerprint) {
            return Ok(());
        }
        // Routes are unique within one configuration, but the other models may have been loaded from an earlier one.
        if let Some(failure) = route_conflict(&old, settings) {
            let failures = vec![failure];
            self.record_failures(&failures);
            return Err(failures);
        }
        let mut ready = self.load_all_or_none(&old, std::slice::from_ref(settings))?;
        if let Some((entry, started)) = ready.remove(name) {
            let fingerprint = fingerprint.with_reported_by_load(reported_files(&entry), since);
            self.generations.serve(name, fingerprint, started);
            self.replace_entry(entry);
            self.remove_stale_tasks();
        }
        self.metrics
            .count_reload(ReloadResult::Success, clock::unix_seconds());
        Ok(())
    }

    /// Unloads one model after it has answered its accepted requests. Returns whether such a model exists.
    pub fn unload(&mut self, name: &str) -> bool {
        let old = self.registry.snapshot();
        let Some(entry) = old.model(name) else {
            return false;
        };
        self.replace_entry(entry.unloaded());
        self.generations.remove(name);
        true
    }
}

/// The first short route of a model that already belongs to another live model.
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
