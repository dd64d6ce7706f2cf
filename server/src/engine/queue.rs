//! Admission: what may wait, how much waits, and the channel to the scheduler.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use crossbeam_channel::{Receiver, Sender, unbounded};

use super::TaskLimits;
use super::request::{Gathering, Pending, Request, Ticket};
use super::statistics::Statistics;
use crate::batch_context::BatchContext;
use crate::batcher::policy::Estimates;
use crate::batcher::{Item, ItemId};
use crate::batching::TaskBatching;
use crate::clock;
use crate::error::Rejection;
use crate::metrics::TaskMetrics;
use crate::model::PreparedItem;
use crate::values::ItemInput;

/// What the batcher carries for an item.
pub(super) struct Queued {
    pub(super) ticket: Ticket,
    pub(super) input: ItemInput,
    pub(super) prepared: Option<PreparedItem>,
}

/// What the scheduler is told.
#[allow(
    clippy::large_enum_variant,
    reason = "the large one is the common one, and a box would cost an allocation"
)]
pub(super) enum Message {
    /// One item is ready to run.
    One(Item<Queued>),
    /// Items of one request are ready to run.
    Many(Vec<Item<Queued>>),
    /// These were given up.
    Withdraw(Range<u64>),
    /// Go on under these rules.
    Reconfigure(Vec<TaskBatching>),
    /// Answer everything with "shutting down" and end.
    Abort,
}

/// What waits for one task, counted.
pub(super) struct TaskQueue {
    /// Name of the model.
    model: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) prepares: bool,
    pub(super) metrics: Arc<TaskMetrics>,
    pub(super) statistics: Statistics,
    /// How many batches may run at once, at least 1.
    workers: u64,
    max_items: AtomicUsize,
    max_weight: AtomicU64,
    items: AtomicUsize,
    weight: AtomicU64,
    /// Time that an item takes of a worker, in nanoseconds, averaged over recent batches.
    nanos_per_item: AtomicU64,
    estimates: ArcSwapOption<Estimates>,
}

impl TaskQueue {
    /// What work on these requests is called in the log.
    pub(super) fn context<'a>(&self, requests: impl IntoIterator<Item = &'a Arc<str>>) -> BatchContext {
        BatchContext {
            model: self.model.clone(),
            task: self.name.clone(),
            requests: requests.into_iter().collect(),
        }
    }

    /// Takes places for `items`, all or none.
    fn enter(&self, items: usize) -> Result<(), Rejection> {
        let limit = self.max_items.load(Ordering::Relaxed);
        if items > limit {
            return Err(Rejection::TooManyItems {
                task: self.name.to_string(),
                items,
                limit,
            });
        }
        let (weight, max_weight) = (
            self.weight.load(Ordering::Relaxed),
            self.max_weight.load(Ordering::Relaxed),
        );
        if weight >= max_weight {
            let retry_after = self.retry_after(self.items.load(Ordering::Relaxed));
            return Err(Rejection::QueueTooHeavy {
                task: self.name.to_string(),
                queued: weight,
                limit: max_weight,
                retry_after,
            });
        }
        self.items
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |queued| {
                queued.checked_add(items).filter(|total| *total <= limit)
            })
            .map_err(|queued| self.full(queued, limit, items))?;
        self.metrics.queued_items.add(items as i64);
        Ok(())
    }

    fn full(&self, queued: usize, limit: usize, items: usize) -> Rejection {
        let retry_after = self.retry_after(queued);
        Rejection::QueueFull {
            task: self.name.to_string(),
            queued,
            limit,
            items,
            retry_after,
        }
    }

    /// Estimated time until all workers together have run `queued` items, between a second and a minute.
    fn retry_after(&self, queued: usize) -> Duration {
        let nanos = self
            .nanos_per_item
            .load(Ordering::Relaxed)
            .saturating_mul(queued as u64)
            / self.workers;
        Duration::from_nanos(nanos).clamp(Duration::from_secs(1), Duration::from_secs(60))
    }

    /// An item has left the queue, whose stated weight was `weight`.
    pub(super) fn item_left(&self, weight: u64) {
        self.items.fetch_sub(1, Ordering::AcqRel);
        self.metrics.queued_items.dec();
        self.remove_weight(weight);
    }

    pub(super) fn add_weight(&self, weight: u64) {
        self.weight.fetch_add(weight, Ordering::AcqRel);
        self.metrics.queued_weight.add(weight as i64);
    }

    pub(super) fn remove_weight(&self, weight: u64) {
        self.weight.fetch_sub(weight, Ordering::AcqRel);
        self.metrics.queued_weight.sub(weight as i64);
    }

    /// Takes note of a batch, for [`retry_after`](Self::retry_after).
    pub(super) fn batch_ran(&self, items: usize, time: Duration) {
        let sample = time.as_nanos() as u64 / items.max(1) as u64;
        let old = self.nanos_per_item.load(Ordering::Relaxed);
        let new = if old == 0 {
            sample
        } else {
            old - old / 8 + sample / 8
        };
        self.nanos_per_item.store(new, Ordering::Relaxed);
        self.statistics.batch_ran(items, time);
    }

    /// Publishes the estimates of the task's policy, if the policy uses any.
    pub(super) fn publish_estimates(&self, estimates: Option<Estimates>) {
        if let Some(estimates) = &estimates {
            let seconds = |time: Option<Duration>| time.map_or(0.0, |time| time.as_secs_f64());
            self.metrics
                .learned_batch_seconds
                .set(seconds(estimates.cost_per_batch));
            self.metrics
                .learned_unit_seconds
                .set(seconds(estimates.cost_per_unit));
        }
        self.estimates.store(estimates.map(Arc::new));
    }

    /// Recent estimates of the task's policy.
    pub(super) fn estimates(&self) -> Option<Arc<Estimates>> {
        self.estimates.load_full()
    }

    fn reconfigure(&self, limits: &TaskLimits) {
        self.max_items.store(limits.max_queue_size, Ordering::Relaxed);
        self.max_weight
            .store(limits.max_queue_weight.unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The queue of one engine, as submitters see it.
pub(super) struct Queue {
    tasks: Vec<Arc<TaskQueue>>,
    sender: Sender<Message>,
    next_id: AtomicU64,
    /// Items in the channel that the scheduler has not looked at, given-up ones included.
    unread: Arc<AtomicUsize>,
    aborted: AtomicBool,
}

/// The scheduler's end of a [`Queue`].
pub(super) struct QueueReceiver {
    pub(super) messages: Receiver<Message>,
    pub(super) unread: Arc<AtomicUsize>,
}

impl Queue {
    pub(super) fn new(
        model: &str,
        tasks: Vec<(String, bool, Arc<TaskMetrics>)>,
        limits: &[TaskLimits],
        workers: usize,
    ) -> (Self, QueueReceiver) {
        let model: Arc<str> = model.into();
        let task = |((name, prepares, metrics), limits): ((String, bool, Arc<TaskMetrics>), &TaskLimits)| {
            let task = TaskQueue {
                model: model.clone(),
                name: name.into(),
                prepares,
                metrics,
                statistics: Statistics::default(),
                workers: workers.max(1) as u64,
                max_items: AtomicUsize::new(0),
                max_weight: AtomicU64::new(0),
                items: AtomicUsize::new(0),
                weight: AtomicU64::new(0),
                nanos_per_item: AtomicU64::new(0),
                estimates: ArcSwapOption::empty(),
            };
            task.reconfigure(limits);
            Arc::new(task)
        };
        let (sender, messages) = unbounded();
        let unread = Arc::new(AtomicUsize::new(0));
        let queue = Self {
            tasks: tasks.into_iter().zip(limits).map(task).collect(),
            sender,
            next_id: AtomicU64::new(0),
            unread: unread.clone(),
            aborted: AtomicBool::new(false),
        };
        (queue, QueueReceiver { messages, unread })
    }

    pub(super) fn task(&self, task: usize) -> &Arc<TaskQueue> {
        &self.tasks[task]
    }

    pub(super) fn tasks(&self) -> Vec<Arc<TaskQueue>> {
        self.tasks.clone()
    }

    /// Takes places for a request and gives each of its readable items a ticket. The others are settled.
    pub(super) fn admit(
        self: &Arc<Self>,
        mut request: Request,
    ) -> Result<(Pending, Vec<Item<Queued>>), Rejection> {
        let task = &self.tasks[request.task];
        let admitted = self
            .check(task, &request)
            .and_then(|()| task.enter(request.items.len()));
        if let Err(rejection) = admitted {
            task.metrics.count_rejection(&rejection);
            return Err(rejection);
        }
        let items = std::mem::take(&mut request.items);
        let first = self.next_id.fetch_add(items.len() as u64, Ordering::Relaxed);
        let (gathering, receiver) = Gathering::new(task.clone(), items.len(), &request);
        let ids = first..first + items.len() as u64;
        let mut admitted = Vec::with_capacity(items.len());
        for (index, input) in items.into_iter().enumerate() {
            let ticket = Ticket::new(gathering.clone(), index);
            match input {
                Ok(input) => {
                    if !task.prepares {
                        ticket.weigh_in_queue(1);
                    }
                    admitted.push(Item {
                        id: ItemId(first + index as u64),
                        task: request.task,
                        priority: request.priority,
                        weight: 1,
                        group: 0,
                        arrived: request.received,
                        ready: request.received,
                        deadline: Some(request.received + request.timeout),
                        payload: Queued {
                            ticket,
                            input,
                            prepared: None,
                        },
                    });
                }
                Err(error) => ticket.settle(Err(error)),
            }
        }
        Ok((
            Pending::new(gathering, self.clone(), &request, ids, receiver),
            admitted,
        ))
    }

    fn check(&self, task: &TaskQueue, request: &Request) -> Result<(), Rejection> {
        if self.aborted.load(Ordering::Relaxed) {
            return Err(Rejection::ShuttingDown);
        }
        if clock::now() >= request.received + request.timeout {
            return Err(Rejection::Expired(request.timeout));
        }
        // Items that were given up free their place at once but stay in the channel until the scheduler looks: clients
        // that come and go while the model computes for long must not fill the memory.
        let limit = task.max_items.load(Ordering::Relaxed);
        let unread = self.unread.load(Ordering::Relaxed);
        if unread > limit.saturating_mul(4).max(1024) {
            return Err(task.full(unread, limit, request.items.len()));
        }
        Ok(())
    }

    /// Hands items that are ready to the scheduler, together.
    pub(super) fn send(&self, mut items: Vec<Item<Queued>>) {
        self.unread.fetch_add(items.len(), Ordering::Relaxed);
        let message = match items.len() {
            1 => items.pop().map(Message::One),
            _ => Some(Message::Many(items)),
        };
        if let Some(message) = message {
            self.tell(message);
        }
    }

    /// Lets the scheduler drop items that were given up.
    pub(super) fn withdraw(&self, ids: impl Iterator<Item = ItemId>) {
        let mut ids = ids.map(|id| id.0);
        if let Some(first) = ids.next() {
            self.tell(Message::Withdraw(first..ids.last().unwrap_or(first) + 1));
        }
    }

    pub(super) fn reconfigure(&self, limits: &[TaskLimits]) {
        for (task, limits) in self.tasks.iter().zip(limits) {
            task.reconfigure(limits);
        }
        self.tell(Message::Reconfigure(
            limits.iter().map(|limits| limits.batching).collect(),
        ));
    }

    pub(super) fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
        self.tell(Message::Abort);
    }

    /// Without a scheduler (after an abort) the message is dropped, and the tickets in it answer for themselves.
    fn tell(&self, message: Message) {
        let _ = self.sender.send(message);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::batching::{Policy, TaskBatching, WeightRule};
    use crate::metrics::{Buckets, Metrics};

    #[test]
    fn retry_after_is_the_time_that_all_workers_together_need() {
        let seconds = |workers: usize, queued: usize| {
            let metrics = Metrics::new(Buckets::NONE).expect("the metrics are consistent");
            let limits = TaskLimits {
                batching: TaskBatching {
                    policy: Policy::Greedy,
                    max_batch_size: NonZeroUsize::MIN,
                    max_batch_weight: None,
                    weight_rule: WeightRule::Padded,
                },
                max_queue_size: 100,
                max_queue_weight: None,
            };
            let task = ("t".to_owned(), false, metrics.task("m", "t", &[]));
            let (queue, _receiver) = Queue::new("m", vec![task], &[limits], workers);
            queue.task(0).batch_ran(4, Duration::from_secs(8));
            queue.task(0).retry_after(queued).as_secs()
        };
        assert_eq!(seconds(1, 10), 20);
        assert_eq!(seconds(4, 10), 5);
        assert_eq!(seconds(64, 10), 1, "at least a second");
        assert_eq!(seconds(2, 10_000), 60, "at most a minute");
    }
}
