//! The child's side of isolation: what runs in the process of a plugin.
//!
//! The main thread runs batches in the order in which they arrive. One thread for each prepare channel prepares items. All of
//! them exit when the server closes the channels or exits.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use bytes::Bytes;
use log::LevelFilter;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::channel::{Channel, ChannelError, MAX_MESSAGE};
use super::child_sink::ChildSink;
use super::descriptor_passing::ChildDescriptors;
use super::log_records;
use super::messages::{BatchEntry, Reply, Request};
use super::setup::{LoadFailure, Setup};
use crate::allocator;
use crate::batch_context::{BatchContext, RequestIds, logged_error_count};
use crate::clock;
use crate::console;
use crate::error::{Chain, ItemError};
use crate::model::{BatchError, BatchItem, Model, PreparedItem};
use crate::values::ItemInput;

/// How much more likely the kernel kills a child than the server when memory runs out, from 0 to 1000.
const OOM_SCORE_ADJUSTMENT: &str = "500";

/// Why a child exits with an error.
#[derive(Debug, thiserror::Error)]
enum ChildError {
    #[error("cannot receive the connections to the server")]
    Descriptors(#[from] io::Error),
    #[error("the server has exited")]
    Orphaned,
    #[error("the server did not send a valid load request")]
    NoSetup,
    #[error("the connection to the server failed")]
    Channel(#[from] ChannelError),
    #[error("the server sent an invalid message: {0}")]
    Protocol(String),
}

/// Runs a child process until the server does not need it anymore. `load` loads the plugin that the server has staged.
pub fn run_child(load: impl FnOnce(&Setup) -> Result<Arc<dyn Model>, LoadFailure>) -> ExitCode {
    match run(load) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::report(Chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(load: impl FnOnce(&Setup) -> Result<Arc<dyn Model>, LoadFailure>) -> Result<(), ChildError> {
    // This comes first, so that the child never outlives the server. If the server has exited already, its ends of the
    // connections are closed; the comparison of process ids below detects an exit in between.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let control = take_standard_input()?;
    let ChildDescriptors {
        log_socket,
        main,
        prepare,
    } = ChildDescriptors::receive(&control)?;
    drop(control);
    let mut main = main.into_channel();
    let Request::Load(json) = receive(&mut main)? else {
        return Err(ChildError::NoSetup);
    };
    let setup: Setup = serde_json::from_slice(&json).map_err(|_| ChildError::NoSetup)?;
    if getppid().map(rustix::process::Pid::as_raw_pid) != i32::try_from(setup.parent).ok() {
        return Err(ChildError::Orphaned);
    }
    log_records::init_logger(log_socket, setup.log_level.parse().unwrap_or(LevelFilter::Info));
    // If memory runs out, the kernel should kill the child rather than the server. This is best effort.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJUSTMENT);
    let confined = setup.confinement.apply();
    let confined = confined.map_err(|error| LoadFailure::Confine(Chain(&error).to_string()));
    let model = match confined.and_then(|()| load(&setup)) {
        Ok(model) => model,
        Err(failure) => {
            let json = serde_json::to_vec(&failure).unwrap_or_default();
            return Ok(main.send(Reply::LoadFailed(Bytes::from(json)).encode())?);
        }
    };
    let manifest = serde_json::to_vec(model.manifest()).map_err(io::Error::from)?;
    let model = Arc::new(ServedModel {
        name: setup.context.model.as_str().into(),
        model,
        prepared_items: Mutex::new(HashMap::new()),
        next_handle: AtomicU64::new(1),
        threads: prepare.len(),
        last_batch_nanos: AtomicU64::new(0),
    });
    let prepare_threads = prepare
        .into_iter()
        .enumerate()
        .map(|(index, channel)| {
            let model = model.clone();
            thread::Builder::new()
                .name(format!("prepare {index}"))
                .spawn(move || model.serve_prepare_channel(channel.into_channel()))
        })
        .collect::<io::Result<Vec<_>>>()?;
    main.send(Reply::Loaded(Bytes::from(manifest)).encode())?;
    let result = model.serve_batch_channel(main);
    for thread in prepare_threads {
        // The thread has reported its own errors.
        let _ = thread.join();
    }
    result
}

/// Returns the socket to the server. Replaces standard input by an empty file, and standard output by standard error.
fn take_standard_input() -> io::Result<OwnedFd> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(io::stderr().as_fd())?;
    Ok(control)
}

fn receive(channel: &mut Channel) -> Result<Request<'static>, ChildError> {
    decode(&channel.receive()?)
}

fn decode(message: &Bytes) -> Result<Request<'static>, ChildError> {
    Request::decode(message).map_err(|error| ChildError::Protocol(error.to_string()))
}

/// The reply, or an error if the reply is too long to be sent.
fn within_limit(done: Reply, max: u64) -> Reply {
    let length = done.encode().len() as u64;
    if length <= max {
        return done;
    }
    let error = format!(
        "the outputs have {length} bytes, but a worker process can return at most {max} bytes per batch; lower `max_batch_size`"
    );
    Reply::Done {
        result: Err(BatchError::TooLarge(ItemError::Fault(error))),
        outcomes: Vec::new(),
        logged_error: false,
    }
}

/// The loaded model and its prepared items.
struct ServedModel {
    name: Arc<str>,
    model: Arc<dyn Model>,
    prepared_items: Mutex<HashMap<u64, Arc<PreparedInput>>>,
    next_handle: AtomicU64,
    /// Number of items that are prepared concurrently.
    threads: usize,
    /// Time that the model took for its last batch.
    last_batch_nanos: AtomicU64,
}

/// An item with its prepared state, if its task prepares items.
struct PreparedInput {
    input: ItemInput,
    prepared: Option<PreparedItem>,
}

impl ServedModel {
    fn prepared_items(&self) -> MutexGuard<'_, HashMap<u64, Arc<PreparedInput>>> {
        self.prepared_items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares items until the server closes the channel.
    fn serve_prepare_channel(&self, mut channel: Channel) {
        loop {
            let answer = match receive(&mut channel) {
                Ok(Request::Prepare { task, item }) => self.prepare(task as usize, item.into_owned()),
                // The server kills this process if it gets no reply.
                _ => return,
            };
            if channel.send(answer.encode()).is_err() {
                return;
            }
        }
    }

    fn prepare(&self, task: usize, input: ItemInput) -> Reply {
        match self.model.prepare(task, &input) {
            Ok(prepared) => {
                let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
                let (weight, group) = (prepared.weight, prepared.group);
                let prepared = Some(prepared);
                self.prepared_items()
                    .insert(handle, Arc::new(PreparedInput { input, prepared }));
                Reply::Prepared {
                    handle,
                    weight,
                    group,
                }
            }
            Err(error) => Reply::PrepareFailed(error),
        }
    }

    /// Runs batches until the server closes the channel.
    fn serve_batch_channel(&self, mut channel: Channel) -> Result<(), ChildError> {
        loop {
            // Not copied, because nothing in the message is needed after the batch has been answered.
            let message = channel.receive_borrowed().map_err(ChildError::from);
            match message.and_then(|message| decode(&message)) {
                Ok(Request::Predict {
                    task,
                    requests,
                    traces,
                    release,
                    items,
                }) => {
                    self.release(&release);
                    let guard = self.context(task as usize, &requests, &traces).enter();
                    let done = self.run_batch(&mut channel, task as usize, items);
                    drop(guard);
                    channel.send(done.encode())?;
                }
                Ok(Request::Release(handles)) => {
                    self.release(&handles);
                    channel.send(Reply::Released.encode())?;
                }
                Ok(Request::Sample { task, weight }) => {
                    let reply = match self.model.sample(task as usize, weight) {
                        Ok(item) => Reply::Sampled(item.unwrap_or_default()),
                        Err(error) => Reply::PrepareFailed(error),
                    };
                    channel.send(reply.encode())?;
                }
                Ok(Request::ReadMemory { trim }) => {
                    if trim {
                        allocator::trim();
                    }
                    let reply = Reply::Memory {
                        usage: self.model.memory_usage(),
                        batch_nanos: self.last_batch_nanos.load(Ordering::Relaxed),
                    };
                    channel.send(reply.encode())?;
                }
                Ok(other) => return Err(ChildError::Protocol(format!("unexpected request {other:?}"))),
                Err(ChildError::Channel(ChannelError::Closed)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn release(&self, handles: &[u64]) {
        let released: Vec<_> = {
            let mut items = self.prepared_items();
            handles.iter().filter_map(|handle| items.remove(handle)).collect()
        };
        // Outside of the lock, because the plugin may take long to drop its items.
        drop(released);
    }

    /// The log fields of a batch with these requests and traces.
    fn context(&self, task: usize, requests: &str, traces: &str) -> Arc<BatchContext> {
        let task = self.model.manifest().tasks.get(task);
        Arc::new(BatchContext {
            model: self.name.clone(),
            task: task.map_or("", |task| task.name.as_str()).into(),
            requests: RequestIds::from_text(requests),
            traces: RequestIds::from_text(traces),
        })
    }

    fn run_batch(&self, channel: &mut Channel, task: usize, entries: Vec<BatchEntry<'_>>) -> Reply {
        let handles: Vec<u64> = entries
            .iter()
            .filter_map(|entry| match entry {
                BatchEntry::Prepared(handle) => Some(*handle),
                BatchEntry::Raw(_) | BatchEntry::Unprepared(_) => None,
            })
            .collect();
        let errors_before = logged_error_count();
        let mut sink = ChildSink::new(channel, entries.len());
        let (items, positions) = self.collect_items(task, entries, &mut sink);
        let batch: Vec<BatchItem<'_>> = items
            .iter()
            .map(|item| BatchItem {
                input: &item.input,
                prepared: item.prepared.as_ref(),
            })
            .collect();
        sink.set_positions(positions);
        let result = if batch.is_empty() {
            Ok(())
        } else {
            let started = clock::now();
            let result = self.model.predict_batch(0, task, &batch, &mut sink);
            let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.last_batch_nanos.store(nanos, Ordering::Relaxed);
            result
        };
        let outcomes = sink.into_outcomes();
        drop(batch);
        let done = Reply::Done {
            result,
            outcomes,
            logged_error: logged_error_count() > errors_before,
        };
        let done = within_limit(done, MAX_MESSAGE);
        if !done.is_retried_in_halves() {
            drop(items);
            self.release(&handles);
        }
        done
    }

    /// The items of a batch that can be run, and their positions in it. Items that cannot be prepared fail individually.
    fn collect_items(
        &self,
        task: usize,
        entries: Vec<BatchEntry<'_>>,
        sink: &mut ChildSink<'_>,
    ) -> (Vec<Arc<PreparedInput>>, Vec<usize>) {
        let mut items = Vec::with_capacity(entries.len());
        let mut positions = Vec::with_capacity(entries.len());
        for (position, item) in self.prepare_missing(task, entries).into_iter().enumerate() {
            match item {
                Ok(item) => {
                    items.push(item);
                    positions.push(position);
                }
                Err(error) => sink.fail_at(position, error),
            }
        }
        (items, positions)
    }

    /// Prepares the items that are not prepared yet, concurrently on up to `threads` threads.
    fn prepare_missing(
        &self,
        task: usize,
        entries: Vec<BatchEntry<'_>>,
    ) -> Vec<Result<Arc<PreparedInput>, ItemError>> {
        let unprepared = entries
            .iter()
            .filter(|entry| matches!(entry, BatchEntry::Unprepared(_)))
            .count();
        let ready = |entry: BatchEntry<'_>| match entry {
            BatchEntry::Raw(input) => Ok(Arc::new(PreparedInput {
                input: input.into_owned(),
                prepared: None,
            })),
            BatchEntry::Prepared(handle) => {
                self.prepared_items().get(&handle).cloned().ok_or_else(|| {
                    ItemError::Fault(format!("the worker process has no prepared item {handle}"))
                })
            }
            BatchEntry::Unprepared(input) => self.model.prepare(task, &input).map(|prepared| {
                Arc::new(PreparedInput {
                    input: input.into_owned(),
                    prepared: Some(prepared),
                })
            }),
        };
        let threads = self.threads.min(unprepared);
        if threads < 2 {
            return entries.into_iter().map(ready).collect();
        }
        let share_length = entries.len().div_ceil(threads);
        let mut entries = entries.into_iter();
        let shares: Vec<Vec<BatchEntry<'_>>> = (0..threads)
            .map(|_| entries.by_ref().take(share_length).collect())
            .collect();
        thread::scope(|scope| {
            let ready = &ready;
            let workers: Vec<_> = shares
                .into_iter()
                .map(|share| {
                    let length = share.len();
                    let worker = scope.spawn(move || share.into_iter().map(ready).collect::<Vec<_>>());
                    (worker, length)
                })
                .collect();
            workers
                .into_iter()
                .flat_map(|(worker, length)| {
                    worker.join().unwrap_or_else(|_| {
                        let lost = ItemError::Fault("preparing the item panicked".to_owned());
                        vec![Err(lost); length]
                    })
                })
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolation::messages::Outcome;
    use crate::values::Value;

    #[test]
    fn outputs_that_are_too_long_become_an_error() {
        let done = |bytes: usize| Reply::Done {
            result: Ok(()),
            outcomes: vec![Outcome::Output {
                index: 0,
                value: Value::Text(Bytes::from(vec![b'x'; bytes])),
            }],
            logged_error: false,
        };
        assert_eq!(within_limit(done(100), 1000), done(100));
        let error = within_limit(done(2000), 1000);
        assert!(error.is_retried_in_halves(), "the server can split the batch");
        let Reply::Done { result, outcomes, .. } = error else {
            panic!("expected the end of a batch")
        };
        assert!(outcomes.is_empty());
        let message = result.expect_err("the outputs do not fit").to_string();
        assert!(
            message.contains("return at most 1000 bytes per batch"),
            "{message}"
        );
    }
}
