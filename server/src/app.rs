//! The running server: builds the parts, owns every thread, and says in which order they start, reload and end.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::api::control::{Control, Order, Pending};
use crate::api::{Code, Failure};
use crate::cli::ServeArgs;
use crate::clock;
use crate::config::{self, ConfigErrors, Facts, ServerSettings, Settings, Source};
use crate::engine;
use crate::error::Chain;
use crate::grpc;
use crate::http;
use crate::isolation::confine::Enclosures;
use crate::isolation::{self, LoadFailure, Program};
use crate::loader::{self, Inspection, LoadError, Loader, TrialProgram};
use crate::logging;
use crate::metrics::Metrics;
use crate::open_files;
use crate::registry::Registry;
use crate::reload::{LoadContext, ModelFailure, Reloader};
use crate::signals::{Signal, Signals};

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
    /// A thread or the runtime cannot be started.
    #[error("the system refused a resource")]
    System(#[from] io::Error),
    /// Models do not load.
    #[error("{}", list(.0))]
    Models(Vec<ModelFailure>),
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

/// Reads and resolves the configuration, as at start, for a reload and for `check`.
pub fn read_config(args: &ServeArgs) -> Result<Settings, AppError> {
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
    config::resolve(source, &env, &args.overrides(), &facts).map_err(AppError::Config)
}

/// Checks a configuration, and with `load` also that its models load and warm up.
pub fn check(args: &ServeArgs, load: bool) -> Result<Settings, AppError> {
    let settings = read_config(args)?;
    if load {
        logging::start(&settings.logging);
        let (mut reloader, _) = reloader(&settings, Arc::new(Metrics::new()?))?;
        reloader.start(&settings.models).map_err(AppError::Models)?;
    }
    Ok(settings)
}

/// Runs the server until it is told to end.
pub fn serve(args: ServeArgs) -> Result<(), AppError> {
    let settings = read_config(&args)?;
    logging::start(&settings.logging);
    log_warnings(&settings);
    let metrics = Arc::new(Metrics::new()?);
    let (reloader, registry) = reloader(&settings, metrics.clone())?;
    let address = format!("{}:{}", settings.server.host, settings.server.port);
    actix_web::rt::System::new().block_on(async move {
        let signals = Signals::new()?;
        let (commands, receiver) = channel();
        let orders = commands.clone();
        // A thread that has ended is on its way out with the server, and answers by dropping the order.
        let control = Control::new(move |order| drop(orders.send(Command::Order(order))));
        let mut listening = settings.clone();
        let ports = if settings.server.grpc_port.is_some() { 2 } else { 1 };
        listening.server.max_connections =
            open_files::connections_within_limit(settings.server.max_connections, ports);
        let server = http::Server::bind(&listening, registry.clone(), metrics, control.clone())
            .map_err(|source| AppError::Listen { address, source })?;
        let grpc = bind_grpc(&listening, &registry, control)?;
        // Whoever starts the server waits for the line about HTTP, so it comes last.
        if let Some(grpc) = &grpc {
            log::info!("listening for gRPC on {}", grpc.address());
        }
        for address in server.addresses() {
            log::info!("listening on http://{address}");
        }
        let models = ModelThread::start((commands, receiver), reloader, registry.clone(), args, &settings)?;
        Running {
            settings,
            registry,
            servers: Servers { http: server, grpc },
            models,
            signals,
        }
        .run()
        .await
    })
}

fn bind_grpc(
    settings: &Settings,
    registry: &Arc<Registry>,
    control: Control,
) -> Result<Option<grpc::Server>, AppError> {
    let Some(port) = settings.server.grpc_port else {
        return Ok(None);
    };
    grpc::Server::bind(settings, port, registry.clone(), control)
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

/// What a plugin file says about itself.
pub fn inspect(file: &Path) -> Result<Inspection, LoadError> {
    loader::inspect(&TrialProgram::this_server(), file, INSPECT_TIMEOUT)
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
    let prepare_threads = settings.server.prepare_threads.get();
    let prepare_pool = engine::prepare_pool("prepare", prepare_threads)?;
    let loader =
        Loader::new(&settings.server.scratch_dir, TrialProgram::this_server()).map_err(AppError::Loader)?;
    let context = LoadContext {
        enclosures: Arc::new(Enclosures::new(loader.scratch_folder().to_owned())),
        loader,
        trial_timeout: settings.server.reload_timeout,
        cores: thread::available_parallelism().map_or(1, NonZeroUsize::get),
        decode_example: http::decode_example,
        program: Program::this_server(),
        prepare_threads,
        model_nice: i32::from(settings.server.model_nice),
        start_timeout: settings.server.reload_timeout,
        metrics: metrics.clone(),
    };
    let reloader = Reloader::new(
        context,
        registry.clone(),
        metrics,
        prepare_pool,
        settings.server.model_nice,
        settings.server.reload_timeout,
        settings.server.drain_timeout,
    );
    Ok((reloader, registry))
}

/// What the thread that owns the models is told.
enum Command {
    Reload,
    /// A client's order about one model.
    Order(Pending),
    ShutDown {
        deadline: Instant,
        done: oneshot::Sender<Result<(), Vec<String>>>,
    },
}

/// The thread that loads, reloads and unloads models, one thing after the other.
struct ModelThread {
    commands: Sender<Command>,
    thread: JoinHandle<()>,
}

/// How often retired generations are looked after.
const REAP_INTERVAL: Duration = Duration::from_millis(100);

impl ModelThread {
    fn start(
        (commands, receiver): (Sender<Command>, Receiver<Command>),
        reloader: Reloader,
        registry: Arc<Registry>,
        args: ServeArgs,
        settings: &Settings,
    ) -> io::Result<Self> {
        let settings = settings.clone();
        let thread = thread::Builder::new().name("models".to_owned()).spawn(move || {
            ModelLoop {
                reloader,
                registry,
                args,
                settings,
            }
            .run(&receiver)
        })?;
        Ok(Self { commands, thread })
    }

    fn reload(&self) {
        // A thread that has ended is on its way out with the server.
        let _ = self.commands.send(Command::Reload);
    }

    async fn shut_down(self, deadline: Instant) -> Result<(), Abandoned> {
        let (done, finished) = oneshot::channel();
        let _ = self.commands.send(Command::ShutDown { deadline, done });
        // A load that is under way cannot be stopped: it ends with the process.
        match tokio::time::timeout_at((deadline + REAP_INTERVAL).into(), finished).await {
            Ok(Ok(result)) => {
                let _ = self.thread.join();
                result.map_err(Abandoned::Models)
            }
            Ok(Err(_)) | Err(_) => Err(Abandoned::Load),
        }
    }
}

struct ModelLoop {
    reloader: Reloader,
    registry: Arc<Registry>,
    args: ServeArgs,
    /// As at the last success.
    settings: Settings,
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
                log::error!("the server is not ready; repair what is named above and send SIGHUP");
            }
        }
        self.warn_of_unused_variables(&self.settings);
        let mut draining = false;
        loop {
            let command = if draining {
                commands.recv_timeout(REAP_INTERVAL)
            } else {
                commands.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match command {
                Ok(Command::Reload) => self.reload(),
                Ok(Command::Order(pending)) => {
                    let result = match pending.order {
                        Order::Load => self.load(&pending.model),
                        Order::Unload => self.unload(&pending.model),
                    };
                    // Whoever ordered it may have gone.
                    let _ = pending.done.send(result);
                }
                Ok(Command::ShutDown { deadline, done }) => {
                    let _ = done.send(self.reloader.shut_down(deadline));
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            draining = self.reloader.reap();
        }
    }

    fn reload(&mut self) {
        log::info!("reload: reading {}", self.args.config.display());
        let started = clock::now();
        let settings = match read_config(&self.args) {
            Ok(settings) => settings,
            Err(error) => {
                log::error!("reload refused, the old configuration goes on: {}", Chain(&error));
                self.reloader
                    .reload_refused("the configuration has errors; see the server's log");
                return;
            }
        };
        log_warnings(&settings);
        if self.needs_restart(&settings) {
            log::warn!(
                "reload: changes to [logging], and to [server] but for request_timeout and plugin_dir, take effect when \
                 the server is restarted"
            );
        }
        match self.reloader.reload(&settings.models) {
            Ok(summary) => {
                log::info!("reload: {summary}; took {} ms", started.elapsed().as_millis());
                self.warn_of_unused_variables(&settings);
                self.settings.models = settings.models;
            }
            Err(failures) => {
                for failure in &failures {
                    log::error!("{failure}");
                }
                log::error!("reload refused, the old configuration goes on");
            }
        }
    }

    /// Loads one model as the configuration has it now.
    fn load(&mut self, model: &str) -> Result<(), Failure> {
        log::info!(
            "a client loads model `{model}`: reading {}",
            self.args.config.display()
        );
        let settings = read_config(&self.args).map_err(|error| {
            log::error!("the model is not loaded: {}", Chain(&error));
            Failure::new(
                Code::Internal,
                "the configuration has errors; see the server's log",
            )
        })?;
        let Some(wanted) = settings.models.iter().find(|settings| settings.name == model) else {
            let names = settings.models.iter().map(|settings| settings.name.as_str());
            return Err(Failure::unknown_model(model, names));
        };
        self.reloader.load(wanted).map_err(|failures| {
            for failure in &failures {
                log::error!("{failure}");
            }
            let reason = failures
                .first()
                .map(ModelFailure::public_reason)
                .unwrap_or_default();
            Failure::new(
                Code::ModelFault,
                format!("model `{model}` cannot be loaded: {reason}"),
            )
        })
    }

    fn unload(&mut self, model: &str) -> Result<(), Failure> {
        if self.reloader.unload(model) {
            log::info!("a client has unloaded model `{model}`");
            return Ok(());
        }
        let snapshot = self.registry.snapshot();
        let names: Vec<&str> = snapshot.models().map(|entry| entry.name()).collect();
        Err(Failure::unknown_model(model, names.iter().copied()))
    }

    /// Whether something changed that is read at start only. What models take from [server] is not.
    fn needs_restart(&self, new: &Settings) -> bool {
        let taken_by_models = ServerSettings {
            request_timeout: new.server.request_timeout,
            plugin_dir: new.server.plugin_dir.clone(),
            ..self.settings.server.clone()
        };
        new.server != taken_by_models || new.logging != self.settings.logging
    }

    /// Warns of environment variables for tasks that none of the loaded models has.
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

/// What a shutdown did not wait for any longer.
enum Abandoned {
    /// A load was under way.
    Load,
    /// These models were still computing.
    Models(Vec<String>),
}

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load => f.write_str("a model was still being loaded"),
            Self::Models(models) => write!(f, "still computing: {}", models.join(", ")),
        }
    }
}

/// The server while it runs.
struct Running {
    settings: Settings,
    registry: Arc<Registry>,
    servers: Servers,
    models: ModelThread,
    signals: Signals,
}

/// What listens.
struct Servers {
    http: http::Server,
    grpc: Option<grpc::Server>,
}

impl Servers {
    /// Stops accepting, and waits until every accepted request is answered or `deadline` has passed. Returns whether all
    /// were answered.
    async fn drain(self, deadline: Instant) -> bool {
        let grpc = async {
            match self.grpc {
                Some(grpc) => grpc.drain(deadline).await,
                None => true,
            }
        };
        let (http, grpc) = tokio::join!(self.http.drain(deadline), grpc);
        http && grpc
    }
}

impl Running {
    async fn run(mut self) -> Result<(), AppError> {
        while let Signal::Reload = self.signals.next().await {
            self.models.reload();
        }
        let Self {
            settings,
            registry,
            servers,
            models,
            mut signals,
        } = self;
        let shut_down = shut_down(&settings, &registry, servers, models);
        tokio::pin!(shut_down);
        loop {
            tokio::select! {
                result = &mut shut_down => return result,
                signal = signals.next() => {
                    if signal == Signal::Terminate {
                        log::warn!("told to end a second time: ending now");
                        return Err(AppError::Abandoned("told to end a second time".to_owned()));
                    }
                }
            }
        }
    }
}

/// Not ready at once; serves on for a while, so that balancers notice; then finishes what was accepted and ends.
async fn shut_down(
    settings: &Settings,
    registry: &Registry,
    servers: Servers,
    models: ModelThread,
) -> Result<(), AppError> {
    let delay = settings.server.shutdown_delay;
    log::info!(
        "shutting down: not ready from now on; serving on for {} s",
        delay.as_secs_f64()
    );
    registry.start_draining();
    tokio::time::sleep(delay).await;
    let deadline = clock::now() + settings.server.drain_timeout;
    if !servers.drain(deadline).await {
        log::error!(
            "requests were still being answered after {} s",
            settings.server.drain_timeout.as_secs_f64()
        );
    }
    match models.shut_down(deadline).await {
        Ok(()) => {
            log::info!("shut down");
            Ok(())
        }
        // Nothing was promised to anybody.
        Err(Abandoned::Load) => {
            log::warn!("shut down while {}", Abandoned::Load);
            Ok(())
        }
        Err(abandoned) => Err(AppError::Abandoned(abandoned.to_string())),
    }
}
