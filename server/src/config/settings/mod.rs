//! Resolved settings: every value is valid, and every default is filled in.
//!
//! The application owns them and passes their parts on; a reload compares two of them. These types do not know whether a value
//! came from the file, the environment or the command line. Values that a later error may refer to keep their place, which
//! comparisons ignore.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plugin_abi::manifest;

use super::error::{ConfigWarning, Location, Origin};
use super::key_file::KeySettings;
use super::keys::{Located, PolicyName, Section, WrittenBatching};
use super::lints::process_key_without_process;
use crate::batching::{DeclaredLimits, Policy, Slack, TaskBatching};
use crate::digest::Digest;
use crate::metrics::Buckets;
use crate::resources::{MemoryBudget, Resources};
use crate::secret::Secret;
use crate::suggest::nearest;
use crate::tls::{TlsFiles, TlsSetting};

/// Defaults of `max_delay`, under each policy that waits for more items.
const ADAPTIVE_MAX_DELAY: Duration = Duration::from_millis(10);
const FIXED_MAX_DELAY: Duration = Duration::from_millis(5);

/// The whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The process and its HTTP server.
    pub server: ServerSettings,
    /// The log.
    pub logging: LoggingSettings,
    /// Traces.
    pub tracing: TracingSettings,
    /// The buckets of histograms.
    pub metrics: Buckets,
    /// Durable jobs.
    pub jobs: JobSettings,
    /// The models, in the order of the file.
    pub models: Vec<ModelSettings>,
    /// The keys of `api_keys_file`, which the application reads. Empty until then.
    pub keys: Vec<KeySettings>,
    /// Lints. The application logs them.
    pub warnings: Vec<ConfigWarning>,
}

/// The process and its HTTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Address or host name to listen on.
    pub host: String,
    /// Port to listen on; 0 picks a free port.
    pub port: u16,
    /// gRPC port, if gRPC is enabled; 0 picks a free port.
    pub grpc_port: Option<u16>,
    /// Port for health checks, metrics and the management of models, if there is one; 0 picks a free port.
    pub management_port: Option<u16>,
    /// Address or host name that the management port listens on.
    pub management_host: String,
    /// Whether metrics and the loading of models are served by the management port only.
    pub management_only: bool,
    /// TLS of the other ports, if it is enabled.
    pub tls: Option<TlsSettings>,
    /// Number of threads that read requests and write replies.
    pub http_workers: NonZeroUsize,
    /// Maximum number of threads of each model that prepare items.
    pub prepare_threads: NonZeroUsize,
    /// Maximum number of open connections per port.
    pub max_connections: NonZeroUsize,
    /// Time after which an idle connection is closed; zero closes every connection after its reply.
    pub keep_alive: Duration,
    /// Timeout for receiving the head of a request.
    pub header_timeout: Duration,
    /// Timeout for receiving the body of a request.
    pub body_timeout: Duration,
    /// Maximum size of a body in bytes, before and after decompression.
    pub max_body_size: usize,
    /// Maximum number of bytes that all requests hold at the same time.
    pub max_inflight_bytes: usize,
    /// Maximum memory of the batches of all models that run at the same time.
    pub memory_budget: Option<MemoryBudget>,
    /// Maximum number of items in a request.
    pub max_items_per_request: NonZeroUsize,
    /// Maximum nesting depth of a JSON body.
    pub max_json_depth: NonZeroUsize,
    /// Default deadline of a request, for models that do not set their own.
    pub request_timeout: Duration,
    /// Time for which the server keeps serving after SIGTERM, without being ready.
    pub shutdown_delay: Duration,
    /// Maximum time to wait for requests in flight after that.
    pub drain_timeout: Duration,
    /// Timeout for loading and warming up the models of a reload.
    pub reload_timeout: Duration,
    /// Directories searched for plugins given by name, in this order.
    pub plugin_dirs: Vec<PathBuf>,
    /// Directory for temporary copies of plugins, from which they are loaded.
    pub scratch_dir: PathBuf,
    /// Whether plugins are loaded whose files other users can change.
    pub allow_writable_plugins: bool,
    /// Whether replies are compressed for clients that accept it.
    pub compression: bool,
    /// Origins whose web pages may call the server; `*` allows all.
    pub cors_allowed_origins: Vec<String>,
    /// Niceness of threads and processes that load or run models, 0 to 19.
    pub model_nice: u8,
    /// API keys. Without keys and without a key file, requests require no key.
    pub api_keys: Vec<Secret>,
    /// The file of named API keys.
    pub api_keys_file: Option<PathBuf>,
    /// The key that allows loading and unloading models.
    pub admin_key: Option<Secret>,
    /// Whether the API documentation is served.
    pub docs: bool,
    /// Whether the page for operators is served.
    pub ui: bool,
}

/// TLS of the HTTP and gRPC ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The files.
    pub files: TlsFiles,
    pub(super) cert_origin: UncomparedOrigin,
    pub(super) key_origin: UncomparedOrigin,
    pub(super) client_ca_origin: Option<UncomparedOrigin>,
}

impl TlsSettings {
    /// Where the name of a file is written.
    pub fn origin(&self, setting: TlsSetting) -> Origin {
        let origin = match setting {
            TlsSetting::Cert => Some(&self.cert_origin),
            TlsSetting::Key => Some(&self.key_origin),
            TlsSetting::ClientCa => self.client_ca_origin.as_ref(),
        };
        origin.unwrap_or(&self.cert_origin).0.clone()
    }
}

/// The log.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggingSettings {
    /// A filter in the syntax of `env_logger`.
    pub level: String,
    /// Format of a line.
    pub format: LogFormat,
    /// Whether each request is logged.
    pub access_log: bool,
    /// Paths that the access log omits; a `*` at the end matches any suffix.
    pub access_log_exclude: Vec<String>,
    /// Which requests are logged as slow.
    pub slow_request_log: SlowRequests,
}

/// Which requests are logged as slow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SlowRequests {
    /// None.
    Off,
    /// Those that take longer than this.
    Above(Duration),
    /// Those that take longer than this percentile, 0 to 100, of the requests of their task in the last minute.
    Percentile(f64),
}

/// Traces.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingSettings {
    /// The collector; none if requests are not traced.
    pub collector: Option<CollectorSettings>,
    /// Which requests are traced.
    pub sampling: SamplingSettings,
    /// Attributes of the service that traces name, by key.
    pub resource: BTreeMap<String, String>,
    /// How spans are sent.
    pub batches: SpanBatchSettings,
}

/// The collector of traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorSettings {
    /// Its URL, including the path.
    pub endpoint: String,
    /// Its protocol.
    pub protocol: OtlpProtocol,
    /// Headers that are sent to it.
    pub headers: Vec<(String, Secret)>,
    /// Timeout for sending spans to it.
    pub timeout: Duration,
    /// Whether what is sent is compressed.
    pub gzip: bool,
}

/// Protocol of a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, with bodies in protobuf.
    Http,
}

/// Which requests are traced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingSettings {
    /// Whether the decision of the client applies to requests that are part of a trace.
    pub follows_parent: bool,
    /// Share of the traces, for other requests.
    pub ratio: f64,
}

/// How spans are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanBatchSettings {
    /// Maximum number of spans that wait to be sent.
    pub max_queue_size: NonZeroUsize,
    /// Maximum number of spans that are sent at once.
    pub max_batch_size: NonZeroUsize,
    /// Maximum time that a span waits for more spans.
    pub delay: Duration,
    /// Maximum time for sending the last spans at shutdown.
    pub export_timeout: Duration,
}

impl SpanBatchSettings {
    /// The defaults of OpenTelemetry.
    pub(super) const DEFAULT: Self = Self {
        max_queue_size: NonZeroUsize::new(2048).expect("it is not zero"),
        max_batch_size: NonZeroUsize::new(512).expect("it is not zero"),
        delay: Duration::from_secs(5),
        export_timeout: Duration::from_secs(30),
    };
}

/// Durable jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSettings {
    /// Whether jobs are accepted.
    pub enabled: bool,
    /// Where they are stored.
    pub store: JobStoreSetting,
    /// Maximum number of jobs that wait or run.
    pub max_queued_jobs: usize,
    /// Maximum size of the body of a job in bytes.
    pub max_job_size: usize,
    /// Maximum size of a result in bytes.
    pub max_result_size: usize,
    /// Maximum size of the store in bytes.
    pub max_disk_size: u64,
    /// Time for which finished jobs are kept.
    pub retention: Duration,
    /// Maximum number of times that a job starts.
    pub max_attempts: u32,
    /// Time after which the claim of a server on a job expires.
    pub lease: Duration,
    /// Secret with which webhooks are signed. Without it, webhooks are disabled.
    pub webhook_secret: Option<Secret>,
    /// Hosts that webhooks can reach, or domains after `*.`; every host with a public address if there are none.
    pub webhook_allowed_hosts: Vec<String>,
    /// Maximum time of an attempt to deliver a webhook.
    pub webhook_timeout: Duration,
    /// Maximum number of webhooks that are delivered at the same time.
    pub webhook_concurrency: usize,
}

/// Where jobs are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobStoreSetting {
    /// This file of SQLite, which is created with the first job.
    Sqlite(PathBuf),
    /// The PostgreSQL database with this URL.
    Postgres(Secret),
}

/// Format of a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Plain text.
    Text,
    /// One JSON object per line.
    Json,
}

/// One model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSettings {
    /// Name, unique among the models.
    pub name: String,
    /// The file of the plugin, which may not exist.
    pub plugin: PathBuf,
    /// The expected digest of that file.
    pub sha256: Option<Digest>,
    /// The files in further directories of the search path, if the plugin is given by name. Empty once
    /// [`Settings::find_plugins`] has found it.
    pub(super) plugin_alternatives: Vec<PathBuf>,
    /// Where the plugin runs.
    pub isolation: Isolation,
    /// Number of threads or processes that run batches concurrently.
    pub workers: NonZeroUsize,
    /// Limits of each worker process.
    pub resources: Resources,
    /// Maximum memory of its batches that run at the same time.
    pub memory_budget: Option<MemoryBudget>,
    /// Where the cost of its batches is known from.
    pub calibration: Option<CalibrationSource>,
    /// Timeout of measuring it during the load.
    pub calibration_timeout: Duration,
    /// Niceness of its workers, 0 to 19, if it overrides that of all models.
    pub nice: Option<u8>,
    /// Whether the examples of the model run before it serves.
    pub warm_up: bool,
    /// Task of requests that do not name one.
    pub default_task: Option<String>,
    /// Description of the model.
    pub description: Option<String>,
    /// Default deadline of a request.
    pub request_timeout: Duration,
    /// How clients of embeddings use it.
    pub embeddings: EmbeddingSettings,
    /// The settings that are passed to the plugin, always an object.
    pub settings: serde_json::Value,
    /// Directory of the configuration file, where the plugin's relative paths start.
    pub base_dir: PathBuf,
    pub(super) batching: BatchingLayers,
    pub(super) tasks: BTreeMap<String, TaskOverrides>,
    pub(super) places: ModelPlaces,
}

/// How clients of OpenAI, Cohere and text-embeddings-inference use the embeddings of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingSettings {
    /// What happens if a client requests another number of dimensions.
    pub dimensions: Dimensions,
    /// The vocabulary of token ids.
    pub token_ids: TokenIds,
    /// Task or prompt for Cohere's input type `search_query`.
    pub search_query: Option<String>,
    /// For `search_document`.
    pub search_document: Option<String>,
    /// For `classification`.
    pub classification: Option<String>,
    /// For `clustering`.
    pub clustering: Option<String>,
}

/// What happens if a client requests another number of dimensions than that of the embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimensions {
    /// The request is rejected.
    Fixed,
    /// The embeddings are truncated.
    Truncate,
}

/// The vocabulary of token ids in requests for embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenIds {
    /// OpenAI's.
    Cl100kBase,
    /// That of the model.
    Model,
    /// Token ids are rejected.
    Reject,
}

/// Where the cost of a model's batches is known from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalibrationSource {
    /// The server measures it while it loads the model, if it has no valid measurements.
    Auto,
    /// This file, which may not exist.
    File(PathBuf),
}

/// Where the plugin of a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// In the server's process.
    Thread,
    /// In dedicated worker processes.
    Process(ProcessSettings),
    /// As the plugin declares, otherwise in the server's process.
    AsDeclared(ProcessSettings),
}

impl Isolation {
    /// The settings of its worker processes, if it has any. `declared` is the preference of the plugin.
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

/// How the worker processes of a model are supervised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessSettings {
    /// What happens to the batch of a process that exits.
    pub on_crash: OnCrash,
    /// Maximum time that a process may take to prepare an item, or to run a batch without an output.
    pub predict_timeout: Duration,
    /// Backoff before the second consecutive restart, which doubles with each further one.
    pub restart_delay: Duration,
    /// Maximum backoff.
    pub max_restart_delay: Duration,
}

/// What happens to the batch of a process that exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCrash {
    /// It runs again, and then item by item.
    Retry,
    /// It fails.
    Fail,
}

/// The written values for the batching of a model's tasks, by source. Highest precedence first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BatchingLayers {
    /// The command line.
    pub(super) flags: WrittenBatching,
    /// The environment, for single tasks, by the name of the task as variables spell it.
    pub(super) task_variables: BTreeMap<String, WrittenBatching>,
    /// The environment, for all tasks.
    pub(super) environment: WrittenBatching,
    /// The file, for this model and for all models.
    pub(super) file: WrittenBatching,
    /// Built-in defaults. Every key that has one is set.
    pub(super) built_in: WrittenBatching,
}

/// The written values for one task.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TaskOverrides {
    pub(super) batching: WrittenBatching,
    pub(super) route: Option<Located<String>>,
    /// The header of its table.
    pub(super) header: UncomparedLocation,
}

/// The places of the parts of a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ModelPlaces {
    pub(super) model: UncomparedLocation,
    pub(super) plugin: UncomparedLocation,
    pub(super) default_task: Option<UncomparedLocation>,
    /// The keys that have an effect only on worker processes.
    pub(super) process_keys: Vec<(&'static str, UncomparedLocation)>,
    /// By dotted path. The empty path is the table itself.
    pub(super) settings: BTreeMap<String, UncomparedLocation>,
}

/// A location that comparisons ignore: any two are equal.
#[derive(Clone, Debug)]
pub(super) struct UncomparedLocation(pub(super) Location);

impl PartialEq for UncomparedLocation {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// An origin that comparisons ignore: any two are equal.
#[derive(Clone, Debug)]
pub(super) struct UncomparedOrigin(pub(super) Origin);

impl PartialEq for UncomparedOrigin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for UncomparedOrigin {}

/// Batching, queue and route of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSettings {
    /// How batches are formed.
    pub batching: TaskBatching,
    /// Maximum number of items in the queue.
    pub max_queue_size: usize,
    /// Maximum total weight of the items in the queue.
    pub max_queue_weight: Option<u64>,
    /// Additional path that serves the task.
    pub route: Option<String>,
}

impl ModelSettings {
    /// The settings of one task. Precedence, highest first: command line, environment, configuration file, the limits that the
    /// plugin `declared` for the task, built-in defaults. Within the environment and the file, settings for this task take
    /// precedence over those for all tasks.
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
                background_slack: Slack::of_share(written_value(written.background_slack)),
            },
            max_queue_size: written_value(written.max_queue_size).get(),
            max_queue_weight: written_value(written.max_queue_weight),
            route: overrides
                .and_then(|overrides| overrides.route.clone())
                .map(|route| route.value),
        }
    }

    /// The additional paths of tasks. The plugin may not have these tasks.
    pub fn routes(&self) -> impl Iterator<Item = &str> {
        let routes = self.tasks.values().filter_map(|task| task.route.as_ref());
        routes.map(|route| route.value.as_str())
    }

    /// The tasks that have a table in the file, and its place. The plugin may not have these tasks.
    pub fn configured_tasks(&self) -> impl Iterator<Item = (&str, Location)> {
        self.tasks
            .iter()
            .map(|(name, task)| (name.as_str(), task.header.0.clone()))
    }

    /// The tasks that have an additional path, and that path.
    pub fn configured_routes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tasks
            .iter()
            .filter_map(|(name, task)| Some((name.as_str(), task.route.as_ref()?.value.as_str())))
    }

    /// Where a setting of the plugin is written, by its path, such as `image.size`, `labels.0` or `labels[0]`. If it is not
    /// written, the innermost table or array that would contain it; `None` if the model has no settings.
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

    /// Lints for a model that runs in a thread because neither the configuration nor the plugin requests a process.
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

    /// The file of the plugin for error messages. If it was not found, all directories that were searched.
    pub fn plugin_text(&self) -> String {
        let mut text = self.plugin.display().to_string();
        for file in &self.plugin_alternatives {
            text.push_str(&format!(", {}", file.display()));
        }
        text
    }

    /// Where the name or path of the plugin is written.
    pub fn plugin_location(&self) -> Location {
        self.places.plugin.0.clone()
    }

    /// Where the default task is written, if it is set.
    pub fn default_task_location(&self) -> Option<Location> {
        self.places.default_task.as_ref().map(|place| place.0.clone())
    }

    /// Whether the change to `new` requires a new generation of the model. Other differences, such as in batching, only change
    /// how the loaded model is used.
    pub fn needs_reload(&self, new: &Self) -> bool {
        self.plugin != new.plugin
            || self.sha256 != new.sha256
            || self.settings != new.settings
            || self.base_dir != new.base_dir
            || self.isolation != new.isolation
            || self.workers != new.workers
            || self.resources != new.resources
            || self.calibration != new.calibration
            // A share of the memory that is free when the model is loaded.
            || (self.memory_budget != new.memory_budget
                && matches!(new.memory_budget, Some(MemoryBudget::Percent(_))))
            || self.nice != new.nice
            || self.warm_up != new.warm_up
    }
}

impl Settings {
    /// Resolves plugins that are given by name to the first file in the search path that exists.
    pub fn find_plugins(&mut self, exists: impl Fn(&Path) -> bool) {
        for model in &mut self.models {
            if exists(&model.plugin) {
                model.plugin_alternatives.clear();
            } else if let Some(found) = model.plugin_alternatives.iter().position(|file| exists(file)) {
                model.plugin = model.plugin_alternatives.swap_remove(found);
                model.plugin_alternatives.clear();
            }
        }
    }

    /// Lints for environment variables of single tasks that no model has. `tasks` are those of the loaded models.
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
                message: format!("no model has a task {suffix}; the variable has no effect"),
                hint: Some(match nearest(suffix, known.iter().map(String::as_str)) {
                    Some(task) => format!("did you mean the task {task}?"),
                    None => {
                        "use the name of a task as the suffix, in upper case, with `_` for other characters"
                            .into()
                    }
                }),
            })
            .collect()
    }
}

/// How environment variables spell the name of a task: in upper case, with `_` for characters other than letters and digits.
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
    fn located<T>(value: T) -> Located<T> {
        Located {
            value,
            origin: Origin::BuiltIn,
        }
    }
    WrittenBatching {
        max_batch_size: declared.max_batch_size.and_then(NonZeroUsize::new).map(located),
        max_batch_weight: declared.max_batch_weight.map(|weight| located(Some(weight))),
        weight_rule: declared.weight_rule.map(located),
        ..WrittenBatching::empty()
    }
}

/// The value of a key whose built-in default has been filled in.
pub(super) fn written_value<T>(written: Option<Located<T>>) -> T {
    written
        .expect("the key has a built-in default in `keys`, which has been merged")
        .value
}
