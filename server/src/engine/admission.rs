//! Admission: the limits of each task's queue, what it holds at the moment, and the way of items to the scheduler.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use crossbeam_channel::{Receiver, Sender, unbounded};

use super::TaskLimits;
use super::request::{ItemHandle, PendingReply, Request};
use super::server_memory::Wake;
use super::statistics::Statistics;
use super::task_memory::PublishedMemory;
use super::wakeups::Wakeups;
use crate::batch_context::BatchContext;
use crate::batcher::policy::Estimates;
use crate::batcher::scheduler::{self, Payload};
use crate::batcher::{Item, ItemId};
use crate::clock;
use crate::error::Rejection;
use crate::metrics::TaskMetrics;
use crate::model::PreparedItem;

/// Cancelled items whose handles the scheduler or the preparation may still hold, at least.
const MIN_DETACHED_LIMIT: usize = 1024;

/// What the scheduler carries for an item. Its input stays with the state of its request until it runs, so that it is
/// freed at once if the client goes away.
pub(super) struct Queued {
    pub(super) handle: ItemHandle,
    pub(super) prepared: Option<PreparedItem>,
}

impl Payload for Queued {
    fn is_queued(&self) -> bool {
        self.handle.is_queued()
    }

    fn start(&mut self) -> bool {
        self.handle.start()
    }
}

/// What the scheduler receives.
pub(super) type Message = scheduler::Message<Queued>;

/// The queue of one task, in numbers.
pub(super) struct TaskQueue {
    /// Name of the model.
    model: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) prepares: bool,
    pub(super) metrics: Arc<TaskMetrics>,
    pub(super) statistics: Statistics,
    pub(super) memory: PublishedMemory,
    /// Maximum number of batches that run at the same time, at least 1.
    workers: u64,
    max_items: AtomicUsize,
    max_weight: AtomicU64,
    items: AtomicUsize,
    weight: AtomicU64,
    /// Items that have left the queue but whose handles have not been dropped.
    detached: AtomicUsize,
    /// Whether the engine was aborted.
    is_aborted: Arc<AtomicBool>,
    /// Time that an item takes of a worker, in nanoseconds, averaged over recent batches.
    nanos_per_item: AtomicU64,
    estimates: ArcSwapOption<Estimates>,
}

impl TaskQueue {
    /// The log context of work on these requests.
    pub(super) fn context<'a>(&self, requests: impl IntoIterator<Item = &'a Arc<str>>) -> BatchContext {
        BatchContext {
            model: self.model.clone(),
            task: self.name.clone(),
            requests: requests.into_iter().collect(),
        }
    }

    /// Whether the engine was aborted.
    pub(super) fn is_aborted(&self) -> bool {
        self.is_aborted.load(Ordering::Acquire)
    }

    /// Reserves room for `items`, all or none.
    fn enter(&self, items: usize) -> Result<(), Rejection> {
        let limit = self.max_items.load(Ordering::Relaxed);
        // Cancelled items leave the queue and free their input at once, but their handles stay where they are until the
        // scheduler notices. Clients that come and go while the model is busy must not fill the memory with them.
        let detached = self.detached.load(Ordering::Relaxed);
        if detached > limit.max(MIN_DETACHED_LIMIT) {
            return Err(self.full(detached, limit, items));
        }
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

    /// Estimated time until all workers together have run the waiting items. `None` if no batch has run.
    fn expected_wait(&self) -> Option<Duration> {
        let nanos_per_item = self.nanos_per_item.load(Ordering::Relaxed);
        let nanos = nanos_per_item.saturating_mul(self.items.load(Ordering::Relaxed) as u64) / self.workers;
        (nanos_per_item > 0).then(|| Duration::from_nanos(nanos))
    }

    /// An item has left the queue.
    pub(super) fn item_left(&self) {
        self.items.fetch_sub(1, Ordering::AcqRel);
        self.metrics.queued_items.dec();
    }

    pub(super) fn add_weight(&self, weight: u64) {
        self.weight.fetch_add(weight, Ordering::AcqRel);
        self.metrics.queued_weight.add(weight as i64);
    }

    pub(super) fn remove_weight(&self, weight: u64) {
        self.weight.fetch_sub(weight, Ordering::AcqRel);
        self.metrics.queued_weight.sub(weight as i64);
    }

    pub(super) fn detached_changed(&self, by: isize) {
        self.detached.fetch_add(by as usize, Ordering::AcqRel);
    }

    /// Records a batch, for [`retry_after`](Self::retry_after).
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
    wakeups: Arc<Wakeups>,
    next_id: AtomicU64,
    is_aborted: Arc<AtomicBool>,
}

impl Queue {
    /// The queue of the tasks of `model`, and the receiver of its messages.
    pub(super) fn new(
        model: &str,
        tasks: Vec<(String, bool, Arc<TaskMetrics>)>,
        limits: &[TaskLimits],
        workers: usize,
        wakeups: Arc<Wakeups>,
    ) -> (Self, Receiver<Message>) {
        let model: Arc<str> = model.into();
        let is_aborted = Arc::new(AtomicBool::new(false));
        let task = |((name, prepares, metrics), limits): ((String, bool, Arc<TaskMetrics>), &TaskLimits)| {
            let task = TaskQueue {
                model: model.clone(),
                name: name.into(),
                prepares,
                metrics,
                statistics: Statistics::default(),
                memory: PublishedMemory::default(),
                workers: workers.max(1) as u64,
                max_items: AtomicUsize::new(0),
                max_weight: AtomicU64::new(0),
                items: AtomicUsize::new(0),
                weight: AtomicU64::new(0),
                detached: AtomicUsize::new(0),
                is_aborted: is_aborted.clone(),
                nanos_per_item: AtomicU64::new(0),
                estimates: ArcSwapOption::empty(),
            };
            task.reconfigure(limits);
            Arc::new(task)
        };
        let (sender, messages) = unbounded();
        let queue = Self {
            tasks: tasks.into_iter().zip(limits).map(task).collect(),
            sender,
            wakeups,
            next_id: AtomicU64::new(0),
            is_aborted,
        };
        (queue, messages)
    }

    pub(super) fn task(&self, task: usize) -> &Arc<TaskQueue> {
        &self.tasks[task]
    }

    pub(super) fn tasks(&self) -> Vec<Arc<TaskQueue>> {
        self.tasks.clone()
    }

    /// Number of waiting items.
    pub(super) fn queued_items(&self) -> usize {
        self.tasks
            .iter()
            .map(|task| task.items.load(Ordering::Relaxed))
            .sum()
    }

    /// Number of requests that have their outcomes.
    pub(super) fn answered_requests(&self) -> u64 {
        self.tasks.iter().map(|task| task.statistics.requests()).sum()
    }

    /// How long an item that arrives now is expected to wait. `None` if no batch has run.
    pub(super) fn expected_wait(&self) -> Option<Duration> {
        self.tasks.iter().map(|task| task.expected_wait()).max().flatten()
    }

    /// Reserves room for a request. Returns its readable items; the others are answered with their errors.
    pub(super) fn admit(
        self: &Arc<Self>,
        mut request: Request,
    ) -> Result<(PendingReply, Vec<Item<Queued>>), Rejection> {
        let task = &self.tasks[request.task];
        let now = clock::now();
        let admitted = self
            .check(&request, now)
            .and_then(|()| task.enter(request.items.len()));
        if let Err(rejection) = admitted {
            task.metrics.count_rejection(&rejection);
            return Err(rejection);
        }
        let mut errors = Vec::new();
        let mut inputs = Vec::with_capacity(request.items.len());
        for (index, input) in std::mem::take(&mut request.items).into_iter().enumerate() {
            inputs.push(input.map_err(|error| errors.push((index, error))).ok());
        }
        let first = self.next_id.fetch_add(inputs.len() as u64, Ordering::Relaxed);
        let ids = first..first + inputs.len() as u64;
        let (pending, handles) = PendingReply::new(self.clone(), &request, inputs, ids);
        let mut errors = errors.into_iter().peekable();
        let mut items = Vec::with_capacity(handles.size_hint().0);
        for (index, handle) in handles.enumerate() {
            if let Some((_, error)) = errors.next_if(|(failed, _)| *failed == index) {
                handle.settle(Err(error));
                continue;
            }
            if !task.prepares {
                // Every item of a task that does not prepare weighs 1.
                if let Err(error) = task.memory.check_item(1) {
                    handle.settle(Err(error));
                    continue;
                }
                handle.queue();
            }
            items.push(Item {
                id: ItemId(first + index as u64),
                task: request.task,
                priority: request.priority,
                weight: 1,
                group: 0,
                arrived: now,
                ready: now,
                deadline: Some(request.received + request.timeout),
                payload: Queued {
                    handle,
                    prepared: None,
                },
            });
        }
        Ok((pending, items))
    }

    fn check(&self, request: &Request, now: Instant) -> Result<(), Rejection> {
        if self.is_aborted.load(Ordering::Acquire) {
            return Err(Rejection::ShuttingDown);
        }
        if now >= request.received + request.timeout {
            return Err(Rejection::Expired(request.timeout));
        }
        Ok(())
    }

    /// Passes items that are ready to run to the scheduler, together.
    pub(super) fn send(&self, mut items: Vec<Item<Queued>>) {
        match items.pop() {
            Some(item) if items.is_empty() => self.notify(Message::Arrival(item)),
            Some(last) => {
                items.push(last);
                self.notify(Message::Arrivals(items));
            }
            None => {}
        }
    }

    /// Lets the scheduler drop items that were cancelled.
    pub(super) fn cancelled(&self, ids: Range<u64>) {
        self.notify(Message::Cancelled(ids));
    }

    pub(super) fn reconfigure(&self, limits: &[TaskLimits]) {
        for (task, limits) in self.tasks.iter().zip(limits) {
            task.reconfigure(limits);
        }
        self.notify(Message::Reconfigured(
            limits.iter().map(|limits| limits.batching).collect(),
        ));
    }

    pub(super) fn set_memory_budget(&self, budget: Option<u64>, shared: Option<u64>) {
        for task in &self.tasks {
            task.memory.set_budget(budget, shared, task.workers as usize);
        }
        self.notify(Message::MemoryBudget(budget));
    }

    /// Lets the scheduler be polled because shared memory is available. Does not keep the queue.
    pub(super) fn on_memory_available(&self) -> Wake {
        let (sender, wakeups) = (self.sender.clone(), self.wakeups.clone());
        Arc::new(move || {
            let _ = sender.send(Message::MemoryAvailable);
            wakeups.notify();
        })
    }

    pub(super) fn abort(&self) {
        self.is_aborted.store(true, Ordering::Release);
        self.notify(Message::Aborted);
    }

    /// Sends a message. If the workers have exited, it is dropped, and the handles in it answer their items.
    fn notify(&self, message: Message) {
        let _ = self.sender.send(message);
        self.wakeups.notify();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.notify(Message::Closed);
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
            let (queue, _receiver) = Queue::new("m", vec![task], &[limits], workers, Arc::default());
            queue.task(0).batch_ran(4, Duration::from_secs(8));
            queue.task(0).retry_after(queued).as_secs()
        };
        assert_eq!(seconds(1, 10), 20);
        assert_eq!(seconds(4, 10), 5);
        assert_eq!(seconds(64, 10), 1, "at least a second");
        assert_eq!(seconds(2, 10_000), 60, "at most a minute");
    }
}
