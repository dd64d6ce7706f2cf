//! The running server: builds the parts, owns every thread, and says in which order they start, reload (`models`) and end
//! (`running`).

mod check;
mod files;
mod json_schema;
mod leftovers;
mod load_once;
mod models;
mod running;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::api::model_control::Control;
use crate::cli::ServeArgs;
use crate::codec;
use crate::config::{self, ConfigErrors, Examined, Facts, LogFormat, ModelSettings, Settings, Source};
use crate::crash;
use crate::engine;
use crate::error::Chain;
use crate::grpc;
use crate::http;
use crate::isolation::confine::{Confinement, Enclosures};
use crate::isolation::{self, LoadFailure, Program};
use crate::loader::{self, Inspection, LoadError, Loader, TrialProgram};
use crate::logging;
use crate::metrics::Metrics;
use crate::open_files::TooFewFiles;
use crate::registry::{ModelStates, Registry};
use crate::reload::{LoadContext, ModelFailure, Reloader};
use crate::signals::Signals;
use crate::values::Value;
use leftovers::Leftovers;
use models::{Command, ModelThread};
use running::{Running, Servers};
use watch::watch_workers;

pub use check::{Checked, check};

/// Why the server did not start or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration {}", file.display())]
    ReadConfig {
        /// As given.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The configuration is wrong.
    #[error("{0}")]
    Config(ConfigErrors),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Host and port.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Plugins cannot be loaded at all.
    #[error("cannot set up the loading of plugins")]
    Loader(#[source] LoadError),
    /// The metrics contradict each other.
    #[error("cannot set up the metrics")]
    Metrics(#[from] prometheus::Error),
    /// The prepare pool cannot be started.
    #[error("cannot start the threads that prepare items")]
    Pool(#[from] rayon::ThreadPoolBuildError),
    /// The limit on open files is too low.
    #[error(transparent)]
    OpenFiles(#[from] TooFewFiles),
    /// A thread or the runtime cannot be started.
    #[error("the system refused a resource")]
    System(#[from] io::Error),
    /// Models do not load.
    #[error("{}", list(.0))]
    Models(Vec<ModelFailure>),
    /// A termination signal arrived before the command was done.
    #[error("interrupted")]
    Interrupted,
    /// A server panicked or cannot go on; the log has the message.
    #[error("the {0} server has ended unexpectedly")]
    Server(&'static str),
    /// The thread that loads models panicked; the log has the message.
    #[error("the thread that loads models has ended unexpectedly")]
    ModelThread,
    /// The drain deadline passed.
    #[error("shutdown gave up waiting: {0}")]
    Abandoned(String),
}

impl AppError {
    /// 2 for what the operator wrote, as is usual for usage errors; 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ReadConfig { .. } | Self::Config(_) => 2,
            _ => 1,
        }
    }
}

fn list(failures: &[ModelFailure]) -> String {
    failures
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Reads and resolves the configuration, as at start and for a reload.
pub fn read_config(args: &ServeArgs) -> Result<Settings, AppError> {
    let examined = read_config_leniently(args)?;
    match ConfigErrors::collect(examined.errors) {
        Some(errors) => Err(AppError::Config(errors)),
        None => Ok(examined.settings),
    }
}

/// As [`read_config`], with the errors beside what can be resolved in spite of them.
fn read_config_leniently(args: &ServeArgs) -> Result<Examined, AppError> {
    let file = &args.config;
    let text = std::fs::read_to_string(file).map_err(|source| AppError::ReadConfig {
        file: file.clone(),
        source,
    })?;
    let absolute = std::path::absolute(file)?;
    let source = Source {
        file_name: &file.to_string_lossy(),
        text: &text,
        base_dir: absolute.parent().unwrap_or(Path::new("/")),
    };
    let env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .collect();
    let executable = std::env::current_exe()?;
    let facts = Facts {
        executable_dir: executable.parent().unwrap_or(Path::new("/")).to_owned(),
        cores: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        temp_dir: std::env::temp_dir(),
    };
    Ok(config::examine(source, &env, &args.overrides(), &facts))
}

/// Runs the server until it is told to end.
pub fn serve(args: ServeArgs) -> Result<(), AppError> {
    let settings = read_config(&args)?;
    logging::start(&settings.logging);
    crash::install(settings.logging.format == LogFormat::Json)?;
    log_warnings(&settings);
    let max_connections = files::connections(&settings)?;
    let address = format!("{}:{}", settings.server.host, settings.server.port);
    actix_web::rt::System::new().block_on(async move {
        // First, so that a signal during the start is not lost and does not end the server.
        let signals = Signals::new()?;
        let metrics = Arc::new(Metrics::new(settings.metrics.clone())?);
        let (reloader, registry) = reloader(&settings, metrics.clone())?;
        let _leftovers = Leftovers::of(&reloader);
        let (commands, receiver) = channel();
        let orders = commands.clone();
        // A thread that has ended is on its way out with the server, and answers by dropping the order.
        let control = Control::new(move |order| drop(orders.send(Command::Order(order))));
        let mut listening = settings.clone();
        listening.server.max_connections = max_connections;
        let server = http::Server::bind(&listening, registry.clone(), metrics.clone(), control.clone())
            .map_err(|source| AppError::Listen { address, source })?;
        let grpc = bind_grpc(&listening, &registry, &metrics, control)?;
        // Whoever starts the server waits for the line about HTTP, so it comes last.
        if let Some(grpc) = &grpc {
            log::info!("listening for gRPC on {}", grpc.address());
        }
        for address in server.addresses() {
            log::info!("listening on http://{address}");
        }
        let models = ModelThread::start((commands, receiver), reloader, registry.clone(), args, &settings)?;
        let running = Running {
            settings,
            registry: registry.clone(),
            servers: Servers { http: server, grpc },
            models,
            signals,
        };
        tokio::select! {
            result = running.run() => result,
            never = watch_workers(registry) => match never {},
        }
    })
}

fn bind_grpc(
    settings: &Settings,
    registry: &Arc<Registry>,
    metrics: &Arc<Metrics>,
    control: Control,
) -> Result<Option<grpc::Server>, AppError> {
    let Some(port) = settings.server.grpc_port else {
        return Ok(None);
    };
    grpc::Server::bind(settings, port, registry.clone(), metrics, control)
        .map(Some)
        .map_err(|source| AppError::Listen {
            address: format!("{}:{port} for gRPC", settings.server.host),
            source,
        })
}

fn log_warnings(settings: &Settings) {
    for warning in &settings.warnings {
        log::warn!("{warning}");
    }
    if settings.models.is_empty() {
        log::warn!("no model is configured; add a [[models]] table and send SIGHUP");
    }
}

/// What a plugin file says about itself, and what is wrong with it.
pub fn inspect(file: &Path) -> Result<Inspection, LoadError> {
    let program = TrialProgram::this_server();
    loader::inspect(&program, file, INSPECT_TIMEOUT, &|task, example| {
        let input = codec::decode_example(task, example).map_err(|error| error.to_string())?;
        if !matches!(input.value, Value::Json(_)) {
            return Ok(());
        }
        match json_schema::violations(&task.input.schema, example).first() {
            Some(violation) if violation.path.is_empty() => Err(violation.message.clone()),
            Some(violation) => Err(format!("`{}`: {}", violation.path, violation.message)),
            None => Ok(()),
        }
    })
}

/// The child's side of a trial: opens a plugin and reports, in the confinement that the server states as JSON.
pub fn run_trial(confinement: Option<&str>, file: &Path) -> ExitCode {
    loader::run_trial(file, || {
        let Some(json) = confinement else {
            return Ok(());
        };
        let confinement: Confinement = crate::json::from_str(json).map_err(|error| error.to_string())?;
        confinement.apply().map_err(|error| Chain(&error).to_string())
    })
}

/// The child's side of `isolation = "process"`: runs a model for the server that started this process, until that server
/// closes the connection or is gone.
pub fn run_model_process() -> ExitCode {
    // What ends a server, such as Ctrl-C or a service manager that tells a whole group, is not for its children: the
    // server still needs them for what it has accepted, and ends them then.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let _signals = runtime.as_ref().ok().map(|runtime| {
        let _context = runtime.enter();
        Signals::new()
    });
    isolation::run_child(|setup| {
        loader::load_staged(&setup.file, &setup.context).map_err(|error| match error {
            LoadError::Settings { key, message } => LoadFailure::Settings { key, message },
            LoadError::Panicked(_) => LoadFailure::Panicked(error.to_string()),
            LoadError::ManifestSyntax(_) | LoadError::Manifest(_) => {
                LoadFailure::Manifest(Chain(&error).to_string())
            }
            LoadError::Open(_) => LoadFailure::Open(Chain(&error).to_string()),
            error => LoadFailure::Refused(Chain(&error).to_string()),
        })
    })
}

/// How long a plugin may take to describe itself to `inspect`.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(60);

fn reloader(settings: &Settings, metrics: Arc<Metrics>) -> Result<(Reloader, Arc<Registry>), AppError> {
    let registry = Arc::new(Registry::default());
    metrics
        .registry()
        .register(Box::new(ModelStates::new(registry.clone())?))?;
    let prepare_threads = settings.server.prepare_threads.get();
    let model_nice = i32::from(settings.server.model_nice);
    let prepare_pool = engine::prepare_pool("prepare", prepare_threads, model_nice)?;
    let loader =
        Loader::new(&settings.server.scratch_dir, TrialProgram::this_server()).map_err(AppError::Loader)?;
    let mut enclosures = Enclosures::new(loader.scratch_folder().to_owned());
    let is_limited = |model: &ModelSettings| model.resources.max_memory.is_some();
    if settings.models.iter().any(is_limited) {
        enclosures.take_over_cgroup();
    }
    let context = LoadContext {
        enclosures: Arc::new(enclosures),
        loader,
        trial_timeout: settings.server.reload_timeout,
        cores: thread::available_parallelism().map_or(1, NonZeroUsize::get),
        program: Program::this_server(),
        prepare_threads,
        model_nice,
        start_timeout: settings.server.reload_timeout,
        metrics: metrics.clone(),
    };
    let reloader = Reloader::new(
        context,
        registry.clone(),
        metrics,
        prepare_pool,
        settings.server.reload_timeout,
        settings.server.drain_timeout,
    );
    Ok((reloader, registry))
}
