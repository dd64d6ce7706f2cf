//! Joins what was written, source by source, into settings.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::document::Document;
use super::error::{ConfigError, ConfigErrors, ConfigWarning, Location, Origin};
use super::file::{self, ModelTable, TaskTable, WrittenFile};
use super::keys::{
    Fallback, Given, IsolationName, Section, WrittenLogging, WrittenMetrics, WrittenModel, WrittenServer,
};
use super::oddities;
use super::overrides::{self, Environment, Layer, Overrides};
use super::rule::Written;
use super::settings::{
    BatchingLayers, Isolation, LoggingSettings, ModelPlaces, ModelSettings, Place, ProcessSettings,
    ServerSettings, Settings, TaskOverrides, written_value,
};
use crate::metrics::Buckets;
use crate::resources::{Resources, Sandbox};

/// The configuration file, as the application read it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its name, as the operator gave it. Errors begin with it.
    pub file_name: &'a str,
    /// Its content.
    pub text: &'a str,
    /// Its folder, where relative paths start.
    pub base_dir: &'a Path,
}

/// What the application found out about the machine, for defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Folder of the executable.
    pub executable_dir: PathBuf,
    /// Cores that this process may use.
    pub cores: NonZeroUsize,
    /// The system's folder for temporary files.
    pub temp_dir: PathBuf,
}

/// A configuration that may have errors.
#[derive(Clone, Debug)]
pub struct Examined {
    /// What can be resolved. Where a value is wrong, its default stands in; a model without a name or a plugin is left out.
    pub settings: Settings,
    /// Everything that is wrong with any of the sources, in no particular order.
    pub errors: Vec<ConfigError>,
    text: String,
}

impl Examined {
    /// Quotes the line of the file at `origin`, for an error that is found later.
    pub fn excerpt(&self, origin: &Origin) -> Option<String> {
        Document::new("", &self.text).line_of(origin)
    }
}

/// Resolves the configuration. `env` may be the whole environment: only variables that begin with `INFERENCE_` count.
///
/// # Errors
///
/// Everything that is wrong with any of the sources, at once.
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

/// As [`resolve`], but returns what can be resolved in spite of the errors beside them.
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
    let environment = overrides::environment(env, &mut errors, &mut warnings);
    let flags = overrides::command_line(flags, &mut errors);
    reject_duplicates(&document, &written.models, &mut errors);
    reject_limits_without_process(&document, &written.models, &mut errors);
    let settings = join(
        &document,
        source.base_dir,
        written,
        environment,
        flags,
        facts,
        warnings,
    );
    Examined {
        settings,
        errors,
        text: source.text.to_owned(),
    }
}

/// The built-in defaults of what is not about one model.
pub(super) fn built_in() -> Layer {
    let mut layer = Layer::empty();
    for (_, section) in layer.sections() {
        fill_in_defaults(section);
    }
    layer
}

/// Reads the built-in defaults, by the same rules as what is written in the file.
pub(super) fn fill_in_defaults(section: &mut dyn Section) {
    for key in section.keys() {
        if let Fallback::Value(text) = key.fallback {
            let value = DeValue::parse(text).expect("built-in defaults are TOML, as a test reads each");
            let read = section.read(key.name, &Written::Toml(value.get_ref()), Origin::BuiltIn);
            debug_assert!(
                matches!(read, Some(Ok(()))),
                "the default of `{}` breaks its own rule",
                key.name
            );
        }
    }
}

fn join(
    document: &Document<'_>,
    base_dir: &Path,
    written: WrittenFile,
    environment: Environment,
    flags: Layer,
    facts: &Facts,
    mut warnings: Vec<ConfigWarning>,
) -> Settings {
    let built_in = built_in();
    let paths = Paths { base_dir };
    let server = flags
        .server
        .or(&environment.layer.server)
        .or(&written.server)
        .or(&built_in.server);
    let server = server_settings(server, &paths, facts);
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
            message: "no models are configured, so nothing can be predicted".to_owned(),
            hint: Some("add a [[models]] table with `name` and `plugin`".to_owned()),
        });
    }
    for model in &written.models {
        warnings.extend(oddities::in_isolation(&model.keys));
    }
    let models: Vec<ModelSettings> = written
        .models
        .into_iter()
        .filter_map(|model| model_settings(model, &server, &layers, &paths))
        .collect();
    warnings.extend(oddities::in_batching(&layers, &models));
    Settings {
        server,
        logging: logging_settings(logging),
        metrics: buckets(metrics),
        models,
        warnings,
    }
}

/// Where paths start.
struct Paths<'a> {
    base_dir: &'a Path,
}

impl Paths<'_> {
    /// A folder: from the file it starts at the file's folder, from elsewhere at the working directory.
    fn folder(&self, given: Given<String>) -> PathBuf {
        match given.origin {
            Origin::File(_) => self.base_dir.join(given.value),
            Origin::Environment(_) | Origin::Flag(_) | Origin::BuiltIn => PathBuf::from(given.value),
        }
    }

    /// A plugin's file: by its name in the folder of plugins, or by its path.
    fn plugin(&self, written: &str, plugin_dir: &Path) -> PathBuf {
        if written.contains('/') || written.ends_with(".so") {
            self.base_dir.join(written)
        } else {
            plugin_dir.join(format!("lib{written}.so"))
        }
    }
}

fn server_settings(written: WrittenServer, paths: &Paths<'_>, facts: &Facts) -> ServerSettings {
    let or_cores = |given: Option<Given<NonZeroUsize>>| given.map_or(facts.cores, |given| given.value);
    let folder = |given: Option<Given<String>>, fallback: &Path| {
        given.map_or_else(|| fallback.to_owned(), |given| paths.folder(given))
    };
    ServerSettings {
        host: written_value(written.host),
        port: written_value(written.port),
        grpc_port: written.grpc_port.map(|given| given.value),
        http_workers: or_cores(written.http_workers),
        prepare_threads: or_cores(written.prepare_threads),
        max_connections: written_value(written.max_connections),
        keep_alive: written_value(written.keep_alive),
        header_timeout: written_value(written.header_timeout),
        body_timeout: written_value(written.body_timeout),
        max_body_size: written_value(written.max_body_size),
        max_items_per_request: written_value(written.max_items_per_request),
        max_json_depth: written_value(written.max_json_depth),
        request_timeout: written_value(written.request_timeout),
        shutdown_delay: written_value(written.shutdown_delay),
        drain_timeout: written_value(written.drain_timeout),
        reload_timeout: written_value(written.reload_timeout),
        plugin_dir: folder(written.plugin_dir, &facts.executable_dir),
        scratch_dir: folder(written.scratch_dir, &facts.temp_dir),
        compression: written_value(written.compression),
        cors_allowed_origins: written_value(written.cors_allowed_origins),
        model_nice: written_value(written.model_nice),
        api_keys: written_value(written.api_keys),
        admin_key: written.admin_key.map(|given| given.value),
        docs: written_value(written.docs),
    }
}

fn logging_settings(written: WrittenLogging) -> LoggingSettings {
    LoggingSettings {
        level: written_value(written.level),
        format: written_value(written.format),
        access_log: written_value(written.access_log),
        access_log_exclude: written_value(written.access_log_exclude),
    }
}

fn buckets(written: WrittenMetrics) -> Buckets {
    Buckets {
        inference: written_value(written.inference_buckets),
        requests: written_value(written.request_buckets),
        stages: written_value(written.stage_buckets),
    }
}

/// The settings of one model; `None` where a required key is missing, which is reported already.
fn model_settings(
    table: ModelTable,
    server: &ServerSettings,
    layers: &BatchingLayers,
    paths: &Paths<'_>,
) -> Option<ModelSettings> {
    let mut built_in = WrittenModel::empty();
    fill_in_defaults(&mut built_in);
    let process_keys = oddities::process_keys(&table.keys)
        .into_iter()
        .map(|(key, origin)| (key, place_of(origin, &table.header)))
        .collect();
    let keys = table.keys.or(&built_in);
    let plugin = keys.plugin?;
    let process = ProcessSettings {
        on_crash: written_value(keys.on_crash),
        predict_timeout: written_value(keys.predict_timeout),
        restart_delay: written_value(keys.restart_delay),
        max_restart_delay: written_value(keys.max_restart_delay),
    };
    Some(ModelSettings {
        name: keys.name?.value,
        plugin: paths.plugin(&plugin.value, &server.plugin_dir),
        isolation: match keys.isolation.map(|given| given.value) {
            Some(IsolationName::Thread) => Isolation::Thread,
            Some(IsolationName::Process) => Isolation::Process(process),
            None => Isolation::AsDeclared(process),
        },
        workers: written_value(keys.workers),
        resources: Resources {
            max_memory: keys.max_memory.map(|given| given.value as u64),
            cpus: keys.cpus.map(|given| given.value),
            env: table.env.map(|env| env.variables).unwrap_or_default(),
            sandbox: written_value(keys.sandbox),
        },
        nice: keys.nice.map(|given| given.value),
        warm_up: written_value(keys.warm_up),
        description: keys.description.map(|given| given.value),
        request_timeout: keys
            .request_timeout
            .map_or(server.request_timeout, |given| given.value),
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
                .map(|given| place_of(&given.origin, &table.header)),
            process_keys,
            model: Place(table.header),
            settings: table.settings.places,
        },
        default_task: keys.default_task.map(|given| given.value),
    })
}

fn task_overrides(table: TaskTable) -> (String, TaskOverrides) {
    let overrides = TaskOverrides {
        batching: table.batching,
        route: table.route,
        header: Place(table.header),
    };
    (table.name, overrides)
}

fn place_of(origin: &Origin, header: &Location) -> Place {
    match origin {
        Origin::File(location) => Place(location.clone()),
        Origin::Environment(_) | Origin::Flag(_) | Origin::BuiltIn => Place(header.clone()),
    }
}

/// Threads of one process share its memory, its environment and its files: limits need a process.
fn reject_limits_without_process(
    document: &Document<'_>,
    models: &[ModelTable],
    errors: &mut Vec<ConfigError>,
) {
    for model in models {
        let keys = &model.keys;
        if keys
            .isolation
            .as_ref()
            .is_some_and(|given| given.value == IsolationName::Process)
        {
            continue;
        }
        let of = |name, origin: Option<&Origin>| origin.map(|origin| (name, origin.clone()));
        let env = model.env.as_ref().map(|env| Origin::File(env.header.clone()));
        let written = [
            of(
                "`max_memory`",
                keys.max_memory.as_ref().map(|given| &given.origin),
            ),
            of("`cpus`", keys.cpus.as_ref().map(|given| &given.origin)),
            of(
                "`sandbox`",
                keys.sandbox
                    .as_ref()
                    .filter(|given| given.value != Sandbox::Off)
                    .map(|given| &given.origin),
            ),
            of("[models.env]", env.as_ref()),
        ];
        for (name, origin) in written.into_iter().flatten() {
            let message =
                format!("{name} needs a process of the model's own, and `isolation` does not ask for one");
            let hint = format!("add `isolation = \"process\"` to the model, or take {name} out");
            errors.push(ConfigError {
                excerpt: document.line_of(&origin),
                ..ConfigError::new(origin, message, Some(hint))
            });
        }
    }
}

/// Names of models and routes must be unique.
fn reject_duplicates(document: &Document<'_>, models: &[ModelTable], errors: &mut Vec<ConfigError>) {
    let names = models.iter().filter_map(|model| model.keys.name.as_ref());
    let routes = models
        .iter()
        .flat_map(|model| &model.tasks)
        .filter_map(|task| task.route.as_ref());
    let name_hint = |first: &Origin| format!("{first} has it already; give each model a name of its own");
    let route_hint = |first: &Origin| format!("{first} has it already; give each task a route of its own");
    reject_repeated(document, "model name", names, name_hint, errors);
    reject_repeated(document, "route", routes, route_hint, errors);
}

fn reject_repeated<'a>(
    document: &Document<'_>,
    what: &str,
    all: impl Iterator<Item = &'a Given<String>>,
    hint: impl Fn(&Origin) -> String,
    errors: &mut Vec<ConfigError>,
) {
    let mut all: Vec<_> = all.collect();
    all.sort_by(|a, b| a.origin.cmp(&b.origin));
    let mut first_of: BTreeMap<&str, &Origin> = BTreeMap::new();
    for given in all {
        match first_of.get(given.value.as_str()) {
            Some(first) => errors.push(ConfigError {
                excerpt: document.line_of(&given.origin),
                ..ConfigError::new(
                    given.origin.clone(),
                    format!("{what} \"{}\" is used twice", given.value),
                    Some(hint(first)),
                )
            }),
            None => {
                first_of.insert(&given.value, &given.origin);
            }
        }
    }
}
