//! The thread that supervises one child process: starts it, waits for its exit, and restarts it after a delay.
//!
//! The thread outlives its child processes. The kernel kills a child when the thread that started it exits, and a child
//! inherits the niceness of that thread.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use plugin_abi::manifest::LoadContext;

use super::channel::Channel;
use super::confine::ResourceAllocator;
use super::descriptor_passing::MAX_PREPARE_CHANNELS;
use super::event_fd::EventFd;
use super::log_reader::LogReader;
use super::pool::Pool;
use super::process::{Launched, Process, ProcessExit, Program, WaitOutcome, launch};
use super::remote::{self, RemoteModel};
use super::setup::Setup;
use super::{ModelFiles, StartError, WarmUp};
use crate::metrics::RestartReason;
use crate::resources::Resources;

/// How long a child process may take to drop its model when it is no longer needed.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval of checks of a child's memory, if the kernel does not enforce the limit.
const MEMORY_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What the starts of all child processes of one model share.
pub(super) struct ChildOptions {
    pub(super) program: Program,
    /// Without the confinement, which is different for each process.
    pub(super) setup: Setup,
    pub(super) resources: Resources,
    pub(super) resource_allocator: Arc<ResourceAllocator>,
    pub(super) start_timeout: Duration,
    pub(super) predict_timeout: Duration,
    pub(super) prepare_channels: usize,
    pub(super) warm_up: WarmUp,
    pub(super) files: Arc<dyn ModelFiles>,
}

/// Supervises the child process with the number `slot` of a model.
pub(super) struct Supervisor {
    pub(super) slot: usize,
    pub(super) options: Arc<ChildOptions>,
    pub(super) pool: Arc<Pool>,
    pub(super) stop: Arc<EventFd>,
}

/// The reason without details from the plugin, which may contain paths.
fn public_reason(error: &StartError) -> String {
    match error {
        StartError::Spawn(_) | StartError::Resources(_) | StartError::Load(_) | StartError::WarmUp(_) => {
            "it could not load the model; see the server's log".to_owned()
        }
        StartError::Supervisor
        | StartError::Exited(_)
        | StartError::ChangedFiles(_)
        | StartError::ManifestChanged => error.to_string(),
    }
}

/// A child process that is serving.
struct RunningChild {
    process: Arc<Process>,
    model: Arc<RemoteModel>,
    /// Dropped last, so that the process's final output is logged.
    log_reader: LogReader,
}

impl Supervisor {
    /// Supervises the child process until `stop` is signaled. Reports the result of the first start, and returns if it failed.
    pub(super) fn run(self, first: Sender<Result<(), StartError>>) {
        let mut first = Some(first);
        loop {
            let is_restart = first.is_none();
            let exit = match (self.start(is_restart), first.take()) {
                (Ok(child), report) => {
                    self.pool.add(self.slot, child.model.clone());
                    if let Some(report) = report {
                        // The receiver may have been dropped, in which case `stop` has been signaled.
                        let _ = report.send(Ok(()));
                    }
                    match self.watch(child) {
                        Some(exit) => exit,
                        None => return,
                    }
                }
                (Err(error), Some(report)) => {
                    let _ = report.send(Err(error));
                    return;
                }
                (Err(error), None) => ProcessExit {
                    reason: RestartReason::Start,
                    description: format!("cannot be restarted: {error}"),
                    public_description: Some(format!("cannot be restarted: {}", public_reason(&error))),
                },
            };
            let delay = self.pool.mark_down(self.slot, &exit);
            if self.stop.wait(Duration::ZERO).unwrap_or(true) {
                return;
            }
            log::error!(
                model = self.model();
                "model `{}`: worker process {} {}; restarting {}",
                self.model(),
                self.slot,
                exit.description,
                match delay.as_millis() {
                    0 => "immediately".to_owned(),
                    millis => format!("in {millis} ms"),
                }
            );
            if self.stop.wait(delay).unwrap_or(true) {
                return;
            }
        }
    }

    fn model(&self) -> &str {
        &self.options.setup.context.model
    }

    /// Starts a child process, and returns when it has been loaded and warmed up. `is_restart`: it replaces one that exited.
    fn start(&self, is_restart: bool) -> Result<RunningChild, StartError> {
        let directory = if is_restart {
            self.options.files.directory()?
        } else {
            None
        };
        let resources =
            self.options
                .resource_allocator
                .allocate(&self.options.resources, self.model(), self.slot)?;
        let channels = self.options.prepare_channels.clamp(1, MAX_PREPARE_CHANNELS);
        let Launched {
            process,
            main,
            prepare,
            stderr,
            log_socket,
        } = launch(&self.options.program, self.model(), channels, resources).map_err(StartError::Spawn)?;
        log::debug!(
            model = self.model();
            "model `{}`: started worker process {} with pid {}",
            self.model(),
            self.slot,
            process.id()
        );
        self.pool.set_starting(self.slot, process.clone());
        let log_reader = LogReader::start(
            format!("log {}/{}", self.model(), self.slot),
            self.model(),
            stderr,
            log_socket,
        )
        .map_err(StartError::Spawn)?;
        let loaded = self.load(&process, main, prepare, is_restart, directory);
        if loaded.is_err() {
            process.kill();
            process.reap();
        }
        loaded.map(|model| RunningChild {
            process,
            model,
            log_reader,
        })
    }

    fn load(
        &self,
        process: &Arc<Process>,
        mut main: Channel,
        prepare: Vec<Channel>,
        is_restart: bool,
        directory: Option<PathBuf>,
    ) -> Result<Arc<RemoteModel>, StartError> {
        let options = &*self.options;
        let mut setup = Setup {
            confinement: process.resources().confinement().clone(),
            context: LoadContext {
                is_repeated: self.slot > 0 || is_restart,
                ..options.setup.context.clone()
            },
            ..options.setup.clone()
        };
        if let Some(directory) = directory {
            setup.context.base_dir = directory;
        }
        let manifest = remote::load(&mut main, process, &setup, options.start_timeout)?;
        if is_restart {
            options.files.check(&manifest.files)?;
        }
        if !self.pool.check_manifest(&manifest) {
            return Err(StartError::ManifestChanged);
        }
        let (process, timeout) = (process.clone(), options.predict_timeout);
        let model = RemoteModel::new(manifest, main, prepare, process, timeout, is_restart);
        let model = Arc::new(model);
        (options.warm_up)(&model).map_err(StartError::WarmUp)?;
        Ok(model)
    }

    /// Waits until a child process exits. Returns `None` if `stop` was signaled and the process has been shut down.
    fn watch(&self, child: RunningChild) -> Option<ProcessExit> {
        let RunningChild {
            process,
            log_reader,
            model: _,
        } = child;
        let poll_interval = process
            .resources()
            .needs_memory_polling()
            .then_some(MEMORY_POLL_INTERVAL);
        let outcome = loop {
            match process.wait(Some(&self.stop), poll_interval) {
                Ok(WaitOutcome::TimedOut) => process.check_memory(),
                outcome => break outcome,
            }
        };
        let is_needed = !matches!(outcome, Ok(WaitOutcome::Stopped));
        if !is_needed {
            process.close_channels();
            // A plugin may take long to drop the model, or never finish.
            let _ = process.wait(None, Some(SHUTDOWN_TIMEOUT));
        }
        process.kill();
        let exit = process.reap();
        drop(log_reader);
        is_needed.then_some(exit)
    }
}
