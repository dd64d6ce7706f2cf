//! Why a model does not serve: in full for the log, and as clients may see it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Location, ModelSettings};
use crate::isolation::{LoadFailure, StartError, WarmUpError};
use crate::loader::LoadError;
use crate::registry::Reason;

/// Why a model does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Its plugin could not be loaded.
    #[error("cannot load its plugin {}", file.display())]
    Load {
        /// The plugin's file.
        file: PathBuf,
        /// Why.
        source: Box<LoadError>,
    },
    /// There is no process that runs it.
    #[error("cannot load its plugin {} in a process of its own", file.display())]
    Process {
        /// The plugin's file.
        file: PathBuf,
        /// Why.
        source: Box<StartError>,
    },
    /// The plugin refused its settings.
    #[error("{0}")]
    Settings(String),
    /// `[models.tasks.…]` names a task that it does not have.
    #[error("it has no task `{task}`; its tasks are {known}")]
    UnknownTask {
        /// As configured.
        task: String,
        /// Those that it has.
        known: String,
    },
    /// One of its short routes belongs to a live model already.
    #[error(transparent)]
    RouteTaken(Box<RouteTaken>),
    /// Its first run failed.
    #[error(transparent)]
    WarmUp(#[from] WarmUpError),
    /// The server itself failed while it loaded the model.
    #[error("loading it panicked: {0}")]
    Panicked(String),
    /// Loading took too long. Its thread cannot be stopped and goes on alone.
    #[error("loading and warm-up took longer than `reload_timeout`, {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The system refused a thread.
    #[error("cannot start its threads")]
    Threads(#[from] io::Error),
}

/// A short route that belongs to two live models.
#[derive(Debug, thiserror::Error)]
#[error(
    "short route `{route}` of its task `{task}` already belongs to task `{owner_task}` of the live model `{owner}`; unload \
     that model first, or reload the whole configuration"
)]
pub struct RouteTaken {
    /// The path.
    pub route: String,
    /// The task that is configured with it.
    pub task: String,
    /// The live model.
    pub owner: String,
    /// The task of that model.
    pub owner_task: String,
}

/// A model that does not serve.
#[derive(Debug)]
pub struct ModelFailure {
    /// Its name.
    pub model: String,
    /// What to look at in the configuration.
    pub location: Option<Location>,
    /// What went wrong.
    pub error: ModelError,
}

impl ModelFailure {
    /// What is wrong lies at `location`, or nowhere in the configuration.
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

    /// The plugin could not be staged, or not loaded into this process.
    pub(super) fn of_load(settings: &ModelSettings, error: LoadError) -> Self {
        let source = match error {
            LoadError::Settings { key, message } => return Self::of_setting(settings, &key, message),
            other => Box::new(other),
        };
        let file = settings.plugin.clone();
        let error = ModelError::Load { file, source };
        Self::new(settings, Some(settings.plugin_location()), error)
    }

    /// The model's processes could not be started.
    pub(super) fn of_start(settings: &ModelSettings, error: StartError) -> Self {
        let source = match error {
            StartError::Load(LoadFailure::Settings { key, message }) => {
                return Self::of_setting(settings, &key, message);
            }
            StartError::WarmUp(error) => return Self::new(settings, Some(settings.location()), error),
            other => Box::new(other),
        };
        let file = settings.plugin.clone();
        let error = ModelError::Process { file, source };
        Self::new(settings, Some(settings.plugin_location()), error)
    }

    fn of_setting(settings: &ModelSettings, key: &str, message: String) -> Self {
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

    /// The failure for clients and for the operator.
    pub fn reason(&self) -> Reason {
        Reason {
            public: self.public_reason(),
            full: self.to_string(),
        }
    }

    /// The failure as clients may see it: without paths and settings, which are in the log.
    pub fn public_reason(&self) -> String {
        match &self.error {
            ModelError::Load { source, .. } => public_load_reason(source).to_owned(),
            ModelError::Process { source, .. } => public_start_reason(source).to_owned(),
            ModelError::Settings(_) => "the plugin refused its settings; see the server's log".to_owned(),
            ModelError::UnknownTask { .. } => "a task is configured that the model does not have".to_owned(),
            error @ (ModelError::WarmUp(_) | ModelError::TimedOut(_) | ModelError::RouteTaken(_)) => {
                error.to_string()
            }
            ModelError::Panicked(_) => "loading it failed inside the server; see the server's log".to_owned(),
            ModelError::Threads(_) => "the system refused to start its threads".to_owned(),
        }
    }
}

fn public_start_reason(error: &StartError) -> &'static str {
    match error {
        StartError::Spawn(_) => "the system refused to start a process for it",
        StartError::Enclose(_) | StartError::Load(LoadFailure::Confine(_)) => {
            "its process cannot be confined as configured; see the server's log"
        }
        StartError::Load(LoadFailure::Panicked(_)) => {
            "the plugin panicked while it loaded the model; see the server's log"
        }
        StartError::Load(LoadFailure::Manifest(_)) => "the model's manifest is wrong; see the server's log",
        StartError::Load(_) => "the plugin refused to load the model; see the server's log",
        StartError::Supervisor => "starting its process failed inside the server; see the server's log",
        StartError::Died(_) => "its process ended while it loaded the model; see the server's log",
        StartError::WarmUp(_) => "its warm-up failed; see the server's log",
        StartError::ChangedFiles(_) => "its files changed since it was loaded",
        StartError::Changed => "the model has other tasks than before",
    }
}

fn public_load_reason(error: &LoadError) -> &'static str {
    match error {
        LoadError::Header(_) | LoadError::Copy(_) => "its plugin file cannot be used; see the server's log",
        LoadError::Probe(_) | LoadError::Open(_) => "its plugin cannot be opened; see the server's log",
        LoadError::Settings { .. } | LoadError::Context(_) => {
            "the plugin refused its settings; see the server's log"
        }
        LoadError::Plugin(_) => "the plugin refused to load the model; see the server's log",
        LoadError::Panicked(_) => "the plugin panicked while it loaded the model; see the server's log",
        LoadError::ManifestSyntax(_) | LoadError::Manifest(_) => {
            "the model's manifest is wrong; see the server's log"
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
            f.write_str("; raise the limit on open files (`ulimit -n`, LimitNOFILE of systemd)")?;
        }
        Ok(())
    }
}
