//! The environment and the command line. Both are text, and obey the same rules as the file.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{ConfigError, ConfigWarning, Origin};
use super::keys::{WrittenBatching, WrittenJobs, WrittenLogging, WrittenMetrics, WrittenServer, WrittenTls};
use super::rule::{Mismatch, Written};
use super::section::{Key, KeyDefault, Section};
use super::settings::variable_suffix;
use crate::suggest::nearest;

/// Prefix of all environment variables of this server.
const PREFIX: &str = "INFERENCE_";

/// A flag of the command line, as its key declares it.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// The flag, such as `--port`.
    pub name: &'static str,
    /// Heading of the flag in the help; `None` for general flags.
    pub heading: Option<&'static str>,
    key: &'static Key,
}

impl Flag {
    /// What stands for the value in the help.
    pub fn value_name(&self) -> String {
        let last_word = || {
            self.key
                .name
                .rsplit('_')
                .next()
                .unwrap_or_default()
                .to_uppercase()
        };
        (self.key.value_name)().map_or_else(last_word, str::to_owned)
    }

    /// The accepted words, if there are only a few.
    pub fn words(&self) -> Vec<&'static str> {
        (self.key.words)()
    }

    /// The meaning of the value: one or more sentences.
    pub fn meaning(&self) -> String {
        self.key.meaning.concat().trim().to_owned()
    }

    /// The value without the flag, or what applies instead, in words.
    pub fn default(&self) -> String {
        match self.key.default {
            KeyDefault::Value(value) => value.trim_matches('"').to_owned(),
            KeyDefault::Derived { applies, .. } => applies.to_owned(),
            KeyDefault::Required(_) => "required".to_owned(),
        }
    }

    /// The environment variable that sets the same key.
    pub fn variable(&self) -> Option<&'static str> {
        self.key.variable
    }
}

/// Every flag that sets a key.
pub fn flags() -> impl Iterator<Item = Flag> {
    let sections = [
        (None, WrittenServer::KEYS),
        (Some("Logging"), WrittenLogging::KEYS),
        (Some("Metrics"), WrittenMetrics::KEYS),
        (Some("Batching, for all models and tasks"), WrittenBatching::KEYS),
    ];
    sections.into_iter().flat_map(|(heading, keys)| {
        keys.iter().filter_map(move |key| {
            Some(Flag {
                name: key.flag?,
                heading,
                key,
            })
        })
    })
}

/// The command line: the text of each flag, and the environment variables that it has already taken into account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    flags: BTreeMap<&'static str, String>,
    variables: BTreeSet<String>,
}

impl Overrides {
    /// An empty command line.
    pub fn none() -> Self {
        Self::default()
    }

    /// Sets the text of a flag.
    pub fn set(&mut self, flag: &Flag, text: impl Into<String>) {
        self.flags.insert(flag.name, text.into());
    }

    /// Marks an environment variable as one that the command line reads, so that it is not reported as unknown.
    pub fn add_variable(&mut self, name: impl Into<String>) {
        self.variables.insert(name.into());
    }

    /// Whether the command line reads this environment variable.
    fn reads(&self, variable: &str) -> bool {
        self.variables.contains(variable)
    }
}

/// The keys that one source other than the file sets.
pub(super) struct Layer {
    pub(super) server: WrittenServer,
    pub(super) tls: WrittenTls,
    pub(super) logging: WrittenLogging,
    pub(super) metrics: WrittenMetrics,
    pub(super) jobs: WrittenJobs,
    pub(super) batching: WrittenBatching,
}

impl Layer {
    pub(super) fn empty() -> Self {
        Self {
            server: WrittenServer::empty(),
            tls: WrittenTls::empty(),
            logging: WrittenLogging::empty(),
            metrics: WrittenMetrics::empty(),
            jobs: WrittenJobs::empty(),
            batching: WrittenBatching::empty(),
        }
    }

    /// Its sections, each with its place as messages name it.
    pub(super) fn sections(&mut self) -> [(&'static str, &mut dyn Section); 6] {
        [
            ("in [server]", &mut self.server),
            ("in [server.tls]", &mut self.tls),
            ("in [logging]", &mut self.logging),
            ("in [metrics]", &mut self.metrics),
            ("in [jobs]", &mut self.jobs),
            ("in [batching]", &mut self.batching),
        ]
    }

    /// Reads every key for which `text_of` returns a text.
    fn fill(&mut self, text_of: impl Fn(&Key) -> Option<(String, Origin)>, errors: &mut Vec<ConfigError>) {
        for (place, section) in self.sections() {
            for key in section.keys() {
                let Some((text, origin)) = text_of(key) else {
                    continue;
                };
                if let Some(Err(mismatch)) = section.read(key.name, &Written::Text(&text), origin.clone()) {
                    errors.push(override_error(key.name, place, origin, &text, mismatch));
                }
            }
        }
    }
}

/// Reads the command line.
pub(super) fn command_line(overrides: &Overrides, errors: &mut Vec<ConfigError>) -> Layer {
    let mut layer = Layer::empty();
    layer.fill(
        |key| {
            let flag = key.flag?;
            Some((overrides.flags.get(flag)?.clone(), Origin::Flag(flag)))
        },
        errors,
    );
    layer
}

/// The keys that the environment sets.
pub(super) struct Environment {
    pub(super) layer: Layer,
    /// Variables for the tasks of one name, by that name as variables spell it.
    pub(super) tasks: BTreeMap<String, WrittenBatching>,
}

/// Reads the environment. Unknown variables of this server are warnings.
pub(super) fn environment(
    variables: &BTreeMap<String, String>,
    command_line: &Overrides,
    errors: &mut Vec<ConfigError>,
    warnings: &mut Vec<ConfigWarning>,
) -> Environment {
    let mut layer = Layer::empty();
    layer.fill(
        |key| {
            let name = key.variable?;
            Some((variables.get(name)?.clone(), Origin::Environment(name.to_owned())))
        },
        errors,
    );
    let known: Vec<&str> = layer
        .sections()
        .iter()
        .flat_map(|(_, section)| section.keys())
        .filter_map(|key| key.variable)
        .collect();
    let mut tasks: BTreeMap<String, WrittenBatching> = BTreeMap::new();
    let ours = variables.iter().filter(|(name, _)| name.starts_with(PREFIX));
    for (name, text) in ours.filter(|(name, _)| !known.contains(&name.as_str())) {
        let origin = Origin::Environment(name.clone());
        if let Some((key, task)) = task_variable(name) {
            let written = tasks
                .entry(task.to_owned())
                .or_insert_with(WrittenBatching::empty);
            if let Some(Err(mismatch)) = written.read(key.name, &Written::Text(text), origin.clone()) {
                let place = format!("for the task {task}");
                errors.push(override_error(key.name, &place, origin, text, mismatch));
            }
        } else if !command_line.reads(name) {
            warnings.push(unknown_variable(origin, name, &known));
        }
    }
    Environment { layer, tasks }
}

/// The key and the task of a variable such as `INFERENCE_MAX_BATCH_SIZE_TEXT`.
fn task_variable(name: &str) -> Option<(&'static Key, &str)> {
    WrittenBatching::KEYS.iter().find_map(|key| {
        let task = name.strip_prefix(key.variable?)?.strip_prefix('_')?;
        (!task.is_empty() && variable_suffix(task) == task).then_some((key, task))
    })
}

fn override_error(key: &str, place: &str, origin: Origin, text: &str, mismatch: Mismatch) -> ConfigError {
    let message = mismatch.message(key, place);
    let hint = match &origin {
        Origin::Environment(name) if is_kubernetes_link(name, text) => Some(kubernetes_hint()),
        Origin::Environment(_) if text.is_empty() => {
            Some("unset the variable to use the value of the configuration file".to_owned())
        }
        _ => mismatch.hint,
    };
    ConfigError::new(origin, message, hint)
}

fn unknown_variable(origin: Origin, name: &str, known: &[&str]) -> ConfigWarning {
    let hint = if is_kubernetes_link(name, "") {
        Some(kubernetes_hint())
    } else {
        let without_prefix = |name: &str| name.strip_prefix(PREFIX).unwrap_or_default().to_owned();
        let known: Vec<String> = known.iter().copied().map(without_prefix).collect();
        nearest_variable(&without_prefix(name), &known).map(|near| format!("did you mean {PREFIX}{near}?"))
    };
    ConfigWarning {
        origin,
        message: "unknown variable; it has no effect".to_owned(),
        hint,
    }
}

/// The known name nearest to `name`, or to `name` without a suffix that may be the name of a task.
fn nearest_variable(name: &str, known: &[String]) -> Option<String> {
    let near = |start: &str| nearest(start, known.iter().map(String::as_str));
    let for_a_task = || {
        let suffixes = name.rmatch_indices('_').map(|(at, _)| name.split_at(at));
        suffixes
            .filter_map(|(start, task)| near(start).map(|key| format!("{key}{task}")))
            .find(|variable| task_variable(&format!("{PREFIX}{variable}")).is_some())
    };
    near(name).map(str::to_owned).or_else(for_a_task)
}

/// Whether Kubernetes has set this variable: for a Service named `inference`, it sets variables with our prefix.
fn is_kubernetes_link(name: &str, text: &str) -> bool {
    name.starts_with("INFERENCE_SERVICE_")
        || name.starts_with("INFERENCE_PORT_")
        || (name == "INFERENCE_PORT" && text.contains("://"))
}

fn kubernetes_hint() -> String {
    "Kubernetes sets it for a Service named `inference`: set `enableServiceLinks: false` in the pod, or rename the Service"
        .to_owned()
}
