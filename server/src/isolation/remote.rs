//! The model in one living child, as the server speaks with it.
//!
//! Batches have a lane of their own; items are prepared on several others at the same time. If the child is lost, every
//! call that is under way says so, and the call that comes next too.
//!
//! # Prepared items
//! What `prepare` makes of an item stays in the child that made it. The server holds a handle, and the item as the client
//! sent it: when an item comes to be run in another child than the one that prepared it, or in that one's successor, it
//! is sent again and prepared there, as a part of its batch. The child drops a prepared item once a batch with it has been
//! answered, or with the next call after the server has dropped its handle.
//!
//! # Who is to blame
//! When a child dies, everything that it was doing is suspect. What runs again has the child to itself, so that a second
//! death is its own doing: an item that is prepared again runs beside nothing, and after a death batches run beside no
//! preparation, for as long as `probation` lasts.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};
use std::time::Duration;

use bytes::Bytes;
use plugin_abi::manifest::ModelManifest;

use super::StartError;
use super::lane::{Lane, LaneError};
use super::messages::{Entry, Outcome, Reply, Request};
use super::process::{Cause, Process};
use super::setup::{LoadFailure, Setup};
use crate::batch_context::{BatchContext, count_logged_error};
use crate::error::ItemError;
use crate::json;
use crate::model::{BatchError, BatchItem, Health, Model, OutputSink, PreparedItem};
use crate::values::ItemInput;

/// After a death so many batches have the child to themselves.
const PROBATION: u32 = 64;

/// Handles that wait to be released are sent on their own from this number.
const MOST_UNSENT: usize = 64;

/// The child is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It was before this call came to it.
    Before,
    /// With this call under way. How it ended: what follows "its process".
    During(String),
}

impl Lost {
    fn reason(self) -> String {
        match self {
            Self::Before => "is gone".to_owned(),
            Self::During(reason) => reason,
        }
    }
}

/// See the module.
pub(super) struct RemoteModel {
    manifest: ModelManifest,
    main: Mutex<MainLane>,
    /// Those that are free.
    prepare: Mutex<Vec<Lane>>,
    prepare_lanes: usize,
    lane_returned: Condvar,
    process: Arc<Process>,
    timeout: Duration,
    lost: AtomicBool,
    /// Prepared items that the server has dropped and the child has not heard of.
    unsent: Mutex<Vec<u64>>,
    /// Items that the child has prepared, or is about to, and that have not been run.
    held: AtomicUsize,
    /// Held for writing by who must have the child to itself.
    gate: RwLock<()>,
    probation: AtomicU32,
}

/// The lane of the batches.
struct MainLane {
    lane: Lane,
    /// The child has been sent a release and has not acknowledged it. Until then the memory of the lane may be lent to it,
    /// and must not be written to.
    unacknowledged: bool,
}

impl MainLane {
    /// Waits until the child has acknowledged the last release.
    fn await_acknowledgement(&mut self) -> Result<(), LaneError> {
        if self.unacknowledged {
            let reply = receive(&mut self.lane)?;
            self.acknowledge(&reply)?;
        }
        Ok(())
    }

    /// Sends a release, unless the last one has not been acknowledged yet. Whether it did.
    fn try_release(&mut self, handles: &[u64]) -> bool {
        if self.unacknowledged {
            let acknowledged = match self.lane.try_receive() {
                Ok(Some(message)) => {
                    Reply::decode(&message).is_ok_and(|reply| self.acknowledge(&reply).is_ok())
                }
                Ok(None) | Err(_) => false,
            };
            if !acknowledged {
                return false;
            }
        }
        self.unacknowledged = self
            .lane
            .send(Request::Release(handles.to_vec()).encode())
            .is_ok();
        self.unacknowledged
    }

    fn acknowledge(&mut self, reply: &Reply) -> Result<(), LaneError> {
        if *reply != Reply::Released {
            return Err(LaneError::Nonsense(unexpected(reply)));
        }
        self.unacknowledged = false;
        Ok(())
    }
}

/// Leave to speak with the child: beside others, or alone.
enum Admitted<'a> {
    Beside(#[allow(dead_code, reason = "held, not read")] RwLockReadGuard<'a, ()>),
    Alone(#[allow(dead_code, reason = "held, not read")] RwLockWriteGuard<'a, ()>),
}

/// What is kept of an item that the child has prepared.
pub(super) struct HeldItem {
    owner: Weak<RemoteModel>,
    handle: u64,
    /// The child has dropped it.
    spent: AtomicBool,
}

impl HeldItem {
    /// The child has dropped it, with the batch that it was in.
    fn spend(&self, owner: &RemoteModel) {
        if !self.spent.swap(true, Ordering::AcqRel) {
            owner.held.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for HeldItem {
    fn drop(&mut self) {
        if !*self.spent.get_mut()
            && let Some(owner) = self.owner.upgrade()
        {
            owner.held.fetch_sub(1, Ordering::Relaxed);
            owner.release(self.handle);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks a fresh child to load its model, and waits for at most `timeout`.
pub(super) fn load(
    lane: &mut Lane,
    process: &Process,
    setup: &Setup,
    timeout: Duration,
) -> Result<ModelManifest, StartError> {
    let lost = |error| StartError::Died(end_of(process, error));
    let json = serde_json::to_vec(setup)
        .map_err(|error| StartError::Load(LoadFailure::Plugin(error.to_string())))?;
    lane.set_timeout(Some(timeout)).map_err(lost)?;
    lane.send(Request::Load(Bytes::from(json)).encode())
        .map_err(lost)?;
    let nonsense = |text: String| lost(LaneError::Nonsense(text));
    match receive(lane).map_err(lost)? {
        Reply::Loaded(manifest) => json::from_slice(&manifest).map_err(|error| nonsense(error.to_string())),
        Reply::Refused(failure) => match json::from_slice(&failure) {
            Ok(failure) => Err(StartError::Load(failure)),
            Err(error) => Err(nonsense(error.to_string())),
        },
        other => Err(nonsense(unexpected(&other))),
    }
}

fn receive(lane: &mut Lane) -> Result<Reply, LaneError> {
    let message = lane.receive()?;
    Reply::decode(&message).map_err(|error| LaneError::Nonsense(error.to_string()))
}

fn unexpected(reply: &Reply) -> String {
    let what = match reply {
        Reply::Loaded(_) | Reply::Refused(_) => "about a start",
        Reply::Prepared { .. } | Reply::Failed(_) => "about a preparation",
        Reply::Part { .. } | Reply::Done { .. } => "about a batch",
        Reply::Released => "about a release",
    };
    format!("an answer {what} that nobody asked for")
}

/// The error of a batch whose message is too large to be passed on. The child has not failed.
fn without_room(error: &LaneError) -> Option<BatchError> {
    match error {
        LaneError::TooLong { .. } => Some(BatchError::TooLarge(ItemError::Invalid(format!(
            "the input cannot be passed to the process of the model: {error}"
        )))),
        LaneError::NoMemory(source) => Some(BatchError::OutOfMemory(format!("{error}: {source}"))),
        _ => None,
    }
}

/// The error of an item that is too large to be prepared in the child.
fn item_without_room(error: &LaneError) -> ItemError {
    match without_room(error) {
        Some(BatchError::TooLarge(error)) => error,
        _ => ItemError::OutOfMemory(error.to_string()),
    }
}

/// Ends a child that has failed a call, and says how it ended.
fn end_of(process: &Process, error: LaneError) -> String {
    match error {
        LaneError::Closed => process.hung_up(),
        LaneError::TimedOut(limit) => process.condemn(Cause::Hang(limit)),
        LaneError::Nonsense(_) => process.condemn(Cause::Breach(format!("sent {error}"))),
        LaneError::TooLong { .. } | LaneError::NoMemory(_) => {
            process.condemn(Cause::Breach(format!("cannot be spoken with: {error}")));
        }
        LaneError::System(source) => {
            process.condemn(Cause::Breach(format!("cannot be spoken with: {source}")));
        }
    }
    process.bury().text
}

impl RemoteModel {
    /// A model that has been loaded. `suspect`: its predecessor died.
    pub(super) fn new(
        manifest: ModelManifest,
        main: Lane,
        prepare: Vec<Lane>,
        process: Arc<Process>,
        timeout: Duration,
        suspect: bool,
    ) -> Self {
        Self {
            manifest,
            main: Mutex::new(MainLane {
                lane: main,
                unacknowledged: false,
            }),
            prepare_lanes: prepare.len(),
            prepare: Mutex::new(prepare),
            lane_returned: Condvar::new(),
            process,
            timeout,
            lost: AtomicBool::new(false),
            unsent: Mutex::new(Vec::new()),
            held: AtomicUsize::new(0),
            gate: RwLock::new(()),
            probation: AtomicU32::new(if suspect { PROBATION } else { 0 }),
        }
    }

    /// Of how many of these items the child has what it prepared.
    pub(super) fn holds(self: &Arc<Self>, items: &[BatchItem<'_>]) -> usize {
        items.iter().filter(|item| self.handle(item).is_some()).count()
    }

    /// How many items the child has prepared, or is about to, that have not been run.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn handle<'a>(self: &Arc<Self>, item: &BatchItem<'a>) -> Option<&'a HeldItem> {
        let held = item.prepared?.payload.downcast_ref::<HeldItem>()?;
        let here = Weak::as_ptr(&held.owner) == Arc::as_ptr(self) && !held.spent.load(Ordering::Acquire);
        here.then_some(held)
    }

    /// Waits for leave to speak with the child, which may be lost meanwhile.
    fn admit(&self, alone: bool) -> Result<Admitted<'_>, Lost> {
        let admitted = if alone {
            Admitted::Alone(self.gate.write().unwrap_or_else(PoisonError::into_inner))
        } else {
            Admitted::Beside(self.gate.read().unwrap_or_else(PoisonError::into_inner))
        };
        if self.lost.load(Ordering::Acquire) {
            return Err(Lost::Before);
        }
        Ok(admitted)
    }

    fn lose(&self, error: LaneError) -> Lost {
        self.lost.store(true, Ordering::Release);
        Lost::During(end_of(&self.process, error))
    }

    fn release(&self, handle: u64) {
        let mut unsent = lock(&self.unsent);
        unsent.push(handle);
        // A lane that is busy will take them along. Whether the child is lost, the next call will find out.
        if unsent.len() >= MOST_UNSENT
            && let Ok(mut main) = self.main.try_lock()
            && main.try_release(&unsent)
        {
            unsent.clear();
        }
    }

    /// Prepares an item; `alone` if it has been in a child that died.
    pub(super) fn prepare(
        self: &Arc<Self>,
        task: usize,
        item: &ItemInput,
        alone: bool,
    ) -> Result<Result<PreparedItem, ItemError>, Lost> {
        let _admitted = self.admit(alone)?;
        self.held.fetch_add(1, Ordering::Relaxed);
        let mut lane = self
            .lane_returned
            .wait_while(lock(&self.prepare), |lanes| lanes.is_empty())
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let answer = match &mut lane {
            Some(lane) => self.ask_to_prepare(lane, task, item),
            None => Err(LaneError::Closed),
        };
        lock(&self.prepare).extend(lane);
        self.lane_returned.notify_one();
        if let Ok(Reply::Prepared {
            handle,
            weight,
            group,
        }) = answer
        {
            let held = HeldItem {
                owner: Arc::downgrade(self),
                handle,
                spent: AtomicBool::new(false),
            };
            return Ok(Ok(PreparedItem {
                weight,
                group,
                payload: Box::new(held),
            }));
        }
        self.held.fetch_sub(1, Ordering::Relaxed);
        match answer {
            Err(error) if without_room(&error).is_some() => Ok(Err(item_without_room(&error))),
            Ok(Reply::Failed(error)) => Ok(Err(error)),
            Ok(other) => Err(self.lose(LaneError::Nonsense(unexpected(&other)))),
            Err(error) => Err(self.lose(error)),
        }
    }

    fn ask_to_prepare(&self, lane: &mut Lane, task: usize, item: &ItemInput) -> Result<Reply, LaneError> {
        let request = Request::Prepare {
            task: u32::try_from(task).unwrap_or(u32::MAX),
            item: Cow::Borrowed(item),
        };
        lane.set_timeout(Some(self.timeout))?;
        lane.send(request.encode())?;
        receive(lane)
    }

    /// Runs a batch. Nothing has been put into `sink` if the child is lost, but for parts.
    pub(super) fn run(
        self: &Arc<Self>,
        task: usize,
        items: &[BatchItem<'_>],
        sink: &mut dyn OutputSink,
    ) -> Result<Result<(), BatchError>, Lost> {
        let probation = self.probation.load(Ordering::Relaxed);
        let _admitted = self.admit(probation > 0)?;
        let context = BatchContext::current();
        let requests = context.map_or_else(String::new, |context| context.requests.to_string());
        let request = Request::Predict {
            task: u32::try_from(task).unwrap_or(u32::MAX),
            requests: requests.into(),
            release: std::mem::take(&mut *lock(&self.unsent)),
            items: items.iter().map(|item| self.entry(item)).collect(),
        };
        let (result, outcomes) = match self.ask_to_run(&request, sink) {
            Ok(done) => done,
            Err(error) => match without_room(&error) {
                Some(reason) => {
                    // The child ignores handles that it has dropped already.
                    if let Request::Predict { release, .. } = request {
                        lock(&self.unsent).extend(release);
                    }
                    // It has run the batch and dropped these, or it still has them.
                    if let LaneError::NoMemory(_) = error {
                        self.forget(items);
                    }
                    return Ok(Err(reason));
                }
                None => return Err(self.lose(error)),
            },
        };
        for outcome in outcomes {
            // The sink itself records what is wrong with an outcome.
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
        // The child keeps what it has prepared for a batch that comes back in halves.
        if !result.as_ref().is_err_and(BatchError::may_succeed_in_halves) {
            items
                .iter()
                .filter_map(|item| self.handle(item))
                .for_each(|held| held.spend(self));
        }
        self.probation
            .store(probation.saturating_sub(1), Ordering::Relaxed);
        Ok(result)
    }

    /// Calls `f` while the lane of the batches is in use.
    #[cfg(test)]
    pub(super) fn while_busy(&self, f: impl FnOnce()) {
        let _busy = lock(&self.main);
        f();
    }

    /// Whether it runs a batch or prepares an item.
    pub(super) fn is_computing(&self) -> bool {
        let prepares = || lock(&self.prepare).len() < self.prepare_lanes;
        self.main.try_lock().is_err() || prepares()
    }

    /// Ends the child, whatever it is doing.
    pub(super) fn kill(&self) {
        self.process.kill();
    }

    /// Gives up what the child has prepared of these items. It is prepared again with the next batch that they are in.
    fn forget(self: &Arc<Self>, items: &[BatchItem<'_>]) {
        for held in items.iter().filter_map(|item| self.handle(item)) {
            held.spend(self);
            lock(&self.unsent).push(held.handle);
        }
    }

    /// An item as the child knows it.
    fn entry<'a>(self: &Arc<Self>, item: &BatchItem<'a>) -> Entry<'a> {
        match (self.handle(item), item.prepared) {
            (Some(held), _) => Entry::Held(held.handle),
            (None, Some(_)) => Entry::Unprepared(Cow::Borrowed(item.input)),
            (None, None) => Entry::Raw(Cow::Borrowed(item.input)),
        }
    }

    fn ask_to_run(
        &self,
        request: &Request<'_>,
        sink: &mut dyn OutputSink,
    ) -> Result<(Result<(), BatchError>, Vec<Outcome>), LaneError> {
        let mut main = lock(&self.main);
        main.lane.set_timeout(Some(self.timeout))?;
        main.await_acknowledgement()?;
        let lane = &mut main.lane;
        lane.send(request.encode())?;
        loop {
            match receive(lane)? {
                Reply::Part { index, value } => {
                    let status = sink.emit(index as usize, value, true);
                    lane.send(Request::Status(status).encode())?;
                }
                Reply::Done {
                    result,
                    outcomes,
                    logged,
                } => {
                    if logged {
                        count_logged_error();
                    }
                    return Ok((result, outcomes));
                }
                other => return Err(LaneError::Nonsense(unexpected(&other))),
            }
        }
    }
}

/// A single child as a model, for its warm-up.
impl Model for Arc<RemoteModel> {
    fn manifest(&self) -> &ModelManifest {
        &self.manifest
    }

    fn health(&self) -> Health {
        match self.lost.load(Ordering::Acquire) {
            true => Health::Recovering {
                reason: "its process is gone".to_owned(),
            },
            false => Health::Ready,
        }
    }

    fn prepare(&self, task: usize, item: &ItemInput) -> Result<PreparedItem, ItemError> {
        RemoteModel::prepare(self, task, item, false)
            .unwrap_or_else(|lost| Err(ItemError::Fault(format!("its process {}", lost.reason()))))
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
