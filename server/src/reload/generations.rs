//! The generations that this process has started and not yet joined: those that serve, and those that still drain.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fingerprint::Fingerprint;
use crate::clock;
use crate::engine::Workers;
use crate::metrics::Metrics;

/// What is kept of a generation beside its entry in the registry.
pub(super) struct Started {
    pub(super) number: u64,
    pub(super) workers: Workers,
}

struct Serving {
    fingerprint: Fingerprint,
    started: Started,
}

struct Retired {
    model: String,
    started: Started,
    since: Instant,
    reported: bool,
}

/// See the module. Numbers generations from 1, through the whole life of the process.
pub(super) struct Generations {
    metrics: Arc<Metrics>,
    last: u64,
    serving: BTreeMap<String, Serving>,
    retired: Vec<Retired>,
}

impl Generations {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            last: 0,
            serving: BTreeMap::new(),
            retired: Vec::new(),
        }
    }

    /// Takes note of a generation whose engine has been started, and numbers it. It neither serves nor drains yet.
    pub(super) fn start(&mut self, workers: Workers) -> Started {
        self.last += 1;
        self.metrics.generation_loaded();
        Started {
            number: self.last,
            workers,
        }
    }

    /// This generation serves the model from now on; the one before it drains.
    pub(super) fn serve(&mut self, model: &str, fingerprint: Fingerprint, started: Started) {
        if let Some(before) = self
            .serving
            .insert(model.to_owned(), Serving { fingerprint, started })
        {
            self.retire(model, before.started);
        }
    }

    /// This generation drains from now on.
    pub(super) fn retire(&mut self, model: &str, started: Started) {
        self.retired.push(Retired {
            model: model.to_owned(),
            started,
            since: clock::now(),
            reported: false,
        });
    }

    /// The model is served no more.
    pub(super) fn remove(&mut self, model: &str) {
        if let Some(serving) = self.serving.remove(model) {
            self.retire(model, serving.started);
        }
    }

    /// No model is served any more.
    pub(super) fn remove_all(&mut self) {
        for (model, serving) in std::mem::take(&mut self.serving) {
            self.retire(&model, serving.started);
        }
    }

    /// The files from which the serving generation of a model was loaded.
    pub(super) fn fingerprint(&self, model: &str) -> Option<&Fingerprint> {
        self.serving.get(model).map(|serving| &serving.fingerprint)
    }

    /// Joins the generations that have drained. Returns whether some have not; those that take longer than `patience` are
    /// reported, since a model that never returns from a batch keeps its memory and its thread.
    pub(super) fn reap(&mut self, patience: Duration) -> bool {
        let retired = std::mem::take(&mut self.retired);
        let (ended, draining): (Vec<_>, Vec<_>) = retired
            .into_iter()
            .partition(|retired| retired.started.workers.is_finished());
        self.retired = draining;
        let now = clock::now();
        for stuck in &mut self.retired {
            let waited = now.saturating_duration_since(stuck.since);
            if waited >= patience && !stuck.reported {
                stuck.reported = true;
                log::error!(
                    "generation {} of model `{}` was retired {} s ago and still computes; it keeps its memory and its threads \
                     until it finishes",
                    stuck.started.number,
                    stuck.model,
                    waited.as_secs()
                );
            }
        }
        for Retired { model, started, .. } in ended {
            started.workers.join();
            self.metrics.generation_ended();
            log::debug!("generation {} of model `{model}` has drained", started.number);
        }
        !self.retired.is_empty()
    }

    /// Ends the batches that still run, as far as models can: all requests have been answered.
    pub(super) fn stop_running(&self) {
        for retired in &self.retired {
            retired.started.workers.stop_running();
        }
    }

    /// The models of the generations that drain.
    pub(super) fn draining(&self) -> Vec<String> {
        self.retired.iter().map(|retired| retired.model.clone()).collect()
    }
}
