//! The engine with a model that the test holds by the hand: it reports each batch and waits to be let go.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use plugin_abi::manifest::{ModelManifest, TaskManifest};

use super::*;
use crate::batching::{Policy, Priority, WeightRule};
use crate::clock;
use crate::error::ItemError;
use crate::model::{BatchError, BatchItem, OutputSink, Prepared};
use crate::protocol::{ItemInput, Value};

const LONG: Duration = Duration::from_secs(60);

/// How the model answers a batch.
type Answer = fn(&[String], &mut dyn OutputSink) -> Result<(), BatchError>;

struct HeldModel {
    manifest: ModelManifest,
    started: Sender<Vec<String>>,
    go: Receiver<Answer>,
}

impl Model for HeldModel {
    fn manifest(&self) -> &ModelManifest {
        &self.manifest
    }

    fn prepare(&self, _task: usize, item: &ItemInput) -> Result<Prepared, ItemError> {
        match text(item).as_str() {
            "bad" => Err(ItemError::Invalid("this is bad".to_owned())),
            text => Ok(Prepared {
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
}

fn text(item: &ItemInput) -> String {
    let Value::Text(text) = &item.value else {
        panic!("the tests send text, got {:?}", item.value)
    };
    String::from_utf8(text.to_vec()).expect("the tests send UTF-8")
}

fn echo(texts: &[String], sink: &mut dyn OutputSink) -> Result<(), BatchError> {
    for (index, text) in texts.iter().enumerate() {
        sink.emit(index, Value::Text(Bytes::from(text.clone())), false);
    }
    Ok(())
}

struct Scenario {
    max_batch_size: usize,
    max_queue_size: usize,
    workers: usize,
    prepares: bool,
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

struct Running {
    engine: Engine,
    workers: Workers,
    started: Receiver<Vec<String>>,
    go: Sender<Answer>,
    runtime: tokio::runtime::Runtime,
}

impl Scenario {
    fn limits(&self) -> TaskLimits {
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

    fn start(self) -> Running {
        let (started_sender, started) = unbounded();
        let (go, go_receiver) = unbounded();
        let task = TaskManifest {
            name: "text".to_owned(),
            prepares: self.prepares,
            ..TaskManifest::default()
        };
        let model = HeldModel {
            manifest: ModelManifest {
                platform: String::new(),
                tasks: vec![task],
            },
            started: started_sender,
            go: go_receiver,
        };
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
        let metrics = Metrics::new().expect("the families do not contradict each other");
        let (engine, workers) = Engine::start(Arc::new(model), &config, &metrics).expect("threads");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        Running {
            engine,
            workers,
            started,
            go,
            runtime,
        }
    }
}

impl Running {
    fn submit(&self, items: &[&str]) -> Result<Pending, Rejection> {
        self.submit_within(items, LONG)
    }

    fn submit_within(&self, items: &[&str], timeout: Duration) -> Result<Pending, Rejection> {
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
        })
    }

    /// Submits an item and waits until the model has it.
    fn occupy(&self) -> Pending {
        let pending = self.submit(&["busy"]).expect("there is room");
        assert_eq!(self.next_batch(), ["busy"]);
        pending
    }

    fn next_batch(&self) -> Vec<String> {
        self.started.recv_timeout(LONG).expect("a batch starts")
    }

    fn let_go(&self, answer: Answer) {
        self.go.send(answer).expect("the model listens");
    }

    fn reply(&self, pending: Pending) -> Vec<Result<String, ItemError>> {
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

    fn queued(&self) -> (i64, i64) {
        let metrics = self.engine.metrics(0);
        (metrics.queued_items.get(), metrics.queued_weight.get())
    }

    /// Ends the engine; every worker must come home.
    fn end(self) {
        let Self {
            engine, workers, go, ..
        } = self;
        drop(engine);
        drop(go);
        workers.join();
    }
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|index| format!("{prefix}{index}")).collect()
}

fn strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

#[test]
fn requests_of_11_and_3_items_run_as_batches_of_8_and_6_and_each_reply_is_in_order() {
    let run = Scenario::default().start();
    let busy = run.occupy();
    let (eleven, three) = (names("a", 11), names("b", 3));
    let first = run.submit(&strs(&eleven)).expect("there is room");
    let second = run.submit(&strs(&three)).expect("there is room");
    assert_eq!(run.queued(), (14, 14));
    for _ in 0..3 {
        run.let_go(echo);
    }
    assert_eq!(run.next_batch().len(), 8);
    assert_eq!(run.next_batch().len(), 6);
    assert_eq!(run.reply(first), eleven.into_iter().map(Ok).collect::<Vec<_>>());
    assert_eq!(run.reply(second), three.into_iter().map(Ok).collect::<Vec<_>>());
    run.reply(busy);
    assert_eq!(run.queued(), (0, 0));
    run.end();
}

#[test]
fn a_full_queue_rejects_at_once_and_says_when_to_come_back() {
    let run = Scenario {
        max_queue_size: 8,
        ..Scenario::default()
    }
    .start();
    let busy = run.occupy();
    let submitted: Vec<_> = (0..10).map(|_| run.submit(&["x"])).collect();
    let rejected: Vec<&Rejection> = submitted
        .iter()
        .filter_map(|result| result.as_ref().err())
        .collect();
    assert_eq!(rejected.len(), 2);
    let Rejection::QueueFull {
        queued: 8,
        limit: 8,
        items: 1,
        retry_after,
        ..
    } = rejected[0]
    else {
        panic!("got {:?}", rejected[0]);
    };
    assert!(*retry_after >= Duration::from_secs(1));
    run.let_go(echo);
    run.let_go(echo);
    for pending in submitted.into_iter().flatten() {
        assert_eq!(run.reply(pending), [Ok("x".to_owned())]);
    }
    run.reply(busy);
    assert_eq!(run.queued(), (0, 0));
    run.end();
}

#[test]
fn a_request_of_more_items_than_the_queue_holds_is_told_so() {
    let run = Scenario {
        max_queue_size: 2,
        ..Scenario::default()
    }
    .start();
    let rejection = run.submit(&["a", "b", "c"]).err();
    assert_eq!(
        rejection,
        Some(Rejection::TooManyItems {
            task: "text".to_owned(),
            items: 3,
            limit: 2
        })
    );
    run.end();
}

#[test]
fn a_deadline_passes_while_the_model_is_busy_and_the_item_never_reaches_it() {
    let run = Scenario::default().start();
    let busy = run.occupy();
    let timeout = Duration::from_millis(20);
    let late = run.submit_within(&["late"], timeout).expect("there is room");
    assert_eq!(run.reply(late), [Err(ItemError::Expired(timeout))]);
    assert_eq!(run.queued(), (0, 0));
    let next = run.submit(&["next"]).expect("there is room");
    run.let_go(echo);
    run.let_go(echo);
    assert_eq!(run.next_batch(), ["next"]);
    assert_eq!(run.reply(next), [Ok("next".to_owned())]);
    run.reply(busy);
    run.end();
}

#[test]
fn dropping_a_pending_request_frees_its_places_at_once_and_its_items_never_run() {
    let run = Scenario {
        max_queue_size: 2,
        ..Scenario::default()
    }
    .start();
    let busy = run.occupy();
    drop(run.submit(&["gone", "gone too"]).expect("there is room"));
    assert_eq!(run.queued(), (0, 0));
    let stays = run.submit(&["a", "b"]).expect("the places are free again");
    run.let_go(echo);
    run.let_go(echo);
    assert_eq!(run.next_batch(), ["a", "b"]);
    assert_eq!(run.reply(stays), [Ok("a".to_owned()), Ok("b".to_owned())]);
    run.reply(busy);
    run.end();
}

#[test]
fn clients_that_come_and_go_while_the_model_is_busy_do_not_fill_the_memory() {
    let run = Scenario {
        max_queue_size: 2,
        ..Scenario::default()
    }
    .start();
    let busy = run.occupy();
    let admitted = (0..100_000).take_while(|_| run.submit(&["gone"]).is_ok()).count();
    assert!(
        (1_000..10_000).contains(&admitted),
        "admitted {admitted} given-up requests without reading them"
    );
    run.let_go(echo);
    run.reply(busy);
    run.end();
}

#[test]
fn a_wrong_number_of_outcomes_fails_that_batch_only() {
    let too_few: Answer = |_, sink| {
        sink.emit(0, Value::Text(Bytes::from_static(b"only one")), false);
        Ok(())
    };
    let too_many: Answer = |texts, sink| {
        echo(texts, sink)?;
        sink.emit(texts.len(), Value::Text(Bytes::from_static(b"one more")), false);
        Ok(())
    };
    let twice: Answer = |texts, sink| {
        echo(texts, sink)?;
        echo(texts, sink)
    };
    let run = Scenario::default().start();
    for (answer, complaint) in [
        (too_few, "the plugin answered 1 of the 2 items of its batch"),
        (too_many, "the plugin answered item 2 of a batch of 2 items"),
        (twice, "the plugin answered item 0 of its batch twice"),
    ] {
        let pending = run.submit(&["a", "b"]).expect("there is room");
        run.next_batch();
        run.let_go(answer);
        let fault = ItemError::Fault(complaint.to_owned());
        assert_eq!(run.reply(pending), [Err(fault.clone()), Err(fault)]);
    }
    let pending = run.submit(&["a"]).expect("there is room");
    run.let_go(echo);
    assert_eq!(run.reply(pending), [Ok("a".to_owned())]);
    run.end();
}

#[test]
fn a_panic_and_an_error_of_the_batch_fail_all_of_its_items() {
    let panics: Answer = |_, _| Err(BatchError::Panicked("boom".to_owned()));
    let fails: Answer = |_, _| Err(BatchError::Failed(ItemError::Invalid("no".to_owned())));
    let run = Scenario::default().start();
    for (answer, error) in [
        (panics, ItemError::Fault("the plugin panicked: boom".to_owned())),
        (fails, ItemError::Invalid("no".to_owned())),
    ] {
        let pending = run.submit(&["a", "b"]).expect("there is room");
        run.next_batch();
        run.let_go(answer);
        assert_eq!(run.reply(pending), [Err(error.clone()), Err(error)]);
    }
    run.end();
}

#[test]
fn a_batch_that_does_not_fit_in_memory_is_halved_and_the_limit_is_learned() {
    let at_most_two: Answer = |texts, sink| {
        if texts.len() > 2 {
            Err(BatchError::OutOfMemory("too many".to_owned()))
        } else {
            echo(texts, sink)
        }
    };
    let run = Scenario::default().start();
    for _ in 0..6 {
        run.let_go(at_most_two);
    }
    let four = names("a", 4);
    let pending = run.submit(&strs(&four)).expect("there is room");
    assert_eq!(
        run.reply(pending),
        four.iter().cloned().map(Ok).collect::<Vec<_>>()
    );
    let sizes: Vec<usize> = (0..3).map(|_| run.next_batch().len()).collect();
    assert_eq!(sizes, [4, 2, 2]);
    let pending = run.submit(&strs(&four)).expect("there is room");
    assert_eq!(
        run.reply(pending),
        four.iter().cloned().map(Ok).collect::<Vec<_>>()
    );
    let sizes: Vec<usize> = (0..2).map(|_| run.next_batch().len()).collect();
    assert_eq!(sizes, [2, 2]);
    run.end();
}

#[test]
fn an_item_that_cannot_be_prepared_fails_alone() {
    let run = Scenario {
        prepares: true,
        ..Scenario::default()
    }
    .start();
    run.let_go(echo);
    let pending = run.submit(&["good", "bad", "fine"]).expect("there is room");
    assert_eq!(
        run.reply(pending),
        [
            Ok("good".to_owned()),
            Err(ItemError::Invalid("this is bad".to_owned())),
            Ok("fine".to_owned())
        ]
    );
    assert_eq!(run.next_batch(), ["good", "fine"]);
    assert_eq!(run.queued(), (0, 0));
    run.end();
}

#[test]
fn two_workers_run_two_batches_at_once() {
    let run = Scenario {
        workers: 2,
        max_batch_size: 1,
        ..Scenario::default()
    }
    .start();
    let first = run.submit(&["a"]).expect("there is room");
    let second = run.submit(&["b"]).expect("there is room");
    let mut running = [run.next_batch(), run.next_batch()];
    running.sort();
    assert_eq!(running, [["a"], ["b"]]);
    run.let_go(echo);
    run.let_go(echo);
    assert_eq!(run.reply(first), [Ok("a".to_owned())]);
    assert_eq!(run.reply(second), [Ok("b".to_owned())]);
    run.end();
}

#[test]
fn other_limits_hold_for_what_is_queued_already() {
    let run = Scenario::default().start();
    let busy = run.occupy();
    let pending = run.submit(&["a", "b", "c"]).expect("there is room");
    run.engine.reconfigure(&[Scenario {
        max_batch_size: 2,
        ..Scenario::default()
    }
    .limits()]);
    for _ in 0..3 {
        run.let_go(echo);
    }
    assert_eq!(run.next_batch(), ["a", "b"]);
    assert_eq!(run.next_batch(), ["c"]);
    run.reply(pending);
    run.reply(busy);
    run.end();
}

#[test]
fn an_engine_that_is_dropped_finishes_what_is_queued() {
    let run = Scenario::default().start();
    let busy = run.occupy();
    let queued = run.submit(&["queued"]).expect("there is room");
    let Running {
        engine,
        workers,
        go,
        runtime,
        ..
    } = run;
    drop(engine);
    go.send(echo).expect("the model listens");
    go.send(echo).expect("the model listens");
    let outcomes = runtime.block_on(queued.reply()).outcomes;
    assert_eq!(outcomes, [Ok(Value::Text(Bytes::from_static(b"queued")))]);
    drop(busy);
    workers.join();
}

#[test]
fn an_aborted_engine_answers_what_is_queued_and_takes_nothing_more() {
    let run = Scenario::default().start();
    let busy = run.occupy();
    let queued = run.submit(&["queued"]).expect("there is room");
    run.engine.abort();
    assert_eq!(run.submit(&["new"]).err(), Some(Rejection::ShuttingDown));
    run.let_go(echo);
    assert_eq!(run.reply(queued), [Err(ItemError::ShuttingDown)]);
    assert_eq!(run.reply(busy), [Ok("busy".to_owned())]);
    run.end();
}

#[test]
fn the_last_worker_drops_the_model() {
    struct DroppedOn(Arc<Mutex<Option<String>>>, ModelManifest);
    impl Drop for DroppedOn {
        fn drop(&mut self) {
            *self.0.lock().expect("nobody panics") = std::thread::current().name().map(str::to_owned);
        }
    }
    impl Model for DroppedOn {
        fn manifest(&self) -> &ModelManifest {
            &self.1
        }
        fn prepare(&self, _: usize, _: &ItemInput) -> Result<Prepared, ItemError> {
            Err(ItemError::Lost)
        }
        fn predict_batch(
            &self,
            _: usize,
            _: usize,
            _: &[BatchItem<'_>],
            _: &mut dyn OutputSink,
        ) -> Result<(), BatchError> {
            Ok(())
        }
    }
    let thread = Arc::new(Mutex::new(None));
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .expect("a thread");
    let config = EngineConfig {
        name: "dropped",
        tasks: &[],
        workers: 1,
        nice: 0,
        prepare_pool: Arc::new(pool),
    };
    let model = Arc::new(DroppedOn(thread.clone(), ModelManifest::default()));
    let metrics = Metrics::new().expect("the families do not contradict each other");
    let (engine, workers) = Engine::start(model, &config, &metrics).expect("threads");
    drop(engine);
    workers.join();
    assert_eq!(
        thread.lock().expect("nobody panics").as_deref(),
        Some("model dropped 0")
    );
}
