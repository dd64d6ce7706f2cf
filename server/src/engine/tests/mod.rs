//! The engine with a model that the test controls: it reports each batch and waits for its answer.

mod admission;
mod locks;
mod lost;
mod memory;
mod panics;
mod preparation;
mod scenario;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use plugin_abi::manifest::ModelManifest;

use super::{Costs, Engine, EngineConfig, Request, Tracking};
use crate::batching::Priority;
use crate::clock;
use crate::error::{ItemError, Rejection, Stage};
use crate::metrics::{Buckets, Metrics};
use crate::model::{BatchError, BatchItem, Model, OutputSink, PreparedItem};
use crate::values::{ItemInput, Value};
use scenario::{Answer, LONG, Running, Scenario, echo};

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
fn a_request_with_more_items_than_the_queue_holds_is_rejected_as_too_large() {
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
    assert_eq!(
        run.reply(late),
        [Err(ItemError::Expired {
            timeout,
            stage: Stage::Queue
        })]
    );
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
    let pending = run
        .submit(&["good", "bad", "too heavy", "fine"])
        .expect("there is room");
    let too_heavy = "weight 18446744073709551615 exceeds the maximum of 1099511627776";
    assert_eq!(
        run.reply(pending),
        [
            Ok("good".to_owned()),
            Err(ItemError::Invalid("this is bad".to_owned())),
            Err(ItemError::Fault(too_heavy.to_owned())),
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
fn cancelled_items_of_one_task_do_not_fill_the_queue_of_another() {
    let run = Scenario {
        tasks: 2,
        max_queue_size: 10,
        ..Scenario::default()
    }
    .start();
    let busy = run.occupy();
    while run.submit(&["gone"]).is_ok() {}
    let image = run
        .submit_to(1, &["image"], clock::now(), LONG)
        .expect("its queue is empty");
    run.let_go(echo);
    run.let_go(echo);
    assert_eq!(run.reply(image), [Ok("image".to_owned())]);
    run.reply(busy);
    run.end();
}

#[test]
fn a_slow_upload_does_not_overtake_requests_that_were_complete_before() {
    let run = Scenario {
        max_batch_size: 1,
        ..Scenario::default()
    }
    .start();
    let busy = run.occupy();
    let complete = run.submit(&["complete"]).expect("there is room");
    let began = clock::now() - Duration::from_secs(10);
    let slow = run
        .submit_to(0, &["slow upload"], began, 2 * LONG)
        .expect("there is room");
    (0..3).for_each(|_| run.let_go(echo));
    assert_eq!(run.next_batch(), ["complete"]);
    assert_eq!(run.next_batch(), ["slow upload"]);
    for pending in [busy, complete, slow] {
        run.reply(pending);
    }
    run.end();
}

#[test]
fn the_input_of_a_cancelled_item_is_freed_although_no_worker_has_noticed() {
    struct Input(#[expect(dead_code, reason = "it is counted")] Arc<()>);
    impl AsRef<[u8]> for Input {
        fn as_ref(&self) -> &[u8] {
            b"gone"
        }
    }
    let run = Scenario::default().start();
    let busy = run.occupy();
    let freed = Arc::new(());
    let pending = run
        .engine
        .submit(Request {
            task: 0,
            items: vec![Ok(ItemInput {
                value: Value::Text(Bytes::from_owner(Input(freed.clone()))),
                parameters: Bytes::new(),
            })],
            decoded: None,
            received: clock::now(),
            timeout: LONG,
            priority: Priority::Normal,
            tracking: Tracking::default(),
        })
        .expect("there is room");
    assert_eq!(Arc::strong_count(&freed), 2);
    drop(pending);
    assert_eq!(Arc::strong_count(&freed), 1);
    run.let_go(echo);
    run.reply(busy);
    run.end();
}

#[test]
fn a_completed_batch_is_known_to_the_scheduler_before_its_clients_have_their_replies() {
    let run = Scenario {
        workers: 2,
        max_batch_size: 1,
        ..Scenario::default()
    }
    .start();
    let (first, second) = (run.occupy(), run.occupy());
    assert_eq!(
        run.crew()
            .with_scheduler_locked(|scheduler| scheduler.batcher().running()),
        2
    );
    run.let_go(echo);
    run.runtime.block_on(async {
        tokio::select! {
            _ = first.reply() => (),
            _ = second.reply() => (),
        }
    });
    assert_eq!(
        run.crew()
            .with_scheduler_locked(|scheduler| scheduler.batcher().running()),
        1
    );
    run.let_go(echo);
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
        fn prepare(&self, _: usize, _: &ItemInput) -> Result<PreparedItem, ItemError> {
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
    let config = EngineConfig {
        name: "dropped",
        tasks: &[],
        workers: 1,
        nice: 0,
        prepare_threads: 1,
        costs: Costs::default(),
    };
    let model = Arc::new(DroppedOn(thread.clone(), ModelManifest::default()));
    let metrics = Metrics::new(Buckets::NONE).expect("the families do not contradict each other");
    let (engine, workers) = Engine::start(model, &config, &metrics).expect("threads");
    drop(engine);
    workers.join();
    assert_eq!(
        thread.lock().expect("nobody panics").as_deref(),
        Some("model dropped 0")
    );
}
