//! Every key of the configuration: its name, type, range, default and meaning, and the environment variable and flag that
//! set it. There is no other definition of any of these.
//!
//! Parsing of the file, the environment and the command line, suggestions for unknown keys, `config/reference.toml`, the
//! tables of `config/README.md`, `--help`, the man page and shell completions all derive from the sections below. In a
//! section, each key is `name: type = rule, default, "ENVIRONMENT_VARIABLE", "--flag";`, after the text of its meaning.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::checks::{
    CALIBRATION, CORS_ORIGIN, DIRECTORY, FILE, FREE_TEXT, HOST, JOB_STORE, KEY, LOG_FILTER, MODEL_NAME, NAME,
    OTLP_ENDPOINT, OTLP_HEADER, PATH_PATTERN, PEM_FILE, PLUGIN, ROUTE, WEBHOOK_HOST, WEBHOOK_SECRET,
};
use super::error::Origin;
use super::rule::{
    Ascending, Choice, CpuChoice, HexDigest, Integer, Limit, List, Memory, Mismatch, Rule, SecretText, Share,
    Size, SlowRequestRule, TimeSpan, Toggle, Written, count,
};
use super::section::{Key, KeyDefault, Located, Section, optional, section};
use super::settings::{Dimensions, LogFormat, OnCrash, OtlpProtocol, SlowRequests, TokenIds};
use crate::batching::WeightRule;
use crate::digest::Digest;
use crate::resources::{Cpus, MemoryBudget, Sandbox};
use crate::secret::Secret;

use KeyDefault::{Derived, Required, Value};

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
    /// The process and its HTTP server.
    WrittenServer {
        /// Address to listen on. `0.0.0.0` stands for all IPv4 interfaces, `::` for all interfaces, and `127.0.0.1` for
        /// clients on this machine only.
        host: String = HOST, Value("\"0.0.0.0\""), "INFERENCE_HOST", "--host";
        /// Port to listen on. 0 picks a free port, which is logged.
        port: u16 = Integer::<u16>::new(0, 65_535), Value("8080"), "INFERENCE_PORT", "--port";
        /// gRPC port, on the same address. gRPC is disabled if unset; 0 picks a free port. KServe expects 9000, Triton
        /// 8001.
        grpc_port: u16 = Integer::<u16>::new(0, 65_535), Derived { applies: "gRPC is disabled", example: "9000" },
            "INFERENCE_GRPC_PORT", "--grpc-port";
        /// Additional HTTP port, on the same address, for health checks, metrics, documentation and the management of
        /// models. It does not run tasks. It has its own limit on connections. 0 picks a free port.
        management_port: u16 = Integer::<u16>::new(0, 65_535),
            Derived { applies: "these routes are served by `port` only", example: "8081" },
            "INFERENCE_MANAGEMENT_PORT", "--management-port";
        /// Address that `management_port` listens on. Requests to it are not encrypted, even with `[server.tls]`.
        management_host: String = HOST, Derived { applies: "`host`", example: "\"127.0.0.1\"" },
            "INFERENCE_MANAGEMENT_HOST";
        /// Serve `/metrics`, `/ui` and the loading and unloading of models (`/v2/repository/models/…`) only on `management_port`.
        /// On `port` they are unknown routes, and over gRPC unimplemented.
        management_only: bool = Toggle, Value("false"), "INFERENCE_MANAGEMENT_ONLY";
        /// Number of threads that read requests and write replies. They never run a model.
        http_workers: NonZeroUsize = count(1024), Derived { applies: "one per core", example: "4" },
            "INFERENCE_HTTP_WORKERS";
        /// Maximum number of threads of each model that prepare items: decoding, tokenization, resizing.
        prepare_threads: NonZeroUsize = count(1024), Derived { applies: "one per core", example: "4" },
            "INFERENCE_PREPARE_THREADS";
        /// Maximum number of open connections per port. A low limit on open files reduces it. Further connections wait in
        /// the backlog of the socket.
        max_connections: NonZeroUsize = count(1_000_000), Value("8192"), "INFERENCE_MAX_CONNECTIONS";
        /// Time after which an idle connection is closed. "0s" closes every connection after its reply.
        keep_alive: Duration = time_span(Duration::ZERO, HOUR.saturating_mul(24)), Value("\"75s\""), "INFERENCE_KEEP_ALIVE";
        /// Timeout for receiving the head of a request.
        header_timeout: Duration = time_span(MILLISECOND, HOUR), Value("\"10s\""), "INFERENCE_HEADER_TIMEOUT";
        /// Timeout for receiving the body of a request, or the message of a gRPC call that is not a stream.
        body_timeout: Duration = time_span(MILLISECOND, HOUR), Value("\"60s\""), "INFERENCE_BODY_TIMEOUT";
        /// Maximum size of a request body, before and after decompression.
        max_body_size: usize = Size { min: 1 << 10, max: 64 << 30 }, Value("\"64MiB\""), "INFERENCE_MAX_BODY_SIZE";
        /// Maximum number of bytes that all requests hold at the same time: bodies that are received, items that wait or
        /// run, and replies that are written. Above it, requests are rejected with 429. Bodies and replies of up to 4 KiB
        /// are not counted.
        max_inflight_bytes: usize = Size { min: 1 << 10, max: 1 << 50 },
            Derived { applies: "a quarter of the memory that the server can use", example: "\"4GiB\"" },
            "INFERENCE_MAX_INFLIGHT_BYTES";
        /// Maximum memory of the batches of all models that run at the same time, as predicted by `calibration`: a size, or
        /// a percentage of the memory that is free when the server starts. Batches wait for memory in turn. Models without a
        /// calibration are not counted.
        memory_budget: MemoryBudget = Memory, Derived { applies: "no limit", example: "\"80%\"" },
            "INFERENCE_MEMORY_BUDGET";
        /// Maximum number of items in a request.
        max_items_per_request: NonZeroUsize = count(1_000_000), Value("2048"), "INFERENCE_MAX_ITEMS_PER_REQUEST";
        /// Maximum nesting depth of arrays and objects in a JSON body.
        max_json_depth: NonZeroUsize = count(1024), Value("128"), "INFERENCE_MAX_JSON_DEPTH";
        /// Default deadline of a request. The header `x-request-timeout` overrides it, up to 24 hours. A model's own
        /// `request_timeout` takes precedence, wherever this key is set.
        request_timeout: Duration = time_span(MILLISECOND, HOUR.saturating_mul(24)), Value("\"60s\""),
            "INFERENCE_REQUEST_TIMEOUT", "--request-timeout";
        /// Time for which the server keeps serving after SIGTERM while it reports that it is not ready, so that load
        /// balancers can react. During this time, every reply asks its client to reconnect.
        shutdown_delay: Duration = time_span(Duration::ZERO, HOUR), Value("\"0s\""), "INFERENCE_SHUTDOWN_DELAY";
        /// Maximum time to wait for requests in flight after `shutdown_delay`. The server then exits.
        drain_timeout: Duration = time_span(Duration::ZERO, HOUR), Value("\"30s\""), "INFERENCE_DRAIN_TIMEOUT";
        /// Timeout for loading and warming up the models of a reload. A reload that exceeds it fails, and the current
        /// models keep serving.
        reload_timeout: Duration = time_span(Duration::from_secs(1), HOUR.saturating_mul(24)), Value("\"5m\""),
            "INFERENCE_RELOAD_TIMEOUT";
        /// Directory searched first for plugins given by name; then the directory of the executable and, relative to it,
        /// `../lib/inference-server`. In the configuration file, a relative path starts at the directory of that file.
        plugin_dir: String = DIRECTORY,
            Derived { applies: "only the other two", example: "\"/opt/plugins\"" },
            "INFERENCE_PLUGIN_DIR", "--plugin-dir";
        /// Directory for temporary copies of plugins, from which they are loaded. It must allow execution (no `noexec`
        /// mount).
        scratch_dir: String = DIRECTORY,
            Derived { applies: "the system's directory for temporary files", example: "\"/var/tmp\"" },
            "INFERENCE_SCRATCH_DIR", "--scratch-dir";
        /// Load plugins whose files other users can change. By default, a plugin fails to load if its file is world-writable,
        /// or group-writable with a group ID other than 0 or the owner's user ID, unless the model pins it with `sha256`.
        allow_writable_plugins: bool = Toggle, Value("false"), "INFERENCE_ALLOW_WRITABLE_PLUGINS";
        /// Compress predictions and documents of 1 KiB or more for clients that accept it.
        compression: bool = Toggle, Value("true"), "INFERENCE_COMPRESSION";
        /// Origins whose web pages may call this server. ["*"] allows all, [] none.
        cors_allowed_origins: Vec<String> = List(CORS_ORIGIN), Value("[]"), "INFERENCE_CORS_ALLOWED_ORIGINS";
        /// Scheduling niceness of threads and processes that load or run models. 0 is the priority of the server itself, 19
        /// the lowest. Values above 0 keep health checks responsive while models use every core.
        model_nice: u8 = Integer::<u8>::new(0, 19), Value("2"), "INFERENCE_MODEL_NICE";
        /// API keys. If any is set, every request except those for health, metrics and documentation must carry one as
        /// `authorization: Bearer KEY`.
        api_keys: Vec<Secret> = List(SecretText(KEY)), Value("[]"), "INFERENCE_API_KEYS";
        /// File with named API keys: the hash of each key, and optionally its models, rate limits and expiry. `inference-server
        /// key new` generates keys. If it is set, requests require a key, as with `api_keys`; the keys of both are valid. A
        /// reload reads the file again. In the configuration file, a relative path starts at the directory of that file.
        api_keys_file: String = FILE, Derived { applies: "no named keys", example: "\"keys.toml\"" },
            "INFERENCE_API_KEYS_FILE";
        /// Key that allows loading and unloading models, in addition to everything that API keys allow.
        admin_key: Secret = SecretText(KEY),
            Derived { applies: "clients cannot load or unload models", example: "\"f3f1f4a5c8d94c1e\"" },
            "INFERENCE_ADMIN_KEY";
        /// Serve `/docs` and `/openapi.json`.
        docs: bool = Toggle, Value("true"), "INFERENCE_DOCS";
        /// Serve `/ui`, a page that shows the state of all models, with figures of the last ten minutes, and tries out their tasks.
        /// If requests require a key, so does the page. With `management_only`, it is served only on `management_port`.
        ui: bool = Toggle, Value("true"), "INFERENCE_UI";
    }
}

section! {
    /// TLS of the HTTP and gRPC ports.
    WrittenTls {
        /// File with the certificate of the server in PEM, followed by its chain. If it is set, `port` and `grpc_port`
        /// accept only TLS 1.2 and 1.3. Requires `key`. The files are read again on a reload and when they change. In the
        /// configuration file, a relative path starts at the directory of that file.
        cert: String = PEM_FILE, Derived { applies: "no TLS", example: "\"tls/server.pem\"" }, "INFERENCE_TLS_CERT";
        /// File with the private key of the certificate in PEM, not encrypted.
        key: String = PEM_FILE, Derived { applies: "no TLS", example: "\"tls/server-key.pem\"" }, "INFERENCE_TLS_KEY";
        /// File with certificates in PEM. Every client must then present a certificate that one of them has signed.
        client_ca: String = PEM_FILE, Derived { applies: "clients need no certificate", example: "\"tls/client-ca.pem\"" },
            "INFERENCE_TLS_CLIENT_CA";
    }
}

section! {
    /// The log.
    WrittenLogging {
        /// Log level (off, error, warn, info, debug, trace), or a filter with levels per module, such as
        /// "info,actix_web=warn".
        level: String = LOG_FILTER, Value("\"info\""), "INFERENCE_LOG_LEVEL", "--log-level";
        /// Log format: plain text, or one JSON object per line.
        format: LogFormat = Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]), Value("\"text\""),
            "INFERENCE_LOG_FORMAT", "--log-format";
        /// Log one line per request.
        access_log: bool = Toggle, Value("true"), "INFERENCE_ACCESS_LOG";
        /// Paths that the access log omits. A `*` at the end matches any suffix.
        access_log_exclude: Vec<String> = List(PATH_PATTERN),
            Value("[\"/health\", \"/livez\", \"/readyz\", \"/metrics\", \"/v2/health/*\"]"),
            "INFERENCE_ACCESS_LOG_EXCLUDE";
        /// Log requests that take longer than this, with the time of each stage: a duration such as "500ms", or a
        /// percentile of the requests of the same task in the last minute, such as "p99". At most ten lines per second are
        /// logged.
        slow_request_log: SlowRequests = SlowRequestRule, Value("\"off\""), "INFERENCE_SLOW_REQUEST_LOG";
    }
}

section! {
    /// Traces.
    WrittenTracing {
        /// URL of the collector, such as "http://localhost:4317". For "http/protobuf", `/v1/traces` is appended.
        endpoint: String = OTLP_ENDPOINT,
            Derived { applies: "requests are not traced", example: "\"http://localhost:4318\"" };
        /// Protocol of the collector. Collectors usually receive "grpc" at port 4317 and "http/protobuf" at port 4318.
        protocol: OtlpProtocol = Choice(&[("grpc", OtlpProtocol::Grpc), ("http/protobuf", OtlpProtocol::Http)]),
            Value("\"http/protobuf\"");
        /// Share of the requests without a trace of the client that are traced. Requests of a trace are traced if the client
        /// has sampled it.
        sample_ratio: f64 = Share, Value("1.0");
        /// Headers that are sent to the collector, such as "authorization=Bearer KEY".
        headers: Vec<Secret> = List(SecretText(OTLP_HEADER)), Value("[]");
        /// Timeout for sending spans to the collector.
        timeout: Duration = time_span(MILLISECOND, HOUR), Value("\"10s\"");
        /// Name of this service in traces.
        service_name: String = FREE_TEXT, Value("\"inference-server\"");
    }
}

section! {
    /// The metrics.
    WrittenMetrics {
        /// Buckets for the time that a batch takes in the model.
        inference_buckets: Vec<Duration> = BUCKETS,
            Value("[\"500us\", \"1ms\", \"2ms\", \"5ms\", \"10ms\", \"20ms\", \"50ms\", \"100ms\", \"200ms\", \"500ms\", \"1s\", \"2s\", \"5s\", \"20s\"]"),
            "INFERENCE_METRICS_INFERENCE_BUCKETS";
        /// Buckets for the time from the head of a request to its reply.
        request_buckets: Vec<Duration> = BUCKETS,
            Value("[\"5ms\", \"20ms\", \"100ms\", \"500ms\", \"2s\", \"10s\"]"), "INFERENCE_METRICS_REQUEST_BUCKETS";
        /// Buckets for the other stages of a request: preparation, queue, encoding, and the wait of a batch for more
        /// items.
        stage_buckets: Vec<Duration> = BUCKETS, Value("[]"), "INFERENCE_METRICS_STAGE_BUCKETS";
    }
}

section! {
    /// Durable jobs.
    WrittenJobs {
        /// Accept jobs: requests with the header `Prefer: respond-async`, which are stored before they are acknowledged.
        enabled: bool = Toggle, Value("true"), "INFERENCE_JOBS_ENABLED";
        /// Store of the jobs: "sqlite" for a file on this machine, or the URL of a PostgreSQL database, which any number of
        /// servers can share.
        store: Secret = SecretText(JOB_STORE), Value("\"sqlite\""), "INFERENCE_JOBS_STORE";
        /// File of the store "sqlite". It is created with the first job. Only one server can use it at a time. In the
        /// configuration file, a relative path starts at the directory of that file.
        path: String = FILE,
            Derived { applies: "`jobs.sqlite` in the directory of the configuration file", example: "\"/var/lib/inference/jobs.sqlite\"" },
            "INFERENCE_JOBS_PATH";
        /// Maximum number of jobs that wait or run. Above it, jobs are rejected with 429.
        max_queued_jobs: NonZeroUsize = count(100_000_000), Value("1000000"), "INFERENCE_JOBS_MAX_QUEUED_JOBS";
        /// Maximum size of the body of a job, after decompression. Larger bodies are rejected with 413.
        max_job_size: usize = Size { min: 1 << 10, max: 1 << 30 },
            Derived { applies: "`max_body_size` of [server]", example: "\"16MiB\"" }, "INFERENCE_JOBS_MAX_JOB_SIZE";
        /// Maximum size of the result of a job. A job with a larger result fails.
        max_result_size: usize = Size { min: 1 << 10, max: 1 << 30 }, Value("\"64MiB\""), "INFERENCE_JOBS_MAX_RESULT_SIZE";
        /// Maximum size of all jobs and results in the store. Above it, jobs are rejected with 507.
        max_disk_size: usize = Size { min: 1 << 20, max: 1 << 50 }, Value("\"10GiB\""), "INFERENCE_JOBS_MAX_DISK_SIZE";
        /// Time for which finished jobs and their results are kept.
        retention: Duration = time_span(Duration::from_secs(1), HOUR.saturating_mul(24 * 366)), Value("\"72h\""),
            "INFERENCE_JOBS_RETENTION";
        /// Maximum number of times that a job starts. An attempt ends without a result if the server or the process of the
        /// model exits while the job runs. A job without a result after its last attempt fails, and can be retried.
        max_attempts: NonZeroUsize = count(1000), Value("3"), "INFERENCE_JOBS_MAX_ATTEMPTS";
        /// Time after which another server continues the jobs of a server that no longer renews its claim on them.
        lease: Duration = time_span(Duration::from_secs(1), HOUR), Value("\"30s\""), "INFERENCE_JOBS_LEASE";
        /// Secret with which webhooks are signed, as defined by Standard Webhooks: `whsec_` followed by 24 to 64 bytes in
        /// base64. It enables the header `x-webhook-url`. Servers that share a store need the same secret.
        webhook_secret: Secret = SecretText(WEBHOOK_SECRET),
            Derived { applies: "webhooks are disabled", example: "\"whsec_ZXhhbXBsZSBvZiBhIHNlY3JldCBrZXkh\"" },
            "INFERENCE_JOBS_WEBHOOK_SECRET";
        /// Hosts that webhooks can reach, such as "hooks.example.com", "*.example.com" or "10.0.0.7". They can have private
        /// addresses, and need no TLS. If it is empty, every host with a public address is allowed, with TLS.
        webhook_allowed_hosts: Vec<String> = List(WEBHOOK_HOST), Value("[]"), "INFERENCE_JOBS_WEBHOOK_ALLOWED_HOSTS";
        /// Maximum time of an attempt to deliver a webhook.
        webhook_timeout: Duration = time_span(MILLISECOND, Duration::from_secs(300)), Value("\"10s\""),
            "INFERENCE_JOBS_WEBHOOK_TIMEOUT";
        /// Maximum number of webhooks that are delivered at the same time.
        webhook_concurrency: NonZeroUsize = count(1024), Value("8"), "INFERENCE_JOBS_WEBHOOK_CONCURRENCY";
    }
}

/// The name of a policy, before its delay is known.
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
    /// Batches and queues: for all models, for one, or for one of its tasks.
    WrittenBatching {
        /// Batching policy: when a free worker starts a batch. "adaptive": immediately, unless the server has learned that
        /// waiting for more items pays. "greedy": immediately, with the items that are waiting. "fixed": `max_delay` after
        /// the first item arrived, or as soon as the batch is full. "off": one item at a time.
        policy: PolicyName = POLICIES, Value("\"adaptive\""), "INFERENCE_POLICY", "--policy";
        /// Maximum number of items in a batch. Plugins can declare another default for a task.
        max_batch_size: NonZeroUsize = count(65_536), Value("32"), "INFERENCE_MAX_BATCH_SIZE", "--max-batch-size";
        /// Maximum total weight of a batch, in the plugin's units (such as tokens or pixels), or "none". An item that
        /// exceeds it runs alone. Plugins can declare another default for a task.
        max_batch_weight: Option<u64> = Limit, Value("\"none\""), "INFERENCE_MAX_BATCH_WEIGHT", "--max-batch-weight";
        /// How the weights of the items in a batch add up. "padded" counts every item as much as the heaviest one, "sum"
        /// adds the weights. Plugins can declare another default for a task.
        weight_rule: WeightRule = WEIGHT_RULES, Value("\"padded\""), "INFERENCE_WEIGHT_RULE";
        /// Maximum time that a batch waits for more items. Under "adaptive" it starts when a worker is free, under "fixed"
        /// when the first item arrives.
        max_delay: Duration = time_span(Duration::ZERO, Duration::from_secs(60)),
            Derived { applies: "10ms under \"adaptive\", 5ms under \"fixed\"", example: "\"5ms\"" },
            "INFERENCE_MAX_DELAY", "--max-delay";
        /// Maximum time by which jobs may lengthen a batch that contains items of other requests, as a share of the predicted
        /// time of the batch. With 0, jobs join such a batch only if that takes no longer.
        background_slack: f64 = Share, Value("0.5"), "INFERENCE_BACKGROUND_SLACK";
        /// Maximum number of items in the queue of a task. Requests that exceed it are rejected with 429, as are those that
        /// cannot be answered within their deadline.
        max_queue_size: NonZeroUsize = count(10_000_000), Value("65536"), "INFERENCE_MAX_QUEUE_SIZE", "--max-queue-size";
        /// Maximum total weight of the items in the queue of a task, or "none". Requests that exceed it are rejected with
        /// 429.
        max_queue_weight: Option<u64> = Limit, Value("\"none\""), "INFERENCE_MAX_QUEUE_WEIGHT";
    }
}

/// Where a plugin runs, before the settings of its processes are known.
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
    /// One model.
    WrittenModel {
        /// Name of the model in requests: letters, digits, `.`, `_` and `-`, and at most one `/`, as in "BAAI/bge-small-en".
        name: String = MODEL_NAME, Required("\"digits\"");
        /// Plugin to load. A name such as "onnx" stands for the file `libonnx.so` in the search path (see `plugin_dir`). A
        /// value that contains a slash or ends in `.so` is a path, relative to the directory of the configuration file.
        plugin: String = PLUGIN, Required("\"onnx\"");
        /// SHA-256 of the plugin's file, as `inference-server inspect` prints it. If the file has other content, the model fails
        /// to load, before any code of the plugin runs.
        sha256: Digest = HexDigest { prefix: "", is_secret: false, hint: "`inference-server inspect FILE` prints it" },
            Derived { applies: "any content", example: "\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"" };
        /// Where the plugin runs. "thread": in the server's process, with the least overhead; a crash terminates the server.
        /// "process": in dedicated worker processes, which can crash, hang or run out of memory without affecting anything
        /// else. Plugins can declare another default.
        isolation: IsolationName = ISOLATIONS,
            Derived { applies: "what the plugin declares, otherwise \"thread\"", example: "\"process\"" };
        /// Number of batches of this model that can run concurrently. With "thread", that many threads share one loaded
        /// model; with "process", that many processes load one model each.
        workers: NonZeroUsize = count(256), Value("1");
        /// What happens to a batch whose worker process exits. "retry": it runs once more, then item by item, so that only
        /// the item at fault fails. "fail": all of its items fail. This key and the next three have no effect without
        /// `isolation = "process"`.
        on_crash: OnCrash = Choice(&[("retry", OnCrash::Retry), ("fail", OnCrash::Fail)]), Value("\"retry\"");
        /// Timeout of a worker process for preparing an item, and for running a batch without producing an output. A
        /// process that exceeds it is killed.
        predict_timeout: Duration = time_span(MILLISECOND, HOUR.saturating_mul(24)), Value("\"2m\"");
        /// Initial backoff between restarts of a worker process. The first restart is immediate; every further exit without
        /// a completed batch doubles the backoff.
        restart_delay: Duration = time_span(MILLISECOND, HOUR), Value("\"100ms\"");
        /// Maximum backoff between restarts of a worker process.
        max_restart_delay: Duration = time_span(MILLISECOND, HOUR), Value("\"30s\"");
        /// Maximum memory of each worker process. Allocations that exceed it fail, or the process is killed. This key,
        /// `cpus`, `sandbox` and `[models.env]` require `isolation = "process"`.
        max_memory: usize = Size { min: 16 << 20, max: 1 << 50 }, Derived { applies: "no limit", example: "\"4GiB\"" };
        /// CPUs on which each worker process runs: their number, or a list of CPU numbers. The plugin is told to use that
        /// many threads.
        cpus: Cpus = CpuChoice, Derived { applies: "all CPUs of the server", example: "2" };
        /// Sandbox of the worker processes. "on": no network, and files can be changed only in a private directory, which
        /// `TMPDIR` names; loading fails if the kernel does not support this. "best-effort": as far as the kernel supports
        /// it.
        sandbox: Sandbox = SANDBOXES, Value("\"off\"");
        /// Maximum memory of the batches of this model that run at the same time, above that of the idle model: a size, or a
        /// percentage of the memory that is free when the model is loaded. An item that exceeds it alone is rejected with
        /// 422. Requires `calibration`.
        memory_budget: MemoryBudget = Memory, Derived { applies: "no limit", example: "\"2GiB\"" };
        /// Measurements of the memory and the time of batches. "auto": the server measures while it loads the model, and
        /// again after the plugin, its files, its settings or the machine have changed. Otherwise the file that
        /// `inference-server calibrate` has written.
        calibration: String = CALIBRATION, Derived { applies: "batches are not predicted", example: "\"auto\"" };
        /// Timeout of the measurements with `calibration = "auto"`. The model then serves with what was measured.
        calibration_timeout: Duration = time_span(Duration::from_secs(1), HOUR.saturating_mul(24)), Value("\"2m\"");
        /// Scheduling niceness of the model's workers. Overrides `model_nice` of [server].
        nice: u8 = Integer::<u8>::new(0, 19), Derived { applies: "`model_nice` of [server]", example: "10" };
        /// Run the examples of the model before it serves, so that the first request is not slow.
        warm_up: bool = Toggle, Value("true");
        /// Task of requests that do not name one.
        default_task: String = NAME, Derived { applies: "what the plugin declares, or the only task", example: "\"text\"" };
        /// Description of the model, for the model list and the API documentation.
        description: String = FREE_TEXT, Derived { applies: "what the plugin declares", example: "\"Reads digits\"" };
        /// Default deadline of a request to this model.
        request_timeout: Duration = time_span(MILLISECOND, HOUR.saturating_mul(24)),
            Derived { applies: "`request_timeout` of [server]", example: "\"60s\"" };
    }
}

section! {
    /// The embeddings of one model, in the protocols of OpenAI, Cohere and text-embeddings-inference.
    WrittenEmbeddings {
        /// What happens if a client requests another number of `dimensions` than that of the model. "fixed": the request is
        /// rejected. "truncate": fewer dimensions are the first ones, scaled to length 1, which only models that were trained
        /// for it (Matryoshka) support.
        dimensions: Dimensions = Choice(&[("fixed", Dimensions::Fixed), ("truncate", Dimensions::Truncate)]),
            Value("\"fixed\"");
        /// Vocabulary of token ids in requests to `/v1/embeddings`. "cl100k_base": that of OpenAI's embedding models, which
        /// LangChain sends; the text of the tokens is embedded. "model": that of the model, if its task has the parameter
        /// `token_ids`. "reject": token ids are rejected.
        token_ids: TokenIds = Choice(&[
                ("cl100k_base", TokenIds::Cl100kBase),
                ("model", TokenIds::Model),
                ("reject", TokenIds::Reject),
            ]),
            Value("\"cl100k_base\"");
        /// Embedding task or prompt of the model for inputs of Cohere's type `search_query`.
        search_query: String = NAME, Derived { applies: "the task `query` if the model has it, otherwise the default task",
            example: "\"query\"" };
        /// The same for the type `search_document`.
        search_document: String = NAME, Derived {
            applies: "the task `passage` or `document` if the model has it, otherwise the default task",
            example: "\"passage\"" };
        /// The same for the type `classification`.
        classification: String = NAME, Derived { applies: "the default task", example: "\"passage\"" };
        /// The same for the type `clustering`.
        clustering: String = NAME, Derived { applies: "the default task", example: "\"passage\"" };
    }
}

section! {
    /// One task of a model, except for its batching.
    WrittenTask {
        /// Additional path that serves this task, such as "/text".
        route: String = ROUTE, Derived { applies: "no additional path", example: "\"/text\"" };
    }
}
