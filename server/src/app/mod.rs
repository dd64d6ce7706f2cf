//! The application: builds the parts of the server, owns every thread, and defines the order of start, reload (`models`) and
//! shutdown (`running`).

#[cfg(feature = "calibrate")]
mod calibrate;
mod certificates;
mod check;
mod control_socket;
mod error;
mod files;
mod interruptible;
mod json_schema;
mod key_file;
mod load_once;
mod models;
mod running_server;
mod scratch_cleanup;
mod service_manager;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::api::ApiKeys;
use crate::api::live::NotableRequests;
use crate::api::model_control::ModelControl;
use crate::api::traces::{TraceExporter, Tracer};
use crate::api::{SlowRequestLog, Telemetry};
use crate::build_info;
use crate::byte_budget::ByteBudget;
use crate::cli::ServeArgs;
use crate::codec;
use crate::config::{self, ConfigErrors, Examined, Facts, LogFormat, ModelSettings, Settings, Source};
use crate::crash;
use crate::engine::ServerMemory;
use crate::error::Chain;
#[cfg(feature = "grpc")]
use crate::grpc;
use crate::http;
use crate::isolation::confine::{Confinement, ResourceAllocator};
use crate::isolation::{self, LoadFailure, Program};
use crate::jobs::webhooks::Deliverer;
use crate::jobs::{Jobs, Runner};
use crate::loader::{self, Inspection, LoadError, Loader, ProbeProgram};
use crate::logging;
#[cfg(feature = "traces")]
use crate::metrics::TraceMetrics;
use crate::metrics::{JobMetrics, Metrics};
use crate::registry::{ModelStateMetrics, Registry};
use crate::reload::{LoadEnvironment, Reloader};
use crate::signals::Signals;
use crate::system_memory;
#[cfg(feature = "grpc")]
use crate::tls::Certificates;
use crate::values::Value;
use models::{Command, Current, ModelThread};
use running_server::{Running, Servers};
use scratch_cleanup::ScratchCleanup;
use service_manager::PassedSockets;
use watch::{watch_keys, watch_workers};

#[cfg(feature = "calibrate")]
pub use calibrate::{ModelReport, calibrate};
pub use check::{Checked, check};
pub use control_socket::{ReloadError, reload};
pub use error::AppError;
pub use key_file::{NewKey, NewKeyError, new_key};

/// Reads and resolves the configuration, at startup and for a reload.
pub fn read_config(args: &ServeArgs) -> Result<Settings, AppError> {
    let examined = read_config_leniently(args)?;
    match ConfigErrors::collect(examined.errors) {
        Some(errors) => Err(AppError::Config(errors)),
        None => Ok(examined.settings),
    }
}

/// Like [`read_config`], but returns the errors together with the settings that can be resolved.
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
        memory: system_memory::available_memory(),
    };
    let mut examined = config::examine(source, &env, &args.overrides, &facts);
    examined.settings.find_plugins(Path::is_file);
    read_keys(&mut examined);
    Ok(examined)
}

/// Reads the file of named keys, if there is one.
fn read_keys(examined: &mut Examined) {
    let settings = &mut examined.settings;
    let Some(file) = &settings.server.api_keys_file else {
        return;
    };
    match key_file::read(file) {
        Ok(keys) => {
            let unmatched = config::unmatched_models(&keys, &settings.models);
            settings.warnings.extend(unmatched);
            settings.keys = keys;
        }
        Err(errors) => examined.errors.extend(errors),
    }
}

/// Runs the server until it receives a termination signal.
pub fn serve(args: ServeArgs) -> Result<(), AppError> {
    // Before anything else opens files.
    let sockets = PassedSockets::take()?;
    let settings = read_config(&args)?;
    logging::start(&settings.logging);
    crash::install(settings.logging.format == LogFormat::Json)?;
    log_warnings(&settings);
    let serves_grpc = settings.server.grpc_port.is_some() || sockets.grpc.is_some();
    let max_connections = files::connections(&settings, serves_grpc)?;
    // After what can prevent the start, whose error is then the only line.
    log::info!("inference-server {}", build_info::summary());
    actix_web::rt::System::new().block_on(async move {
        // First, so that a signal during startup is neither lost nor terminates the process.
        let signals = Signals::new()?;
        let metrics = Arc::new(Metrics::new(settings.metrics.clone())?);
        let (reloader, registry) = reloader(&settings, metrics.clone())?;
        let _cleanup = ScratchCleanup::of(reloader.scratch_directory());
        let (commands, receiver) = channel();
        let (client_commands, control_commands) = (commands.clone(), commands.clone());
        // If the thread has stopped, the server is shutting down. Dropping the command answers it.
        let control = ModelControl::new(move |command| drop(client_commands.send(Command::Model(command))));
        let mut listening = settings.clone();
        listening.server.max_connections = max_connections;
        let budget = ByteBudget::new(settings.server.max_inflight_bytes as u64);
        metrics.expose_budget(&budget)?;
        let jobs = Arc::new(Jobs::new(settings.jobs.clone(), JobMetrics::new(&metrics)?));
        jobs.open().await?;
        let certificates = certificates::open(&settings, &metrics)?;
        let keys = ApiKeys::new(&settings.server, &settings.keys, &metrics)?;
        let (telemetry, traces) = telemetry(&settings, metrics)?;
        let server = http::Server::bind(
            &listening,
            sockets.http,
            certificates.clone(),
            registry.clone(),
            telemetry.clone(),
            (control.clone(), keys.clone()),
            (budget.clone(), jobs.clone()),
        )?;
        #[cfg(not(feature = "grpc"))]
        reject_grpc_socket(sockets.grpc.as_ref())?;
        #[cfg(feature = "grpc")]
        let grpc = bind_grpc(
            &listening,
            (sockets.grpc, certificates.clone()),
            &registry,
            &telemetry,
            control,
            keys.clone(),
            budget,
        )?;
        // Scripts wait for the line about HTTP, so it is the last one.
        #[cfg(feature = "grpc")]
        if let Some(grpc) = &grpc {
            log::info!("listening for gRPC on {}", grpc.address());
        }
        for address in server.management_addresses() {
            log::info!("listening for management on http://{address}");
        }
        let scheme = if certificates.is_some() { "https" } else { "http" };
        for address in server.addresses() {
            log::info!("listening on {scheme}://{address}");
        }
        let heartbeats = server.heartbeats();
        let feed = server.live_feed();
        let current = Current {
            registry: registry.clone(),
            keys: keys.clone(),
        };
        let models = ModelThread::start(
            (commands, receiver),
            reloader,
            current,
            args,
            &settings,
            certificates.clone(),
        )?;
        let running_jobs = start_jobs(&jobs, &registry, &server)?;
        let running = Running {
            settings,
            registry: registry.clone(),
            servers: Servers {
                http: server,
                #[cfg(feature = "grpc")]
                grpc,
            },
            models,
            jobs: (jobs, running_jobs),
            traces,
            signals,
        };
        tokio::select! {
            result = running.run() => result,
            never = watch_workers(registry, telemetry, feed) => match never {},
            never = certificates::watch(certificates) => match never {},
            never = watch_keys(keys) => match never {},
            never = control_socket::serve(control_commands) => match never {},
            never = service_manager::feed_watchdog(|| heartbeats.wait_for_all()) => match never {},
        }
    })
}

/// Starts the thread that runs jobs and the task that delivers their webhooks, unless jobs are disabled.
fn start_jobs(
    jobs: &Arc<Jobs>,
    registry: &Arc<Registry>,
    server: &http::Server,
) -> Result<Option<(Runner, Deliverer)>, io::Error> {
    if !jobs.settings.enabled {
        return Ok(None);
    }
    let executor = server.job_executor();
    let runner = Runner::start(jobs.clone(), registry.clone(), move || executor)?;
    let deliverer = Deliverer::start(jobs.clone(), Arc::new(http::describe_job_for_webhook));
    Ok(Some((runner, deliverer)))
}

/// Rejects a socket for gRPC in a build that does not serve it.
#[cfg(not(feature = "grpc"))]
fn reject_grpc_socket(passed: Option<&TcpListener>) -> Result<(), AppError> {
    match passed {
        None => Ok(()),
        Some(_) => Err(AppError::Listen {
            address: "the socket for gRPC".to_owned(),
            source: io::Error::other("this build of the server omits the feature `grpc`"),
        }),
    }
}

/// Serves gRPC on the socket that was `passed`, or else on the configured port, if there is one. Requires TLS if there are
/// `certificates`.
#[cfg(feature = "grpc")]
fn bind_grpc(
    settings: &Settings,
    (passed, certificates): (Option<TcpListener>, Option<Arc<Certificates>>),
    registry: &Arc<Registry>,
    telemetry: &Arc<Telemetry>,
    control: ModelControl,
    keys: ApiKeys,
    budget: Arc<ByteBudget>,
) -> Result<Option<grpc::Server>, AppError> {
    let host = settings.server.host.as_str();
    let listener = match (passed, settings.server.grpc_port) {
        (Some(passed), _) => Ok(passed),
        (None, Some(port)) => TcpListener::bind((host, port)),
        (None, None) => return Ok(None),
    };
    listener
        .and_then(|listener| {
            let listener = (listener, certificates);
            grpc::Server::serve(
                settings,
                listener,
                registry.clone(),
                telemetry,
                control,
                keys,
                budget,
            )
        })
        .map(Some)
        .map_err(|source| {
            let port = settings.server.grpc_port.unwrap_or_default();
            AppError::Listen {
                address: format!("{host}:{port} for gRPC"),
                source,
            }
        })
}

/// What records requests, and the exporter of traces, if requests are traced.
fn telemetry(
    settings: &Settings,
    metrics: Arc<Metrics>,
) -> Result<(Arc<Telemetry>, Option<TraceExporter>), AppError> {
    let slow_requests = SlowRequestLog::new(settings.logging.slow_request_log);
    #[cfg(feature = "traces")]
    let (tracer, exporter) = match TraceExporter::start(&settings.tracing, TraceMetrics::new(&metrics)?)? {
        Some((tracer, exporter)) => (tracer, Some(exporter)),
        None => (Tracer::default(), None),
    };
    #[cfg(not(feature = "traces"))]
    let (tracer, exporter) = (Tracer::default(), None);
    let telemetry = Telemetry {
        metrics,
        slow_requests,
        notable_requests: NotableRequests::default(),
        tracer,
    };
    Ok((Arc::new(telemetry), exporter))
}

fn log_warnings(settings: &Settings) {
    for warning in &settings.warnings {
        log::warn!("{warning}");
    }
    if settings.models.is_empty() {
        log::warn!("no models are configured: add a [[models]] table, then send SIGHUP");
    }
}

/// Reads what a plugin declares, and checks it.
pub fn inspect(file: &Path) -> Result<Inspection, LoadError> {
    let program = ProbeProgram::this_server();
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

/// The child's side of the plugin probe: opens a plugin and writes a report. `confinement` is a [`Confinement`] as JSON.
pub fn run_probe(confinement: Option<&str>, file: &Path) -> ExitCode {
    loader::run_probe(file, || {
        let Some(json) = confinement else {
            return Ok(());
        };
        let confinement: Confinement = crate::json::from_str(json).map_err(|error| error.to_string())?;
        confinement.apply().map_err(|error| Chain(&error).to_string())
    })
}

/// A worker process: runs a model for the server that started this process, until that server closes the connection or exits.
pub fn run_model_process() -> ExitCode {
    // Worker processes ignore termination signals, such as those of Ctrl-C or a service manager that signals a whole group: the
    // server needs them for the requests that it has accepted, and stops them afterwards.
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
            error => LoadFailure::Plugin(Chain(&error).to_string()),
        })
    })
}

/// Timeout for a plugin to describe itself to `inspect`.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(60);

fn reloader(settings: &Settings, metrics: Arc<Metrics>) -> Result<(Reloader, Arc<Registry>), AppError> {
    let registry = Arc::new(Registry::default());
    metrics
        .registry()
        .register(Box::new(ModelStateMetrics::new(registry.clone())?))?;
    let reloader = Reloader::new(
        load_environment(settings, metrics.clone())?,
        registry.clone(),
        metrics,
        settings.server.reload_timeout,
        settings.server.drain_timeout,
    );
    Ok((reloader, registry))
}

/// What all loads of models share.
fn load_environment(settings: &Settings, metrics: Arc<Metrics>) -> Result<LoadEnvironment, AppError> {
    let prepare_threads = settings.server.prepare_threads.get();
    let model_nice = i32::from(settings.server.model_nice);
    let loader =
        Loader::new(&settings.server.scratch_dir, ProbeProgram::this_server()).map_err(AppError::Loader)?;
    let mut resource_allocator = ResourceAllocator::new(loader.scratch_directory().to_owned());
    let is_limited = |model: &ModelSettings| model.resources.max_memory.is_some();
    if settings.models.iter().any(is_limited) {
        resource_allocator.claim_cgroup();
    }
    let server_memory = settings.server.memory_budget.map(|budget| {
        let bytes = budget
            .bytes(system_memory::free_memory())
            .ok_or(AppError::UnknownMemory)?;
        log::info!("batches of all models share {} MiB of memory", bytes >> 20);
        Ok::<_, AppError>(ServerMemory::new(bytes))
    });
    let server_memory = server_memory.transpose()?;
    Ok(LoadEnvironment {
        resource_allocator: Arc::new(resource_allocator),
        loader,
        probe_timeout: settings.server.reload_timeout,
        cores: thread::available_parallelism().map_or(1, NonZeroUsize::get),
        program: Program::this_server(),
        prepare_threads,
        model_nice,
        start_timeout: settings.server.reload_timeout,
        metrics,
        server_memory,
        allow_writable_plugins: settings.server.allow_writable_plugins,
    })
}
