//! Errors of loading a model: in full for the log, and without private details for clients.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::calibration::CalibrationError;
use crate::config::{Location, ModelSettings};
use crate::isolation::{LoadFailure, StartError, WarmUpError};
use crate::loader::LoadError;
use crate::registry::Reason;

/// Why a model is not serving.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The plugin could not be loaded.
    #[error("cannot load plugin {file}")]
    Load {
        /// The plugin's file, or the files that were searched for.
        file: String,
        /// The cause.
        source: Box<LoadError>,
    },
    /// A worker process could not be started.
    #[error("cannot load plugin {file} in a worker process")]
    Process {
        /// The plugin's file, or the files that were searched for.
        file: String,
        /// The cause.
        source: Box<StartError>,
    },
    /// The plugin rejected the settings.
    #[error("{0}")]
    Settings(String),
    /// `[models.tasks.…]` names an unknown task.
    #[error("no task `{task}`; its tasks are {known}")]
    UnknownTask {
        /// The configured name.
        task: String,
        /// The tasks of the model.
        known: String,
    },
    /// A short route already belongs to another live model.
    #[error(transparent)]
    RouteTaken(Box<RouteTaken>),
    /// The warm-up failed.
    #[error(transparent)]
    WarmUp(#[from] WarmUpError),
    /// The file of the calibration cannot be used.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// The files of the model cannot be compared with those of its calibration.
    #[error("cannot compare the model with its calibration")]
    CalibrationKey(#[source] io::Error),
    /// The memory budget is a percentage of an unknown amount.
    #[error("cannot compute `memory_budget` from a percentage: {0}; use a size such as \"2GiB\"")]
    UnknownMemory(&'static str),
    /// The server panicked while loading the model.
    #[error("loading the model panicked: {0}")]
    Panicked(String),
    /// Loading timed out. Its thread cannot be stopped and is abandoned.
    #[error("loading and warm-up took longer than `reload_timeout`, {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// A thread could not be started.
    #[error("cannot start the model's threads")]
    Threads(#[from] io::Error),
}

/// A short route that is configured for two live models.
#[derive(Debug, thiserror::Error)]
#[error(
    "short route `{route}` of task `{task}` already belongs to task `{owner_task}` of the live model `{owner}`; unload \
     that model first, or reload the whole configuration"
)]
pub struct RouteTaken {
    /// The path.
    pub route: String,
    /// The task that it was configured for.
    pub task: String,
    /// The live model that has it.
    pub owner: String,
    /// The task of that model.
    pub owner_task: String,
}

/// A model that is not serving, with the reason.
#[derive(Debug)]
pub struct ModelFailure {
    /// Name of the model.
    pub model: String,
    /// The relevant place in the configuration.
    pub location: Option<Location>,
    /// The reason.
    pub error: ModelError,
}

impl ModelFailure {
    /// `location` is the place of the error in the configuration, if it has one.
    pub(super) fn new(
        settings: &ModelSettings,
        location: Option<Location>,
        error: impl Into<ModelError>,
    ) -> Self {
        Self {
            model: settings.name.clone(),
            location,
            error: error.into(),
        }
    }

    /// The failure of staging a plugin or of loading it into this process.
    pub(super) fn from_load_error(settings: &ModelSettings, error: LoadError) -> Self {
        let source = match error {
            LoadError::Settings { key, message } => return Self::from_setting_error(settings, &key, message),
            other => Box::new(other),
        };
        let file = settings.plugin_text();
        let error = ModelError::Load { file, source };
        Self::new(settings, Some(settings.plugin_location()), error)
    }

    /// The failure of starting the model's worker processes.
    pub(super) fn from_start_error(settings: &ModelSettings, error: StartError) -> Self {
        let source = match error {
            StartError::Load(LoadFailure::Settings { key, message }) => {
                return Self::from_setting_error(settings, &key, message);
            }
            StartError::WarmUp(error) => return Self::new(settings, Some(settings.location()), error),
            other => Box::new(other),
        };
        let file = settings.plugin_text();
        let error = ModelError::Process { file, source };
        Self::new(settings, Some(settings.plugin_location()), error)
    }

    fn from_setting_error(settings: &ModelSettings, key: &str, message: String) -> Self {
        let named = match key {
            "" => message,
            key => format!("[models.settings] `{key}`: {message}"),
        };
        let location = settings.locate(key).unwrap_or_else(|| settings.location());
        Self::new(settings, Some(location), ModelError::Settings(named))
    }

    /// Whether the limit on open files is the cause.
    fn is_out_of_files(&self) -> bool {
        let first: &dyn std::error::Error = &self.error;
        let mut causes = std::iter::successors(Some(first), |error| error.source());
        causes.any(|cause| {
            let code = cause
                .downcast_ref::<io::Error>()
                .and_then(io::Error::raw_os_error);
            code == Some(libc::EMFILE)
        })
    }

    /// The reason for clients and for operators.
    pub fn reason(&self) -> Reason {
        Reason {
            public: self.public_reason(),
            full: self.to_string(),
        }
    }

    /// The reason for clients, without paths and settings, which are only in the log.
    pub fn public_reason(&self) -> String {
        match &self.error {
            ModelError::Load { source, .. } => public_load_reason(source).to_owned(),
            ModelError::Process { source, .. } => public_start_reason(source).to_owned(),
            ModelError::Settings(_) => "the plugin rejected its settings; see the server's log".to_owned(),
            ModelError::UnknownTask { .. } => "the configuration names an unknown task".to_owned(),
            error @ (ModelError::WarmUp(_) | ModelError::TimedOut(_) | ModelError::RouteTaken(_)) => {
                error.to_string()
            }
            ModelError::Panicked(_) => {
                "loading failed because of a server bug; see the server's log".to_owned()
            }
            ModelError::Calibration(_) | ModelError::CalibrationKey(_) => {
                "the calibration of the model cannot be used; see the server's log".to_owned()
            }
            ModelError::UnknownMemory(_) => "the memory budget of the model is not known".to_owned(),
            ModelError::Threads(_) => "the model's threads could not be started".to_owned(),
        }
    }
}

fn public_start_reason(error: &StartError) -> &'static str {
    match error {
        StartError::Spawn(_) => "a worker process could not be started",
        StartError::Resources(_) | StartError::Load(LoadFailure::Confine(_)) => {
            "the worker process cannot be confined as configured; see the server's log"
        }
        StartError::Load(LoadFailure::Panicked(_)) => {
            "the plugin panicked while loading the model; see the server's log"
        }
        StartError::Load(LoadFailure::Manifest(_)) => "the model's manifest is invalid; see the server's log",
        StartError::Load(_) => "the plugin failed to load the model; see the server's log",
        StartError::Supervisor => {
            "starting the worker process failed because of a server bug; see the server's log"
        }
        StartError::Exited(_) => "the worker process exited while loading the model; see the server's log",
        StartError::WarmUp(_) => "the warm-up failed; see the server's log",
        StartError::ChangedFiles(_) => "the model's files changed after it was loaded",
        StartError::ManifestChanged => "the model's tasks changed after it was loaded",
    }
}

fn public_load_reason(error: &LoadError) -> &'static str {
    match error {
        LoadError::Header(_) | LoadError::Copy(_) | LoadError::Untrusted(_) => {
            "the plugin file cannot be used; see the server's log"
        }
        LoadError::Probe(_) | LoadError::Open(_) => "the plugin cannot be opened; see the server's log",
        LoadError::Settings { .. } | LoadError::Context(_) => {
            "the plugin rejected its settings; see the server's log"
        }
        LoadError::Plugin(_) => "the plugin failed to load the model; see the server's log",
        LoadError::Panicked(_) => "the plugin panicked while loading the model; see the server's log",
        LoadError::ManifestSyntax(_) | LoadError::Manifest(_) => {
            "the model's manifest is invalid; see the server's log"
        }
    }
}

impl fmt::Display for ModelFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        write!(f, "model `{}`: {}", self.model, self.error)?;
        let mut source = std::error::Error::source(&self.error);
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        if self.is_out_of_files() {
            f.write_str("; raise the limit on open files (`ulimit -n`, or `LimitNOFILE` in systemd)")?;
        }
        Ok(())
    }
}
