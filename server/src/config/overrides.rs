//! What the environment and the command line say. Both are given as text, and obey the same rules as the file.

use std::collections::BTreeMap;

use super::error::{ConfigError, ConfigWarning, Origin};
use super::file::describe;
use super::keys::{Key, Section, WrittenBatching, WrittenLogging, WrittenMetrics, WrittenServer};
use super::rule::{Mismatch, Written};
use super::settings::variable_suffix;
use super::suggest::nearest;

/// What all variables of this server begin with.
const PREFIX: &str = "INFERENCE_";

/// Variables that the command line reads itself: they are not settings.
const READ_BY_THE_ROOF: [&str; 3] = ["INFERENCE_CONFIG", "INFERENCE_BENCH_URL", "INFERENCE_BENCH_KEY"];

/// What the operator gave on the command line. Each is text, so that it obeys the same rules, and is reported in the
/// same words, as what is written in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--host`
    pub host: Option<String>,
    /// `--port`
    pub port: Option<String>,
    /// `--grpc-port`
    pub grpc_port: Option<String>,
    /// `--request-timeout`
    pub request_timeout: Option<String>,
    /// `--plugin-dir`
    pub plugin_dir: Option<String>,
    /// `--scratch-dir`
    pub scratch_dir: Option<String>,
    /// `--log-level`
    pub log_level: Option<String>,
    /// `--log-format`
    pub log_format: Option<String>,
    /// `--policy`
    pub policy: Option<String>,
    /// `--max-batch-size`
    pub max_batch_size: Option<String>,
    /// `--max-batch-weight`
    pub max_batch_weight: Option<String>,
    /// `--max-delay`
    pub max_delay: Option<String>,
    /// `--max-queue-size`
    pub max_queue_size: Option<String>,
}

impl Overrides {
    /// Nothing given.
    pub fn none() -> Self {
        Self::default()
    }

    /// Each flag with what was given for it.
    pub(super) fn by_flag(&self) -> [(&'static str, Option<&str>); 13] {
        [
            ("--host", self.host.as_deref()),
            ("--port", self.port.as_deref()),
            ("--grpc-port", self.grpc_port.as_deref()),
            ("--request-timeout", self.request_timeout.as_deref()),
            ("--plugin-dir", self.plugin_dir.as_deref()),
            ("--scratch-dir", self.scratch_dir.as_deref()),
            ("--log-level", self.log_level.as_deref()),
            ("--log-format", self.log_format.as_deref()),
            ("--policy", self.policy.as_deref()),
            ("--max-batch-size", self.max_batch_size.as_deref()),
            ("--max-batch-weight", self.max_batch_weight.as_deref()),
            ("--max-delay", self.max_delay.as_deref()),
            ("--max-queue-size", self.max_queue_size.as_deref()),
        ]
    }
}

/// What one source beside the file says.
pub(super) struct Layer {
    pub(super) server: WrittenServer,
    pub(super) logging: WrittenLogging,
    pub(super) metrics: WrittenMetrics,
    pub(super) batching: WrittenBatching,
}

impl Layer {
    pub(super) fn empty() -> Self {
        Self {
            server: WrittenServer::empty(),
            logging: WrittenLogging::empty(),
            metrics: WrittenMetrics::empty(),
            batching: WrittenBatching::empty(),
        }
    }

    /// Its sections, each with the words for its place in messages.
    pub(super) fn sections(&mut self) -> [(&'static str, &mut dyn Section); 4] {
        [
            ("in [server]", &mut self.server),
            ("in [logging]", &mut self.logging),
            ("in [metrics]", &mut self.metrics),
            ("in [batching]", &mut self.batching),
        ]
    }

    /// Reads every key for which `text_of` has a text.
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
    let given = overrides.by_flag();
    let mut layer = Layer::empty();
    layer.fill(
        |key| {
            let (flag, text) = given.iter().find(|(flag, _)| key.flag == Some(flag))?;
            Some((text.as_ref()?.to_string(), Origin::Flag(flag)))
        },
        errors,
    );
    layer
}

/// What the environment says.
pub(super) struct Environment {
    pub(super) layer: Layer,
    /// What is meant for the tasks of one name, by that name as variables spell it.
    pub(super) tasks: BTreeMap<String, WrittenBatching>,
}

/// Reads the environment. Variables that mean nothing are warned about.
pub(super) fn environment(
    variables: &BTreeMap<String, String>,
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
        } else if !READ_BY_THE_ROOF.contains(&name.as_str()) {
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
    let (message, hint) = describe(key, place, mismatch);
    let hint = match &origin {
        Origin::Environment(name) if is_kubernetes_link(name, text) => Some(kubernetes_hint()),
        Origin::Environment(_) if text.is_empty() => {
            Some("unset the variable to use what the file says".to_owned())
        }
        _ => hint,
    };
    ConfigError::new(origin, message, hint)
}

fn unknown_variable(origin: Origin, name: &str, known: &[&str]) -> ConfigWarning {
    let hint = if is_kubernetes_link(name, "") {
        Some(kubernetes_hint())
    } else {
        let plain = |name: &str| name.strip_prefix(PREFIX).unwrap_or_default().to_owned();
        nearest_variable(
            &plain(name),
            &known.iter().copied().map(plain).collect::<Vec<_>>(),
        )
        .map(|near| format!("did you mean {PREFIX}{near}?"))
    };
    ConfigWarning {
        origin,
        message: "no setting has this variable, so it does nothing".to_owned(),
        hint,
    }
}

/// The nearest name, or the nearest for the task that the end of the name may be.
fn nearest_variable(name: &str, known: &[String]) -> Option<String> {
    let near = |start: &str| nearest(start, known.iter().map(String::as_str));
    let for_a_task = || {
        let ends = name.rmatch_indices('_').map(|(at, _)| name.split_at(at));
        ends.filter_map(|(start, task)| near(start).map(|key| format!("{key}{task}")))
            .find(|variable| task_variable(&format!("{PREFIX}{variable}")).is_some())
    };
    near(name).map(str::to_owned).or_else(for_a_task)
}

/// Kubernetes tells every pod about a Service named `inference` through variables that look like ours.
fn is_kubernetes_link(name: &str, text: &str) -> bool {
    name.starts_with("INFERENCE_SERVICE_")
        || name.starts_with("INFERENCE_PORT_")
        || (name == "INFERENCE_PORT" && text.contains("://"))
}

fn kubernetes_hint() -> String {
    "Kubernetes sets this for a Service named `inference`; set `enableServiceLinks: false` in the pod, or rename the Service"
        .to_owned()
}
