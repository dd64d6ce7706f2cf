//! The batches that are running, for the code that watches the workers. The workers write it without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::batch_context::BatchContext;
use crate::clock;

/// A batch that a worker runs.
pub struct RunningBatch {
    /// Its model, task and requests.
    pub context: Arc<BatchContext>,
    started: Instant,
    /// Bytes that it holds of the memory budget.
    memory: u64,
    /// When it is expected to end, if anything is known about its task.
    expected_end: Option<Instant>,
}

impl RunningBatch {
    /// How long it has been running.
    pub fn age(&self) -> Duration {
        clock::now().saturating_duration_since(self.started)
    }

    /// When it started.
    pub fn started(&self) -> Instant {
        self.started
    }
}

/// What each worker of a model runs.
pub(super) struct RunningBatches {
    workers: Box<[Worker]>,
}

#[derive(Default)]
struct Worker {
    batch: ArcSwapOption<RunningBatch>,
    /// Total time of its batches that have ended, in nanoseconds.
    ended_nanos: AtomicU64,
}

impl RunningBatches {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| Worker::default()).collect(),
        }
    }

    pub(super) fn begin(
        &self,
        worker: usize,
        context: Arc<BatchContext>,
        started: Instant,
        expected: Option<Duration>,
        memory: u64,
    ) {
        let expected_end = expected.and_then(|time| started.checked_add(time));
        self.workers[worker].batch.store(Some(Arc::new(RunningBatch {
            context,
            started,
            memory,
            expected_end,
        })));
    }

    /// Bytes that all running batches hold of the memory budget.
    pub(super) fn memory(&self) -> u64 {
        self.all().into_iter().map(|(_, batch)| batch.memory).sum()
    }

    /// For each worker, the expected time until it is free: zero if that is unknown, or if its batch is overdue.
    pub(super) fn remaining(&self, now: Instant) -> impl Iterator<Item = Duration> {
        self.workers.iter().map(move |worker| {
            let end = worker.batch.load().as_ref().and_then(|batch| batch.expected_end);
            end.map_or(Duration::ZERO, |end| end.saturating_duration_since(now))
        })
    }

    pub(super) fn end(&self, worker: usize) {
        let worker = &self.workers[worker];
        if let Some(batch) = worker.batch.swap(None) {
            let nanos = u64::try_from(batch.age().as_nanos()).unwrap_or(u64::MAX);
            worker.ended_nanos.fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// Number of workers.
    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Total time that workers have spent in batches, up to now.
    pub(super) fn busy(&self) -> Duration {
        self.busy_by_worker().sum()
    }

    /// The same for each worker.
    pub(super) fn busy_by_worker(&self) -> impl Iterator<Item = Duration> {
        self.workers.iter().map(|worker| {
            let running = worker.batch.load().as_ref().map(|batch| batch.age());
            Duration::from_nanos(worker.ended_nanos.load(Ordering::Relaxed)) + running.unwrap_or_default()
        })
    }

    /// The workers that run a batch, and which.
    pub(super) fn all(&self) -> Vec<(usize, Arc<RunningBatch>)> {
        let running = self.workers.iter().enumerate();
        running
            .filter_map(|(index, worker)| Some((index, worker.batch.load_full()?)))
            .collect()
    }
}
