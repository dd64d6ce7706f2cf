//! The thread that owns the models. It executes commands one after the other: load, unload, reload, shut down.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{log_warnings, read_config, service_manager};
use crate::api::model_control::{ModelCommand, PendingCommand};
use crate::api::{ApiKeys, Code, Failure};
use crate::cli::ServeArgs;
use crate::clock;
use crate::config::Settings;
use crate::error::Chain;
use crate::registry::{Reason, Registry};
use crate::reload::Reloader;
use crate::tls::{Certificates, Reloaded};

/// A command for the thread that owns the models.
pub(super) enum Command {
    Reload {
        /// Receives the outcome: what changed, or why the reload failed.
        reply: Option<oneshot::Sender<Result<String, String>>>,
    },
    /// A client's request to load or unload one model.
    Model(PendingCommand),
    ShutDown {
        deadline: Instant,
        /// Whether all requests have been answered.
        answered: bool,
        /// Sent when the command starts. Until then, an earlier command is running.
        begun: oneshot::Sender<()>,
        done: oneshot::Sender<Result<(), Vec<String>>>,
    },
}

/// The thread that owns the models.
pub(super) struct ModelThread {
    commands: Sender<Command>,
    thread: JoinHandle<()>,
    /// Closed when the thread exits.
    ended: oneshot::Receiver<()>,
}

/// The message for clients about an invalid configuration.
const CONFIG_ERRORS: &str = "the configuration has errors";

/// Interval between checks of retired generations.
const REAP_INTERVAL: Duration = Duration::from_millis(100);

/// Time after the deadline of a shutdown for the thread to report which models are still computing. It reports immediately
/// unless the machine is busy.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

impl ModelThread {
    pub(super) fn start(
        (commands, receiver): (Sender<Command>, Receiver<Command>),
        reloader: Reloader,
        current: Current,
        args: ServeArgs,
        settings: &Settings,
        certificates: Option<Arc<Certificates>>,
    ) -> io::Result<Self> {
        let settings = settings.clone();
        let (alive, ended) = oneshot::channel();
        let thread = thread::Builder::new().name("models".to_owned()).spawn(move || {
            // Dropped when the thread exits, also by a panic.
            let _alive = alive;
            ModelLoop {
                reloader,
                registry: current.registry,
                keys: current.keys,
                args,
                settings,
                certificates,
            }
            .run(&receiver)
        })?;
        Ok(Self {
            commands,
            thread,
            ended,
        })
    }

    /// Waits until the thread has exited unexpectedly. Cancel-safe.
    pub(super) async fn ended(&mut self) {
        // The channel carries no values: it is closed when the thread exits.
        let _ = (&mut self.ended).await;
    }

    pub(super) fn reload(&self) {
        // If the thread has exited, so will the server.
        let _ = self.commands.send(Command::Reload { reply: None });
    }

    /// Shuts down the models by `deadline`. If all requests have been `answered`, the results of running batches are not needed.
    pub(super) async fn shut_down(self, deadline: Instant, answered: bool) -> Result<(), Abandoned> {
        let (begun, taken_up) = oneshot::channel();
        let (done, finished) = oneshot::channel();
        let _ = self.commands.send(Command::ShutDown {
            deadline,
            answered,
            begun,
            done,
        });
        let taken_up = tokio::time::timeout_at((deadline + REAP_INTERVAL).into(), taken_up).await;
        if !matches!(taken_up, Ok(Ok(()))) {
            // A load that is in progress cannot be canceled: it stops when the process exits.
            return Err(Abandoned::Load);
        }
        match tokio::time::timeout_at((deadline + REPORT_TIMEOUT).into(), finished).await {
            Ok(Ok(result)) => {
                let _ = self.thread.join();
                result.map_err(Abandoned::Models)
            }
            Ok(Err(_)) | Err(_) => Err(Abandoned::Unload),
        }
    }
}

/// What a reload replaces.
pub(super) struct Current {
    pub(super) registry: Arc<Registry>,
    pub(super) keys: ApiKeys,
}

struct ModelLoop {
    reloader: Reloader,
    registry: Arc<Registry>,
    keys: ApiKeys,
    args: ServeArgs,
    /// The settings of the last successful load.
    settings: Settings,
    /// The TLS certificate, if TLS is enabled.
    certificates: Option<Arc<Certificates>>,
}

impl ModelLoop {
    fn run(mut self, commands: &Receiver<Command>) {
        let started = clock::now();
        match self.reloader.start(&self.settings.models) {
            Ok(()) => log::info!("ready after {} ms", started.elapsed().as_millis()),
            Err(failures) => {
                for failure in failures {
                    log::error!("{failure}");
                }
                log::error!("server is not ready: fix the errors above, then send SIGHUP");
            }
        }
        self.warn_of_unused_variables(&self.settings);
        service_manager::report_ready(&self.registry.snapshot());
        let mut draining = false;
        loop {
            let command = if draining {
                commands.recv_timeout(REAP_INTERVAL)
            } else {
                commands.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match command {
                Ok(Command::Reload { reply }) => {
                    let outcome = self.reload();
                    if let Some(reply) = reply {
                        // The client may have disconnected.
                        let _ = reply.send(outcome);
                    }
                }
                Ok(Command::Model(pending)) => {
                    let result = match pending.command {
                        ModelCommand::Load => self.load(&pending.model),
                        ModelCommand::Unload => self.unload(&pending.model),
                    };
                    // The client may have disconnected.
                    let _ = pending.reply.send(result);
                }
                Ok(Command::ShutDown {
                    deadline,
                    answered,
                    begun,
                    done,
                }) => {
                    let _ = begun.send(());
                    let _ = done.send(self.reloader.shut_down(deadline, answered));
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            draining = self.reloader.reap();
        }
    }

    /// Reloads, and reports the outcome to the log, the metrics and the service manager. Returns what changed.
    ///
    /// # Errors
    /// The reload failed, for the reasons that the text lists.
    fn reload(&mut self) -> Result<String, String> {
        log::info!("reloading {}", self.args.config.display());
        service_manager::report_reloading();
        let outcome = self.try_reload();
        let failure = outcome.as_ref().err().map(String::as_str);
        service_manager::report_reloaded(&self.registry.snapshot(), failure);
        outcome
    }

    fn try_reload(&mut self) -> Result<String, String> {
        let started = clock::now();
        let settings = read_config(&self.args).map_err(|error| {
            let full = Chain(&error).to_string();
            log::error!("reload failed; keeping the current configuration: {full}");
            self.reloader.record_config_error(&Reason {
                public: format!("{CONFIG_ERRORS}; see the server's log"),
                full: full.clone(),
            });
            full
        })?;
        log_warnings(&settings);
        self.check_certificate()?;
        let keys = self.settings.needs_restart(&settings);
        if !keys.is_empty() {
            log::warn!(
                "reload: restart the server to apply changes of {}",
                keys.join(", ")
            );
        }
        match self.reloader.reload(&settings.models) {
            Ok(summary) => {
                let certificate = self.replace_certificate();
                let took = started.elapsed().as_millis();
                let text = format!("{summary}{certificate}; took {took} ms");
                self.replace_keys(&settings);
                log::info!("reload: {text}");
                self.warn_of_unused_variables(&settings);
                self.settings.models = settings.models;
                Ok(match keys[..] {
                    [] => text,
                    _ => format!(
                        "{text}; restart the server to apply changes of {}",
                        keys.join(", ")
                    ),
                })
            }
            Err(failures) => {
                for failure in &failures {
                    log::error!("{failure}");
                }
                log::error!("reload failed; keeping the current configuration");
                let lines: Vec<String> = failures.iter().map(ToString::to_string).collect();
                Err(lines.join("\n"))
            }
        }
    }

    /// Checks that the TLS certificate can be used, before anything changes.
    ///
    /// # Errors
    /// It cannot.
    fn check_certificate(&mut self) -> Result<(), String> {
        let Some(Err(error)) = self.certificates.as_ref().map(|current| current.check()) else {
            return Ok(());
        };
        let full = Chain(&error).to_string();
        log::error!("reload failed; keeping the current configuration and TLS certificate: {full}");
        if let Some(certificates) = &self.certificates {
            certificates.count_failed_reload();
        }
        self.reloader.record_config_error(&Reason {
            public: "the TLS certificate cannot be used; see the server's log".to_owned(),
            full: full.clone(),
        });
        Err(full)
    }

    /// Uses the TLS certificate in the files, and returns the change for the summary of a reload.
    fn replace_certificate(&self) -> &'static str {
        let reloaded = self.certificates.as_ref().map(|current| current.reload());
        match reloaded {
            Some(Ok(Reloaded::Replaced)) => "; TLS certificate replaced",
            Some(Ok(Reloaded::Unchanged)) | None => "",
            // The files have changed since they were checked, and are watched.
            Some(Err(error)) => {
                log::warn!("TLS certificate not replaced: {}", Chain(&error));
                "; TLS certificate not replaced"
            }
        }
    }

    /// Applies the keys of a configuration, unless it has another file of keys, which requires a restart.
    fn replace_keys(&self, settings: &Settings) {
        if settings.server.api_keys_file == self.settings.server.api_keys_file {
            self.keys.replace(&settings.keys);
            self.keys.warn_of_expiry(clock::unix_seconds());
        }
    }

    /// Loads one model from the current configuration file.
    fn load(&mut self, model: &str) -> Result<(), Failure> {
        log::info!(
            "loading model `{model}` for a client from {}",
            self.args.config.display()
        );
        // Only holders of the admin key can load models, and they may read full errors.
        let settings = read_config(&self.args).map_err(|error| {
            let error = Chain(&error).to_string();
            log::error!("cannot load model `{model}`: {error}");
            Failure::new(Code::Internal, format!("{CONFIG_ERRORS}: {error}"))
        })?;
        let Some(wanted) = settings.models.iter().find(|settings| settings.name == model) else {
            let names = settings.models.iter().map(|settings| settings.name.as_str());
            return Err(Failure::unknown_model(model, names));
        };
        self.reloader.load(wanted).map_err(|failures| {
            for failure in &failures {
                log::error!("{failure}");
            }
            let reason = failures.first().map(ToString::to_string).unwrap_or_default();
            Failure::new(
                Code::ModelFault,
                format!("model `{model}` cannot be loaded: {reason}"),
            )
        })
    }

    fn unload(&mut self, model: &str) -> Result<(), Failure> {
        if self.reloader.unload(model) {
            log::info!(
                model;
                "unloaded model `{model}` for a client; /readyz ignores it until a client or a reload loads it again"
            );
            return Ok(());
        }
        let snapshot = self.registry.snapshot();
        let names: Vec<&str> = snapshot.models().map(|entry| entry.name()).collect();
        Err(Failure::unknown_model(model, names.iter().copied()))
    }

    /// Warns about environment variables for tasks that no loaded model has.
    fn warn_of_unused_variables(&self, settings: &Settings) {
        let snapshot = self.registry.snapshot();
        let tasks = snapshot
            .models()
            .flat_map(|entry| entry.task_manifests())
            .map(|task| task.name.as_str());
        if snapshot.all_ready() {
            for warning in settings.unused_task_variables(tasks) {
                log::warn!("{warning}");
            }
        }
    }
}

/// What was still running when the shutdown timed out.
pub(super) enum Abandoned {
    /// A load was in progress.
    Load,
    /// Unloading did not finish in time.
    Unload,
    /// These models were still computing.
    Models(Vec<String>),
}

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load => f.write_str("a model was still loading"),
            Self::Unload => f.write_str("a model was still unloading"),
            Self::Models(models) => write!(f, "models still computing: {}", models.join(", ")),
        }
    }
}
