//! Admission: the limits of each task's queue, what it holds at the moment, and the way of items to the scheduler.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use crossbeam_channel::{Receiver, Sender, unbounded};

use super::TaskLimits;
use super::request::{ItemHandle, PendingReply, Request};
use super::running_batches::RunningBatches;
use super::server_memory::Wake;
use super::statistics::Statistics;
use super::task_memory::PublishedMemory;
use super::wakeups::Wakeups;
use crate::batch_context::{BatchContext, RequestTag};
use crate::batcher::policy::{Backlog, Estimates, Preparation, ServiceEstimate, TaskLoad, Workload};
use crate::batcher::scheduler::{self, Payload};
use crate::batcher::{Item, ItemId};
use crate::batching::Priority;
use crate::clock;
use crate::error::Rejection;
use crate::metrics::TaskMetrics;
use crate::model::PreparedItem;

/// Cancelled items whose handles the scheduler or the preparation may still hold, at least.
const MIN_DETACHED_LIMIT: usize = 1024;

/// `retry-after` of a full queue while the expected wait is unknown, because no batch has run.
const UNKNOWN_WAIT: Duration = Duration::from_secs(1);

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
    max_items: AtomicUsize,
    max_weight: AtomicU64,
    items: AtomicUsize,
    /// By class.
    classes: [ClassQueue; 3],
    /// Those of the items that are prepared or need no preparation.
    ready: AtomicUsize,
    /// Mean time of recent preparations of an item, in nanoseconds.
    prepare_nanos: AtomicU64,
    /// Items that have left the queue but whose handles have not been dropped.
    detached: AtomicUsize,
    /// Whether the engine was aborted.
    is_aborted: Arc<AtomicBool>,
    /// The learned service time; none before a batch has run.
    service: ArcSwapOption<ServiceEstimate>,
    estimates: ArcSwapOption<Estimates>,
}

/// The items of one class in the queue of a task.
#[derive(Default)]
struct ClassQueue {
    items: AtomicUsize,
    weight: AtomicU64,
}

impl TaskQueue {
    /// The log context of work on these requests.
    pub(super) fn context<'a>(
        &self,
        requests: impl IntoIterator<Item = &'a RequestTag> + Clone,
    ) -> BatchContext {
        BatchContext::new(self.model.clone(), self.name.clone(), requests)
    }

    /// Whether the engine was aborted.
    pub(super) fn is_aborted(&self) -> bool {
        self.is_aborted.load(Ordering::Acquire)
    }

    /// Reserves room for `items`, all or none.
    fn enter(&self, items: usize, priority: Priority, workload: &Workload) -> Result<(), Rejection> {
        let retry_after = || workload.expected_wait().unwrap_or(UNKNOWN_WAIT);
        let limit = self.max_items.load(Ordering::Relaxed);
        // Cancelled items leave the queue and free their input at once, but their handles stay where they are until the
        // scheduler notices. Clients that come and go while the model is busy must not fill the memory with them.
        let detached = self.detached.load(Ordering::Relaxed);
        if detached > limit.max(MIN_DETACHED_LIMIT) {
            return Err(self.full(detached, limit, items, retry_after()));
        }
        if items > limit {
            return Err(Rejection::TooManyItems {
                task: self.name.to_string(),
                items,
                limit,
            });
        }
        let weight = self.backlog(Priority::Low).weight;
        let max_weight = self.max_weight.load(Ordering::Relaxed);
        if weight >= max_weight {
            return Err(Rejection::QueueTooHeavy {
                task: self.name.to_string(),
                queued: weight,
                limit: max_weight,
                retry_after: retry_after(),
            });
        }
        self.items
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |queued| {
                queued.checked_add(items).filter(|total| *total <= limit)
            })
            .map_err(|queued| self.full(queued, limit, items, retry_after()))?;
        self.classes[priority as usize]
            .items
            .fetch_add(items, Ordering::Relaxed);
        self.metrics.queued_items.add(items as i64);
        Ok(())
    }

    fn full(&self, queued: usize, limit: usize, items: usize, retry_after: Duration) -> Rejection {
        Rejection::QueueFull {
            task: self.name.to_string(),
            queued,
            limit,
            items,
            retry_after,
        }
    }

    /// The items of this class and of higher ones.
    fn backlog(&self, priority: Priority) -> Backlog {
        let ahead = &self.classes[..=priority as usize];
        Backlog {
            items: ahead
                .iter()
                .map(|class| class.items.load(Ordering::Relaxed))
                .sum(),
            weight: ahead
                .iter()
                .map(|class| class.weight.load(Ordering::Relaxed))
                .sum(),
        }
    }

    /// An item of this class has left the queue.
    pub(super) fn item_left(&self, priority: Priority) {
        self.classes[priority as usize]
            .items
            .fetch_sub(1, Ordering::Relaxed);
        self.items.fetch_sub(1, Ordering::AcqRel);
        self.metrics.queued_items.dec();
    }

    /// Adds an item that is ready to run.
    pub(super) fn add_weight(&self, priority: Priority, weight: u64) {
        self.ready.fetch_add(1, Ordering::Relaxed);
        self.classes[priority as usize]
            .weight
            .fetch_add(weight, Ordering::AcqRel);
        self.metrics.queued_weight.add(weight as i64);
    }

    /// Removes an item that was ready to run.
    pub(super) fn remove_weight(&self, priority: Priority, weight: u64) {
        self.ready.fetch_sub(1, Ordering::Relaxed);
        self.classes[priority as usize]
            .weight
            .fetch_sub(weight, Ordering::AcqRel);
        self.metrics.queued_weight.sub(weight as i64);
    }

    pub(super) fn detached_changed(&self, by: isize) {
        self.detached.fetch_add(by as usize, Ordering::AcqRel);
    }

    /// Records how long the preparation of an item took.
    pub(super) fn prepared_in(&self, time: Duration) {
        self.metrics.prepare_seconds.observe(time.as_secs_f64());
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let mean = match self.prepare_nanos.load(Ordering::Relaxed) {
            0 => time,
            mean => mean - mean / 8 + time / 8,
        };
        self.prepare_nanos.store(mean, Ordering::Relaxed);
    }

    /// Mean time of recent preparations of an item; zero if there were none.
    fn preparation_time(&self) -> Duration {
        Duration::from_nanos(self.prepare_nanos.load(Ordering::Relaxed))
    }

    /// Number of items that are not prepared.
    fn unprepared(&self) -> usize {
        match self.prepares {
            true => (self.items.load(Ordering::Relaxed)).saturating_sub(self.ready.load(Ordering::Relaxed)),
            false => 0,
        }
    }

    /// Publishes the learned service time, for the admission of requests.
    pub(super) fn publish_service(&self, service: Option<ServiceEstimate>) {
        self.service.store(service.map(Arc::new));
    }

    /// The learned service time; none before a batch has run.
    pub(super) fn service(&self) -> Option<ServiceEstimate> {
        self.service.load().as_deref().copied()
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
    running: Arc<RunningBatches>,
    /// Maximum number of threads that prepare items.
    prepare_threads: usize,
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
        running: Arc<RunningBatches>,
        prepare_threads: usize,
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
                max_items: AtomicUsize::new(0),
                max_weight: AtomicU64::new(0),
                items: AtomicUsize::new(0),
                classes: Default::default(),
                ready: AtomicUsize::new(0),
                prepare_nanos: AtomicU64::new(0),
                detached: AtomicUsize::new(0),
                is_aborted: is_aborted.clone(),
                service: ArcSwapOption::empty(),
                estimates: ArcSwapOption::empty(),
            };
            task.reconfigure(limits);
            Arc::new(task)
        };
        let (sender, messages) = unbounded();
        let queue = Self {
            tasks: tasks.into_iter().zip(limits).map(task).collect(),
            running,
            prepare_threads: prepare_threads.max(1),
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

    /// How long an item of the class `normal` that arrives now is expected to wait, in the task in which it waits longest.
    /// `None` if no batch has run.
    pub(super) fn expected_wait(&self) -> Option<Duration> {
        let now = clock::now();
        let wait = |task| self.workload(task, Priority::Normal, now).expected_wait();
        let is_known = self.tasks.iter().any(|task| task.service().is_some());
        let waits = (0..self.tasks.len()).map(wait);
        waits.max().flatten().filter(|_| is_known)
    }

    /// Reserves room for a request. Returns its readable items; the others are answered with their errors.
    pub(super) fn admit(
        self: &Arc<Self>,
        mut request: Request,
    ) -> Result<(PendingReply, Vec<Item<Queued>>), Rejection> {
        let task = &self.tasks[request.task];
        let now = clock::now();
        let workload = self.workload(request.task, request.priority, now);
        let admitted = self
            .check(&request, now, &workload)
            .and_then(|()| task.enter(request.items.len(), request.priority, &workload));
        if let Err(rejection) = admitted {
            task.metrics.count_rejection(&rejection);
            return Err(rejection);
        }
        let decoded = request.decoded.take();
        let mut errors = Vec::new();
        let mut inputs = Vec::with_capacity(request.items.len());
        for (index, input) in std::mem::take(&mut request.items).into_iter().enumerate() {
            inputs.push(input.map_err(|error| errors.push((index, error))).ok());
        }
        let first = self.next_id.fetch_add(inputs.len() as u64, Ordering::Relaxed);
        let ids = first..first + inputs.len() as u64;
        let (pending, handles) = PendingReply::new(self.clone(), &request, inputs, decoded, ids);
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

    fn check(&self, request: &Request, now: Instant, workload: &Workload) -> Result<(), Rejection> {
        if self.is_aborted.load(Ordering::Acquire) {
            return Err(Rejection::ShuttingDown);
        }
        let deadline = request.received + request.timeout;
        if now >= deadline {
            return Err(Rejection::Expired(request.timeout));
        }
        if !workload.admits(request.task, request.items.len(), deadline - now) {
            return Err(Rejection::Overloaded {
                task: self.tasks[request.task].name.to_string(),
                timeout: request.timeout,
                retry_after: workload.expected_wait().unwrap_or(UNKNOWN_WAIT),
            });
        }
        Ok(())
    }

    /// What is ahead of a request for a task, of this class, that arrives now. All tasks share the workers and the threads that
    /// prepare.
    fn workload(&self, task: usize, priority: Priority, now: Instant) -> Workload {
        let load = |task: &Arc<TaskQueue>| TaskLoad {
            service: task.service(),
            ahead: task.backlog(priority),
        };
        let preparation = match self.tasks[task].prepares {
            true => self.preparation(task),
            false => Preparation::default(),
        };
        let tasks = self.tasks.iter().map(load).collect();
        Workload::new(tasks, preparation, self.running.remaining(now))
    }

    fn preparation(&self, task: usize) -> Preparation {
        let time = |task: &Arc<TaskQueue>| {
            let items = u32::try_from(task.unprepared()).unwrap_or(u32::MAX);
            task.preparation_time().saturating_mul(items)
        };
        let all = self
            .tasks
            .iter()
            .map(time)
            .fold(Duration::ZERO, Duration::saturating_add);
        Preparation {
            wait: all / self.prepare_threads as u32,
            each: self.tasks[task].preparation_time() / self.prepare_threads as u32,
        }
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
            task.memory.set_budget(budget, shared, self.running.workers());
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
