//! A request in the engine: the places of its items in the queue, and the reply that gathers their outcomes.
//!
//! Every item carries a [`Ticket`], which is both its place and its own reply channel. A ticket that is dropped unsettled
//! answers "lost". Exactly one side moves an item out of the queue: the worker that takes it, or whoever gives it up
//! (client gone, deadline, failed preparation); the counters follow that one step, so they always return to zero.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::queue::{Queue, TaskQueue};
use crate::batch_context::BatchContext;
use crate::batcher::ItemId;
use crate::batching::Priority;
use crate::clock;
use crate::error::{ItemError, Stage};
use crate::metrics::ItemOutcome;
use crate::values::{ItemInput, Value};

/// What became of one item.
pub type Outcome = Result<Value, ItemError>;

/// What one client call asks of one task.
pub struct Request {
    /// Index of the task in the model's manifest.
    pub task: usize,
    /// The items; one that could not even be read is an error already and fails alone.
    pub items: Vec<Result<ItemInput, ItemError>>,
    /// When the request arrived.
    pub received: Instant,
    /// How long after that it must be answered.
    pub timeout: Duration,
    /// Its class.
    pub priority: Priority,
    /// Its id in the log; empty if it has none.
    pub id: Arc<str>,
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
}

/// Where the time of a request went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Longest preparation of an item.
    pub prepare: Duration,
    /// Longest wait of an item.
    pub queue: Duration,
    /// Time of all batches that had items of the request.
    pub inference: Duration,
}

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const GONE: u8 = 2;

/// One item's place in the queue.
struct Place {
    state: AtomicU8,
    weight: AtomicU64,
}

struct Outcomes {
    slots: Vec<Option<Outcome>>,
    open: usize,
    timing: Timing,
    weight: u64,
    /// The batch whose time was added last: items of one request lie side by side in a batch.
    last_batch: u64,
    reply: Option<oneshot::Sender<Reply>>,
}

/// What the tickets of one request share.
pub(super) struct Gathering {
    task: Arc<TaskQueue>,
    id: Arc<str>,
    received: Instant,
    timeout: Duration,
    places: Box<[Place]>,
    outcomes: Mutex<Outcomes>,
}

impl Gathering {
    /// All items wait; [`TaskQueue`] has counted them.
    pub(super) fn new(
        task: Arc<TaskQueue>,
        items: usize,
        request: &Request,
    ) -> (Arc<Self>, oneshot::Receiver<Reply>) {
        let (sender, receiver) = oneshot::channel();
        let place = || Place {
            state: AtomicU8::new(WAITING),
            weight: AtomicU64::new(0),
        };
        let gathering = Self {
            task,
            id: request.id.clone(),
            received: request.received,
            timeout: request.timeout,
            places: std::iter::repeat_with(place).take(items).collect(),
            outcomes: Mutex::new(Outcomes {
                slots: std::iter::repeat_with(|| None).take(items).collect(),
                open: items,
                timing: Timing::default(),
                weight: 0,
                last_batch: 0,
                reply: Some(sender),
            }),
        };
        (Arc::new(gathering), receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Outcomes> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves an item out of the queue. Only the first to do so gets `true`, and only then are the counters moved.
    fn leave_queue(&self, index: usize, to: u8) -> bool {
        let place = &self.places[index];
        let left = place
            .state
            .compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if left {
            self.task.item_left(place.weight.swap(0, Ordering::AcqRel));
        }
        left
    }

    /// Records an outcome; the first one counts, and none does after the reply. The last item to be settled sends it.
    fn settle(&self, index: usize, outcome: Outcome) {
        let mut outcomes = self.lock();
        let Some(slot @ None) = outcomes.slots.get_mut(index) else {
            return;
        };
        self.task.metrics.count_item(
            outcome
                .as_ref()
                .map_or_else(ItemOutcome::from, |_| ItemOutcome::Success),
        );
        *slot = Some(outcome);
        outcomes.open -= 1;
        if outcomes.open > 0 {
            return;
        }
        if let Some(sender) = outcomes.reply.take() {
            let reply = outcomes.take_reply();
            let took = clock::now().saturating_duration_since(self.received);
            self.task.statistics.record(&reply, took);
            // A receiver that is gone has been counted as cancelled.
            let _ = sender.send(reply);
        }
    }

    /// The deadline passed: what waits is given up, what runs is not waited for, and the reply is sent.
    fn expire(&self) {
        for index in 0..self.places.len() {
            let expired = self.expired(index);
            self.leave_queue(index, GONE);
            self.settle(index, Err(expired));
        }
    }

    /// The error of an item whose deadline passes now.
    fn expired(&self, index: usize) -> ItemError {
        let place = &self.places[index];
        let stage = match place.state.load(Ordering::Acquire) {
            TAKEN => Stage::Model,
            // An item is weighed once it is prepared.
            WAITING if self.task.prepares && place.weight.load(Ordering::Acquire) == 0 => Stage::Preparation,
            _ => Stage::Queue,
        };
        ItemError::Expired {
            timeout: self.timeout,
            stage,
        }
    }

    /// The client went away: what waits is given up. Returns whether anything did.
    fn cancel(&self) -> bool {
        let mut any = false;
        for index in 0..self.places.len() {
            if self.leave_queue(index, GONE) {
                any = true;
                self.abandon(index);
            }
        }
        any
    }

    /// Closes an item whose client went away, unless it is closed already.
    fn abandon(&self, index: usize) {
        let mut outcomes = self.lock();
        if let Some(slot @ None) = outcomes.slots.get_mut(index) {
            *slot = Some(Err(ItemError::Lost));
            outcomes.open -= 1;
            self.task.metrics.count_item(ItemOutcome::Cancelled);
        }
    }
}

impl Outcomes {
    fn take_reply(&mut self) -> Reply {
        let slots = std::mem::take(&mut self.slots);
        let outcomes = slots
            .into_iter()
            .map(|slot| slot.unwrap_or(Err(ItemError::Lost)))
            .collect();
        Reply {
            outcomes,
            timing: self.timing,
            weight: self.weight,
        }
    }
}

/// One item's claim to be answered.
pub(super) struct Ticket {
    gathering: Arc<Gathering>,
    index: usize,
    settled: bool,
}

impl Ticket {
    pub(super) fn new(gathering: Arc<Gathering>, index: usize) -> Self {
        Self {
            gathering,
            index,
            settled: false,
        }
    }

    /// What work on this item alone is called in the log.
    pub(super) fn context(&self) -> BatchContext {
        self.gathering.task.context([&self.gathering.id])
    }

    /// The id of its request.
    pub(super) fn request_id(&self) -> &Arc<str> {
        &self.gathering.id
    }

    /// Whether the item still waits: nobody took it, nobody gave it up.
    pub(super) fn is_waiting(&self) -> bool {
        self.gathering.places[self.index].state.load(Ordering::Acquire) == WAITING
    }

    /// Records the weight that the model stated for the item, while it waits.
    pub(super) fn weigh(&self, weight: u64) {
        self.add_weight(weight);
        self.weigh_in_queue(weight);
    }

    /// Counts the item's weight in the queue. To be called once, before the item can be taken.
    pub(super) fn weigh_in_queue(&self, weight: u64) {
        let place = &self.gathering.places[self.index];
        self.gathering.task.add_weight(weight);
        place.weight.store(weight, Ordering::Release);
        // Given up meanwhile, perhaps by somebody who did not see the weight yet: whoever swaps it out takes it off.
        if place.state.load(Ordering::Acquire) == GONE {
            self.gathering
                .task
                .remove_weight(place.weight.swap(0, Ordering::AcqRel));
        }
    }

    /// Adds a weight that the model stated for the item: in `prepare`, or with its output.
    pub(super) fn add_weight(&self, weight: u64) {
        let mut outcomes = self.gathering.lock();
        outcomes.weight = outcomes.weight.saturating_add(weight);
    }

    /// Takes the item out of the queue to run it; `false` if it has been given up.
    pub(super) fn take(&self) -> bool {
        self.gathering.leave_queue(self.index, TAKEN)
    }

    /// Whether the item has no outcome yet and somebody still waits for one.
    pub(super) fn is_wanted(&self) -> bool {
        let outcomes = self.gathering.lock();
        let open = matches!(outcomes.slots.get(self.index), Some(None));
        open && outcomes.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    /// Lets go of an item that nobody waits for, or that has its outcome already.
    pub(super) fn abandon(mut self) {
        self.settled = true;
        self.gathering.leave_queue(self.index, GONE);
        self.gathering.abandon(self.index);
    }

    /// Adds the time that preparing the item took.
    pub(super) fn prepared_in(&self, time: Duration) {
        self.gathering
            .task
            .metrics
            .prepare_seconds
            .observe(time.as_secs_f64());
        let mut outcomes = self.gathering.lock();
        outcomes.timing.prepare = outcomes.timing.prepare.max(time);
    }

    /// Adds the item's wait and, once per batch, the time of its batch.
    pub(super) fn ran_in(&self, batch: u64, queue: Duration, inference: Duration) {
        let mut outcomes = self.gathering.lock();
        outcomes.timing.queue = outcomes.timing.queue.max(queue);
        if outcomes.last_batch != batch {
            outcomes.last_batch = batch;
            outcomes.timing.inference += inference;
        }
    }

    /// Answers the item.
    pub(super) fn settle(mut self, outcome: Outcome) {
        self.settled = true;
        self.gathering.leave_queue(self.index, GONE);
        self.gathering.settle(self.index, outcome);
    }

    /// Answers the item, whose deadline passed in the queue.
    pub(super) fn expire(self) {
        let expired = self.gathering.expired(self.index);
        self.settle(Err(expired));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let place = &self.gathering.places[self.index];
        let waited = self.gathering.leave_queue(self.index, GONE);
        // Whoever gave the item up says why, if not before this then right after.
        if waited || place.state.load(Ordering::Acquire) == TAKEN {
            self.gathering.settle(self.index, Err(ItemError::Lost));
        }
    }
}

/// A request that has been admitted.
///
/// Dropping it means that nobody waits any more: items that have not begun to run leave the queue at once.
pub struct Pending {
    gathering: Arc<Gathering>,
    queue: Arc<Queue>,
    task: usize,
    ids: std::ops::Range<u64>,
    deadline: Instant,
    receiver: oneshot::Receiver<Reply>,
    answered: bool,
}

impl Pending {
    pub(super) fn new(
        gathering: Arc<Gathering>,
        queue: Arc<Queue>,
        request: &Request,
        ids: std::ops::Range<u64>,
        receiver: oneshot::Receiver<Reply>,
    ) -> Self {
        let deadline = request.received + request.timeout;
        Self {
            gathering,
            queue,
            task: request.task,
            ids,
            deadline,
            receiver,
            answered: false,
        }
    }

    pub(super) fn task(&self) -> usize {
        self.task
    }

    /// The reply; at the deadline at the latest, with "expired" for every item that has no outcome by then.
    pub async fn reply(mut self) -> Reply {
        let deadline = tokio::time::Instant::from_std(self.deadline);
        let reply = match tokio::time::timeout_at(deadline, &mut self.receiver).await {
            Ok(reply) => reply,
            Err(_) => {
                self.gathering.expire();
                self.withdraw();
                (&mut self.receiver).await
            }
        };
        self.answered = true;
        reply.unwrap_or_else(|_| self.lost())
    }

    /// The sender goes only by sending, so this is never asked for; if it were, the client had better know.
    fn lost(&self) -> Reply {
        let outcomes = vec![Err(ItemError::Lost); self.gathering.places.len()];
        Reply {
            outcomes,
            timing: Timing::default(),
            weight: 0,
        }
    }

    /// Tells the scheduler to let go of what was given up.
    fn withdraw(&self) {
        self.queue.withdraw(self.ids.clone().map(ItemId));
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.answered && self.gathering.cancel() {
            self.withdraw();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use bytes::Bytes;

    use super::*;
    use crate::batching::{Policy, TaskBatching, WeightRule};
    use crate::clock;
    use crate::engine::TaskLimits;
    use crate::metrics::{Buckets, Metrics};

    /// The scheduler may drop an item after it was given up, and before that was said.
    #[test]
    fn an_item_that_is_dropped_while_it_is_given_up_is_not_lost() {
        let metrics = Metrics::new(Buckets::NONE).expect("the metrics are consistent");
        let task = ("text".to_owned(), false, metrics.task("m", "text", &[]));
        let limits = TaskLimits {
            batching: TaskBatching {
                policy: Policy::Greedy,
                max_batch_size: NonZeroUsize::MIN,
                max_batch_weight: None,
                weight_rule: WeightRule::Sum,
            },
            max_queue_size: 8,
            max_queue_weight: None,
        };
        let (queue, _receiver) = Queue::new("m", vec![task], &[limits], 1);
        let request = Request {
            task: 0,
            items: vec![Ok(ItemInput {
                value: Value::Text(Bytes::new()),
                parameters: Bytes::new(),
            })],
            received: clock::now(),
            timeout: Duration::from_secs(60),
            priority: Priority::Normal,
            id: "".into(),
        };
        let (mut pending, items) = Arc::new(queue).admit(request).expect("there is room");
        assert!(pending.gathering.leave_queue(0, GONE));
        drop(items);
        pending.gathering.expire();
        let reply = pending.receiver.try_recv().expect("it was answered");
        assert_eq!(
            reply.outcomes[0].as_ref().err(),
            Some(&ItemError::Expired {
                timeout: Duration::from_secs(60),
                stage: Stage::Queue
            })
        );
    }
}
