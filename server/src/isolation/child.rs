//! The child's side: what runs in the process that a plugin has to itself.
//!
//! The main thread runs batches, in the order in which they come; one more thread for each prepare lane prepares items. All
//! of it ends when the server closes the lanes or is gone.

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

use super::child_sink::Collector;
use super::descriptor_passing::Handover;
use super::lane::{Lane, LaneError, MAX_MESSAGE};
use super::log_records;
use super::messages::{Entry, Reply, Request};
use super::setup::{LoadFailure, Setup};
use crate::batch_context::{BatchContext, RequestIds, logged_error_count};
use crate::console;
use crate::error::{Chain, ItemError};
use crate::model::{BatchError, BatchItem, Model, PreparedItem};
use crate::values::ItemInput;

/// How much sooner than the server the kernel ends a child when memory runs out, from 0 to 1000.
const OOM_SCORE: &str = "500";

/// Why a child ends with a complaint.
#[derive(Debug, thiserror::Error)]
enum ChildError {
    #[error("cannot take over the connections to the server")]
    Handover(#[from] io::Error),
    #[error("the server is gone")]
    Orphaned,
    #[error("the server does not say what to load")]
    NoSetup,
    #[error("the connection to the server failed")]
    Lane(#[from] LaneError),
    #[error("the server sends {0}")]
    Nonsense(String),
}

/// The whole life of a child. `load` loads the plugin that the server has staged.
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
    // First of all: whatever happens from here on, nothing is left behind. A server that is gone already has closed its
    // ends, and a server that goes between the two is told by its number.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let control = take_standard_input()?;
    let Handover {
        records,
        main,
        prepare,
    } = Handover::receive(&control)?;
    drop(control);
    let mut main = main.into_lane();
    let Request::Load(json) = receive(&mut main)? else {
        return Err(ChildError::NoSetup);
    };
    let setup: Setup = serde_json::from_slice(&json).map_err(|_| ChildError::NoSetup)?;
    if getppid().map(rustix::process::Pid::as_raw_pid) != i32::try_from(setup.parent).ok() {
        return Err(ChildError::Orphaned);
    }
    log_records::log_to(records, setup.log_level.parse().unwrap_or(LevelFilter::Info));
    // Where memory runs out, it is better that a child goes than the server. Not worth failing for.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    let confined = setup.confinement.apply();
    let confined = confined.map_err(|error| LoadFailure::Confine(Chain(&error).to_string()));
    let model = match confined.and_then(|()| load(&setup)) {
        Ok(model) => model,
        Err(failure) => {
            let json = serde_json::to_vec(&failure).unwrap_or_default();
            return Ok(main.send(Reply::Refused(Bytes::from(json)).encode())?);
        }
    };
    let manifest = serde_json::to_vec(model.manifest()).map_err(io::Error::from)?;
    let served = Arc::new(Served {
        name: setup.context.model.as_str().into(),
        model,
        held: Mutex::new(HashMap::new()),
        next_handle: AtomicU64::new(1),
        threads: prepare.len(),
    });
    let preparers = prepare
        .into_iter()
        .enumerate()
        .map(|(index, lane)| {
            let served = served.clone();
            thread::Builder::new()
                .name(format!("prepare {index}"))
                .spawn(move || served.prepare_for(lane.into_lane()))
        })
        .collect::<io::Result<Vec<_>>>()?;
    main.send(Reply::Loaded(Bytes::from(manifest)).encode())?;
    let result = served.run_batches(main);
    for preparer in preparers {
        // It is of no more use; why it ended, it has said.
        let _ = preparer.join();
    }
    result
}

/// The socket to the server. From now on standard input is empty, and standard output leads to standard error.
fn take_standard_input() -> io::Result<OwnedFd> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(io::stderr().as_fd())?;
    Ok(control)
}

fn receive(lane: &mut Lane) -> Result<Request<'static>, ChildError> {
    decode(&lane.receive()?)
}

fn decode(message: &Bytes) -> Result<Request<'static>, ChildError> {
    Request::decode(message).map_err(|error| ChildError::Nonsense(error.to_string()))
}

/// The same answer, or an error in place of one that is too long to be sent.
fn within_limit(done: Reply, most: u64) -> Reply {
    let length = done.encode().len() as u64;
    if length <= most {
        return done;
    }
    let error = format!(
        "the outputs take {length} bytes, and a process of a model returns at most {most} at a time; lower `max_batch_size`"
    );
    Reply::Done {
        result: Err(BatchError::TooLarge(ItemError::Fault(error))),
        outcomes: Vec::new(),
        logged: false,
    }
}

/// The loaded model, and what it has prepared.
struct Served {
    name: Arc<str>,
    model: Arc<dyn Model>,
    held: Mutex<HashMap<u64, Arc<Held>>>,
    next_handle: AtomicU64,
    /// How many items may be prepared at the same time.
    threads: usize,
}

/// A prepared item.
struct Held {
    input: ItemInput,
    prepared: Option<PreparedItem>,
}

impl Served {
    fn held(&self) -> MutexGuard<'_, HashMap<u64, Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares items until the server closes the lane.
    fn prepare_for(&self, mut lane: Lane) {
        loop {
            let answer = match receive(&mut lane) {
                Ok(Request::Prepare { task, item }) => self.prepare(task as usize, item.into_owned()),
                // Without its answer the server ends this process.
                _ => return,
            };
            if lane.send(answer.encode()).is_err() {
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
                self.held().insert(handle, Arc::new(Held { input, prepared }));
                Reply::Prepared {
                    handle,
                    weight,
                    group,
                }
            }
            Err(error) => Reply::Failed(error),
        }
    }

    /// Runs batches until the server closes the lane.
    fn run_batches(&self, mut lane: Lane) -> Result<(), ChildError> {
        loop {
            // Nothing of a batch is needed once it has been answered: it need not be copied.
            let message = lane.receive_lent().map_err(ChildError::from);
            match message.and_then(|message| decode(&message)) {
                Ok(Request::Predict {
                    task,
                    requests,
                    release,
                    items,
                }) => {
                    self.release(&release);
                    let entered = self.context(task as usize, &requests).enter();
                    let done = self.run_batch(&mut lane, task as usize, items);
                    drop(entered);
                    lane.send(done.encode())?;
                }
                Ok(Request::Release(handles)) => {
                    self.release(&handles);
                    lane.send(Reply::Released.encode())?;
                }
                Ok(other) => return Err(ChildError::Nonsense(format!("{other:?} out of turn"))),
                Err(ChildError::Lane(LaneError::Closed)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn release(&self, handles: &[u64]) {
        let released: Vec<_> = {
            let mut held = self.held();
            handles.iter().filter_map(|handle| held.remove(handle)).collect()
        };
        // The plugin drops what it prepared, which may take its time.
        drop(released);
    }

    /// What a batch of these requests is called in the log.
    fn context(&self, task: usize, requests: &str) -> Arc<BatchContext> {
        let task = self.model.manifest().tasks.get(task);
        Arc::new(BatchContext {
            model: self.name.clone(),
            task: task.map_or("", |task| task.name.as_str()).into(),
            requests: RequestIds::from_text(requests),
        })
    }

    fn run_batch(&self, lane: &mut Lane, task: usize, entries: Vec<Entry<'_>>) -> Reply {
        let handles: Vec<u64> = entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Held(handle) => Some(*handle),
                Entry::Raw(_) | Entry::Unprepared(_) => None,
            })
            .collect();
        let errors_before = logged_error_count();
        let mut collector = Collector::new(lane, entries.len());
        let (items, places) = self.gather(task, entries, &mut collector);
        let batch: Vec<BatchItem<'_>> = items
            .iter()
            .map(|item| BatchItem {
                input: &item.input,
                prepared: item.prepared.as_ref(),
            })
            .collect();
        collector.only(places);
        let result = if batch.is_empty() {
            Ok(())
        } else {
            self.model.predict_batch(0, task, &batch, &mut collector)
        };
        let outcomes = collector.into_outcomes();
        drop(batch);
        let done = Reply::Done {
            result,
            outcomes,
            logged: logged_error_count() > errors_before,
        };
        let done = within_limit(done, MAX_MESSAGE);
        if !done.is_run_again() {
            drop(items);
            self.release(&handles);
        }
        done
    }

    /// The items of a batch that can be run, and their places in it. Those that cannot be prepared fail alone.
    fn gather(
        &self,
        task: usize,
        entries: Vec<Entry<'_>>,
        collector: &mut Collector<'_>,
    ) -> (Vec<Arc<Held>>, Vec<usize>) {
        let mut gathered = Vec::with_capacity(entries.len());
        let mut places = Vec::with_capacity(entries.len());
        for (place, item) in self.prepare_rest(task, entries).into_iter().enumerate() {
            match item {
                Ok(item) => {
                    gathered.push(item);
                    places.push(place);
                }
                Err(error) => collector.fail_at(place, error),
            }
        }
        (gathered, places)
    }

    /// Prepares what is not prepared yet, as many at the same time as there are threads for.
    fn prepare_rest(&self, task: usize, entries: Vec<Entry<'_>>) -> Vec<Result<Arc<Held>, ItemError>> {
        let unprepared = entries
            .iter()
            .filter(|entry| matches!(entry, Entry::Unprepared(_)))
            .count();
        let ready =
            |entry: Entry<'_>| match entry {
                Entry::Raw(input) => Ok(Arc::new(Held {
                    input: input.into_owned(),
                    prepared: None,
                })),
                Entry::Held(handle) => self.held().get(&handle).cloned().ok_or_else(|| {
                    ItemError::Fault(format!("the process of the model holds no item {handle}"))
                }),
                Entry::Unprepared(input) => self.model.prepare(task, &input).map(|prepared| {
                    Arc::new(Held {
                        input: input.into_owned(),
                        prepared: Some(prepared),
                    })
                }),
            };
        let threads = self.threads.min(unprepared);
        if threads < 2 {
            return entries.into_iter().map(ready).collect();
        }
        let share = entries.len().div_ceil(threads);
        let mut entries = entries.into_iter();
        let shares: Vec<Vec<Entry<'_>>> = (0..threads)
            .map(|_| entries.by_ref().take(share).collect())
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
                        let lost = ItemError::Fault("the item was lost while it was prepared".to_owned());
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
    fn outputs_that_are_too_long_to_be_sent_become_an_error() {
        let done = |bytes: usize| Reply::Done {
            result: Ok(()),
            outcomes: vec![Outcome::Output {
                index: 0,
                value: Value::Text(Bytes::from(vec![b'x'; bytes])),
            }],
            logged: false,
        };
        assert_eq!(within_limit(done(100), 1000), done(100));
        let error = within_limit(done(2000), 1000);
        assert!(error.is_run_again(), "in halves, if there is more than one item");
        let Reply::Done { result, outcomes, .. } = error else {
            panic!("it is still the end of a batch")
        };
        assert!(outcomes.is_empty());
        let message = result.expect_err("it does not fit").to_string();
        assert!(message.contains("returns at most 1000 at a time"), "{message}");
    }
}
