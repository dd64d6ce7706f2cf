//! The queue of one task, in numbers: its limits, what it holds, and what has been learned about its items.
//!
//! The items themselves are in the scheduler. The event loop and the workers only use atomic counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::TaskLimits;
use super::admission::UNKNOWN_WAIT;
use super::statistics::Statistics;
use super::task_memory::PublishedMemory;
use crate::batch_context::{BatchContext, RequestTag};
use crate::batcher::policy::{Backlog, Estimates, ServiceEstimate, Workload};
use crate::batching::Priority;
use crate::error::Rejection;
use crate::metrics::TaskMetrics;

/// Cancelled items whose handles the scheduler or the preparation may still hold, at least.
const MIN_DETACHED_LIMIT: usize = 1024;

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
    /// Without background items, which are only in `classes`.
    items: AtomicUsize,
    /// By class.
    classes: [ClassQueue; Priority::COUNT],
    /// Those of `items` that are prepared or need no preparation.
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
    /// An empty queue of the task `name` of `model`.
    pub(super) fn new(
        model: Arc<str>,
        name: &str,
        prepares: bool,
        metrics: Arc<TaskMetrics>,
        limits: &TaskLimits,
        is_aborted: Arc<AtomicBool>,
    ) -> Self {
        let task = Self {
            model,
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
            is_aborted,
            service: ArcSwapOption::empty(),
            estimates: ArcSwapOption::empty(),
        };
        task.reconfigure(limits);
        task
    }

    /// Number of waiting items, without background items.
    pub(super) fn len(&self) -> usize {
        self.items.load(Ordering::Relaxed)
    }

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

    /// Reserves room for `items`, all or none. The limits apply to background items and to all others separately, so that
    /// jobs never take the room of requests.
    pub(super) fn enter(
        &self,
        items: usize,
        priority: Priority,
        workload: &Workload,
    ) -> Result<(), Rejection> {
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
        let is_background = priority == Priority::Background;
        let class = &self.classes[priority as usize];
        let weight = if is_background {
            class.weight.load(Ordering::Relaxed)
        } else {
            self.backlog(Priority::Low).weight
        };
        let max_weight = self.max_weight.load(Ordering::Relaxed);
        if weight >= max_weight {
            return Err(Rejection::QueueTooHeavy {
                task: self.name.to_string(),
                queued: weight,
                limit: max_weight,
                retry_after: retry_after(),
            });
        }
        let queue = if is_background { &class.items } else { &self.items };
        queue
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |queued| {
                queued.checked_add(items).filter(|total| *total <= limit)
            })
            .map_err(|queued| self.full(queued, limit, items, retry_after()))?;
        if is_background {
            self.metrics.queued_background_items.add(items as i64);
        } else {
            class.items.fetch_add(items, Ordering::Relaxed);
            self.metrics.queued_items.add(items as i64);
        }
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
    pub(super) fn backlog(&self, priority: Priority) -> Backlog {
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
            .fetch_sub(1, Ordering::AcqRel);
        if priority == Priority::Background {
            self.metrics.queued_background_items.dec();
        } else {
            self.items.fetch_sub(1, Ordering::AcqRel);
            self.metrics.queued_items.dec();
        }
    }

    /// Adds an item that is ready to run.
    pub(super) fn add_weight(&self, priority: Priority, weight: u64) {
        self.classes[priority as usize]
            .weight
            .fetch_add(weight, Ordering::AcqRel);
        if priority != Priority::Background {
            self.ready.fetch_add(1, Ordering::Relaxed);
            self.metrics.queued_weight.add(weight as i64);
        }
    }

    /// Removes an item that was ready to run.
    pub(super) fn remove_weight(&self, priority: Priority, weight: u64) {
        self.classes[priority as usize]
            .weight
            .fetch_sub(weight, Ordering::AcqRel);
        if priority != Priority::Background {
            self.ready.fetch_sub(1, Ordering::Relaxed);
            self.metrics.queued_weight.sub(weight as i64);
        }
    }

    pub(super) fn detached_changed(&self, by: isize) {
        self.detached.fetch_add(by as usize, Ordering::AcqRel);
    }

    /// Records how long the preparation of an item took.
    pub(super) fn prepared_in(&self, time: Duration) {
        self.metrics.prepare_seconds.observe(time.as_secs_f64());
        self.metrics.stage_latencies.prepare.observe(time);
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let mean = match self.prepare_nanos.load(Ordering::Relaxed) {
            0 => time,
            mean => mean - mean / 8 + time / 8,
        };
        self.prepare_nanos.store(mean, Ordering::Relaxed);
    }

    /// Mean time of recent preparations of an item; zero if there were none.
    pub(super) fn preparation_time(&self) -> Duration {
        Duration::from_nanos(self.prepare_nanos.load(Ordering::Relaxed))
    }

    /// Number of items that are not prepared, without background items: the others are prepared first.
    pub(super) fn unprepared(&self) -> usize {
        match self.prepares {
            true => self.len().saturating_sub(self.ready.load(Ordering::Relaxed)),
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

    pub(super) fn reconfigure(&self, limits: &TaskLimits) {
        self.max_items.store(limits.max_queue_size, Ordering::Relaxed);
        self.max_weight
            .store(limits.max_queue_weight.unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
