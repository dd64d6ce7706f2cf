//! A model that the test controls step by step, and an engine that runs it.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use plugin_abi::manifest::{ModelManifest, TaskManifest};

use crate::batching::{Policy, Priority, Slack, TaskBatching, WeightRule};
use crate::clock;
use crate::engine::crew::Crew;
use crate::engine::{Costs, Engine, EngineConfig, PendingReply, Request, TaskLimits, Tracking, Workers};
use crate::error::{ItemError, Rejection};
use crate::metrics::{Buckets, ItemOutcome, Metrics};
use crate::model::{BatchError, BatchItem, Health, Model, OutputSink, PreparedItem};
use crate::values::{ItemInput, Value};

pub(super) const LONG: Duration = Duration::from_secs(60);

/// How the model answers a batch.
pub(super) type Answer = fn(&[String], &mut dyn OutputSink) -> Result<(), BatchError>;

/// Whether the model has what runs its batches.
#[derive(Default)]
struct Workforce {
    lost: Mutex<bool>,
    crash_loop: AtomicBool,
    changed: Condvar,
}

/// What is called when the plugin's value of an item is dropped.
pub(super) type OnDrop = Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>;

/// What the model makes of an item.
struct Payload(OnDrop);

impl Drop for Payload {
    fn drop(&mut self) {
        if let Some(on_drop) = self.0.get() {
            on_drop();
        }
    }
}

struct HeldModel {
    manifest: ModelManifest,
    workforce: Arc<Workforce>,
    /// Preparations of the item "held" wait for one of these each.
    prepare: Receiver<()>,
    preparing: Sender<()>,
    on_drop: OnDrop,
    started: Sender<Vec<String>>,
    go: Receiver<Answer>,
}

impl Model for HeldModel {
    fn manifest(&self) -> &ModelManifest {
        &self.manifest
    }

    fn prepare(&self, _task: usize, item: &ItemInput) -> Result<PreparedItem, ItemError> {
        match text(item).as_str() {
            "bad" => return Err(ItemError::Invalid("this is bad".to_owned())),
            "panic" => panic!("the preparation panics"),
            "held" => {
                self.preparing.send(()).expect("the test listens");
                self.prepare.recv().expect("the test lets every preparation go");
            }
            _ => {}
        }
        Ok(PreparedItem {
            weight: match text(item).as_str() {
                "too heavy" => u64::MAX,
                text => text.len() as u64,
            },
            group: 0,
            payload: Box::new(Payload(self.on_drop.clone())),
        })
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
    /// All with the same limits.
    pub(super) tasks: usize,
    pub(super) policy: Policy,
    pub(super) costs: Costs,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            max_batch_size: 8,
            max_queue_size: 100,
            workers: 1,
            prepares: false,
            tasks: 1,
            policy: Policy::Greedy,
            costs: Costs::default(),
        }
    }
}

pub(super) struct Running {
    pub(super) engine: Engine,
    pub(super) workers: Workers,
    started: Receiver<Vec<String>>,
    workforce: Arc<Workforce>,
    pub(super) go: Sender<Answer>,
    prepare: Sender<()>,
    preparing: Receiver<()>,
    pub(super) on_drop: OnDrop,
    pub(super) runtime: tokio::runtime::Runtime,
}

impl Scenario {
    pub(super) fn limits(&self) -> TaskLimits {
        TaskLimits {
            batching: TaskBatching {
                policy: self.policy,
                max_batch_size: NonZeroUsize::new(self.max_batch_size).expect("not zero"),
                max_batch_weight: None,
                weight_rule: WeightRule::Sum,
                background_slack: Slack::NONE,
            },
            max_queue_size: self.max_queue_size,
            max_queue_weight: None,
        }
    }

    pub(super) fn start(self) -> Running {
        let (started_sender, started) = unbounded();
        let (go, go_receiver) = unbounded();
        let (prepare, prepare_receiver) = unbounded();
        let (preparing_sender, preparing) = unbounded();
        let on_drop = OnDrop::default();
        let task = |index: usize| TaskManifest {
            name: ["text", "image"][index].to_owned(),
            prepares: self.prepares,
            ..TaskManifest::default()
        };
        let model = HeldModel {
            manifest: ModelManifest {
                tasks: (0..self.tasks).map(task).collect(),
                ..ModelManifest::default()
            },
            workforce: Arc::default(),
            prepare: prepare_receiver,
            preparing: preparing_sender,
            on_drop: on_drop.clone(),
            started: started_sender,
            go: go_receiver,
        };
        let workforce = model.workforce.clone();
        let config = EngineConfig {
            name: "held",
            tasks: &vec![self.limits(); self.tasks],
            workers: self.workers,
            nice: 0,
            prepare_threads: 2,
            costs: self.costs.clone(),
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
            prepare,
            preparing,
            on_drop,
            runtime,
        }
    }
}

impl Running {
    /// From now on the model says that it keeps losing its workers.
    pub(super) fn declare_crash_loop(&self) {
        self.workforce.crash_loop.store(true, Ordering::SeqCst);
    }

    pub(super) fn submit(&self, items: &[&str]) -> Result<PendingReply, Rejection> {
        self.submit_within(items, LONG)
    }

    pub(super) fn submit_within(&self, items: &[&str], timeout: Duration) -> Result<PendingReply, Rejection> {
        self.submit_to(0, items, clock::now(), timeout)
    }

    /// Submits items to a task, in a request whose head arrived at `received`.
    pub(super) fn submit_to(
        &self,
        task: usize,
        items: &[&str],
        received: Instant,
        timeout: Duration,
    ) -> Result<PendingReply, Rejection> {
        let item = |text: &&str| {
            Ok(ItemInput {
                value: Value::Text(Bytes::from((*text).to_owned())),
                parameters: Bytes::new(),
            })
        };
        self.engine.submit(Request {
            task,
            items: items.iter().map(item).collect(),
            decoded: None,
            received,
            timeout,
            priority: Priority::Normal,
            tracking: Tracking::default(),
        })
    }

    /// Submits an item and waits until the model has it.
    pub(super) fn occupy(&self) -> PendingReply {
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

    /// Waits until the item "held" is being prepared.
    pub(super) fn is_preparing(&self) {
        self.preparing.recv_timeout(LONG).expect("a preparation starts");
    }

    /// Finishes a preparation of the item "held".
    pub(super) fn finish_preparation(&self) {
        self.prepare.send(()).expect("the model listens");
    }

    pub(super) fn crew(&self) -> Arc<Crew> {
        self.workers.crew.upgrade().expect("the workers run")
    }

    /// How many items had this outcome.
    pub(super) fn counted(&self, outcome: ItemOutcome) -> u64 {
        self.engine.metrics(0).counted(outcome)
    }

    /// Whether a batch has started that the test has not seen.
    pub(super) fn has_started(&self) -> bool {
        !self.started.is_empty()
    }

    pub(super) fn next_batch(&self) -> Vec<String> {
        self.started.recv_timeout(LONG).expect("a batch starts")
    }

    pub(super) fn let_go(&self, answer: Answer) {
        self.go.send(answer).expect("the model listens");
    }

    pub(super) fn reply(&self, pending: PendingReply) -> Vec<Result<String, ItemError>> {
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

    pub(super) fn executing(&self) -> i64 {
        self.engine.metrics(0).executing_items.get()
    }

    /// Waits until the queue has this weight.
    pub(super) fn wait_until_queued_weight(&self, weight: i64) {
        while self.queued().1 != weight {
            std::thread::yield_now();
        }
    }

    /// Ends the engine. Every worker must exit.
    pub(super) fn end(self) {
        let Self {
            engine,
            workers,
            go,
            prepare,
            ..
        } = self;
        drop(engine);
        drop((go, prepare));
        workers.join();
    }
}
