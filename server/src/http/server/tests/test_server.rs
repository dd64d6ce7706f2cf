//! A server with an example model, and a client that sees every byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use plugin_abi::manifest::{
    Kind, ModelManifest, PluginManifest, TaskManifest, TensorManifest, ValueManifest,
};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::api::model_control::ModelControl;
use crate::api::{ApiKeys, Telemetry};
use crate::batching::DeclaredLimits;
use crate::byte_budget::ByteBudget;
use crate::config::{Facts, Overrides, Settings, Source, resolve};
use crate::engine::{Costs, Engine, EngineConfig, TaskLimits};
use crate::error::ItemError;
use crate::http::Server;
use crate::jobs::Jobs;
use crate::metrics::{Buckets, JobMetrics, Metrics};
use crate::model::{BatchError, BatchItem, Model, OutputSink, PreparedItem};
use crate::registry::{Generation, ModelEntry, ModelState, ModelStateMetrics, Registry, Snapshot, TaskTrial};
use crate::values::{DType, ItemInput, Tensor, Value};

/// Maximum body size of the test server.
pub(super) const MAX_BODY: usize = 4096;

/// Timeout for events that must happen. It only limits the duration of failing tests.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Interval for polling metrics.
const PAUSE: Duration = Duration::from_millis(5);

/// A running server and the gate of its model.
pub(super) struct TestServer {
    pub(super) address: SocketAddr,
    pub(super) registry: Arc<Registry>,
    pub(super) gate: Arc<Gate>,
    pub(super) server: Server,
}

impl TestServer {
    /// Starts a server with the model `vision`, and `later`, which is loading.
    pub(super) fn start() -> Self {
        Self::start_with("")
    }

    /// Like `start`, with additional lines in `[server]`.
    pub(super) fn start_with(server: &str) -> Self {
        let settings = settings(server);
        let registry = Arc::new(Registry::default());
        let metrics = Arc::new(Metrics::new(Buckets::NONE).expect("the metrics are registered once"));
        let gate = Arc::new(Gate::default());
        registry.publish(Snapshot::default().next(entries(&settings, &gate, &metrics)));
        let states = ModelStateMetrics::new(registry.clone()).expect("the metrics are valid");
        let registered = metrics.registry().register(Box::new(states));
        registered.expect("the metrics are registered once");
        let budget = ByteBudget::new(settings.server.max_inflight_bytes as u64);
        let control = ModelControl::new(drop);
        let keys = ApiKeys::new(&settings.server, &settings.keys, &metrics)
            .expect("the metrics are registered once");
        let job_metrics = JobMetrics::new(&metrics).expect("the metrics are registered once");
        let jobs = Arc::new(Jobs::new(settings.jobs.clone(), job_metrics));
        let telemetry = Arc::new(Telemetry::of_metrics(metrics));
        let server = Server::bind(
            &settings,
            Vec::new(),
            None,
            registry.clone(),
            telemetry,
            (control, keys),
            (budget, jobs),
        )
        .expect("a port is free");
        Self {
            address: server.addresses()[0],
            registry,
            gate,
            server,
        }
    }

    /// Sends a request with `connection: close` and reads the whole reply.
    pub(super) async fn send(&self, head: &str, body: &[u8]) -> Answer {
        send_to(self.address, head, body).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), b"").await
    }

    pub(super) async fn post(&self, path: &str, body: &Json) -> Answer {
        let head = format!("POST {path}\ncontent-type: application/json");
        self.send(&head, body.to_string().as_bytes()).await
    }

    pub(super) async fn connect(&self) -> TcpStream {
        connect_to(self.address).await
    }

    /// Publishes a snapshot of the model `vision` alone, which is ready.
    pub(super) fn remove_later(&self) {
        let snapshot = self.registry.snapshot();
        let vision = snapshot.model("vision").expect("the model exists").clone();
        self.registry.publish(snapshot.next([vision]));
    }

    /// Returns the value of a metric, such as `inference_queue_items{model="vision",task="wait"}`.
    pub(super) async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.get("/metrics").await.text();
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Polls until a metric has this value.
    pub(super) async fn metric_becomes(&self, name: &str, value: f64) {
        let wait = async {
            while self.metric(name).await != Some(value) {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("{name} is not {value}"));
    }
}

/// Sends a request with `connection: close` and reads the whole reply.
pub(super) async fn send_to(address: SocketAddr, head: &str, body: &[u8]) -> Answer {
    let mut stream = connect_to(address).await;
    let length = if head.contains("transfer-encoding") || head.contains("\ncontent-length") {
        String::new()
    } else {
        format!("content-length: {}\r\n", body.len())
    };
    let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
    let headers: String = headers
        .lines()
        .map(|line| format!("{}\r\n", line.trim()))
        .filter(|line| line.len() > 2)
        .collect();
    let head = format!("{line} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}{length}\r\n");
    stream
        .write_all(head.as_bytes())
        .await
        .expect("the server reads the request");
    stream
        .write_all(body)
        .await
        .expect("the server reads the request");
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("the server replies in time")
        .expect("the server replies");
    Answer::parse(&bytes)
}

async fn connect_to(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("the server listens")
}

/// Sends bytes, and reads one reply from a connection that stays open.
pub(super) async fn exchange(stream: &mut TcpStream, request: &[u8]) -> Answer {
    stream
        .write_all(request)
        .await
        .expect("the server reads the request");
    let mut bytes = Vec::new();
    let read = async {
        loop {
            let byte = stream.read_u8().await.expect("the connection stays open");
            bytes.push(byte);
            if bytes.ends_with(b"\r\n\r\n") {
                break;
            }
        }
        let length = Answer::parse(&bytes).header("content-length").map(str::to_owned);
        let length: usize = length
            .and_then(|length| length.parse().ok())
            .expect("the reply has a content-length");
        let head = bytes.len();
        bytes.resize(head + length, 0);
        stream
            .read_exact(&mut bytes[head..])
            .await
            .expect("the connection stays open");
    };
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("the server replies in time");
    Answer::parse(&bytes)
}

/// A parsed reply.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("the head is complete");
        let head = String::from_utf8(bytes[..end].to_vec()).expect("a head is text");
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .expect("the reply has a status line");
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let mut answer = Self {
            status: status.parse().expect("a status is a number"),
            headers,
            body: bytes[end + 4..].to_vec(),
        };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = unchunk(&answer.body);
        }
        answer
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("the body is text")
    }

    pub(super) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Returns the status, code and message of a native error.
    pub(super) fn error(&self) -> (u16, String, String) {
        let body = self.json();
        let text = |member: &str| body["error"][member].as_str().unwrap_or_default().to_owned();
        (self.status, text("code"), text("message"))
    }
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).expect("a chunk size is text");
        let size = usize::from_str_radix(size, 16).expect("a chunk size is hexadecimal");
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 4 + size..];
    }
    whole
}

fn settings(server: &str) -> Settings {
    let size = match server.contains("max_body_size") {
        true => String::new(),
        false => format!("max_body_size = \"{MAX_BODY}B\"\n"),
    };
    let text = format!(
        "[server]\nhost = \"127.0.0.1\"\nport = 0\nhttp_workers = 2\n{size}\
         max_items_per_request = 8\nmax_json_depth = 16\n{server}\n\
         [[models]]\nname = \"vision\"\nplugin = \"vision\"\ndefault_task = \"upper\"\n\
         [models.tasks.upper]\nroute = \"/shout\"\n[models.tasks.wait]\nmax_queue_size = 2\n\
         [[models]]\nname = \"later\"\nplugin = \"later\"\n"
    );
    let facts = Facts {
        executable_dir: PathBuf::from("/opt"),
        cores: NonZeroUsize::MIN,
        temp_dir: PathBuf::from("/tmp"),
        memory: Some(8 << 30),
    };
    let source = Source {
        file_name: "models.toml",
        text: &text,
        base_dir: Path::new("/etc"),
    };
    resolve(source, &BTreeMap::new(), &Overrides::none(), &facts)
        .unwrap_or_else(|errors| panic!("the configuration is invalid:\n{errors}"))
}

fn entries(settings: &Settings, gate: &Arc<Gate>, metrics: &Metrics) -> [Arc<ModelEntry>; 2] {
    let [vision, later] = settings.models.as_slice() else {
        panic!("there are two models")
    };
    let model = Arc::new(Vision {
        manifest: manifest(),
        gate: gate.clone(),
    });
    let tasks: Vec<_> = model
        .manifest
        .tasks
        .iter()
        .map(|task| vision.task(&task.name, &DeclaredLimits::default()))
        .collect();
    let limits: Vec<TaskLimits> = tasks
        .iter()
        .map(|task| TaskLimits {
            batching: task.batching,
            max_queue_size: task.max_queue_size,
            max_queue_weight: task.max_queue_weight,
        })
        .collect();
    let config = EngineConfig {
        name: "vision",
        tasks: &limits,
        workers: 1,
        nice: 0,
        prepare_threads: 1,
        costs: Costs::default(),
    };
    let manifest = model.manifest.clone();
    let untried = TaskTrial::Untried {
        reason: "the task has no example",
    };
    let trials = std::iter::once(TaskTrial::Succeeded)
        .chain(std::iter::repeat(untried))
        .take(manifest.tasks.len())
        .collect();
    let (engine, _workers) = Engine::start(model, &config, metrics).expect("a thread can be started");
    let plugin = PluginManifest {
        name: "made-up".to_owned(),
        ..PluginManifest::default()
    };
    let generation = Arc::new(Generation {
        number: 1,
        manifest,
        plugin,
        created: 1_700_000_000,
        trials,
        engine,
    });
    let entry = |settings: &crate::config::ModelSettings, state, tasks, default_task| {
        let settings = settings.clone();
        Arc::new(ModelEntry {
            settings,
            state,
            tasks,
            default_task,
            memory_budget: None,
            last_reload_error: None,
            last_tasks: None,
        })
    };
    [
        entry(vision, ModelState::Ready(generation), tasks, Some(0)),
        entry(later, ModelState::Loading, Vec::new(), None),
    ]
}

/// Blocks the batches of the task `wait` until it is opened.
#[derive(Default)]
pub(super) struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub(super) fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(open, |open| !*open));
    }
}

struct Vision {
    manifest: ModelManifest,
    gate: Arc<Gate>,
}

const UPPER: usize = 0;
const FLIP: usize = 1;
const NEGATE: usize = 2;
const EMBED: usize = 4;
const WHOLE: usize = 5;

fn manifest() -> ModelManifest {
    let task = |name: &str, kind: Kind| {
        let mut task = TaskManifest {
            name: name.to_owned(),
            ..TaskManifest::default()
        };
        task.input = ValueManifest::of(kind);
        task.output = ValueManifest::of(kind);
        task
    };
    let mut flip = task("flip", Kind::Bytes);
    flip.input.media_types = vec!["image/png".to_owned()];
    flip.output.media_types = vec!["image/png".to_owned()];
    let mut negate = task("negate", Kind::Tensors);
    negate.input.tensors = vec![TensorManifest::new("x", "UINT8", [-1])];
    negate.output.tensors.clone_from(&negate.input.tensors);
    let mut embed = task("embed", Kind::Text);
    embed.embedding = true;
    embed.output = ValueManifest::of_tensors([TensorManifest::new("embedding", "FP32", [2])]);
    let mut whole = task("whole", Kind::Tensors);
    whole.unbatched = true;
    whole.input.tensors = vec![
        TensorManifest::new("scalar", "FP32", []),
        TensorManifest::new("cache", "INT16", [1, -1, 2]),
        TensorManifest {
            sequence: true,
            ..TensorManifest::new("parts", "UINT8", [-1])
        },
    ];
    whole.output.tensors.clone_from(&whole.input.tensors);
    let mut upper = task("upper", Kind::Text);
    upper.examples = vec![json!("hello")];
    ModelManifest {
        platform: "test".to_owned(),
        tasks: vec![upper, flip, negate, task("wait", Kind::Text), embed, whole],
        details: [("runtime".to_owned(), "made up".to_owned())].into(),
        ..ModelManifest::default()
    }
}

impl Model for Vision {
    fn manifest(&self) -> &ModelManifest {
        &self.manifest
    }

    fn prepare(&self, _: usize, _: &ItemInput) -> Result<PreparedItem, ItemError> {
        Err(ItemError::Fault("no task prepares".to_owned()))
    }

    fn predict_batch(
        &self,
        _: usize,
        task: usize,
        items: &[BatchItem<'_>],
        sink: &mut dyn OutputSink,
    ) -> Result<(), BatchError> {
        for (index, item) in items.iter().enumerate() {
            match (task, &item.input.value) {
                (UPPER, Value::Text(text)) if text.starts_with(b"bad") => {
                    sink.fail(index, ItemError::Invalid("a bad text".to_owned()));
                }
                (UPPER, Value::Text(text)) if text.starts_with(b"broken") => {
                    sink.fail(index, ItemError::Fault("it broke".to_owned()));
                }
                (UPPER, Value::Text(text)) if text.starts_with(b"panic") => panic!("a worker panics"),
                (UPPER, Value::Text(text)) => {
                    sink.emit(index, Value::Text(text.to_ascii_uppercase().into()), false);
                }
                (FLIP, Value::Bytes { data, .. }) => {
                    let data: Vec<u8> = data.iter().rev().copied().collect();
                    let media_type = "image/png".to_owned();
                    sink.emit(
                        index,
                        Value::Bytes {
                            data: data.into(),
                            media_type,
                        },
                        false,
                    );
                }
                (EMBED, Value::Text(text)) => {
                    let vector = [text.len() as f32, 0.5].map(f32::to_le_bytes).concat();
                    let vector = Tensor::new("embedding", DType::Fp32, vec![2], vector.into());
                    sink.emit(
                        index,
                        Value::Tensors(vec![vector.expect("the data matches the shape")]),
                        false,
                    );
                }
                (NEGATE | WHOLE, value) => {
                    sink.emit(index, value.clone(), false);
                }
                (_, value) => {
                    self.gate.pass();
                    sink.emit(index, value.clone(), false);
                }
            }
        }
        Ok(())
    }
}
