//! Admission: which requests enter the queue of an engine, and the way of their items to the scheduler.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::TaskLimits;
use super::request::{ItemHandle, PendingReply, Request};
use super::running_batches::RunningBatches;
use super::server_memory::Wake;
use super::task_queue::TaskQueue;
use super::wakeups::Wakeups;
use crate::batcher::policy::{Preparation, TaskLoad, Workload};
use crate::batcher::scheduler::{self, Payload};
use crate::batcher::{Item, ItemId};
use crate::batching::Priority;
use crate::clock;
use crate::error::Rejection;
use crate::metrics::TaskMetrics;
use crate::model::PreparedItem;

/// `retry-after` of a full queue while the expected wait is unknown, because no batch has run.
pub(super) const UNKNOWN_WAIT: Duration = Duration::from_secs(1);

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
            let is_aborted = is_aborted.clone();
            Arc::new(TaskQueue::new(
                model.clone(),
                &name,
                prepares,
                metrics,
                limits,
                is_aborted,
            ))
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

    /// Number of waiting items, without background items.
    pub(super) fn queued_items(&self) -> usize {
        self.tasks.iter().map(|task| task.len()).sum()
    }

    /// Maximum number of threads that prepare items.
    pub(super) fn prepare_threads(&self) -> usize {
        self.prepare_threads
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
