//! The model that the engine runs: a pool of child processes behind the trait [`Model`].

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use plugin_abi::manifest::ModelManifest;

use super::backoff::RestartDelays;
use super::batch_memory::BatchMemory;
use super::confine::ResourceAllocator;
use super::event_fd::EventFd;
use super::pool::Pool;
use super::process::Program;
use super::remote::{ChildLost, RemoteModel};
use super::setup::Setup;
use super::supervisor::{ChildOptions, Supervisor};
use super::{ModelFiles, StartError, WarmUp};
use crate::config::{OnCrash, ProcessSettings};
use crate::error::ItemError;
use crate::metrics::WorkerMetrics;
use crate::model::{BatchError, BatchItem, Health, Model, OutputSink, PreparedItem, WorkerProcess};
use crate::resources::Resources;
use crate::values::ItemInput;

/// Parameters of [`IsolatedModel::start`].
pub struct IsolationOptions {
    /// How to start a child process.
    pub program: Program,
    /// What the processes load.
    pub setup: Setup,
    /// Timeouts and restart behavior.
    pub settings: ProcessSettings,
    /// Limits of each process.
    pub resources: Resources,
    /// Allocates the resources of each process.
    pub resource_allocator: Arc<ResourceAllocator>,
    /// Number of processes, at least 1.
    pub workers: usize,
    /// Number of items that each process prepares concurrently, at least 1.
    pub prepare_channels: usize,
    /// Timeout of loading the model in a process.
    pub start_timeout: Duration,
    /// Warms up a new process before it serves.
    pub warm_up: WarmUp,
    /// The files that the processes load. Kept as long as processes can be started.
    pub files: Arc<dyn ModelFiles>,
}

/// A model that runs in child processes. Dropping it shuts them down and waits for them.
pub struct IsolatedModel {
    pub(super) pool: Arc<Pool>,
    manifest: ModelManifest,
    settings: ProcessSettings,
    batch_memory: BatchMemory,
    supervisors: Vec<JoinHandle<()>>,
    stop: Arc<EventFd>,
    _files: Arc<dyn ModelFiles>,
}

impl IsolatedModel {
    /// Starts all child processes concurrently. Returns when all of them are loaded and warmed up.
    ///
    /// # Errors
    /// The first error of a process. No process is left running.
    pub fn start(options: IsolationOptions, metrics: Arc<WorkerMetrics>) -> Result<Self, StartError> {
        let settings = options.settings;
        let restart_delays = RestartDelays {
            initial: settings.restart_delay,
            max: settings.max_restart_delay,
        };
        let stop = Arc::new(EventFd::new().map_err(StartError::Spawn)?);
        // From here on, dropping `model` stops child processes and supervisors.
        let mut model = Self {
            pool: Arc::new(Pool::new(options.workers, restart_delays, metrics)),
            manifest: ModelManifest::default(),
            settings,
            batch_memory: BatchMemory::new(options.workers),
            supervisors: Vec::with_capacity(options.workers),
            stop,
            _files: options.files.clone(),
        };
        let name = options.setup.context.model.clone();
        let child_options = Arc::new(ChildOptions {
            program: options.program,
            setup: options.setup,
            resources: options.resources,
            resource_allocator: options.resource_allocator,
            start_timeout: options.start_timeout,
            predict_timeout: settings.predict_timeout,
            prepare_channels: options.prepare_channels,
            warm_up: options.warm_up,
            files: options.files.clone(),
        });
        let (report, reports) = channel();
        for slot in 0..options.workers {
            let supervisor = Supervisor {
                slot,
                options: child_options.clone(),
                pool: model.pool.clone(),
                stop: model.stop.clone(),
            };
            let report = report.clone();
            let thread = thread::Builder::new()
                .name(format!("watch {name}/{slot}"))
                .spawn(move || supervisor.run(report))
                .map_err(StartError::Spawn)?;
            model.supervisors.push(thread);
        }
        drop(report);
        let mut started = 0;
        for report in reports {
            report?;
            started += 1;
        }
        if started < options.workers {
            return Err(StartError::Supervisor);
        }
        model.manifest = model.pool.manifest().cloned().unwrap_or_default();
        options.files.loaded(&model.manifest.files);
        Ok(model)
    }

    /// Prepares an item. If the process fails, the item is prepared once more with a process to itself, so that a second failure
    /// proves that the item causes it.
    fn prepare_with_retry(&self, task: usize, item: &ItemInput) -> Result<PreparedItem, ItemError> {
        let mut exclusive = false;
        loop {
            let child = self
                .pool
                .choose_for_preparation(self.settings.predict_timeout)
                .map_err(|health| ItemError::Unavailable(unavailable(&health)))?;
            let lost = match child.prepare(task, item, exclusive) {
                Ok(prepared) => return prepared,
                Err(lost) => lost,
            };
            self.pool.remove(&child);
            if self.pool.is_stopping() {
                // Processes are killed on shutdown. Another one would be killed as well.
                return Err(ItemError::Unavailable(unavailable(&self.pool.health())));
            }
            match lost {
                ChildLost::BeforeCall => {}
                ChildLost::DuringCall(_) if !exclusive && self.settings.on_crash == OnCrash::Retry => {
                    exclusive = true
                }
                ChildLost::DuringCall(reason) => {
                    return Err(ItemError::Fault(format!(
                        "the worker process {reason} while preparing this item{}",
                        if exclusive { " for the second time" } else { "" }
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
        Health::Failed { reason } => format!("the model has failed: {reason}"),
        Health::Ready => "the model is not running".to_owned(),
    }
}

impl Model for IsolatedModel {
    fn manifest(&self) -> &ModelManifest {
        &self.manifest
    }

    fn prepare(&self, task: usize, item: &ItemInput) -> Result<PreparedItem, ItemError> {
        self.prepare_with_retry(task, item)
    }

    fn predict_batch(
        &self,
        worker: usize,
        task: usize,
        items: &[BatchItem<'_>],
        sink: &mut dyn OutputSink,
    ) -> Result<(), BatchError> {
        let child = self.pool.acquire(worker, items).ok_or(BatchError::NoWorker)?;
        let measurement = self.batch_memory.begin(worker, child.process_id());
        let lost = match child.run(task, items, sink) {
            Ok(result) => {
                if let Some(measurement) = &measurement {
                    self.batch_memory.end(worker, measurement);
                }
                self.pool.release(&child);
                return result;
            }
            Err(lost) => lost,
        };
        self.pool.remove(&child);
        Err(match lost {
            ChildLost::BeforeCall => BatchError::NoWorker,
            ChildLost::DuringCall(reason) if self.settings.on_crash == OnCrash::Retry => {
                BatchError::WorkerLost(reason)
            }
            ChildLost::DuringCall(reason) => BatchError::Failed(ItemError::Fault(format!(
                "the worker process {reason} while running this item's batch"
            ))),
        })
    }

    fn measure_batch_memory(&self) {
        self.batch_memory.enable();
    }

    fn batch_memory(&self, worker: usize) -> Option<u64> {
        self.batch_memory.of(worker)
    }

    fn sample(&self, task: usize, weight: u64) -> Result<Option<Bytes>, ItemError> {
        let child = self.pool.first_serving();
        let child = child.ok_or_else(|| ItemError::Unavailable(unavailable(&self.pool.health())))?;
        match RemoteModel::sample(&child, task, weight) {
            Ok(sampled) => sampled,
            Err(lost) => {
                self.pool.remove(&child);
                let reason = lost.reason();
                Err(ItemError::Fault(format!(
                    "the worker process {reason} while creating an item"
                )))
            }
        }
    }

    fn wait_for_worker(&self, worker: usize, timeout: Duration) -> bool {
        self.pool.reserve(worker, timeout)
    }

    fn health(&self) -> Health {
        self.pool.health()
    }

    fn worker_processes(&self) -> Vec<WorkerProcess> {
        self.pool.processes()
    }

    fn stop_running(&self) {
        // Signaled first, so that the exit of a process is not reported as a crash.
        self.stop.signal();
        self.pool.kill_busy();
    }
}

impl Drop for IsolatedModel {
    fn drop(&mut self) {
        self.pool.shut_down();
        self.stop.signal();
        for supervisor in self.supervisors.drain(..) {
            // Supervisors do not panic. If one did, the kernel has killed its process.
            let _ = supervisor.join();
        }
    }
}
