//! The generations that this process has started and not yet joined: those that serve, and those that still drain.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fingerprint::Fingerprint;
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

    /// Joins the generations that have drained. Returns whether some have not.
    pub(super) fn reap(&mut self) -> bool {
        let retired = std::mem::take(&mut self.retired);
        let (ended, draining): (Vec<_>, Vec<_>) = retired
            .into_iter()
            .partition(|retired| retired.started.workers.is_finished());
        self.retired = draining;
        for Retired { model, started } in ended {
            started.workers.join();
            self.metrics.generation_ended();
            log::debug!("generation {} of model `{model}` has drained", started.number);
        }
        !self.retired.is_empty()
    }

    /// The models of the generations that drain.
    pub(super) fn draining(&self) -> Vec<String> {
        self.retired.iter().map(|retired| retired.model.clone()).collect()
    }
}
