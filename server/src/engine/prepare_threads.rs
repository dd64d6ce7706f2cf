//! The prepare step: items are decoded and preprocessed in parallel, off the event loop and off the model's workers.
//!
//! Background items are prepared only while no others wait.
//!
//! Every model has its own threads, so a preparation that is slow or hangs delays only its own model. Up to the maximum,
//! there is always an idle one: a thread that begins to prepare starts another if it was the last. So a model that does not
//! prepare anything has a single thread.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::admission::{Queue, Queued};
use super::check_weight;
use super::task_queue::TaskQueue;
use super::wakeups::Wakeups;
use crate::batch_context::{log_batch, logged_error_count};
use crate::batcher::Item;
use crate::batching::Priority;
use crate::clock;
use crate::error::ItemError;
use crate::model::{Model, PreparedItem};
use crate::niceness;

/// Maximum number of prepared items that wait for other items of their request. Sending them together lets an idle worker
/// take them as one batch; waiting for all items of a large request would leave it idle.
const CHUNK: usize = 64;

/// An item to prepare.
struct Job {
    item: Item<Queued>,
    request: Arc<RequestItems>,
}

/// The items of one request that are prepared while others are not.
struct RequestItems {
    queue: Arc<Queue>,
    ready: Mutex<Ready>,
}

struct Ready {
    items: Vec<Item<Queued>>,
    in_preparation: usize,
}

/// Where items to prepare are sent. The threads exit once this is dropped and they have prepared what was sent.
pub(super) struct Preparation {
    jobs: Sender<Job>,
    background: Sender<Job>,
    threads: Arc<PrepareThreads>,
}

impl Drop for Preparation {
    fn drop(&mut self) {
        self.threads.is_closed.store(true, Ordering::SeqCst);
        self.threads.wakeups.wake_all();
    }
}

impl Preparation {
    /// Sends the items of one request to be prepared and passed on to the scheduler. Never blocks.
    pub(super) fn send(&self, queue: &Arc<Queue>, items: Vec<Item<Queued>>) {
        let request = Arc::new(RequestItems {
            queue: queue.clone(),
            ready: Mutex::new(Ready {
                items: Vec::new(),
                in_preparation: items.len(),
            }),
        });
        for item in items {
            let request = request.clone();
            let jobs = match item.priority {
                Priority::Background => &self.background,
                _ => &self.jobs,
            };
            // Never fails: the receiver is a part of `threads`.
            let _ = jobs.send(Job { item, request });
            self.threads.wakeups.notify();
        }
    }
}

impl RequestItems {
    /// Records that an item is prepared, or has failed, and sends those that are ready.
    fn finished(&self, item: Option<Item<Queued>>) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.items.extend(item);
        ready.in_preparation -= 1;
        if !ready.items.is_empty() && (ready.in_preparation == 0 || ready.items.len() >= CHUNK) {
            let mut items = std::mem::take(&mut ready.items);
            drop(ready);
            items.sort_unstable_by_key(|item| item.id);
            self.queue.send(items);
        }
    }
}

/// What the threads are started with.
pub(super) struct PrepareConfig {
    /// Name of the model.
    pub(super) model_name: String,
    /// Maximum number of threads, at least 1.
    pub(super) max_threads: usize,
    /// Their niceness.
    pub(super) nice: i32,
}

/// The threads that prepare the items of one model.
pub(super) struct PrepareThreads {
    config: PrepareConfig,
    jobs: Receiver<Job>,
    background: Receiver<Job>,
    is_closed: AtomicBool,
    wakeups: Wakeups,
    idle: AtomicUsize,
    started: AtomicUsize,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl PrepareThreads {
    /// Starts the first thread.
    ///
    /// # Errors
    /// If the system refuses it.
    pub(super) fn start(
        config: PrepareConfig,
        model: &Arc<dyn Model>,
    ) -> io::Result<(Preparation, Arc<Self>)> {
        let (sender, jobs) = unbounded();
        let (background_sender, background) = unbounded();
        let threads = Arc::new(Self {
            wakeups: Wakeups::new(config.max_threads),
            config,
            jobs,
            background,
            is_closed: AtomicBool::new(false),
            idle: AtomicUsize::new(0),
            started: AtomicUsize::new(0),
            threads: Mutex::new(Vec::new()),
        });
        threads.start_thread(model.clone())?;
        let preparation = Preparation {
            jobs: sender,
            background: background_sender,
            threads: threads.clone(),
        };
        Ok((preparation, threads))
    }

    /// Whether all have exited.
    pub(super) fn is_finished(&self) -> bool {
        self.lock().iter().all(JoinHandle::is_finished)
    }

    /// Waits until all have exited.
    pub(super) fn join(&self) {
        // Outside the lock, which a thread takes to start another.
        let next = || self.lock().pop();
        while let Some(thread) = next() {
            let _ = thread.join();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a thread, unless there are as many as there may be.
    fn start_thread(self: &Arc<Self>, model: Arc<dyn Model>) -> io::Result<()> {
        let next = |started| (started < self.config.max_threads).then_some(started + 1);
        let started = self
            .started
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        let Ok(index) = started else {
            return Ok(());
        };
        let threads = self.clone();
        let thread = thread::Builder::new()
            .name(format!("prepare {} {index}", self.config.model_name))
            .spawn(move || {
                niceness::raise_to(threads.config.nice);
                threads.wakeups.register(index);
                threads.run(index, &model);
            });
        match thread {
            Ok(thread) => {
                self.lock().push(thread);
                Ok(())
            }
            Err(error) => {
                self.started.fetch_sub(1, Ordering::AcqRel);
                Err(error)
            }
        }
    }

    fn run(self: &Arc<Self>, index: usize, model: &Arc<dyn Model>) {
        while let Some(Job { item, request }) = self.next_job(index) {
            self.employ_another(model);
            // A panic is logged by the hook, and answered by the handle of the item, which is dropped.
            let prepared = catch_unwind(AssertUnwindSafe(|| {
                prepare_item(model.as_ref(), request.queue.task(item.task), item)
            }));
            request.finished(prepared.unwrap_or(None));
        }
    }

    /// Waits for an item to prepare. None if there will be no more.
    fn next_job(&self, index: usize) -> Option<Job> {
        self.idle.fetch_add(1, Ordering::AcqRel);
        let job = loop {
            if let Ok(job) = self.jobs.try_recv().or_else(|_| self.background.try_recv()) {
                break Some(job);
            }
            self.wakeups.watch(index);
            // Read before the channels, as nothing is sent after it is set.
            let is_closed = self.is_closed.load(Ordering::SeqCst);
            if self.has_jobs() {
                continue;
            }
            if is_closed {
                break None;
            }
            thread::park();
        };
        self.wakeups.unwatch(index);
        self.idle.fetch_sub(1, Ordering::AcqRel);
        job
    }

    fn has_jobs(&self) -> bool {
        !self.jobs.is_empty() || !self.background.is_empty()
    }

    /// Wakes another thread if there is more work. Starts one if none is idle, before there is more work: this thread may
    /// then be busy for long.
    fn employ_another(self: &Arc<Self>, model: &Arc<dyn Model>) {
        if self.idle.load(Ordering::Acquire) > 0 {
            if self.has_jobs() {
                self.wakeups.notify();
            }
        } else if let Err(error) = self.start_thread(model.clone()) {
            log::warn!(
                "cannot start another thread to prepare items of model `{}`: {error}",
                self.config.model_name
            );
        }
    }
}

/// Rejects weights that the batcher does not support, or whose memory exceeds the budget.
fn check_prepared(task: &TaskQueue, prepared: PreparedItem) -> Result<PreparedItem, ItemError> {
    check_weight(prepared.weight)?;
    task.memory.check_item(prepared.weight)?;
    Ok(prepared)
}

/// The item, ready to run; none if it failed or was cancelled.
fn prepare_item(model: &dyn Model, task: &TaskQueue, mut item: Item<Queued>) -> Option<Item<Queued>> {
    let handle = &item.payload.handle;
    let input = handle.prepare()?;
    let context = Arc::new(handle.context());
    let (started, errors_before) = (clock::now(), logged_error_count());
    let entered = context.clone().enter();
    let prepared = model
        .prepare(item.task, &input)
        .and_then(|prepared| check_prepared(task, prepared));
    drop(entered);
    let finished = clock::now();
    handle.prepared_in(finished - started);
    match prepared {
        Ok(prepared) => {
            item.weight = prepared.weight.max(1);
            item.group = prepared.group;
            item.ready = finished;
            let is_queued = handle.queue_prepared(input, item.weight);
            item.payload.prepared = Some(prepared);
            is_queued.then_some(item)
        }
        Err(error) => {
            // Why a model is unavailable is in the log already, and not for each item.
            let is_known = matches!(error, ItemError::Unavailable(_)) || logged_error_count() > errors_before;
            if error.is_of_input() || is_known {
                log_batch!(debug, context, "the preparation of an item failed: {error}");
            } else {
                log_batch!(error, context, "the preparation of an item failed: {error}");
            }
            item.payload.handle.settle(Err(error));
            None
        }
    }
}
