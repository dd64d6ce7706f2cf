//! Merges the values of all sources, by precedence, into settings.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::document::Document;
use super::error::{ConfigError, ConfigErrors, ConfigWarning, Location, Origin};
use super::features::Features;
use super::file::{self, ModelTable, TaskTable, WrittenFile};
use super::keys::{
    IsolationName, KeyDefault, Located, Section, WrittenEmbeddings, WrittenJobs, WrittenLogging,
    WrittenMetrics, WrittenModel, WrittenServer, WrittenTls,
};
use super::lints;
use super::listeners;
use super::otel;
use super::overrides::{self, Environment, Layer, Overrides};
use super::rule::Written;
use super::settings::{
    BatchingLayers, CalibrationSource, EmbeddingSettings, Isolation, JobSettings, JobStoreSetting,
    LoggingSettings, ModelPlaces, ModelSettings, ProcessSettings, ServerSettings, Settings, TaskOverrides,
    TlsSettings, TracingSettings, UncomparedLocation, UncomparedOrigin, written_value,
};
use crate::metrics::Buckets;
use crate::resources::{Resources, Sandbox};
use crate::tls::TlsFiles;

/// The text of the configuration file.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its name, as the operator gave it. Errors start with it.
    pub file_name: &'a str,
    /// Its content.
    pub text: &'a str,
    /// Its directory, where relative paths start.
    pub base_dir: &'a Path,
}

/// Properties of the machine that defaults depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Directory of the executable.
    pub executable_dir: PathBuf,
    /// Number of cores that this process can use.
    pub cores: NonZeroUsize,
    /// The system's directory for temporary files.
    pub temp_dir: PathBuf,
    /// Memory in bytes that this process can use, if the system reports it.
    pub memory: Option<u64>,
}

/// The result of resolving a configuration that may have errors.
#[derive(Clone, Debug)]
pub struct Examined {
    /// The settings. Invalid values are replaced by their defaults, and models without a name or a plugin are omitted.
    pub settings: Settings,
    /// The errors of all sources, in no particular order.
    pub errors: Vec<ConfigError>,
    text: String,
}

impl Examined {
    /// Quotes the line of the file at `origin`, for errors that are found later.
    pub fn excerpt(&self, origin: &Origin) -> Option<String> {
        Document::new("", &self.text).line_of(origin)
    }
}

/// Resolves the configuration. `env` can be the whole environment: variables without the prefix `INFERENCE_` are ignored.
///
/// # Errors
///
/// All errors of all sources.
pub fn resolve(
    source: Source<'_>,
    env: &BTreeMap<String, String>,
    flags: &Overrides,
    facts: &Facts,
) -> Result<Settings, ConfigErrors> {
    let examined = examine(source, env, flags, facts);
    match ConfigErrors::collect(examined.errors) {
        Some(errors) => Err(errors),
        None => Ok(examined.settings),
    }
}

/// Like [`resolve`], but returns the settings as far as they can be resolved, together with the errors.
pub fn examine(
    source: Source<'_>,
    env: &BTreeMap<String, String>,
    flags: &Overrides,
    facts: &Facts,
) -> Examined {
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    let document = Document::new(source.file_name, source.text);
    let written = file::read(&document, &mut errors);
    let environment = overrides::environment(env, flags, &mut errors, &mut warnings);
    let flags = overrides::command_line(flags, &mut errors);
    reject_duplicates(&document, &written.models, &mut errors);
    reject_limits_in_threads(&document, &written.models, &mut errors);
    reject_unpredictable_budgets(&document, &written.models, &mut errors);
    let servers = [&flags.server, &environment.layer.server, &written.server];
    let collector = written.tracing.endpoint.as_ref();
    let jobs = [&flags.jobs, &environment.layer.jobs, &written.jobs];
    Features::BUILT.reject_missing(
        &document,
        (&servers, &jobs),
        collector,
        &written.models,
        &mut errors,
    );
    let tracing = otel::tracing(written.tracing.clone(), env, Features::BUILT.traces);
    errors.extend(tracing.errors);
    warnings.extend(tracing.warnings);
    let tls = [&flags.tls, &environment.layer.tls, &written.tls];
    listeners::reject_incomplete(&document, &servers, &tls, &mut errors);
    let settings = merge(
        &document,
        source.base_dir,
        written,
        environment,
        flags,
        facts,
        (tracing.settings, warnings),
    );
    Examined {
        settings,
        errors,
        text: source.text.to_owned(),
    }
}

/// The built-in defaults of everything except models.
pub(super) fn built_in() -> Layer {
    let mut layer = Layer::empty();
    for (_, section) in layer.sections() {
        fill_in_defaults(section);
    }
    layer
}

/// Reads the built-in defaults of a section, by the same rules as values of the file.
pub(super) fn fill_in_defaults(section: &mut dyn Section) {
    for key in section.keys() {
        if let KeyDefault::Value(text) = key.default {
            let value = DeValue::parse(text).expect("built-in defaults are TOML, which a test checks");
            let read = section.read(key.name, &Written::Toml(value.get_ref()), Origin::BuiltIn);
            debug_assert!(
                matches!(read, Some(Ok(()))),
                "the default of `{}` violates its rule",
                key.name
            );
        }
    }
}

fn merge(
    document: &Document<'_>,
    base_dir: &Path,
    written: WrittenFile,
    environment: Environment,
    flags: Layer,
    facts: &Facts,
    (tracing, mut warnings): (TracingSettings, Vec<ConfigWarning>),
) -> Settings {
    let built_in = built_in();
    let paths = Paths { base_dir };
    let server = flags
        .server
        .or(&environment.layer.server)
        .or(&written.server)
        .or(&built_in.server);
    warnings.extend(lints::server(&server));
    warnings.extend(lints::management(&server));
    let tls = flags.tls.or(&environment.layer.tls).or(&written.tls);
    let server = server_settings(server, tls, &paths, facts);
    let logging = flags
        .logging
        .or(&environment.layer.logging)
        .or(&written.logging)
        .or(&built_in.logging);
    let metrics = flags
        .metrics
        .or(&environment.layer.metrics)
        .or(&written.metrics)
        .or(&built_in.metrics);
    let jobs = flags
        .jobs
        .or(&environment.layer.jobs)
        .or(&written.jobs)
        .or(&built_in.jobs);
    let jobs = job_settings(jobs, &paths, &server);
    let layers = BatchingLayers {
        flags: flags.batching,
        task_variables: environment.tasks,
        environment: environment.layer.batching,
        file: written.batching,
        built_in: built_in.batching,
    };
    if written.models.is_empty() {
        warnings.push(ConfigWarning {
            origin: Origin::File(document.locate(0)),
            message: "no models are configured".to_owned(),
            hint: Some("add a [[models]] table with `name` and `plugin`".to_owned()),
        });
    }
    for model in &written.models {
        warnings.extend(lints::isolation(&model.keys));
        warnings.extend(lints::calibration(&model.keys));
    }
    let models: Vec<ModelSettings> = written
        .models
        .into_iter()
        .filter_map(|model| model_settings(model, &server, &layers, &paths))
        .collect();
    warnings.extend(lints::batching(&layers, &models));
    Settings {
        server,
        logging: logging_settings(logging),
        tracing,
        metrics: buckets(metrics),
        jobs,
        models,
        keys: Vec::new(),
        warnings,
    }
}

/// Resolves relative paths.
struct Paths<'a> {
    base_dir: &'a Path,
}

impl Paths<'_> {
    /// A directory or a file. Relative paths start at the directory of the file if they are written there, otherwise at the working
    /// directory.
    fn directory(&self, written: Located<String>) -> PathBuf {
        match written.origin {
            Origin::File(_) => self.base_dir.join(written.value),
            Origin::Environment(_) | Origin::Flag(_) | Origin::BuiltIn => PathBuf::from(written.value),
        }
    }

    /// The file of a plugin that is given by path, or the files that it can be if it is given by name.
    fn plugin(&self, written: &str, plugin_dirs: &[PathBuf]) -> Vec<PathBuf> {
        if written.contains('/') || written.ends_with(".so") {
            vec![self.base_dir.join(written)]
        } else {
            let file = format!("lib{written}.so");
            plugin_dirs
                .iter()
                .map(|directory| directory.join(&file))
                .collect()
        }
    }
}

fn server_settings(
    written: WrittenServer,
    tls: WrittenTls,
    paths: &Paths<'_>,
    facts: &Facts,
) -> ServerSettings {
    let or_cores =
        |written: Option<Located<NonZeroUsize>>| written.map_or(facts.cores, |located| located.value);
    let api_keys_file = written.api_keys_file.map(|located| paths.directory(located));
    let directory = |written: Option<Located<String>>, default: &Path| {
        written.map_or_else(|| default.to_owned(), |located| paths.directory(located))
    };
    let max_body_size = written_value(written.max_body_size);
    let max_inflight_bytes = written.max_inflight_bytes.map_or_else(
        || default_inflight_bytes(facts.memory).max(max_body_size),
        |given| given.value,
    );
    let host = written_value(written.host);
    ServerSettings {
        management_host: written
            .management_host
            .map_or_else(|| host.clone(), |located| located.value),
        management_only: written_value(written.management_only),
        tls: tls_settings(tls, paths),
        host,
        port: written_value(written.port),
        grpc_port: written.grpc_port.map(|located| located.value),
        management_port: written.management_port.map(|located| located.value),
        http_workers: or_cores(written.http_workers),
        prepare_threads: or_cores(written.prepare_threads),
        max_connections: written_value(written.max_connections),
        keep_alive: written_value(written.keep_alive),
        header_timeout: written_value(written.header_timeout),
        body_timeout: written_value(written.body_timeout),
        max_body_size,
        max_inflight_bytes,
        memory_budget: written.memory_budget.map(|located| located.value),
        max_items_per_request: written_value(written.max_items_per_request),
        max_json_depth: written_value(written.max_json_depth),
        request_timeout: written_value(written.request_timeout),
        shutdown_delay: written_value(written.shutdown_delay),
        drain_timeout: written_value(written.drain_timeout),
        reload_timeout: written_value(written.reload_timeout),
        plugin_dirs: plugin_dirs(written.plugin_dir.map(|located| paths.directory(located)), facts),
        scratch_dir: directory(written.scratch_dir, &facts.temp_dir),
        allow_writable_plugins: written_value(written.allow_writable_plugins),
        compression: written_value(written.compression),
        cors_allowed_origins: written_value(written.cors_allowed_origins),
        model_nice: written_value(written.model_nice),
        api_keys: written_value(written.api_keys),
        api_keys_file,
        admin_key: written.admin_key.map(|located| located.value),
        docs: written_value(written.docs) && Features::BUILT.docs,
        ui: written_value(written.ui) && Features::BUILT.ui,
    }
}

/// The files of the certificate. `None` if one of the two required ones is missing, which has been reported if the other is
/// set.
fn tls_settings(written: WrittenTls, paths: &Paths<'_>) -> Option<TlsSettings> {
    let place = |written: Option<Located<String>>| {
        let located = written?;
        let origin = UncomparedOrigin(located.origin.clone());
        Some((paths.directory(located), origin))
    };
    let (cert, cert_origin) = place(written.cert)?;
    let (key, key_origin) = place(written.key)?;
    let (client_ca, client_ca_origin) = place(written.client_ca).unzip();
    Some(TlsSettings {
        files: TlsFiles { cert, key, client_ca },
        cert_origin,
        key_origin,
        client_ca_origin,
    })
}

/// The directories searched for plugins: the configured one, that of the executable, and that of an installation, such as
/// `/usr/lib/inference-server` for `/usr/bin`.
fn plugin_dirs(configured: Option<PathBuf>, facts: &Facts) -> Vec<PathBuf> {
    let bin = &facts.executable_dir;
    let installed = bin.parent().map(|prefix| prefix.join("lib/inference-server"));
    let mut directories: Vec<PathBuf> = Vec::new();
    for directory in configured.into_iter().chain([bin.clone()]).chain(installed) {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories
}

/// The default of `max_inflight_bytes` if the system does not report how much memory there is.
const UNKNOWN_MEMORY_BUDGET: u64 = 1 << 30;

/// A quarter of the memory that the server can use: models need the rest.
fn default_inflight_bytes(memory: Option<u64>) -> usize {
    let quarter = memory.map_or(UNKNOWN_MEMORY_BUDGET, |memory| memory / 4);
    usize::try_from(quarter).unwrap_or(usize::MAX)
}

fn logging_settings(written: WrittenLogging) -> LoggingSettings {
    LoggingSettings {
        level: written_value(written.level),
        format: written_value(written.format),
        access_log: written_value(written.access_log),
        access_log_exclude: written_value(written.access_log_exclude),
        slow_request_log: written_value(written.slow_request_log),
    }
}

fn job_settings(written: WrittenJobs, paths: &Paths<'_>, server: &ServerSettings) -> JobSettings {
    let path = match written.path {
        Some(located) => paths.directory(located),
        None => paths.base_dir.join("jobs.sqlite"),
    };
    let store = written_value(written.store);
    JobSettings {
        enabled: written_value(written.enabled) && Features::BUILT.jobs,
        store: match store.expose() {
            "sqlite" => JobStoreSetting::Sqlite(path),
            _ => JobStoreSetting::Postgres(store),
        },
        max_queued_jobs: written_value(written.max_queued_jobs).get(),
        max_job_size: written
            .max_job_size
            .map_or(server.max_body_size, |located| located.value),
        max_result_size: written_value(written.max_result_size),
        max_disk_size: written_value(written.max_disk_size) as u64,
        retention: written_value(written.retention),
        max_attempts: u32::try_from(written_value(written.max_attempts).get()).unwrap_or(u32::MAX),
        lease: written_value(written.lease),
        webhook_secret: written.webhook_secret.map(|located| located.value),
        webhook_allowed_hosts: written_value(written.webhook_allowed_hosts),
        webhook_timeout: written_value(written.webhook_timeout),
        webhook_concurrency: written_value(written.webhook_concurrency).get(),
    }
}

fn buckets(written: WrittenMetrics) -> Buckets {
    Buckets {
        inference: written_value(written.inference_buckets),
        requests: written_value(written.request_buckets),
        stages: written_value(written.stage_buckets),
    }
}

fn embedding_settings(written: WrittenEmbeddings) -> EmbeddingSettings {
    let mut built_in = WrittenEmbeddings::empty();
    fill_in_defaults(&mut built_in);
    let keys = written.or(&built_in);
    let prompt = |written: Option<Located<String>>| written.map(|located| located.value);
    EmbeddingSettings {
        dimensions: written_value(keys.dimensions),
        token_ids: written_value(keys.token_ids),
        search_query: prompt(keys.search_query),
        search_document: prompt(keys.search_document),
        classification: prompt(keys.classification),
        clustering: prompt(keys.clustering),
    }
}

/// The settings of one model. `None` if a required key is missing, which has been reported already.
fn model_settings(
    table: ModelTable,
    server: &ServerSettings,
    layers: &BatchingLayers,
    paths: &Paths<'_>,
) -> Option<ModelSettings> {
    let mut built_in = WrittenModel::empty();
    fill_in_defaults(&mut built_in);
    let process_keys = lints::process_keys(&table.keys)
        .into_iter()
        .map(|(key, origin)| (key, place_of(origin, &table.header)))
        .collect();
    let keys = table.keys.or(&built_in);
    let embeddings = embedding_settings(table.embeddings);
    let plugin = keys.plugin?;
    let mut plugin_files = paths.plugin(&plugin.value, &server.plugin_dirs).into_iter();
    let process = ProcessSettings {
        on_crash: written_value(keys.on_crash),
        predict_timeout: written_value(keys.predict_timeout),
        restart_delay: written_value(keys.restart_delay),
        max_restart_delay: written_value(keys.max_restart_delay),
    };
    Some(ModelSettings {
        name: keys.name?.value,
        sha256: keys.sha256.map(|located| located.value),
        plugin: plugin_files.next()?,
        plugin_alternatives: plugin_files.collect(),
        isolation: match keys.isolation.map(|located| located.value) {
            Some(IsolationName::Thread) => Isolation::Thread,
            Some(IsolationName::Process) => Isolation::Process(process),
            None => Isolation::AsDeclared(process),
        },
        workers: written_value(keys.workers),
        resources: Resources {
            max_memory: keys.max_memory.map(|located| located.value as u64),
            cpus: keys.cpus.map(|located| located.value),
            env: table.env.map(|env| env.variables).unwrap_or_default(),
            sandbox: written_value(keys.sandbox),
        },
        memory_budget: keys.memory_budget.map(|located| located.value),
        calibration: keys.calibration.map(|located| match located.value.as_str() {
            "auto" => CalibrationSource::Auto,
            file => CalibrationSource::File(paths.base_dir.join(file)),
        }),
        calibration_timeout: written_value(keys.calibration_timeout),
        nice: keys.nice.map(|located| located.value),
        warm_up: written_value(keys.warm_up),
        description: keys.description.map(|located| located.value),
        request_timeout: keys
            .request_timeout
            .map_or(server.request_timeout, |located| located.value),
        embeddings,
        settings: table.settings.value,
        base_dir: paths.base_dir.to_owned(),
        batching: BatchingLayers {
            file: table.batching.or(&layers.file),
            ..layers.clone()
        },
        tasks: table.tasks.into_iter().map(task_overrides).collect(),
        places: ModelPlaces {
            plugin: place_of(&plugin.origin, &table.header),
            default_task: keys
                .default_task
                .as_ref()
                .map(|located| place_of(&located.origin, &table.header)),
            process_keys,
            model: UncomparedLocation(table.header),
            settings: table.settings.places,
        },
        default_task: keys.default_task.map(|located| located.value),
    })
}

fn task_overrides(table: TaskTable) -> (String, TaskOverrides) {
    let overrides = TaskOverrides {
        batching: table.batching,
        route: table.route,
        header: UncomparedLocation(table.header),
    };
    (table.name, overrides)
}

fn place_of(origin: &Origin, header: &Location) -> UncomparedLocation {
    match origin {
        Origin::File(location) => UncomparedLocation(location.clone()),
        Origin::Environment(_) | Origin::Flag(_) | Origin::BuiltIn => UncomparedLocation(header.clone()),
    }
}

/// Limits apply to processes: the threads of one process share its memory, its environment and its files.
fn reject_limits_in_threads(document: &Document<'_>, models: &[ModelTable], errors: &mut Vec<ConfigError>) {
    for model in models {
        let keys = &model.keys;
        if keys
            .isolation
            .as_ref()
            .is_some_and(|located| located.value == IsolationName::Process)
        {
            continue;
        }
        let of = |name, origin: Option<&Origin>| origin.map(|origin| (name, origin.clone()));
        let env = model.env.as_ref().map(|env| Origin::File(env.header.clone()));
        let written = [
            of(
                "`max_memory`",
                keys.max_memory.as_ref().map(|located| &located.origin),
            ),
            of("`cpus`", keys.cpus.as_ref().map(|located| &located.origin)),
            of(
                "`sandbox`",
                keys.sandbox
                    .as_ref()
                    .filter(|located| located.value != Sandbox::Off)
                    .map(|located| &located.origin),
            ),
            of("[models.env]", env.as_ref()),
        ];
        for (name, origin) in written.into_iter().flatten() {
            let message = format!("{name} requires `isolation = \"process\"`");
            let hint = format!("add `isolation = \"process\"` to the model, or remove {name}");
            errors.push(ConfigError {
                excerpt: document.line_of(&origin),
                ..ConfigError::new(origin, message, Some(hint))
            });
        }
    }
}

/// A budget has an effect only on batches whose memory is predicted.
fn reject_unpredictable_budgets(
    document: &Document<'_>,
    models: &[ModelTable],
    errors: &mut Vec<ConfigError>,
) {
    let budgets = models.iter().filter(|model| model.keys.calibration.is_none());
    for budget in budgets.filter_map(|model| model.keys.memory_budget.as_ref()) {
        let hint =
            "add `calibration = \"auto\"` to the model, or the file that `inference-server calibrate` writes";
        errors.push(ConfigError {
            excerpt: document.line_of(&budget.origin),
            ..ConfigError::new(
                budget.origin.clone(),
                "`memory_budget` requires `calibration`".to_owned(),
                Some(hint.to_owned()),
            )
        });
    }
}

/// Names of models, and routes, must be unique.
fn reject_duplicates(document: &Document<'_>, models: &[ModelTable], errors: &mut Vec<ConfigError>) {
    let names = models.iter().filter_map(|model| model.keys.name.as_ref());
    let routes = models
        .iter()
        .flat_map(|model| &model.tasks)
        .filter_map(|task| task.route.as_ref());
    let name_hint = |first: &Origin| format!("first used at {first}; give each model its own name");
    let route_hint = |first: &Origin| format!("first used at {first}; give each task its own route");
    reject_repeated(document, "model name", names, name_hint, errors);
    reject_repeated(document, "route", routes, route_hint, errors);
}

fn reject_repeated<'a>(
    document: &Document<'_>,
    what: &str,
    all: impl Iterator<Item = &'a Located<String>>,
    hint: impl Fn(&Origin) -> String,
    errors: &mut Vec<ConfigError>,
) {
    let mut all: Vec<_> = all.collect();
    all.sort_by(|a, b| a.origin.cmp(&b.origin));
    let mut first_of: BTreeMap<&str, &Origin> = BTreeMap::new();
    for located in all {
        match first_of.get(located.value.as_str()) {
            Some(first) => errors.push(ConfigError {
                excerpt: document.line_of(&located.origin),
                ..ConfigError::new(
                    located.origin.clone(),
                    format!("duplicate {what} \"{}\"", located.value),
                    Some(hint(first)),
                )
            }),
            None => {
                first_of.insert(&located.value, &located.origin);
            }
        }
    }
}
