//! Tests the server's side of the channels. The tests act as the child process.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use plugin_abi::manifest::{LoadContext, ModelManifest};

use crate::error::ItemError;
use crate::isolation::channel::{Channel, ChannelError};
use crate::isolation::confine::{Confinement, ResourceAllocator};
use crate::isolation::messages::{Outcome, Reply, Request};
use crate::isolation::process::Process;
use crate::isolation::remote::{self, RemoteModel};
use crate::isolation::setup::Setup;
use crate::model::{BatchError, BatchItem, OutputSink, SinkStatus};
use crate::resources::Resources;
use crate::values::{ItemInput, Tensor, Value};

const LONG: Duration = Duration::from_secs(600);

/// Records outputs.
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

/// A model, and the peer ends of its batch channel and its prepare channel. Its process only sleeps.
fn remote(max_message: u64) -> (Arc<RemoteModel>, Channel, Channel) {
    let (mut main, peer_main) = Channel::pair().expect("sockets can be created");
    let (mut prepare, peer_prepare) = Channel::pair().expect("sockets can be created");
    main.set_max_message(max_message);
    prepare.set_max_message(max_message);
    let process = process(&[&main, &prepare]);
    let model = RemoteModel::new(
        ModelManifest::default(),
        main,
        vec![prepare],
        Arc::new(process),
        LONG,
        false,
    );
    (
        Arc::new(model),
        peer_main.into_channel(),
        peer_prepare.into_channel(),
    )
}

/// A process that only sleeps.
fn process(channels: &[&Channel]) -> Process {
    let child = Command::new("sleep")
        .arg("1000")
        .spawn()
        .expect("a process can be started");
    let directory = tempfile::tempdir().expect("the directory is writable");
    let resources = ResourceAllocator::new(directory.path().to_owned())
        .allocate(&Resources::default(), "m", 0)
        .expect("no resources are configured");
    let sockets = channels.iter().map(|channel| channel.socket()).collect();
    Process::new(child, sockets, resources).expect("the process is running")
}

fn text(bytes: usize) -> ItemInput {
    ItemInput {
        value: Value::Text(Bytes::from(vec![b'x'; bytes])),
        parameters: Bytes::new(),
    }
}

/// Replies to the next batch with one output.
fn answer(peer: &mut Channel) {
    let message = peer.receive().expect("the server sends a request");
    assert!(matches!(Request::decode(&message), Ok(Request::Predict { .. })));
    let done = Reply::Done {
        result: Ok(()),
        outcomes: vec![Outcome::Output {
            index: 0,
            value: Value::Text(Bytes::from_static(b"done")),
        }],
        logged_error: false,
    };
    peer.send(done.encode()).expect("the channel is open");
}

fn run(model: &Arc<RemoteModel>, input: &ItemInput) -> Result<usize, BatchError> {
    let mut sink = Outputs::default();
    let item = BatchItem {
        input,
        prepared: None,
    };
    let result = model
        .run(0, &[item], &mut sink)
        .expect("the process has not failed");
    result.map(|()| sink.0.len())
}

#[test]
fn a_batch_that_is_too_long_fails_before_it_is_sent_and_the_process_keeps_running() {
    let (model, mut peer, _prepare) = remote(1000);
    let error = run(&model, &text(2000)).expect_err("the message is too long");
    let BatchError::TooLarge(ItemError::Invalid(message)) = &error else {
        panic!("{error:?}")
    };
    assert!(message.contains("the maximum is 1000"), "{message}");
    assert_eq!(
        peer.try_receive().expect("the channel is open"),
        None,
        "nothing was sent"
    );
    thread::scope(|scope| {
        scope.spawn(|| answer(&mut peer));
        assert_eq!(run(&model, &text(10)), Ok(1), "the process still serves");
    });
}

#[test]
fn the_error_about_a_slow_load_names_its_timeout() {
    let (mut main, _peer) = Channel::pair().expect("sockets can be created");
    let process = process(&[&main]);
    let setup = Setup {
        parent: 0,
        log_level: "off".to_owned(),
        confinement: Confinement::default(),
        file: PathBuf::new(),
        context: LoadContext::default(),
    };
    let error = remote::load(&mut main, &process, &setup, Duration::from_millis(20))
        .expect_err("the process does not reply");
    assert_eq!(
        error.to_string(),
        "the worker process did not reply within 0.02 s (`reload_timeout`) while loading the model"
    );
}

#[test]
fn an_item_that_is_too_long_to_be_prepared_fails_without_affecting_the_process() {
    let (model, _far, mut prepare) = remote(1000);
    let error = model
        .prepare(0, &text(2000), false)
        .expect("the process has not failed")
        .err()
        .expect("the message is too long");
    assert!(matches!(error, ItemError::Invalid(_)), "{error:?}");
    assert_eq!(prepare.try_receive().expect("the channel is open"), None);
    assert_eq!(model.prepared_count(), 0);
}

#[test]
fn a_batch_waits_until_the_child_has_acknowledged_a_release() {
    let (model, mut peer, mut prepare) = remote(1 << 30);
    // Enough handles to exceed a datagram, dropped while the channel is busy.
    const HANDLES: u64 = 4000;
    let prepared: Vec<_> = (0..HANDLES)
        .map(|handle| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    prepare.receive().expect("the server sends a request");
                    let prepared = Reply::Prepared {
                        handle,
                        weight: 1,
                        group: 0,
                    };
                    prepare.send(prepared.encode()).expect("the channel is open");
                });
                let prepared = model
                    .prepare(0, &text(1), false)
                    .expect("the process has not failed");
                prepared.expect("the item is prepared")
            })
        })
        .collect();
    model.while_busy(|| drop(prepared));
    // Dropping another one releases all of them.
    let one_more = thread::scope(|scope| {
        scope.spawn(|| {
            prepare.receive().expect("the server sends a request");
            let prepared = Reply::Prepared {
                handle: HANDLES,
                weight: 1,
                group: 0,
            };
            prepare.send(prepared.encode()).expect("the channel is open");
        });
        model
            .prepare(0, &text(1), false)
            .expect("the process has not failed")
    });
    drop(one_more);
    let borrowed = peer.receive_borrowed().expect("the release was sent");
    let before = borrowed.to_vec();
    assert!(before.len() > 8 * HANDLES as usize);
    thread::scope(|scope| {
        let large = text(1 << 20);
        let running = {
            let model = &model;
            scope.spawn(move || run(model, &large))
        };
        peer.set_timeout(Some(Duration::from_millis(100)))
            .expect("sockets have timeouts");
        let early = peer.receive();
        assert!(matches!(early, Err(ChannelError::TimedOut(_))), "{early:?}");
        assert!(borrowed == before, "the release is still in shared memory");
        assert!(
            matches!(Request::decode(&borrowed), Ok(Request::Release(handles)) if handles.len() as u64 == HANDLES + 1)
        );
        drop(borrowed);
        peer.set_timeout(Some(LONG)).expect("sockets have timeouts");
        peer.send(Reply::Released.encode()).expect("the channel is open");
        answer(&mut peer);
        assert_eq!(running.join().expect("the thread does not panic"), Ok(1));
    });
}
