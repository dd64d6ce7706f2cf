//! Startup: loads the first configuration, one model independently of the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fingerprint::Fingerprint;
use super::load::load_all;
use super::model_failure::ModelFailure;
use super::{Reloader, reported_files};
use crate::clock;
use crate::config::ModelSettings;
use crate::registry::{ModelEntry, ModelState, Snapshot};

impl Reloader {
    /// Loads the first configuration. Blocks until all models are loaded; each is published as soon as it is ready.
    ///
    /// # Errors
    /// The models that failed to load, with the reasons. They are in the registry as failed.
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
        let loads = load_all(&self.environment, models, self.timeout);
        for (settings, result) in loads {
            let name = settings.name.clone();
            let fingerprint = fingerprints.get(name.as_str()).cloned().unwrap_or_default();
            let result = result.and_then(|ready| self.start_engine(settings.clone(), ready));
            let entry = match result {
                Ok((entry, started)) => {
                    let fingerprint = fingerprint.with_reported_by_load(reported_files(&entry), since);
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
}
