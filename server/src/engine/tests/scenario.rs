//! A model that the test holds by the hand, and an engine that runs it.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use plugin_abi::manifest::{ModelManifest, TaskManifest};

use crate::batching::{Policy, Priority, TaskBatching, WeightRule};
use crate::clock;
use crate::engine::{Engine, EngineConfig, Pending, Request, TaskLimits, Workers};
use crate::error::{ItemError, Rejection};
use crate::metrics::{Buckets, ItemOutcome, Metrics};
use crate::model::{BatchError, BatchItem, Health, Model, OutputSink, PreparedItem};
use crate::values::{ItemInput, Value};

const LONG: Duration = Duration::from_secs(60);

/// How the model answers a batch.
pub(super) type Answer = fn(&[String], &mut dyn OutputSink) -> Result<(), BatchError>;

/// Whether the model has what runs its batches.
#[derive(Default)]
struct Workforce {
    lost: Mutex<bool>,
    crash_loop: AtomicBool,
    changed: Condvar,
}

struct HeldModel {
    manifest: ModelManifest,
    workforce: Arc<Workforce>,
    started: Sender<Vec<String>>,
    go: Receiver<Answer>,
}

impl Model for HeldModel {
    fn manifest(&self) -> &ModelManifest {
        &self.manifest
    }

    fn prepare(&self, _task: usize, item: &ItemInput) -> Result<PreparedItem, ItemError> {
        match text(item).as_str() {
            "bad" => Err(ItemError::Invalid("this is bad".to_owned())),
            "too heavy" => Ok(PreparedItem {
                weight: u64::MAX,
                group: 0,
                payload: Box::new(()),
            }),
            text => Ok(PreparedItem {
                weight: text.len() as u64,
                group: 0,
                payload: Box::new(text.to_owned()),
            }),
        }
    }

    fn predict_batch(
        &self,
        _worker: usize,
        _task: usize,
        items: &[BatchItem<'_>],
        sink: &mut dyn OutputSink,
    ) -> Result<(), BatchError> {
        let texts: Vec<String> = items.iter().map(|item| text(item.input)).collect();
        self.started.send(texts.clone()).expect("the test listens");
        let answer = self.go.recv().expect("the test lets every batch go");
        answer(&texts, sink)
    }

    fn wait_for_worker(&self, _worker: usize, patience: Duration) -> bool {
        let lost = self.workforce.lost.lock().expect("nobody panics");
        let waited = self
            .workforce
            .changed
            .wait_timeout_while(lost, patience, |lost| *lost);
        !waited.expect("nobody panics").1.timed_out()
    }

    fn health(&self) -> Health {
        if self.workforce.crash_loop.load(Ordering::SeqCst) {
            let reason = "its process crashed".to_owned();
            return Health::CrashLoop { reason };
        }
        Health::Ready
    }
}

fn text(item: &ItemInput) -> String {
    let Value::Text(text) = &item.value else {
        panic!("the tests send text, got {:?}", item.value)
    };
    String::from_utf8(text.to_vec()).expect("the tests send UTF-8")
}

pub(super) fn echo(texts: &[String], sink: &mut dyn OutputSink) -> Result<(), BatchError> {
    for (index, text) in texts.iter().enumerate() {
        sink.emit(index, Value::Text(Bytes::from(text.clone())), false);
    }
    Ok(())
}

pub(super) struct Scenario {
    pub(super) max_batch_size: usize,
    pub(super) max_queue_size: usize,
    pub(super) workers: usize,
    pub(super) prepares: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            max_batch_size: 8,
            max_queue_size: 100,
            workers: 1,
            prepares: false,
        }
    }
}

pub(super) struct Running {
    pub(super) engine: Engine,
    pub(super) workers: Workers,
    started: Receiver<Vec<String>>,
    workforce: Arc<Workforce>,
    pub(super) go: Sender<Answer>,
    pub(super) runtime: tokio::runtime::Runtime,
}

impl Scenario {
    pub(super) fn limits(&self) -> TaskLimits {
        TaskLimits {
            batching: TaskBatching {
                policy: Policy::Greedy,
                max_batch_size: NonZeroUsize::new(self.max_batch_size).expect("not zero"),
                max_batch_weight: None,
                weight_rule: WeightRule::Sum,
            },
            max_queue_size: self.max_queue_size,
            max_queue_weight: None,
        }
    }

    pub(super) fn start(self) -> Running {
        let (started_sender, started) = unbounded();
        let (go, go_receiver) = unbounded();
        let task = TaskManifest {
            name: "text".to_owned(),
            prepares: self.prepares,
            ..TaskManifest::default()
        };
        let model = HeldModel {
            manifest: ModelManifest {
                tasks: vec![task],
                ..ModelManifest::default()
            },
            workforce: Arc::default(),
            started: started_sender,
            go: go_receiver,
        };
        let workforce = model.workforce.clone();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .expect("a thread");
        let config = EngineConfig {
            name: "held",
            tasks: &[self.limits()],
            workers: self.workers,
            nice: 0,
            prepare_pool: Arc::new(pool),
        };
        let metrics = Metrics::new(Buckets::NONE).expect("the families do not contradict each other");
        let (engine, workers) = Engine::start(Arc::new(model), &config, &metrics).expect("threads");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        Running {
            engine,
            workers,
            started,
            workforce,
            go,
            runtime,
        }
    }
}

impl Running {
    /// From now on the model says that it keeps losing its workers.
    pub(super) fn declare_crash_loop(&self) {
        self.workforce.crash_loop.store(true, Ordering::SeqCst);
    }

    pub(super) fn submit(&self, items: &[&str]) -> Result<Pending, Rejection> {
        self.submit_within(items, LONG)
    }

    pub(super) fn submit_within(&self, items: &[&str], timeout: Duration) -> Result<Pending, Rejection> {
        let item = |text: &&str| {
            Ok(ItemInput {
                value: Value::Text(Bytes::from((*text).to_owned())),
                parameters: Bytes::new(),
            })
        };
        self.engine.submit(Request {
            task: 0,
            items: items.iter().map(item).collect(),
            received: clock::now(),
            timeout,
            priority: Priority::Normal,
            id: "".into(),
        })
    }

    /// Submits an item and waits until the model has it.
    pub(super) fn occupy(&self) -> Pending {
        let pending = self.submit(&["busy"]).expect("there is room");
        assert_eq!(self.next_batch(), ["busy"]);
        pending
    }

    /// Lets the model have what runs its batches, or not.
    pub(super) fn have_workers(&self, have: bool) {
        *self.workforce.lost.lock().expect("nobody panics") = !have;
        self.workforce.changed.notify_all();
    }

    /// Returns once no worker is about to take a batch, and none can.
    pub(super) fn occupy_and_lose_workers(&self) {
        let busy = self.occupy();
        self.have_workers(false);
        self.let_go(echo);
        self.reply(busy);
    }

    /// How many items have come to this.
    pub(super) fn counted(&self, outcome: ItemOutcome) -> u64 {
        self.engine.metrics(0).counted(outcome)
    }

    pub(super) fn next_batch(&self) -> Vec<String> {
        self.started.recv_timeout(LONG).expect("a batch starts")
    }

    pub(super) fn let_go(&self, answer: Answer) {
        self.go.send(answer).expect("the model listens");
    }

    pub(super) fn reply(&self, pending: Pending) -> Vec<Result<String, ItemError>> {
        let reply = self.runtime.block_on(pending.reply());
        let text = |value| match value {
            Value::Text(text) => String::from_utf8(text.to_vec()).expect("UTF-8"),
            other => panic!("the model answers text, got {other:?}"),
        };
        reply
            .outcomes
            .into_iter()
            .map(|outcome| outcome.map(text))
            .collect()
    }

    pub(super) fn queued(&self) -> (i64, i64) {
        let metrics = self.engine.metrics(0);
        (metrics.queued_items.get(), metrics.queued_weight.get())
    }

    /// Ends the engine; every worker must come home.
    pub(super) fn end(self) {
        let Self {
            engine, workers, go, ..
        } = self;
        drop(engine);
        drop(go);
        workers.join();
    }
}
