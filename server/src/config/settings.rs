//! What the server works with: every value resolved, every default filled in, every limit checked.
//!
//! Owned by the application, which hands the parts on; a reload compares two of them. These types do not know which of file,
//! environment or command line a value came from. Only what a later error must point at keeps its place, and a place
//! never makes two settings different.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use plugin_abi::manifest;

use super::error::{ConfigWarning, Location, Origin};
use super::keys::{Given, PolicyName, Section, WrittenBatching};
use super::oddities::process_key_without_process;
use crate::batching::{DeclaredLimits, Policy, TaskBatching};
use crate::metrics::Buckets;
use crate::resources::Resources;
use crate::secret::Secret;

/// What `max_delay` is under each policy that waits, if nobody writes it.
const ADAPTIVE_MAX_DELAY: Duration = Duration::from_millis(10);
const FIXED_MAX_DELAY: Duration = Duration::from_millis(5);

/// The whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The process and its HTTP side.
    pub server: ServerSettings,
    /// The log.
    pub logging: LoggingSettings,
    /// The buckets of the histograms.
    pub metrics: Buckets,
    /// The models, in the order of the file.
    pub models: Vec<ModelSettings>,
    /// What is legal but odd. The application logs it.
    pub warnings: Vec<ConfigWarning>,
}

/// The process and its HTTP side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Address or host name to listen on.
    pub host: String,
    /// Port to listen on; 0 is any free port.
    pub port: u16,
    /// Port for gRPC, if it is spoken; 0 is any free port.
    pub grpc_port: Option<u16>,
    /// Threads that read requests and write replies.
    pub http_workers: NonZeroUsize,
    /// Threads on which plugins prepare items.
    pub prepare_threads: NonZeroUsize,
    /// Most connections at one time.
    pub max_connections: NonZeroUsize,
    /// Life of an idle connection; zero closes each after its reply.
    pub keep_alive: Duration,
    /// Longest time for the head of a request to arrive.
    pub header_timeout: Duration,
    /// Longest time for the body of a request to arrive.
    pub body_timeout: Duration,
    /// Largest body in bytes, also after decompression.
    pub max_body_size: usize,
    /// Most items in one request.
    pub max_items_per_request: NonZeroUsize,
    /// Deepest nesting of a JSON body.
    pub max_json_depth: NonZeroUsize,
    /// Deadline of a request that sets none, where its model sets none either.
    pub request_timeout: Duration,
    /// How long the server serves on after SIGTERM, not ready.
    pub shutdown_delay: Duration,
    /// Longest time to finish accepted requests after that.
    pub drain_timeout: Duration,
    /// Longest time for a reload to load and warm up.
    pub reload_timeout: Duration,
    /// Folder of plugins that are given by name.
    pub plugin_dir: PathBuf,
    /// Folder for the copies from which plugins are loaded.
    pub scratch_dir: PathBuf,
    /// Whether replies are compressed for clients that ask for it.
    pub compression: bool,
    /// Origins that may call from a web page; `*` is every one.
    pub cors_allowed_origins: Vec<String>,
    /// Niceness of the threads that run models, 0 to 19.
    pub model_nice: u8,
    /// Keys of clients; none lets everybody in.
    pub api_keys: Vec<Secret>,
    /// The key that lets a client load and unload models.
    pub admin_key: Option<Secret>,
    /// Whether the API documentation is served.
    pub docs: bool,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggingSettings {
    /// A filter as env_logger reads it.
    pub level: String,
    /// Shape of a line.
    pub format: LogFormat,
    /// Whether each request is logged.
    pub access_log: bool,
    /// Paths that are not logged; a `*` at the end stands for any rest.
    pub access_log_exclude: Vec<String>,
}

/// Shape of a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// One model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSettings {
    /// Name, unique among the models.
    pub name: String,
    /// The plugin's file. Whether it exists is not known here.
    pub plugin: PathBuf,
    /// Where its plugin runs.
    pub isolation: Isolation,
    /// What runs batches at the same time: so many threads, or so many processes.
    pub workers: NonZeroUsize,
    /// What each of its processes may use.
    pub resources: Resources,
    /// Niceness of its workers, 0 to 19, if not that of all models.
    pub nice: Option<u8>,
    /// Whether the model runs once before it serves.
    pub warm_up: bool,
    /// Task that is meant when a client names none.
    pub default_task: Option<String>,
    /// A sentence about the model.
    pub description: Option<String>,
    /// Deadline of a request that sets none.
    pub request_timeout: Duration,
    /// What is handed to the plugin: always an object.
    pub settings: serde_json::Value,
    /// Folder of the configuration file, where the plugin's relative paths start.
    pub base_dir: PathBuf,
    pub(super) batching: BatchingLayers,
    pub(super) tasks: BTreeMap<String, TaskOverrides>,
    pub(super) places: ModelPlaces,
}

/// Where the plugin of a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// In the server's process.
    Thread,
    /// In processes of its own.
    Process(ProcessSettings),
    /// Not written: as the plugin declares, and else in the server's process.
    AsDeclared(ProcessSettings),
}

impl Isolation {
    /// How its processes are looked after, if it is to have some. `declared` is what the plugin would rather have.
    pub fn process(self, declared: Option<manifest::Isolation>) -> Option<ProcessSettings> {
        match self {
            Self::Thread => None,
            Self::Process(settings) => Some(settings),
            Self::AsDeclared(settings) => {
                (declared == Some(manifest::Isolation::Process)).then_some(settings)
            }
        }
    }
}

/// How the processes of a model are looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessSettings {
    /// What becomes of the batch of a process that ends.
    pub on_crash: OnCrash,
    /// How long a process may compute without an answer.
    pub predict_timeout: Duration,
    /// The pause before the second restart in a row, which then doubles.
    pub restart_delay: Duration,
    /// The longest pause.
    pub max_restart_delay: Duration,
}

/// What becomes of the batch of a process that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCrash {
    /// It is run again, and then item by item.
    Retry,
    /// It fails.
    Fail,
}

/// What was written about the batches of a model's tasks, by who goes first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BatchingLayers {
    /// The command line.
    pub(super) flags: WrittenBatching,
    /// The environment, for one task, by the task's name as variables spell it.
    pub(super) task_variables: BTreeMap<String, WrittenBatching>,
    /// The environment, for all.
    pub(super) environment: WrittenBatching,
    /// The file, for this model and for all.
    pub(super) file: WrittenBatching,
    /// What is built in. Every key has a value here.
    pub(super) built_in: WrittenBatching,
}

/// What the file says about one task.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TaskOverrides {
    pub(super) batching: WrittenBatching,
    pub(super) route: Option<Given<String>>,
    /// The table's header, wherever it stands.
    pub(super) header: Place,
}

/// Where the parts of a model are written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ModelPlaces {
    pub(super) model: Place,
    pub(super) plugin: Place,
    pub(super) default_task: Option<Place>,
    /// The keys that mean something only if the model runs in processes.
    pub(super) process_keys: Vec<(&'static str, Place)>,
    /// By dotted path; the empty path is the table itself.
    pub(super) settings: BTreeMap<String, Place>,
}

/// A location that is not part of what is written: any two are equal.
#[derive(Clone, Debug)]
pub(super) struct Place(pub(super) Location);

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Rules for the batches, the queue and the routes of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSettings {
    /// How items are put into batches.
    pub batching: TaskBatching,
    /// Most items waiting.
    pub max_queue_size: usize,
    /// Most weight waiting.
    pub max_queue_weight: Option<u64>,
    /// A short path of the operator's own.
    pub route: Option<String>,
}

impl ModelSettings {
    /// The rules for one task: the command line first, then the environment, the file, what the plugin declares for the
    /// task, and what is built in. In the environment and in the file, what is meant for the task alone goes first.
    pub fn task(&self, task: &str, declared: &DeclaredLimits) -> TaskSettings {
        let overrides = self.tasks.get(task);
        let layers = &self.batching;
        let nothing = WrittenBatching::empty();
        let written = layers
            .flags
            .clone()
            .or(layers
                .task_variables
                .get(&variable_suffix(task))
                .unwrap_or(&nothing))
            .or(&layers.environment)
            .or(overrides.map_or(&nothing, |overrides| &overrides.batching))
            .or(&layers.file)
            .or(&declared_batching(declared))
            .or(&layers.built_in);
        TaskSettings {
            batching: TaskBatching {
                policy: match written_value(written.policy) {
                    PolicyName::Adaptive => Policy::Adaptive {
                        max_delay: written.max_delay.map_or(ADAPTIVE_MAX_DELAY, |delay| delay.value),
                    },
                    PolicyName::Greedy => Policy::Greedy,
                    PolicyName::Off => Policy::Off,
                    PolicyName::Fixed => Policy::Fixed {
                        max_delay: written.max_delay.map_or(FIXED_MAX_DELAY, |delay| delay.value),
                    },
                },
                max_batch_size: written_value(written.max_batch_size),
                max_batch_weight: written_value(written.max_batch_weight),
                weight_rule: written_value(written.weight_rule),
            },
            max_queue_size: written_value(written.max_queue_size).get(),
            max_queue_weight: written_value(written.max_queue_weight),
            route: overrides
                .and_then(|overrides| overrides.route.clone())
                .map(|route| route.value),
        }
    }

    /// The short paths that the file gives to tasks. Whether the model has the tasks, its plugin knows.
    pub fn routes(&self) -> impl Iterator<Item = &str> {
        let routes = self.tasks.values().filter_map(|task| task.route.as_ref());
        routes.map(|route| route.value.as_str())
    }

    /// The tasks that the file has a table for, and where. Whether the model has them, its plugin knows.
    pub fn configured_tasks(&self) -> impl Iterator<Item = (&str, Location)> {
        self.tasks
            .iter()
            .map(|(name, task)| (name.as_str(), task.header.0.clone()))
    }

    /// The tasks that have a short route of their own, and the routes.
    pub fn configured_routes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tasks
            .iter()
            .filter_map(|(name, task)| Some((name.as_str(), task.route.as_ref()?.value.as_str())))
    }

    /// Where a setting of the plugin is written, by its path, such as `image.size`, `labels.0` or `labels[0]`. For one that
    /// is not written, the nearest table or array around it; `None` if the model has no settings at all.
    pub fn locate(&self, key_path: &str) -> Option<Location> {
        let dotted = key_path.replace('[', ".").replace(']', "");
        let mut path = dotted.as_str();
        loop {
            if let Some(place) = self.places.settings.get(path) {
                return Some(place.0.clone());
            }
            if path.is_empty() {
                return None;
            }
            path = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        }
    }

    /// What has no effect if the model runs in a thread because neither the configuration nor its plugin asks for a process.
    pub fn warnings_in_thread(&self) -> Vec<ConfigWarning> {
        if !matches!(self.isolation, Isolation::AsDeclared(_)) {
            return Vec::new();
        }
        let keys = self.places.process_keys.iter();
        keys.map(|(key, place)| process_key_without_process(key, Origin::File(place.0.clone())))
            .collect()
    }

    /// Where the model is written.
    pub fn location(&self) -> Location {
        self.places.model.0.clone()
    }

    /// Where the plugin's name or path is written.
    pub fn plugin_location(&self) -> Location {
        self.places.plugin.0.clone()
    }

    /// Where the default task is written, if it is.
    pub fn default_task_location(&self) -> Option<Location> {
        self.places.default_task.as_ref().map(|place| place.0.clone())
    }

    /// Whether the change to `new` takes a new generation of the model. Any other difference, such as in batching, only
    /// changes how the loaded one is used.
    pub fn needs_reload(&self, new: &Self) -> bool {
        self.plugin != new.plugin
            || self.settings != new.settings
            || self.base_dir != new.base_dir
            || self.isolation != new.isolation
            || self.workers != new.workers
            || self.resources != new.resources
            || self.nice != new.nice
            || self.warm_up != new.warm_up
    }
}

impl Settings {
    /// Warnings about environment variables for single tasks that no model has. `tasks` are those that were loaded.
    pub fn unused_task_variables<'a>(&self, tasks: impl IntoIterator<Item = &'a str>) -> Vec<ConfigWarning> {
        let Some(model) = self.models.first() else {
            return Vec::new();
        };
        let known: Vec<String> = tasks.into_iter().map(variable_suffix).collect();
        let unused = model
            .batching
            .task_variables
            .iter()
            .filter(|(suffix, _)| !known.contains(suffix));
        unused
            .flat_map(|(suffix, written)| written.origins().into_iter().map(move |origin| (suffix, origin)))
            .map(|(suffix, origin)| ConfigWarning {
                origin: origin.clone(),
                message: format!("no model has a task {suffix}, so this variable does nothing"),
                hint: Some(match super::suggest::nearest(suffix, known.iter().map(String::as_str)) {
                    Some(task) => format!("did you mean the task {task}?"),
                    None => "end it in the name of a task, in capitals, with `_` for whatever is no letter or digit".into(),
                }),
            })
            .collect()
    }
}

/// How environment variables spell the name of a task: in capitals, with `_` for what is no letter or digit.
pub(super) fn variable_suffix(task: &str) -> String {
    task.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect()
}

fn declared_batching(declared: &DeclaredLimits) -> WrittenBatching {
    fn given<T>(value: T) -> Given<T> {
        Given {
            value,
            origin: Origin::BuiltIn,
        }
    }
    WrittenBatching {
        max_batch_size: declared.max_batch_size.and_then(NonZeroUsize::new).map(given),
        max_batch_weight: declared.max_batch_weight.map(|weight| given(Some(weight))),
        weight_rule: declared.weight_rule.map(given),
        ..WrittenBatching::empty()
    }
}

/// The value of a key that has a built-in default, once that default was filled in.
pub(super) fn written_value<T>(given: Option<Given<T>>) -> T {
    given
        .expect("the key has a built-in default in `keys`, and it was merged in")
        .value
}
