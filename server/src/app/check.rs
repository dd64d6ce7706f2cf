//! The command `check`: reports all errors of a configuration, ordered by line.
//!
//! Without `--load`, no model is loaded. Each plugin is opened in a child process, and settings and task names are compared
//! with what the plugin declares.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plugin_abi::check as declarations;
use plugin_abi::check::Severity;
use plugin_abi::manifest::PluginManifest;

use super::load_once::load_once;
use super::{AppError, certificates, json_schema, read_config_leniently};
use crate::cli::ServeArgs;
use crate::config::{
    ConfigError, ConfigErrors, ConfigWarning, Examined, Location, LogFormat, ModelSettings, Origin,
    ServerSettings,
};
use crate::crash;
use crate::error::Chain;
use crate::loader::{self, FileTrust, LoadError, PluginProbe, ProbeProgram};
use crate::logging;
use crate::open_files;
use crate::reload::{ModelFailure, probe_options};

/// Timeout for a plugin to describe itself to `check`.
const PROBE_TIMEOUT: Duration = Duration::from_secs(60);

/// The result of a check without errors.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Number of models.
    pub models: usize,
    /// Lints.
    pub warnings: Vec<ConfigWarning>,
    /// What was not checked, and how it can be checked.
    pub unchecked: Vec<String>,
}

/// Checks a configuration and the plugins that it names. With `load`, also loads and warms up its models.
pub fn check(args: &ServeArgs, load: bool) -> Result<Checked, AppError> {
    let examined = read_config_leniently(args)?;
    let mut errors = examined.errors.clone();
    let mut warnings = examined.settings.warnings.clone();
    if let Some(tls) = &examined.settings.server.tls {
        match certificates::read(tls) {
            Ok(identity) => warnings.extend(certificates::config_warning(tls, &identity)),
            Err(error) => errors.push(ConfigError {
                excerpt: examined.excerpt(&error.origin),
                ..error
            }),
        }
    }
    let mut unchecked = Vec::new();
    // Loading finds the same errors, and more.
    if !load || !errors.is_empty() {
        let mut plugins = Plugins::default();
        for model in &examined.settings.models {
            unchecked.extend(check_model(&examined, model, &mut plugins, &mut errors));
        }
    }
    if let Some(errors) = ConfigErrors::collect(errors) {
        return Err(AppError::Config(errors));
    }
    let Examined { settings, .. } = examined;
    if load {
        logging::start(&settings.logging);
        crash::install(settings.logging.format == LogFormat::Json)?;
        open_files::raise_limit();
        load_once(&settings).map_err(|error| match error {
            AppError::Models(failures) => AppError::Models(by_line(failures)),
            other => other,
        })?;
    } else if !settings.models.is_empty() {
        unchecked.insert(0, "whether the models load and warm up (use --load)".to_owned());
    }
    Ok(Checked {
        models: settings.models.len(),
        warnings,
        unchecked,
    })
}

/// Sorts failures in the order of the file.
fn by_line(mut failures: Vec<ModelFailure>) -> Vec<ModelFailure> {
    failures.sort_by(|a, b| a.location.cmp(&b.location));
    failures
}

/// What a probe depends on: the file, its options, and its pinned digest.
type ProbeKey = (PathBuf, Vec<String>, Option<String>);

/// What each plugin declares. Several models can share a plugin.
#[derive(Default)]
struct Plugins(BTreeMap<ProbeKey, Result<Arc<PluginProbe>, String>>);

impl Plugins {
    fn probe(&mut self, server: &ServerSettings, model: &ModelSettings) -> Result<Arc<PluginProbe>, String> {
        let pin = model.sha256.map(|digest| digest.to_string());
        let key = (model.plugin.clone(), probe_options(model), pin);
        let trust = FileTrust {
            sha256: model.sha256,
            allow_writable: server.allow_writable_plugins,
        };
        let probed = self.0.entry(key).or_insert_with_key(|(file, options, _)| {
            let program = ProbeProgram::this_server();
            let probe = loader::probe_trusted_plugin(
                &program,
                options,
                (file, &trust),
                &server.scratch_dir,
                PROBE_TIMEOUT,
            );
            probe
                .map(Arc::new)
                .map_err(|error: LoadError| Chain(&error).to_string())
        });
        probed.clone()
    }
}

/// Adds the errors of one model to `errors`, and returns what could not be checked.
fn check_model(
    examined: &Examined,
    model: &ModelSettings,
    plugins: &mut Plugins,
    errors: &mut Vec<ConfigError>,
) -> Option<String> {
    let mut report = |location: Location, message: String| {
        let origin = Origin::File(location);
        errors.push(ConfigError {
            excerpt: examined.excerpt(&origin),
            ..ConfigError::new(origin, format!("model `{}`: {message}", model.name), None)
        });
    };
    let probe = match plugins.probe(&examined.settings.server, model) {
        Ok(probe) => probe,
        Err(problem) => {
            let file = model.plugin_text();
            report(
                model.plugin_location(),
                format!("cannot load plugin {file}: {problem}"),
            );
            return None;
        }
    };
    let manifest = &probe.report.manifest;
    for finding in declarations::plugin(manifest) {
        if finding.severity == Severity::Error {
            report(model.plugin_location(), format!("invalid plugin: {finding}"));
        }
    }
    for violation in json_schema::violations(&manifest.settings_schema, &model.settings) {
        let location = model.locate(&violation.path).unwrap_or_else(|| model.location());
        let place = match violation.path.as_str() {
            "" => String::new(),
            path => format!(" `{path}`"),
        };
        report(
            location,
            format!("[models.settings]{place}: {}", violation.message),
        );
    }
    if manifest.tasks.is_empty() {
        return Some(format!(
            "the task names of model `{}`, which depend on its settings (use --load)",
            model.name
        ));
    }
    for (task, location) in unknown_tasks(model, manifest) {
        report(
            location,
            format!("no task `{task}`; its tasks are {}", TaskNames(manifest)),
        );
    }
    None
}

/// The tasks that the configuration names but the plugin does not declare.
fn unknown_tasks<'m>(
    model: &'m ModelSettings,
    manifest: &'m PluginManifest,
) -> impl Iterator<Item = (&'m str, Location)> {
    let default = model.default_task.as_deref().map(|task| {
        let location = model.default_task_location();
        (task, location.unwrap_or_else(|| model.location()))
    });
    model
        .configured_tasks()
        .chain(default)
        .filter(|(task, _)| manifest.tasks.iter().all(|known| known.name != *task))
}

struct TaskNames<'a>(&'a PluginManifest);

impl fmt::Display for TaskNames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, task) in self.0.tasks.iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            write!(f, "{separator}`{}`", task.name)?;
        }
        Ok(())
    }
}
