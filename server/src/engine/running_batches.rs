//! The batches that are running, for the code that watches the workers. The workers write it without a lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::batch_context::BatchContext;
use crate::clock;

/// A batch that a worker runs.
pub struct RunningBatch {
    /// Its model, task and requests.
    pub context: Arc<BatchContext>,
    started: Instant,
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
pub(super) struct RunningBatches(Box<[ArcSwapOption<RunningBatch>]>);

impl RunningBatches {
    pub(super) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| ArcSwapOption::empty()).collect())
    }

    pub(super) fn begin(&self, worker: usize, context: Arc<BatchContext>, started: Instant) {
        self.0[worker].store(Some(Arc::new(RunningBatch { context, started })));
    }

    pub(super) fn end(&self, worker: usize) {
        self.0[worker].store(None);
    }

    /// The workers that run a batch, and which.
    pub(super) fn all(&self) -> Vec<(usize, Arc<RunningBatch>)> {
        let running = self.0.iter().enumerate();
        running
            .filter_map(|(worker, batch)| Some((worker, batch.load_full()?)))
            .collect()
    }
}
