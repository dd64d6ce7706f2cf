//! The model that the engine runs: a pool of child processes behind the safe [`Model`] trait.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use plugin_abi::manifest::ModelManifest;

use super::backoff::Backoff;
use super::confine::Enclosures;
use super::pool::Pool;
use super::process::{Bell, Program};
use super::remote::Lost;
use super::setup::Setup;
use super::supervisor::{Keeper, Plan};
use super::{ModelFiles, StartError, WarmUp};
use crate::config::{OnCrash, ProcessSettings};
use crate::error::ItemError;
use crate::metrics::WorkerMetrics;
use crate::model::{BatchError, BatchItem, Health, Model, OutputSink, PreparedItem};
use crate::resources::Resources;
use crate::values::ItemInput;

/// What a model in child processes is started with.
pub struct Isolation {
    /// How to start a child.
    pub program: Program,
    /// What each child is told.
    pub setup: Setup,
    /// As configured.
    pub settings: ProcessSettings,
    /// What each child may use.
    pub resources: Resources,
    /// Where children live.
    pub enclosures: Arc<Enclosures>,
    /// How many children, at least 1.
    pub workers: usize,
    /// How many items each prepares at the same time, at least 1.
    pub prepare_lanes: usize,
    /// How long a child may take to load its model.
    pub start_timeout: Duration,
    /// Runs a fresh child once before it serves.
    pub warm_up: WarmUp,
    /// The files that children load, which stay as long as children may be started.
    pub files: Arc<dyn ModelFiles>,
}

/// A model that runs in child processes. Dropping it ends them, and waits for that.
pub struct IsolatedModel {
    pool: Arc<Pool>,
    manifest: ModelManifest,
    settings: ProcessSettings,
    keepers: Vec<JoinHandle<()>>,
    end: Arc<Bell>,
    _files: Arc<dyn ModelFiles>,
}

impl IsolatedModel {
    /// Starts the children, side by side, and returns when all of them are loaded and warm.
    ///
    /// # Errors
    /// Why the first child that failed did; then none is left.
    pub fn start(isolation: Isolation, metrics: Arc<WorkerMetrics>) -> Result<Self, StartError> {
        let settings = isolation.settings;
        let backoff = Backoff {
            first: settings.restart_delay,
            longest: settings.max_restart_delay,
        };
        let end = Arc::new(Bell::new().map_err(StartError::Spawn)?);
        // From here on children and keepers end when this is dropped.
        let mut model = Self {
            pool: Arc::new(Pool::new(isolation.workers, backoff, metrics)),
            manifest: ModelManifest::default(),
            settings,
            keepers: Vec::with_capacity(isolation.workers),
            end,
            _files: isolation.files.clone(),
        };
        let name = isolation.setup.context.model.clone();
        let plan = Arc::new(Plan {
            program: isolation.program,
            setup: isolation.setup,
            resources: isolation.resources,
            enclosures: isolation.enclosures,
            start_timeout: isolation.start_timeout,
            predict_timeout: settings.predict_timeout,
            prepare_lanes: isolation.prepare_lanes,
            warm_up: isolation.warm_up,
            files: isolation.files.clone(),
        });
        let (report, reports) = channel();
        for slot in 0..isolation.workers {
            let keeper = Keeper {
                slot,
                plan: plan.clone(),
                pool: model.pool.clone(),
                end: model.end.clone(),
            };
            let report = report.clone();
            let thread = thread::Builder::new()
                .name(format!("keep {name}/{slot}"))
                .spawn(move || keeper.run(report))
                .map_err(StartError::Spawn)?;
            model.keepers.push(thread);
        }
        drop(report);
        let mut started = 0;
        for report in reports {
            report?;
            started += 1;
        }
        if started < isolation.workers {
            return Err(StartError::Supervisor);
        }
        model.manifest = model.pool.manifest().cloned().unwrap_or_default();
        isolation.files.loaded(&model.manifest.files);
        Ok(model)
    }

    /// An item whose child died is prepared once more, alone, so that a second death is its own doing.
    fn prepare_twice(&self, task: usize, item: &ItemInput) -> Result<PreparedItem, ItemError> {
        let mut alone = false;
        loop {
            let child = self
                .pool
                .for_preparation(self.settings.predict_timeout)
                .map_err(|health| ItemError::Unavailable(unavailable(&health)))?;
            let lost = match child.prepare(task, item, alone) {
                Ok(prepared) => return prepared,
                Err(lost) => lost,
            };
            self.pool.lose(&child);
            if self.pool.is_ending() {
                // Killed on shutdown: another process would only have to be killed as well.
                return Err(ItemError::Unavailable(unavailable(&self.pool.health())));
            }
            match lost {
                Lost::Before => {}
                Lost::During(_) if !alone && self.settings.on_crash == OnCrash::Retry => alone = true,
                Lost::During(reason) => {
                    return Err(ItemError::Fault(format!(
                        "the process of the model {reason}, while it prepared this item{}",
                        if alone { " a second time" } else { "" }
                    )));
                }
            }
        }
    }
}

fn unavailable(health: &Health) -> String {
    match health {
        Health::CrashLoop { reason } => format!("the model is in a crash loop: {reason}"),
        Health::Recovering { reason } => format!("the model is not running: {reason}"),
        Health::Ready => "the model is not running".to_owned(),
    }
}

impl Model for IsolatedModel {
    fn manifest(&self) -> &ModelManifest {
        &self.manifest
    }

    fn prepare(&self, task: usize, item: &ItemInput) -> Result<PreparedItem, ItemError> {
        self.prepare_twice(task, item)
    }

    fn predict_batch(
        &self,
        worker: usize,
        task: usize,
        items: &[BatchItem<'_>],
        sink: &mut dyn OutputSink,
    ) -> Result<(), BatchError> {
        let child = self.pool.take(worker, items).ok_or(BatchError::NoWorker)?;
        let lost = match child.run(task, items, sink) {
            Ok(result) => {
                self.pool.give_back(&child);
                return result;
            }
            Err(lost) => lost,
        };
        self.pool.lose(&child);
        Err(match lost {
            Lost::Before => BatchError::NoWorker,
            Lost::During(reason) if self.settings.on_crash == OnCrash::Retry => {
                BatchError::WorkerLost(reason)
            }
            Lost::During(reason) => BatchError::Failed(ItemError::Fault(format!(
                "the process of the model {reason}, while it ran the batch of this item"
            ))),
        })
    }

    fn wait_for_worker(&self, worker: usize, patience: Duration) -> bool {
        self.pool.promise(worker, patience)
    }

    fn health(&self) -> Health {
        self.pool.health()
    }

    fn stop_running(&self) {
        // First, so that the end of a child is not reported as a crash.
        self.end.ring();
        self.pool.kill_computing();
    }
}

impl Drop for IsolatedModel {
    fn drop(&mut self) {
        self.pool.end();
        self.end.ring();
        for keeper in self.keepers.drain(..) {
            // Keepers do not panic; if one did, its child has ended with it.
            let _ = keeper.join();
        }
    }
}
