//! Tracks the generations that this process has started and not yet joined: those that serve, and those that drain.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fingerprint::Fingerprint;
use crate::clock;
use crate::engine::Workers;
use crate::metrics::Metrics;

/// The part of a generation that is not in the registry.
pub(super) struct StartedGeneration {
    pub(super) number: u64,
    pub(super) workers: Workers,
}

struct Serving {
    fingerprint: Fingerprint,
    started: StartedGeneration,
}

struct Retired {
    model: String,
    started: StartedGeneration,
    since: Instant,
    reported: bool,
}

/// All generations that are not joined. Numbers them from 1 for the lifetime of the process.
pub(super) struct Generations {
    metrics: Arc<Metrics>,
    last_number: u64,
    serving: BTreeMap<String, Serving>,
    retired: Vec<Retired>,
}

impl Generations {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            last_number: 0,
            serving: BTreeMap::new(),
            retired: Vec::new(),
        }
    }

    /// Numbers a generation whose engine has started. It neither serves nor drains yet.
    pub(super) fn start(&mut self, workers: Workers) -> StartedGeneration {
        self.last_number += 1;
        self.metrics.generation_loaded();
        StartedGeneration {
            number: self.last_number,
            workers,
        }
    }

    /// Makes a generation the one that serves the model. The previous one drains.
    pub(super) fn serve(&mut self, model: &str, fingerprint: Fingerprint, started: StartedGeneration) {
        if let Some(previous) = self
            .serving
            .insert(model.to_owned(), Serving { fingerprint, started })
        {
            self.retire(model, previous.started);
        }
    }

    /// Lets a generation drain.
    pub(super) fn retire(&mut self, model: &str, started: StartedGeneration) {
        self.retired.push(Retired {
            model: model.to_owned(),
            started,
            since: clock::now(),
            reported: false,
        });
    }

    /// Lets the generation that serves a model drain.
    pub(super) fn remove(&mut self, model: &str) {
        if let Some(serving) = self.serving.remove(model) {
            self.retire(model, serving.started);
        }
    }

    /// Lets all generations drain.
    pub(super) fn remove_all(&mut self) {
        for (model, serving) in std::mem::take(&mut self.serving) {
            self.retire(&model, serving.started);
        }
    }

    /// The fingerprint of the generation that serves a model.
    pub(super) fn fingerprint(&self, model: &str) -> Option<&Fingerprint> {
        self.serving.get(model).map(|serving| &serving.fingerprint)
    }

    /// Joins the generations that have drained. Returns whether others are still draining. Logs those that take longer than
    /// `timeout`: a model that never returns from a batch keeps its memory and its thread.
    pub(super) fn reap(&mut self, timeout: Duration) -> bool {
        let retired = std::mem::take(&mut self.retired);
        let (drained, draining): (Vec<_>, Vec<_>) = retired
            .into_iter()
            .partition(|retired| retired.started.workers.is_finished());
        self.retired = draining;
        let now = clock::now();
        for stuck in &mut self.retired {
            let waited = now.saturating_duration_since(stuck.since);
            if waited >= timeout && !stuck.reported {
                stuck.reported = true;
                log::error!(
                    "generation {} of model `{}` was retired {} s ago and is still running a batch; it keeps its memory and threads \
                     until it finishes",
                    stuck.started.number,
                    stuck.model,
                    waited.as_secs()
                );
            }
        }
        for Retired { model, started, .. } in drained {
            started.workers.join();
            self.metrics.generation_ended();
            log::debug!("generation {} of model `{model}` has drained", started.number);
        }
        !self.retired.is_empty()
    }

    /// Kills the batches that are still running, for models that support it. All requests must have been answered.
    pub(super) fn stop_running(&self) {
        for retired in &self.retired {
            retired.started.workers.stop_running();
        }
    }

    /// The models of the generations that are draining.
    pub(super) fn draining(&self) -> Vec<String> {
        self.retired.iter().map(|retired| retired.model.clone()).collect()
    }
}
