//! Merges the values of all sources, by precedence, into settings.

mod conflicts;
mod models;
mod paths;
mod server;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::document::Document;
use super::error::{ConfigError, ConfigErrors, ConfigWarning, Origin};
use super::features::Features;
use super::file::{self, WrittenFile};
use super::keys::{WrittenJobs, WrittenLogging, WrittenMetrics};
use super::lints;
use super::listeners;
use super::otel;
use super::overrides::{self, Environment, Layer, Overrides};
use super::rule::Written;
use super::section::{KeyDefault, Section};
use super::settings::{
    BatchingLayers, JobSettings, JobStoreSetting, LoggingSettings, ModelSettings, ServerSettings, Settings,
    TracingSettings, written_value,
};
use crate::metrics::Buckets;
use conflicts::{reject_duplicates, reject_limits_in_threads, reject_unpredictable_budgets};
use models::model_settings;
use paths::Paths;
use server::server_settings;

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
