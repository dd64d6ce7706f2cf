//! The thread that keeps one child alive: starts it, waits for its end, and starts the next one after a pause.
//!
//! It lives longer than its children, which the kernel ends when the thread that launched them ends, and which inherit its
//! niceness.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use plugin_abi::manifest::LoadContext;

use super::confine::Enclosures;
use super::descriptor_passing::MOST_PREPARE_LANES;
use super::lane::Lane;
use super::log_reader::Outputs;
use super::pool::Pool;
use super::process::{Bell, Death, Launched, Process, Program, Waited, launch};
use super::remote::{self, RemoteModel};
use super::setup::Setup;
use super::{ModelFiles, StartError, WarmUp};
use crate::metrics::RestartReason;
use crate::resources::Resources;

/// How long a child may take to drop its model once it is not needed any more.
const FAREWELL: Duration = Duration::from_secs(5);

/// How often a child's memory is looked at, where the kernel does not count it.
const WATCH: Duration = Duration::from_millis(100);

/// What every start of a child of one model takes.
pub(super) struct Plan {
    pub(super) program: Program,
    /// But for the confinement, which is each child's own.
    pub(super) setup: Setup,
    pub(super) resources: Resources,
    pub(super) enclosures: Arc<Enclosures>,
    pub(super) start_timeout: Duration,
    pub(super) predict_timeout: Duration,
    pub(super) prepare_lanes: usize,
    pub(super) warm_up: WarmUp,
    pub(super) files: Arc<dyn ModelFiles>,
}

/// See the module. `slot` is the child's place among those of its model.
pub(super) struct Keeper {
    pub(super) slot: usize,
    pub(super) plan: Arc<Plan>,
    pub(super) pool: Arc<Pool>,
    pub(super) end: Arc<Bell>,
}

/// A reason that is fit for clients: what a plugin says may name files.
fn public_reason(error: &StartError) -> String {
    match error {
        StartError::Spawn(_) | StartError::Enclose(_) | StartError::Load(_) | StartError::WarmUp(_) => {
            "it could not load the model; see the server's log".to_owned()
        }
        StartError::Supervisor | StartError::Died(_) | StartError::ChangedFiles(_) | StartError::Changed => {
            error.to_string()
        }
    }
}

/// A child that serves.
struct Alive {
    process: Arc<Process>,
    model: Arc<RemoteModel>,
    /// Last, so that what the process says at its end is written.
    outputs: Outputs,
}

impl Keeper {
    /// Keeps the child until the end is rung. How the first start went is reported; if it failed, that is all.
    pub(super) fn run(self, first: Sender<Result<(), StartError>>) {
        let mut first = Some(first);
        loop {
            let suspect = first.is_none();
            let death = match (self.start(suspect), first.take()) {
                (Ok(alive), report) => {
                    self.pool.up(self.slot, alive.model.clone());
                    if let Some(report) = report {
                        // Whoever waits for it may have given up, and has rung the end then.
                        let _ = report.send(Ok(()));
                    }
                    match self.attend(alive) {
                        Some(death) => death,
                        None => return,
                    }
                }
                (Err(error), Some(report)) => {
                    let _ = report.send(Err(error));
                    return;
                }
                (Err(error), None) => Death {
                    reason: RestartReason::Start,
                    text: format!("cannot be started again: {error}"),
                    public: Some(format!("cannot be started again: {}", public_reason(&error))),
                },
            };
            let pause = self.pool.down(self.slot, &death);
            if self.end.wait(Duration::ZERO).unwrap_or(true) {
                return;
            }
            log::error!(
                model = self.model();
                "model `{}`: its process {} {}; the next one starts {}",
                self.model(),
                self.slot,
                death.text,
                match pause.as_millis() {
                    0 => "at once".to_owned(),
                    millis => format!("in {millis} ms"),
                }
            );
            if self.end.wait(pause).unwrap_or(true) {
                return;
            }
        }
    }

    fn model(&self) -> &str {
        &self.plan.setup.context.model
    }

    /// Starts a child, and returns once it is loaded and warm. `suspect`: its predecessor died.
    fn start(&self, suspect: bool) -> Result<Alive, StartError> {
        let directory = if suspect {
            self.plan.files.directory()?
        } else {
            None
        };
        let enclosure = self
            .plan
            .enclosures
            .enclose(&self.plan.resources, self.model(), self.slot)?;
        let lanes = self.plan.prepare_lanes.clamp(1, MOST_PREPARE_LANES);
        let Launched {
            process,
            main,
            prepare,
            stderr,
            records,
        } = launch(&self.plan.program, self.model(), lanes, enclosure).map_err(StartError::Spawn)?;
        log::debug!(
            model = self.model();
            "model `{}`: its process {} has the number {}",
            self.model(),
            self.slot,
            process.id()
        );
        self.pool.starting(self.slot, process.clone());
        let outputs = Outputs::listen(
            format!("log {}/{}", self.model(), self.slot),
            self.model(),
            stderr,
            records,
        )
        .map_err(StartError::Spawn)?;
        let loaded = self.load(&process, main, prepare, suspect, directory);
        if loaded.is_err() {
            process.kill();
            process.bury();
        }
        loaded.map(|model| Alive {
            process,
            model,
            outputs,
        })
    }

    fn load(
        &self,
        process: &Arc<Process>,
        mut main: Lane,
        prepare: Vec<Lane>,
        suspect: bool,
        directory: Option<PathBuf>,
    ) -> Result<Arc<RemoteModel>, StartError> {
        let plan = &*self.plan;
        let mut setup = Setup {
            confinement: process.enclosure().confinement().clone(),
            context: LoadContext {
                is_repeated: self.slot > 0 || suspect,
                ..plan.setup.context.clone()
            },
            ..plan.setup.clone()
        };
        if let Some(directory) = directory {
            setup.context.base_dir = directory;
        }
        let manifest = remote::load(&mut main, process, &setup, plan.start_timeout)?;
        if suspect {
            plan.files.check(&manifest.files)?;
        }
        if !self.pool.agree(&manifest) {
            return Err(StartError::Changed);
        }
        let (process, timeout) = (process.clone(), plan.predict_timeout);
        let model = RemoteModel::new(manifest, main, prepare, process, timeout, suspect);
        let model = Arc::new(model);
        (plan.warm_up)(&model).map_err(StartError::WarmUp)?;
        Ok(model)
    }

    /// Lets a child serve until its end. `None` if it was not needed any more, and has been seen off.
    fn attend(&self, alive: Alive) -> Option<Death> {
        let Alive {
            process,
            outputs,
            model: _,
        } = alive;
        let watch = process.enclosure().needs_watching().then_some(WATCH);
        let waited = loop {
            match process.wait(Some(&self.end), watch) {
                Ok(Waited::TimedOut) => process.check_memory(),
                waited => break waited,
            }
        };
        let needed = !matches!(waited, Ok(Waited::Called));
        if !needed {
            process.close();
            // At its leave a plugin may do what takes long, or never ends.
            let _ = process.wait(None, Some(FAREWELL));
        }
        process.kill();
        let death = process.bury();
        drop(outputs);
        needed.then_some(death)
    }
}
