//! The model in one child process, as the server calls it.
//!
//! Batches have their own channel. Items are prepared concurrently on several other channels. If the process fails, all pending
//! calls and the next call return [`ChildLost`].
//!
//! # Prepared items
//! A prepared item stays in the process that prepared it. The server keeps a handle and the item as the client sent it. If
//! the item's batch runs in another process, the item is sent again and prepared there as part of the batch. The process
//! drops a prepared item when a batch with it has been answered, or with the next call after the server has dropped its
//! handle.
//!
//! # Attributing failures
//! When a process fails, every call that was pending may be the cause. Retried work therefore gets the process to itself, so
//! that a second failure is attributed correctly: an item is prepared again with no other call pending, and after a restart
//! the next [`EXCLUSIVE_BATCHES`] batches run while no item is prepared.

mod batch_channel;
mod failures;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};
use std::time::Duration;

use bytes::Bytes;
use plugin_abi::manifest::ModelManifest;

use batch_channel::{BatchChannel, receive};
use failures::{item_size_error, size_error, terminate, unexpected};

pub(super) use failures::ChildLost;

use super::StartError;
use super::channel::{Channel, ChannelError};
use super::messages::{BatchEntry, Outcome, Reply, Request};
use super::process::Process;
use super::setup::{LoadFailure, Setup};
use crate::batch_context::{BatchContext, count_logged_error};
use crate::error::ItemError;
use crate::json;
use crate::model::{BatchError, BatchItem, Health, MemoryUsage, Model, OutputSink, PreparedItem};
use crate::values::ItemInput;

/// Number of batches after a restart that run while no item is prepared.
const EXCLUSIVE_BATCHES: u32 = 64;

/// Number of pending releases at which they are sent without waiting for the next batch.
const MAX_PENDING_RELEASES: usize = 64;

/// A model in a child process that has been loaded.
pub(super) struct RemoteModel {
    manifest: ModelManifest,
    main: Mutex<BatchChannel>,
    /// The prepare channels that are not in use.
    prepare: Mutex<Vec<Channel>>,
    prepare_channels: usize,
    channel_returned: Condvar,
    process: Arc<Process>,
    timeout: Duration,
    lost: AtomicBool,
    /// Handles of prepared items that the server has dropped and the process has not.
    pending_releases: Mutex<Vec<u64>>,
    /// Number of items that the process has prepared or is preparing, and that have not been run.
    prepared_count: AtomicUsize,
    /// Locked for writing by calls that must be the only pending ones.
    exclusivity: RwLock<()>,
    exclusive_batches_left: AtomicU32,
}

/// Permission to call the process.
enum CallGuard<'a> {
    Shared(#[allow(dead_code, reason = "held, not read")] RwLockReadGuard<'a, ()>),
    Exclusive(#[allow(dead_code, reason = "held, not read")] RwLockWriteGuard<'a, ()>),
}

/// The server's handle of an item that the process has prepared.
pub(super) struct PreparedHandle {
    owner: Weak<RemoteModel>,
    handle: u64,
    /// Whether the process has dropped the item.
    is_dropped: AtomicBool,
}

impl PreparedHandle {
    /// Records that the process has dropped the item together with its batch.
    fn mark_dropped(&self, owner: &RemoteModel) {
        if !self.is_dropped.swap(true, Ordering::AcqRel) {
            owner.prepared_count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for PreparedHandle {
    fn drop(&mut self) {
        if !*self.is_dropped.get_mut()
            && let Some(owner) = self.owner.upgrade()
        {
            owner.prepared_count.fetch_sub(1, Ordering::Relaxed);
            owner.release(self.handle);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a new process load its model. Waits for at most `timeout`.
pub(super) fn load(
    channel: &mut Channel,
    process: &Process,
    setup: &Setup,
    timeout: Duration,
) -> Result<ModelManifest, StartError> {
    let lost = |error| StartError::Exited(terminate(process, error, "reload_timeout"));
    let json = serde_json::to_vec(setup)
        .map_err(|error| StartError::Load(LoadFailure::Plugin(error.to_string())))?;
    channel.set_timeout(Some(timeout)).map_err(lost)?;
    channel
        .send(Request::Load(Bytes::from(json)).encode())
        .map_err(lost)?;
    let malformed = |text: String| lost(ChannelError::Malformed(text));
    match receive(channel).map_err(lost)? {
        Reply::Loaded(manifest) => json::from_slice(&manifest).map_err(|error| malformed(error.to_string())),
        Reply::LoadFailed(failure) => match json::from_slice(&failure) {
            Ok(failure) => Err(StartError::Load(failure)),
            Err(error) => Err(malformed(error.to_string())),
        },
        other => Err(malformed(unexpected(&other))),
    }
}

impl RemoteModel {
    /// `is_restart`: the process replaces one that failed.
    pub(super) fn new(
        manifest: ModelManifest,
        main: Channel,
        prepare: Vec<Channel>,
        process: Arc<Process>,
        timeout: Duration,
        is_restart: bool,
    ) -> Self {
        Self {
            manifest,
            main: Mutex::new(BatchChannel::new(main)),
            prepare_channels: prepare.len(),
            prepare: Mutex::new(prepare),
            channel_returned: Condvar::new(),
            process,
            timeout,
            lost: AtomicBool::new(false),
            pending_releases: Mutex::new(Vec::new()),
            prepared_count: AtomicUsize::new(0),
            exclusivity: RwLock::new(()),
            exclusive_batches_left: AtomicU32::new(if is_restart { EXCLUSIVE_BATCHES } else { 0 }),
        }
    }

    /// Number of these items that this process has prepared and still holds.
    pub(super) fn count_prepared(self: &Arc<Self>, items: &[BatchItem<'_>]) -> usize {
        items.iter().filter(|item| self.handle(item).is_some()).count()
    }

    /// Number of items that the process has prepared or is preparing, and that have not been run.
    pub(super) fn prepared_count(&self) -> usize {
        self.prepared_count.load(Ordering::Relaxed)
    }

    fn handle<'a>(self: &Arc<Self>, item: &BatchItem<'a>) -> Option<&'a PreparedHandle> {
        let prepared = item.prepared?.payload.downcast_ref::<PreparedHandle>()?;
        let is_current = Weak::as_ptr(&prepared.owner) == Arc::as_ptr(self)
            && !prepared.is_dropped.load(Ordering::Acquire);
        is_current.then_some(prepared)
    }

    /// Waits until the process may be called, and fails if it has failed in the meantime.
    fn begin_call(&self, exclusive: bool) -> Result<CallGuard<'_>, ChildLost> {
        let guard = if exclusive {
            CallGuard::Exclusive(self.exclusivity.write().unwrap_or_else(PoisonError::into_inner))
        } else {
            CallGuard::Shared(self.exclusivity.read().unwrap_or_else(PoisonError::into_inner))
        };
        if self.lost.load(Ordering::Acquire) {
            return Err(ChildLost::BeforeCall);
        }
        Ok(guard)
    }

    fn fail(&self, error: ChannelError) -> ChildLost {
        self.lost.store(true, Ordering::Release);
        ChildLost::DuringCall(terminate(&self.process, error, "predict_timeout"))
    }

    fn release(&self, handle: u64) {
        let mut pending_releases = lock(&self.pending_releases);
        pending_releases.push(handle);
        // If the channel is busy, the next batch sends the handles. If the process has failed, the next call detects that.
        if pending_releases.len() >= MAX_PENDING_RELEASES
            && let Ok(mut main) = self.main.try_lock()
            && main.try_release(&pending_releases)
        {
            pending_releases.clear();
        }
    }

    /// Prepares an item. `exclusive`: no other call may be pending, because the item was in a process that failed.
    pub(super) fn prepare(
        self: &Arc<Self>,
        task: usize,
        item: &ItemInput,
        exclusive: bool,
    ) -> Result<Result<PreparedItem, ItemError>, ChildLost> {
        let _guard = self.begin_call(exclusive)?;
        self.prepared_count.fetch_add(1, Ordering::Relaxed);
        let mut channel = self
            .channel_returned
            .wait_while(lock(&self.prepare), |channels| channels.is_empty())
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let answer = match &mut channel {
            Some(channel) => self.call_prepare(channel, task, item),
            None => Err(ChannelError::Closed),
        };
        lock(&self.prepare).extend(channel);
        self.channel_returned.notify_one();
        if let Ok(Reply::Prepared {
            handle,
            weight,
            group,
        }) = answer
        {
            let prepared = PreparedHandle {
                owner: Arc::downgrade(self),
                handle,
                is_dropped: AtomicBool::new(false),
            };
            return Ok(Ok(PreparedItem {
                weight,
                group,
                payload: Box::new(prepared),
            }));
        }
        self.prepared_count.fetch_sub(1, Ordering::Relaxed);
        match answer {
            Err(error) if size_error(&error).is_some() => Ok(Err(item_size_error(&error))),
            Ok(Reply::PrepareFailed(error)) => Ok(Err(error)),
            Ok(other) => Err(self.fail(ChannelError::Malformed(unexpected(&other)))),
            Err(error) => Err(self.fail(error)),
        }
    }

    fn call_prepare(
        &self,
        channel: &mut Channel,
        task: usize,
        item: &ItemInput,
    ) -> Result<Reply, ChannelError> {
        let request = Request::Prepare {
            task: u32::try_from(task).unwrap_or(u32::MAX),
            item: Cow::Borrowed(item),
        };
        channel.set_timeout(Some(self.timeout))?;
        channel.send(request.encode())?;
        receive(channel)
    }

    /// Runs a batch. If the process fails, `sink` has received nothing except parts.
    pub(super) fn run(
        self: &Arc<Self>,
        task: usize,
        items: &[BatchItem<'_>],
        sink: &mut dyn OutputSink,
    ) -> Result<Result<(), BatchError>, ChildLost> {
        let exclusive_batches = self.exclusive_batches_left.load(Ordering::Relaxed);
        let _guard = self.begin_call(exclusive_batches > 0)?;
        let context = BatchContext::current();
        let (requests, traces) = context.map_or_else(Default::default, |context| {
            (context.requests.to_string(), context.traces.to_string())
        });
        let request = Request::Predict {
            task: u32::try_from(task).unwrap_or(u32::MAX),
            requests: requests.into(),
            traces: traces.into(),
            release: std::mem::take(&mut *lock(&self.pending_releases)),
            items: items.iter().map(|item| self.entry(item)).collect(),
        };
        let (result, outcomes) = match self.call_predict(&request, sink) {
            Ok(done) => done,
            Err(error) => match size_error(&error) {
                Some(reason) => {
                    // The process ignores handles that it has already dropped.
                    if let Request::Predict { release, .. } = request {
                        lock(&self.pending_releases).extend(release);
                    }
                    // Either the process has run the batch and dropped these items, or it still has them.
                    if let ChannelError::NoMemory(_) = error {
                        self.discard_prepared(items);
                    }
                    return Ok(Err(reason));
                }
                None => return Err(self.fail(error)),
            },
        };
        for outcome in outcomes {
            // The sink records violations itself.
            let _status = match outcome {
                Outcome::Output { index, value } => sink.emit(index as usize, value, false),
                Outcome::Rows(tensors) => sink.emit_batch(tensors),
                Outcome::Failure { index, error } => sink.fail(index as usize, error),
                Outcome::Weight { index, weight } => {
                    sink.weigh(index as usize, weight);
                    continue;
                }
            };
        }
        // The process keeps prepared items for a retry in halves.
        if !result.as_ref().is_err_and(BatchError::may_succeed_in_halves) {
            items
                .iter()
                .filter_map(|item| self.handle(item))
                .for_each(|prepared| prepared.mark_dropped(self));
        }
        self.exclusive_batches_left
            .store(exclusive_batches.saturating_sub(1), Ordering::Relaxed);
        Ok(result)
    }

    /// Calls `f` while the batch channel is in use.
    #[cfg(test)]
    pub(super) fn while_busy(&self, f: impl FnOnce()) {
        let _busy = lock(&self.main);
        f();
    }

    /// Whether the process is running a batch or preparing an item.
    pub(super) fn is_computing(&self) -> bool {
        let prepares = || lock(&self.prepare).len() < self.prepare_channels;
        self.main.try_lock().is_err() || prepares()
    }

    /// Process id.
    pub(super) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Kills the process, whatever it is doing.
    pub(super) fn kill(&self) {
        self.process.kill();
    }

    /// Gives up the prepared state of these items. They are prepared again in their next batch.
    fn discard_prepared(self: &Arc<Self>, items: &[BatchItem<'_>]) {
        for prepared in items.iter().filter_map(|item| self.handle(item)) {
            prepared.mark_dropped(self);
            lock(&self.pending_releases).push(prepared.handle);
        }
    }

    /// The item as it is sent to the process.
    fn entry<'a>(self: &Arc<Self>, item: &BatchItem<'a>) -> BatchEntry<'a> {
        match (self.handle(item), item.prepared) {
            (Some(prepared), _) => BatchEntry::Prepared(prepared.handle),
            (None, Some(_)) => BatchEntry::Unprepared(Cow::Borrowed(item.input)),
            (None, None) => BatchEntry::Raw(Cow::Borrowed(item.input)),
        }
    }

    /// Creates an item of about this weight, as JSON.
    pub(super) fn sample(
        &self,
        task: usize,
        weight: u64,
    ) -> Result<Result<Option<Bytes>, ItemError>, ChildLost> {
        let task = u32::try_from(task).unwrap_or(u32::MAX);
        match self.call_main(&Request::Sample { task, weight })? {
            Reply::Sampled(item) => Ok(Ok((!item.is_empty()).then_some(item))),
            Reply::PrepareFailed(error) => Ok(Err(error)),
            other => Err(self.fail(ChannelError::Malformed(unexpected(&other)))),
        }
    }

    /// Reads the memory that the model reports, and the time that it took for its last batch. Starts a new measurement of the
    /// peak. `trim`: the process first returns free memory to the operating system.
    pub(super) fn read_memory(&self, trim: bool) -> Result<(Option<MemoryUsage>, Duration), ChildLost> {
        match self.call_main(&Request::ReadMemory { trim })? {
            Reply::Memory { usage, batch_nanos } => Ok((usage, Duration::from_nanos(batch_nanos))),
            other => Err(self.fail(ChannelError::Malformed(unexpected(&other)))),
        }
    }

    /// Sends a request that has one reply on the batch channel.
    fn call_main(&self, request: &Request<'_>) -> Result<Reply, ChildLost> {
        let _guard = self.begin_call(false)?;
        let mut main = lock(&self.main);
        let mut call = || {
            main.channel.set_timeout(Some(self.timeout))?;
            main.finish_release()?;
            main.channel.send(request.encode())?;
            receive(&mut main.channel)
        };
        call().map_err(|error| self.fail(error))
    }

    fn call_predict(
        &self,
        request: &Request<'_>,
        sink: &mut dyn OutputSink,
    ) -> Result<(Result<(), BatchError>, Vec<Outcome>), ChannelError> {
        let mut main = lock(&self.main);
        main.channel.set_timeout(Some(self.timeout))?;
        main.finish_release()?;
        let channel = &mut main.channel;
        channel.send(request.encode())?;
        loop {
            match receive(channel)? {
                Reply::Part { index, value } => {
                    let status = sink.emit(index as usize, value, true);
                    channel.send(Request::PartStatus(status).encode())?;
                }
                Reply::Done {
                    result,
                    outcomes,
                    logged_error,
                } => {
                    if logged_error {
                        count_logged_error();
                    }
                    return Ok((result, outcomes));
                }
                other => return Err(ChannelError::Malformed(unexpected(&other))),
            }
        }
    }
}

/// Lets a single process be warmed up.
impl Model for Arc<RemoteModel> {
    fn manifest(&self) -> &ModelManifest {
        &self.manifest
    }

    fn health(&self) -> Health {
        match self.lost.load(Ordering::Acquire) {
            true => Health::Recovering {
                reason: "its worker process has exited".to_owned(),
            },
            false => Health::Ready,
        }
    }

    fn prepare(&self, task: usize, item: &ItemInput) -> Result<PreparedItem, ItemError> {
        RemoteModel::prepare(self, task, item, false)
            .unwrap_or_else(|lost| Err(ItemError::Fault(format!("the worker process {}", lost.reason()))))
    }

    fn predict_batch(
        &self,
        _worker: usize,
        task: usize,
        items: &[BatchItem<'_>],
        sink: &mut dyn OutputSink,
    ) -> Result<(), BatchError> {
        self.run(task, items, sink)
            .unwrap_or_else(|lost| Err(BatchError::WorkerLost(lost.reason())))
    }
}
