//! The server's side of the conversation with a child, with a child that the test plays.

use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use plugin_abi::manifest::ModelManifest;

use crate::error::ItemError;
use crate::isolation::confine::Enclosures;
use crate::isolation::lane::{Lane, LaneError};
use crate::isolation::messages::{Outcome, Reply, Request};
use crate::isolation::process::Process;
use crate::isolation::remote::RemoteModel;
use crate::model::{BatchError, BatchItem, OutputSink, SinkStatus};
use crate::resources::Resources;
use crate::values::{ItemInput, Tensor, Value};

const LONG: Duration = Duration::from_secs(600);

/// Keeps outputs.
#[derive(Default)]
struct Outputs(Vec<Value>);

impl OutputSink for Outputs {
    fn emit(&mut self, _: usize, value: Value, _: bool) -> SinkStatus {
        self.0.push(value);
        SinkStatus::Accepted
    }

    fn emit_batch(&mut self, _: Vec<Tensor>) -> SinkStatus {
        SinkStatus::Rejected
    }

    fn fail(&mut self, _: usize, _: ItemError) -> SinkStatus {
        SinkStatus::Rejected
    }
}

/// A model whose lanes the test holds, and their far ends: that of batches, and that of preparation. Its process only waits.
fn remote(max_message: u64) -> (Arc<RemoteModel>, Lane, Lane) {
    let (mut main, far_main) = Lane::pair().expect("the system has sockets");
    let (mut prepare, far_prepare) = Lane::pair().expect("the system has sockets");
    main.limit(max_message);
    prepare.limit(max_message);
    let child = Command::new("sleep")
        .arg("1000")
        .spawn()
        .expect("a process can be started");
    let folder = tempfile::tempdir().expect("there is room");
    let enclosure = Enclosures::new(folder.path().to_owned())
        .enclose(&Resources::default(), "m", 0)
        .expect("nothing is asked for");
    let process = Process::new(child, vec![main.socket(), prepare.socket()], enclosure).expect("it lives");
    let model = RemoteModel::new(
        ModelManifest::default(),
        main,
        vec![prepare],
        Arc::new(process),
        LONG,
        false,
    );
    (Arc::new(model), far_main.into_lane(), far_prepare.into_lane())
}

fn text(bytes: usize) -> ItemInput {
    ItemInput {
        value: Value::Text(Bytes::from(vec![b'x'; bytes])),
        parameters: Bytes::new(),
    }
}

/// Answers the next batch on behalf of the child, with one output.
fn answer(far: &mut Lane) {
    let message = far.receive().expect("the server asks");
    assert!(matches!(Request::decode(&message), Ok(Request::Predict { .. })));
    let done = Reply::Done {
        result: Ok(()),
        outcomes: vec![Outcome::Output {
            index: 0,
            value: Value::Text(Bytes::from_static(b"done")),
        }],
        logged: false,
    };
    far.send(done.encode()).expect("the server listens");
}

fn run(model: &Arc<RemoteModel>, input: &ItemInput) -> Result<usize, BatchError> {
    let mut sink = Outputs::default();
    let item = BatchItem {
        input,
        prepared: None,
    };
    let result = model.run(0, &[item], &mut sink).expect("the child is not lost");
    result.map(|()| sink.0.len())
}

#[test]
fn a_batch_that_is_too_long_fails_before_it_is_sent_and_the_child_is_not_blamed() {
    let (model, mut far, _prepare) = remote(1000);
    let error = run(&model, &text(2000)).expect_err("it does not fit");
    let BatchError::TooLarge(ItemError::Invalid(message)) = &error else {
        panic!("{error:?}")
    };
    assert!(message.contains("a message has at most 1000"), "{message}");
    assert_eq!(
        far.try_receive().expect("the lane is open"),
        None,
        "nothing was sent"
    );
    thread::scope(|scope| {
        scope.spawn(|| answer(&mut far));
        assert_eq!(run(&model, &text(10)), Ok(1), "the child serves on");
    });
}

#[test]
fn an_item_that_is_too_long_to_be_prepared_fails_alone() {
    let (model, _far, mut prepare) = remote(1000);
    let error = model
        .prepare(0, &text(2000), false)
        .expect("the child is not lost")
        .err()
        .expect("it does not fit");
    assert!(matches!(error, ItemError::Invalid(_)), "{error:?}");
    assert_eq!(prepare.try_receive().expect("the lane is open"), None);
    assert_eq!(model.held(), 0);
}

#[test]
fn a_batch_waits_until_the_child_has_given_back_the_memory_of_a_release() {
    let (model, mut far, mut prepare) = remote(1 << 30);
    // So many that their handles do not fit into a datagram, dropped while the lane is busy.
    const HANDLES: u64 = 4000;
    let held: Vec<_> = (0..HANDLES)
        .map(|handle| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    prepare.receive().expect("the server asks");
                    let prepared = Reply::Prepared {
                        handle,
                        weight: 1,
                        group: 0,
                    };
                    prepare.send(prepared.encode()).expect("the server listens");
                });
                let prepared = model.prepare(0, &text(1), false).expect("the child is not lost");
                prepared.expect("the child prepares it")
            })
        })
        .collect();
    model.while_busy(|| drop(held));
    // The next one that is dropped takes all of them along.
    let one_more = thread::scope(|scope| {
        scope.spawn(|| {
            prepare.receive().expect("the server asks");
            let prepared = Reply::Prepared {
                handle: HANDLES,
                weight: 1,
                group: 0,
            };
            prepare.send(prepared.encode()).expect("the server listens");
        });
        model.prepare(0, &text(1), false).expect("the child is not lost")
    });
    drop(one_more);
    let lent = far.receive_lent().expect("the release was sent");
    let before = lent.to_vec();
    assert!(before.len() > 8 * HANDLES as usize);
    thread::scope(|scope| {
        let large = text(1 << 20);
        let running = {
            let model = &model;
            scope.spawn(move || run(model, &large))
        };
        far.set_timeout(Some(Duration::from_millis(100)))
            .expect("sockets have timeouts");
        let early = far.receive();
        assert!(matches!(early, Err(LaneError::TimedOut(_))), "{early:?}");
        assert!(lent == before, "the memory is still that of the release");
        assert!(
            matches!(Request::decode(&lent), Ok(Request::Release(handles)) if handles.len() as u64 == HANDLES + 1)
        );
        drop(lent);
        far.set_timeout(Some(LONG)).expect("sockets have timeouts");
        far.send(Reply::Released.encode()).expect("the server listens");
        answer(&mut far);
        assert_eq!(running.join().expect("it does not panic"), Ok(1));
    });
}
