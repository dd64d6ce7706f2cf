//! A request in the engine: the state of its items, and the reply that collects their outcomes.
//!
//! Every item is carried through the engine by its [`ItemHandle`], which answers it. A handle that is dropped before its
//! item has an outcome answers it with an error. The client holds the [`PendingReply`]. Neither side ever waits for a lock
//! that the other holds, see `item_states`.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::admission::Queue;
use super::batch_record::{BatchLog, RequestBatches};
use super::item_states::{By, Counters, ItemStates, Phase, Settled};
use super::task_queue::TaskQueue;
use crate::batch_context::{BatchContext, RequestTag};
use crate::batching::Priority;
use crate::byte_budget::Reservation;
use crate::clock;
use crate::error::{ItemError, Stage};
use crate::metrics::ItemOutcome;
use crate::trace_context::TraceContext;
use crate::values::{ItemInput, Value};

/// The result of one item.
pub type Outcome = Result<Value, ItemError>;

/// One client call: items for one task.
pub struct Request {
    /// Index of the task in the model's manifest.
    pub task: usize,
    /// The items. One that could not even be read is an error already, and fails alone.
    pub items: Vec<Result<ItemInput, ItemError>>,
    /// Counts the memory of the items beyond the body that they arrived in.
    pub decoded: Option<Reservation>,
    /// When its head arrived. The deadline counts from here.
    pub received: Instant,
    /// Time after `received` within which it must be answered.
    pub timeout: Duration,
    /// Its class.
    pub priority: Priority,
    /// How it is identified and followed.
    pub tracking: Tracking,
}

/// How a request is identified in the log and in traces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracking {
    /// Its ids in the log.
    pub tag: RequestTag,
    /// Its span, if it is traced.
    pub trace: Option<TraceContext>,
    /// Whether its reply lists its batches.
    pub lists_batches: bool,
}

/// The outcomes of a request, in the order of its items.
#[derive(Debug)]
pub struct Reply {
    /// One per item.
    pub outcomes: Vec<Outcome>,
    /// Where the time went.
    pub timing: Timing,
    /// Total weight of its items, as far as the model stated it.
    pub weight: u64,
    /// Its batches, if it asked for them.
    pub batches: RequestBatches,
}

/// Where the time of a request went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Maximum preparation time of an item.
    pub prepare: Duration,
    /// Maximum time that an item waited.
    pub queue: Duration,
    /// Time of all batches that had items of the request.
    pub inference: Duration,
}

/// Nanoseconds that several threads add to.
#[derive(Default)]
struct AtomicDuration(AtomicU64);

impl AtomicDuration {
    fn max(&self, time: Duration) {
        self.0.fetch_max(nanos(time), Ordering::Relaxed);
    }

    fn add(&self, time: Duration) {
        self.0.fetch_add(nanos(time), Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What the handles of one request and its pending reply share.
pub(super) struct RequestState {
    task: Arc<TaskQueue>,
    tag: RequestTag,
    trace: Option<TraceContext>,
    batches: Option<Box<BatchLog>>,
    priority: Priority,
    timeout: Duration,
    items: ItemStates<ItemInput, Outcome>,
    /// The client has gone.
    is_abandoned: AtomicBool,
    prepare: AtomicDuration,
    queue: AtomicDuration,
    inference: AtomicDuration,
    weight: AtomicU64,
    /// Until the last handle and the pending reply are dropped.
    _decoded: Option<Reservation>,
    /// Locked only by the thread that settles the last item.
    reply: Mutex<Option<oneshot::Sender<Reply>>>,
}

impl RequestState {
    /// All items wait; [`TaskQueue`] has counted them.
    fn new(
        task: Arc<TaskQueue>,
        inputs: impl IntoIterator<Item = Option<ItemInput>>,
        request: &Request,
        decoded: Option<Reservation>,
    ) -> (Arc<Self>, oneshot::Receiver<Reply>) {
        let (sender, receiver) = oneshot::channel();
        let state = Self {
            task,
            tag: request.tracking.tag.clone(),
            trace: request.tracking.trace,
            batches: request.tracking.lists_batches.then(|| Box::new(BatchLog::new())),
            priority: request.priority,
            timeout: request.timeout,
            items: ItemStates::new(inputs),
            is_abandoned: AtomicBool::new(false),
            prepare: AtomicDuration::default(),
            queue: AtomicDuration::default(),
            inference: AtomicDuration::default(),
            weight: AtomicU64::new(0),
            _decoded: decoded,
            reply: Mutex::new(Some(sender)),
        };
        (Arc::new(state), receiver)
    }

    /// Answers an item, unless it is over. The thread that answers the last one sends the reply.
    fn settle(&self, index: usize, by: By, outcome: impl FnOnce(Phase) -> Outcome) {
        let counted = |phase| {
            let outcome = outcome(phase);
            let kind = outcome
                .as_ref()
                .map_or_else(ItemOutcome::from, |_| ItemOutcome::Success);
            self.task.metrics.count_item(kind);
            outcome
        };
        if self.items.settle(index, by, counted, self) == Settled::Last {
            self.send_reply();
        }
    }

    fn send_reply(&self) {
        let sender = self.reply.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            let outcomes = self.items.take_outcomes();
            // A receiver that is gone has been counted as cancelled.
            let _ = sender.send(Reply {
                outcomes: outcomes
                    .map(|outcome| outcome.unwrap_or(Err(ItemError::Lost)))
                    .collect(),
                timing: Timing {
                    prepare: self.prepare.get(),
                    queue: self.queue.get(),
                    inference: self.inference.get(),
                },
                weight: self.weight.load(Ordering::Relaxed),
                batches: self.batches.as_ref().map(|log| log.batches()).unwrap_or_default(),
            });
        }
    }

    /// The error of an item whose deadline passes in this phase.
    fn expired(&self, phase: Phase) -> ItemError {
        ItemError::Expired {
            timeout: self.timeout,
            stage: match phase {
                Phase::Waiting | Phase::Preparing if self.task.prepares => Stage::Preparation,
                Phase::Running => Stage::Model,
                _ => Stage::Queue,
            },
        }
    }

    fn cancel(&self, index: usize, by: By) -> bool {
        let cancelled = self.items.cancel(index, by, self).is_some();
        if cancelled {
            self.task.metrics.count_item(ItemOutcome::Cancelled);
        }
        cancelled
    }
}

/// Answers one item.
pub(super) struct ItemHandle {
    request: Arc<RequestState>,
    index: usize,
}

impl ItemHandle {
    /// The ids of its request in the log.
    pub(super) fn request_tag(&self) -> &RequestTag {
        &self.request.tag
    }

    /// The span of its request, if it is traced.
    pub(super) fn trace(&self) -> Option<TraceContext> {
        self.request.trace
    }

    /// Where the batches of its request are recorded, if they are.
    pub(super) fn batch_log(&self) -> Option<&BatchLog> {
        self.request.batches.as_deref()
    }

    /// The log context of work on this item alone.
    pub(super) fn context(&self) -> BatchContext {
        self.request.task.context([&self.request.tag])
    }

    /// Whether both are of the same request.
    pub(super) fn is_of_same_request(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.request, &other.request)
    }

    /// Moves the item to its preparation, and returns its input; none if it does not wait any more.
    pub(super) fn prepare(&self) -> Option<ItemInput> {
        self.request.items.prepare(self.index)
    }

    /// Records how long the preparation of the item took.
    pub(super) fn prepared_in(&self, time: Duration) {
        self.request.task.prepared_in(time);
        self.request.prepare.max(time);
    }

    /// Moves the prepared item, which weighs `weight`, to the queue. Returns false if it does not wait any more.
    pub(super) fn queue_prepared(&self, input: ItemInput, weight: u64) -> bool {
        self.add_weight(weight);
        let request = &self.request;
        request
            .items
            .queue_prepared(self.index, input, weight, &**request)
    }

    /// Moves the item, which needs no preparation, to the queue.
    pub(super) fn queue(&self) -> bool {
        self.request.items.queue(self.index, 1, &*self.request)
    }

    /// Whether the item is in the queue.
    pub(super) fn is_queued(&self) -> bool {
        self.request.items.phase(self.index) == Phase::Queued
    }

    /// Moves the item from the queue into a batch. Returns false if it is not in the queue any more.
    pub(super) fn start(&self) -> bool {
        self.request.items.start(self.index, &*self.request)
    }

    /// The input of the item, once, after it was moved into a batch.
    pub(super) fn take_input(&self) -> Option<ItemInput> {
        self.request.items.take_input(self.index)
    }

    /// Whether the item, which is in a batch, has no outcome yet and the client still waits for one.
    pub(super) fn is_wanted(&self) -> bool {
        self.request.items.phase(self.index) == Phase::Running
            && !self.request.is_abandoned.load(Ordering::Acquire)
    }

    /// Adds a weight that the model stated for the item: in `prepare`, or with its output.
    pub(super) fn add_weight(&self, weight: u64) {
        let added = |total: u64| Some(total.saturating_add(weight));
        let _ = self
            .request
            .weight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
    }

    /// Records how long the item waited.
    pub(super) fn waited(&self, time: Duration) {
        self.request.queue.max(time);
    }

    /// Records that a batch with items of this request took this time. To be called once per batch.
    pub(super) fn ran_in(&self, time: Duration) {
        self.request.inference.add(time);
    }

    /// Answers the item.
    pub(super) fn settle(self, outcome: Outcome) {
        self.request.settle(self.index, By::Holder, |_| outcome);
    }

    /// Answers the item, whose deadline has passed.
    pub(super) fn expire(self) {
        let request = &self.request;
        request.settle(self.index, By::Holder, |phase| Err(request.expired(phase)));
    }

    /// Answers the item, which cannot be answered with a result within its deadline.
    pub(super) fn reject_infeasible(self) {
        let timeout = self.request.timeout;
        self.settle(Err(ItemError::Infeasible { timeout }));
    }

    /// Drops the item, whose client has gone.
    pub(super) fn cancel(self) {
        self.request.cancel(self.index, By::Holder);
    }
}

impl Drop for ItemHandle {
    fn drop(&mut self) {
        let request = &self.request;
        // Only if the item has no outcome yet.
        request.settle(self.index, By::Holder, |phase| {
            Err(if thread::panicking() {
                let doing = if phase == Phase::Running {
                    "ran"
                } else {
                    "prepared"
                };
                ItemError::Fault(format!("the server panicked while it {doing} this item"))
            } else if request.task.is_aborted() {
                ItemError::ShuttingDown
            } else {
                ItemError::Lost
            })
        });
        request.items.handle_dropped(self.index, &**request);
    }
}

/// A request that has been admitted.
///
/// Dropping it cancels the request: items that have not started leave the queue at once.
pub struct PendingReply {
    request: Arc<RequestState>,
    queue: Arc<Queue>,
    task: usize,
    ids: Range<u64>,
    received: Instant,
    receiver: oneshot::Receiver<Reply>,
    is_answered: bool,
}

impl PendingReply {
    /// The pending reply of a request whose items have these inputs and names, and the handles of the items. `decoded` is
    /// released when the last of them is dropped.
    pub(super) fn new(
        queue: Arc<Queue>,
        request: &Request,
        inputs: impl IntoIterator<Item = Option<ItemInput>>,
        decoded: Option<Reservation>,
        ids: Range<u64>,
    ) -> (Self, impl Iterator<Item = ItemHandle>) {
        let (state, receiver) = RequestState::new(queue.task(request.task).clone(), inputs, request, decoded);
        let shared = state.clone();
        let handles = (0..state.items.len()).map(move |index| ItemHandle {
            request: shared.clone(),
            index,
        });
        let pending = Self {
            request: state,
            queue,
            task: request.task,
            ids,
            received: request.received,
            receiver,
            is_answered: false,
        };
        (pending, handles)
    }

    pub(super) fn task(&self) -> usize {
        self.task
    }

    /// Counts the outcomes while the reply is pending.
    pub fn progress(&self) -> Progress {
        Progress(Arc::downgrade(&self.request))
    }

    /// The reply: at the deadline at the latest, with "expired" for every item that has no outcome by then.
    pub async fn reply(mut self) -> Reply {
        let deadline = tokio::time::Instant::from_std(self.received + self.request.timeout);
        let reply = match tokio::time::timeout_at(deadline, &mut self.receiver).await {
            Ok(reply) => reply,
            Err(_) => {
                self.expire();
                (&mut self.receiver).await
            }
        };
        self.is_answered = true;
        let reply = reply.unwrap_or_else(|_| self.lost());
        let took = clock::now().saturating_duration_since(self.received);
        if self.request.priority != Priority::Background {
            self.request.task.statistics.record(&reply, took);
        }
        reply
    }

    /// Answers every item that has no outcome. The reply is sent by this thread, or by one that is about to settle an item.
    fn expire(&self) {
        for index in 0..self.request.items.len() {
            let expired = |phase| Err(self.request.expired(phase));
            self.request.settle(index, By::Client, expired);
        }
        self.queue.cancelled(self.ids.clone());
    }

    /// The sender is dropped only after it was used, so this reply is never needed.
    fn lost(&self) -> Reply {
        Reply {
            outcomes: vec![Err(ItemError::Lost); self.request.items.len()],
            timing: Timing::default(),
            weight: 0,
            batches: RequestBatches::default(),
        }
    }
}

/// Counts the outcomes of a request. It does not keep the request alive.
#[derive(Clone)]
pub struct Progress(Weak<RequestState>);

impl Progress {
    /// Number of items that have an outcome. `None` after the end of the request.
    pub fn items_done(&self) -> Option<usize> {
        Some(self.0.upgrade()?.items.settled())
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        self.request.is_abandoned.store(true, Ordering::Release);
        let mut any = false;
        for index in 0..self.request.items.len() {
            any |= self.request.cancel(index, By::Client);
        }
        if any {
            self.queue.cancelled(self.ids.clone());
        }
    }
}

impl Counters for RequestState {
    fn remove_item(&self) {
        self.task.item_left(self.priority);
    }

    fn add_weight(&self, weight: u64) {
        self.task.add_weight(self.priority, weight);
    }

    fn remove_weight(&self, weight: u64) {
        self.task.remove_weight(self.priority, weight);
    }

    fn add_detached(&self) {
        self.task.detached_changed(1);
    }

    fn remove_detached(&self) {
        self.task.detached_changed(-1);
    }
}
