//! Every key of the configuration: the one place that says what a key is called, what it accepts, what it is if nobody
//! writes it, what it means, and which environment variable and flag set it.
//!
//! Reading the file, the environment and the command line, the hints for unknown keys, `config/reference.toml` and the
//! tables of `config/README.md` all follow from the sections below. In a section each line is
//! `name: type = rule, fallback, "ENVIRONMENT_VARIABLE", "--flag";` under the text of its meaning.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::checks::{
    CORS_ORIGIN, FOLDER, HOST, KEY, LOG_FILTER, NAME, PATH_PATTERN, PLUGIN, ROUTE, SENTENCE,
};
use super::error::Origin;
use super::rule::{
    Ascending, Choice, CpuChoice, Integer, Limit, List, Mismatch, Rule, SecretText, Size, TimeSpan, Toggle,
    Written, count,
};
use super::settings::{LogFormat, OnCrash};
use crate::batching::WeightRule;
use crate::resources::{Cpus, Sandbox};
use crate::secret::Secret;

/// What holds for a key that nobody wrote. Values are as they would be written in the file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fallback {
    /// The built-in default.
    Value(&'static str),
    /// No value of its own: what holds instead, in words, and an example of what could be written.
    Otherwise {
        holds: &'static str,
        example: &'static str,
    },
    /// The key must be written; with an example.
    Required(&'static str),
}

use Fallback::{Otherwise, Required, Value};

/// One key of a section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) expected: fn() -> String,
    pub(super) fallback: Fallback,
    /// The lines of its meaning.
    pub(super) meaning: &'static [&'static str],
    pub(super) variable: Option<&'static str>,
    pub(super) flag: Option<&'static str>,
}

/// A value together with where it was written. Two are equal if their values are, wherever they were written.
#[derive(Clone, Debug)]
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

impl<T: PartialEq> PartialEq for Given<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// A set of keys and what was written for them.
pub(super) trait Section {
    fn keys(&self) -> &'static [Key];

    /// Reads the value of one key, and keeps it. `None` if this section has no such key.
    fn read(&mut self, name: &str, written: &Written<'_>, origin: Origin) -> Option<Result<(), Mismatch>>;

    /// What is written here, and for the rest what is written in `lower`.
    fn or(self, lower: &Self) -> Self
    where
        Self: Sized;

    /// Where each value that is written here comes from.
    fn origins(&self) -> Vec<&Origin>;
}

macro_rules! optional {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}

/// Declares a section: the struct of what was written, and its keys.
macro_rules! section {
    (
        $(#[$doc:meta])*
        $section:ident {
            $( $(#[doc = $meaning:literal])+
               $field:ident: $type:ty = $rule:expr, $fallback:expr $(, $variable:literal $(, $flag:literal)?)?; )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub(super) struct $section { $( $(#[doc = $meaning])+ pub(super) $field: Option<Given<$type>>, )* }

        impl $section {
            pub(super) const KEYS: &'static [Key] = &[ $( Key {
                name: stringify!($field),
                expected: || $rule.expected(),
                fallback: $fallback,
                meaning: &[$($meaning),+],
                variable: optional!($($variable)?),
                flag: optional!($($($flag)?)?),
            }, )* ];

            pub(super) fn empty() -> Self {
                Self { $( $field: None, )* }
            }
        }

        impl Section for $section {
            fn keys(&self) -> &'static [Key] {
                Self::KEYS
            }

            fn read(&mut self, name: &str, written: &Written<'_>, origin: Origin) -> Option<Result<(), Mismatch>> {
                match name {
                    $( stringify!($field) => Some($rule.read(written).map(|value| {
                        self.$field = Some(Given { value, origin });
                    })), )*
                    _ => None,
                }
            }

            fn or(self, lower: &Self) -> Self {
                Self { $( $field: self.$field.or_else(|| lower.$field.clone()), )* }
            }

            fn origins(&self) -> Vec<&Origin> {
                [$( self.$field.as_ref().map(|given| &given.origin) ),*].into_iter().flatten().collect()
            }
        }
    };
}

const HOUR: Duration = Duration::from_secs(60 * 60);
const MILLISECOND: Duration = Duration::from_millis(1);

const BUCKETS: Ascending = Ascending {
    each: time_span(Duration::from_micros(1), HOUR.saturating_mul(24)),
    max: 64,
};

const fn time_span(min: Duration, max: Duration) -> TimeSpan {
    TimeSpan { min, max }
}

section! {
    /// What is written about the process and its HTTP side.
    WrittenServer {
        /// Address to listen on: `0.0.0.0` is every IPv4 interface, `::` every interface, `127.0.0.1` this machine alone.
        host: String = HOST, Value("\"0.0.0.0\""), "INFERENCE_HOST", "--host";
        /// Port to listen on. 0 takes any free port, which the log then names.
        port: u16 = Integer::<u16>::new(0, 65_535), Value("8080"), "INFERENCE_PORT", "--port";
        /// Port for gRPC, on the same address. KServe expects 9000, Triton 8001; 0 takes any free port.
        grpc_port: u16 = Integer::<u16>::new(0, 65_535), Otherwise { holds: "no gRPC", example: "9000" },
            "INFERENCE_GRPC_PORT", "--grpc-port";
        /// Threads that read requests and write replies. They never run a model.
        http_workers: NonZeroUsize = count(1024), Otherwise { holds: "one per core", example: "4" }, "INFERENCE_HTTP_WORKERS";
        /// Threads on which plugins prepare items: decode, tokenise, resize.
        prepare_threads: NonZeroUsize = count(1024), Otherwise { holds: "one per core", example: "4" },
            "INFERENCE_PREPARE_THREADS";
        /// Most connections open at one time to each port, as far as the system's limit of open files allows. Further ones
        /// wait in the backlog of the socket.
        max_connections: NonZeroUsize = count(1_000_000), Value("8192"), "INFERENCE_MAX_CONNECTIONS";
        /// How long an idle connection stays open. "0s" closes each after its reply.
        keep_alive: Duration = time_span(Duration::ZERO, HOUR.saturating_mul(24)), Value("\"75s\""), "INFERENCE_KEEP_ALIVE";
        /// Longest time for a client to send the head of a request.
        header_timeout: Duration = time_span(MILLISECOND, HOUR), Value("\"10s\""), "INFERENCE_HEADER_TIMEOUT";
        /// Longest time for a client to send the body of a request, or the message of a gRPC call that is no stream.
        body_timeout: Duration = time_span(MILLISECOND, HOUR), Value("\"60s\""), "INFERENCE_BODY_TIMEOUT";
        /// Largest body of a request, also after decompression.
        max_body_size: usize = Size { min: 1 << 10, max: 64 << 30 }, Value("\"64MiB\""), "INFERENCE_MAX_BODY_SIZE";
        /// Most items in one request.
        max_items_per_request: NonZeroUsize = count(1_000_000), Value("1024"), "INFERENCE_MAX_ITEMS_PER_REQUEST";
        /// Deepest nesting of arrays and objects in a JSON body.
        max_json_depth: NonZeroUsize = count(1024), Value("128"), "INFERENCE_MAX_JSON_DEPTH";
        /// Deadline of a request that sets none. The header `x-request-timeout` sets another, up to 24 hours.
        /// A model's own `request_timeout` goes before this key, wherever this key is set.
        request_timeout: Duration = time_span(MILLISECOND, HOUR.saturating_mul(24)), Value("\"60s\""),
            "INFERENCE_REQUEST_TIMEOUT", "--request-timeout";
        /// How long the server keeps serving after SIGTERM while it reports that it is not ready, so that load balancers
        /// notice before connections are refused. Each reply in that time asks its client to reconnect.
        shutdown_delay: Duration = time_span(Duration::ZERO, HOUR), Value("\"0s\""), "INFERENCE_SHUTDOWN_DELAY";
        /// Longest time for accepted requests to finish after that. Then the server exits.
        drain_timeout: Duration = time_span(Duration::ZERO, HOUR), Value("\"30s\""), "INFERENCE_DRAIN_TIMEOUT";
        /// Longest time for the models of a reload to load and warm up. Then the old ones stay.
        reload_timeout: Duration = time_span(Duration::from_secs(1), HOUR.saturating_mul(24)), Value("\"5m\""),
            "INFERENCE_RELOAD_TIMEOUT";
        /// Folder in which plugins are looked for by name. In the file a relative path starts at the file's folder.
        plugin_dir: String = FOLDER,
            Otherwise { holds: "the folder of the executable", example: "\"/usr/lib/inference-server\"" },
            "INFERENCE_PLUGIN_DIR", "--plugin-dir";
        /// Folder for the copies of plugins from which they are loaded. It must allow execution (no `noexec` mount).
        scratch_dir: String = FOLDER,
            Otherwise { holds: "the system's folder for temporary files", example: "\"/var/tmp\"" },
            "INFERENCE_SCRATCH_DIR", "--scratch-dir";
        /// Compress predictions and documents of 1 KiB and more for clients that accept it.
        compression: bool = Toggle, Value("true"), "INFERENCE_COMPRESSION";
        /// Origins whose web pages may call this server. ["*"] allows every one, [] none.
        cors_allowed_origins: Vec<String> = List(CORS_ORIGIN), Value("[]"), "INFERENCE_CORS_ALLOWED_ORIGINS";
        /// Scheduling niceness of whatever loads and runs models: 0 treats it like the rest, 19 lets everything else go
        /// first. Above 0, health is answered at once also while models use every core.
        model_nice: u8 = Integer::<u8>::new(0, 19), Value("5"), "INFERENCE_MODEL_NICE";
        /// Keys of clients. Each request except for health, metrics and documentation must then carry one of them as
        /// `authorization: Bearer KEY`. With [] no key is needed.
        api_keys: Vec<Secret> = List(SecretText(KEY)), Value("[]"), "INFERENCE_API_KEYS";
        /// The key that allows loading and unloading models, and everything that client keys allow.
        admin_key: Secret = SecretText(KEY), Otherwise { holds: "no client may", example: "\"f3f1f4a5c8d94c1e\"" },
            "INFERENCE_ADMIN_KEY";
        /// Serve `/docs` and `/openapi.json`.
        docs: bool = Toggle, Value("true"), "INFERENCE_DOCS";
    }
}

section! {
    /// What is written about the log.
    WrittenLogging {
        /// What is logged: off, error, warn, info, debug or trace, also module by module: "info,actix_web=warn".
        level: String = LOG_FILTER, Value("\"info\""), "INFERENCE_LOG_LEVEL", "--log-level";
        /// Lines for people or for machines.
        format: LogFormat = Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]), Value("\"text\""),
            "INFERENCE_LOG_FORMAT", "--log-format";
        /// Log one line for each request.
        access_log: bool = Toggle, Value("true"), "INFERENCE_ACCESS_LOG";
        /// Paths without such a line. A `*` at the end stands for any rest.
        access_log_exclude: Vec<String> = List(PATH_PATTERN),
            Value("[\"/health\", \"/livez\", \"/readyz\", \"/metrics\", \"/v2/health/*\"]"),
            "INFERENCE_ACCESS_LOG_EXCLUDE";
    }
}

section! {
    /// What is written about the metrics.
    WrittenMetrics {
        /// Buckets of the time that a batch takes in the model.
        inference_buckets: Vec<Duration> = BUCKETS,
            Value("[\"500us\", \"1ms\", \"2ms\", \"5ms\", \"10ms\", \"20ms\", \"50ms\", \"100ms\", \"200ms\", \"500ms\", \"1s\", \"2s\", \"5s\", \"20s\"]"),
            "INFERENCE_METRICS_INFERENCE_BUCKETS";
        /// Buckets of the time from the head of a request to its answer.
        request_buckets: Vec<Duration> = BUCKETS,
            Value("[\"5ms\", \"20ms\", \"100ms\", \"500ms\", \"2s\", \"10s\"]"), "INFERENCE_METRICS_REQUEST_BUCKETS";
        /// Buckets of the other stages of a request: preparation, queue, encoding, and the wait of a batch for more items.
        stage_buckets: Vec<Duration> = BUCKETS, Value("[]"), "INFERENCE_METRICS_STAGE_BUCKETS";
    }
}

/// The word for a policy, before its delay is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PolicyName {
    Adaptive,
    Greedy,
    Fixed,
    Off,
}

const POLICIES: Choice<PolicyName> = Choice(&[
    ("adaptive", PolicyName::Adaptive),
    ("greedy", PolicyName::Greedy),
    ("fixed", PolicyName::Fixed),
    ("off", PolicyName::Off),
]);

const WEIGHT_RULES: Choice<WeightRule> = Choice(&[("padded", WeightRule::Padded), ("sum", WeightRule::Sum)]);

section! {
    /// What is written about batches and queues: for all models, for one, or for one of its tasks.
    WrittenBatching {
        /// When a free worker takes a batch. "adaptive": at once, but where the server has learned that waiting for
        /// callers or for the rest of a burst pays. "greedy": at once, with whatever waits. "fixed": `max_delay` after
        /// the first item came, or as soon as the batch is full. "off": one item at a time.
        policy: PolicyName = POLICIES, Value("\"adaptive\""), "INFERENCE_POLICY", "--policy";
        /// Most items in a batch. A plugin may declare another default for a task.
        max_batch_size: NonZeroUsize = count(65_536), Value("32"), "INFERENCE_MAX_BATCH_SIZE", "--max-batch-size";
        /// Most weight in a batch (tokens, pixels: whatever the plugin counts), or "none". An item that is heavier on
        /// its own runs alone. A plugin may declare another default for a task.
        max_batch_weight: Option<u64> = Limit, Value("\"none\""), "INFERENCE_MAX_BATCH_WEIGHT", "--max-batch-weight";
        /// How weights add up. "padded": every item counts as much as the heaviest. "sum": each as it is. A plugin may
        /// declare another default for a task.
        weight_rule: WeightRule = WEIGHT_RULES, Value("\"padded\""), "INFERENCE_WEIGHT_RULE";
        /// Longest wait of a batch for company: under the policy "adaptive" from when a worker is free, under "fixed"
        /// from when its first item came.
        max_delay: Duration = time_span(Duration::ZERO, Duration::from_secs(60)),
            Otherwise { holds: "10ms under \"adaptive\", 5ms under \"fixed\"", example: "\"5ms\"" },
            "INFERENCE_MAX_DELAY", "--max-delay";
        /// Most items waiting in the queue of a task. Beyond it requests are refused with 429.
        max_queue_size: NonZeroUsize = count(10_000_000), Value("1024"), "INFERENCE_MAX_QUEUE_SIZE", "--max-queue-size";
        /// Most weight waiting in the queue of a task, or "none". Beyond it requests are refused with 429.
        max_queue_weight: Option<u64> = Limit, Value("\"none\""), "INFERENCE_MAX_QUEUE_WEIGHT";
    }
}

/// The word for where a plugin runs, before the rest of it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IsolationName {
    Thread,
    Process,
}

const ISOLATIONS: Choice<IsolationName> = Choice(&[
    ("thread", IsolationName::Thread),
    ("process", IsolationName::Process),
]);

const SANDBOXES: Choice<Sandbox> = Choice(&[
    ("off", Sandbox::Off),
    ("on", Sandbox::On),
    ("best-effort", Sandbox::BestEffort),
]);

section! {
    /// What is written about one model.
    WrittenModel {
        /// Name of the model, as clients write it: letters, digits, `.`, `_` and `-`.
        name: String = NAME, Required("\"digits\"");
        /// The plugin. A bare name such as "onnx" is the file `libonnx.so` in `plugin_dir`; with a slash, or with `.so`
        /// at its end, it is a path that starts at the folder of this file.
        plugin: String = PLUGIN, Required("\"onnx\"");
        /// Where the plugin runs. "thread": in the server's process, which is fastest, and shares its fate. "process": in
        /// processes of its own, which may crash, hang or run out of memory without harm to anything else. A plugin may
        /// declare another default.
        isolation: IsolationName = ISOLATIONS,
            Otherwise { holds: "what the plugin declares, else \"thread\"", example: "\"process\"" };
        /// How many batches of this model run at the same time. With "thread" that many threads share the loaded model, with
        /// "process" there are that many processes, each with a model of its own.
        workers: NonZeroUsize = count(256), Value("1");
        /// What becomes of a batch whose process ends. "retry": it is run once more, and then item by item, so that only the
        /// item that is to blame fails. "fail": all of it fails. Only with `isolation = "process"`, as the next three.
        on_crash: OnCrash = Choice(&[("retry", OnCrash::Retry), ("fail", OnCrash::Fail)]), Value("\"retry\"");
        /// Longest time that a process may take to prepare an item, or to run a batch without any output. Then it is ended.
        predict_timeout: Duration = time_span(MILLISECOND, HOUR.saturating_mul(24)), Value("\"2m\"");
        /// A process that ends is started again at once; one that ends again before it has completed a batch, after this
        /// pause, which doubles each time.
        restart_delay: Duration = time_span(MILLISECOND, HOUR), Value("\"100ms\"");
        /// The longest of these pauses.
        max_restart_delay: Duration = time_span(MILLISECOND, HOUR), Value("\"30s\"");
        /// Most memory of each process of the model. In one that takes more, allocations fail, or it is ended. As `cpus`,
        /// `sandbox` and `[models.env]`, it needs `isolation = "process"`.
        max_memory: usize = Size { min: 16 << 20, max: 1 << 50 }, Otherwise { holds: "no limit", example: "\"4GiB\"" };
        /// The processors on which each process of the model runs: how many, or a list of their numbers. The plugin is told
        /// as many threads.
        cpus: Cpus = CpuChoice, Otherwise { holds: "all that the server may use", example: "2" };
        /// "on": the processes of the model have no network, and change files only in a folder of their own, which `TMPDIR`
        /// names. A kernel that cannot do that is an error. "best-effort": as far as the kernel can.
        sandbox: Sandbox = SANDBOXES, Value("\"off\"");
        /// Scheduling niceness of what runs the model, as `model_nice`, which it replaces.
        nice: u8 = Integer::<u8>::new(0, 19), Otherwise { holds: "`model_nice` of [server]", example: "10" };
        /// Run the model once before it serves, so that the first client does not wait for it to warm up.
        warm_up: bool = Toggle, Value("true");
        /// Task that is meant when a client names none.
        default_task: String = NAME, Otherwise { holds: "the only task, if there is one", example: "\"text\"" };
        /// A sentence for the list of models and the API documentation.
        description: String = SENTENCE, Otherwise { holds: "what the plugin says", example: "\"Reads digits\"" };
        /// Deadline of a request to this model that sets none.
        request_timeout: Duration = time_span(MILLISECOND, HOUR.saturating_mul(24)),
            Otherwise { holds: "`request_timeout` of [server]", example: "\"60s\"" };
    }
}

section! {
    /// What is written about one task of a model, beside its batches.
    WrittenTask {
        /// A short path at which this task answers too, such as "/text".
        route: String = ROUTE, Otherwise { holds: "no short path", example: "\"/text\"" };
    }
}
