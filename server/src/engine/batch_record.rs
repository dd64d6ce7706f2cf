//! The batches that had items of a request, for its trace and the log of slow requests.
//!
//! A request is followed only if it asks for it. The workers write without a lock, since the event loop can read at any time:
//! at its deadline, a request is answered while a batch runs.

use std::array;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::worker::BatchedItem;
use crate::batching::DispatchReason;
use crate::trace_context::TraceContext;

/// Maximum number of batches to record for a request. Further batches are only counted.
const MAX_BATCHES: usize = 8;

/// Maximum number of traced requests to record for a batch. Further requests are only counted.
const MAX_TRACED: usize = 32;

/// A batch that ran.
#[derive(Debug)]
pub struct BatchRecord {
    /// When it started.
    pub started: Instant,
    /// How long it took, all attempts included.
    pub took: Duration,
    /// Number of its items.
    pub items: usize,
    /// Its cost, in the units of the plugin.
    pub weight: u64,
    /// Why it was closed.
    pub reason: DispatchReason,
    /// Index of the worker that ran it.
    pub worker: usize,
    /// The traced requests that had items in it, at most `MAX_TRACED` of them.
    pub traced: Vec<TraceContext>,
    /// Number of further traced requests.
    pub more_traced: usize,
}

/// A batch that had items of a request.
#[derive(Clone, Debug)]
pub struct RequestBatch {
    /// The batch.
    pub batch: Arc<BatchRecord>,
    /// Maximum time that an item of the request waited for it.
    pub waited: Duration,
}

/// The batches that had items of a request.
#[derive(Clone, Debug, Default)]
pub struct RequestBatches {
    /// The first of them, in the order in which they ended.
    pub first: Vec<RequestBatch>,
    /// Number of all of them.
    pub count: usize,
}

/// Collects the batches of one request.
pub(super) struct BatchLog {
    slots: [OnceLock<RequestBatch>; MAX_BATCHES],
    count: AtomicUsize,
}

impl BatchLog {
    pub(super) fn new() -> Self {
        Self {
            slots: array::from_fn(|_| OnceLock::new()),
            count: AtomicUsize::new(0),
        }
    }

    /// Adds a batch that has ended.
    fn add(&self, batch: RequestBatch) {
        let slot = self.count.fetch_add(1, Ordering::AcqRel);
        if let Some(slot) = self.slots.get(slot) {
            // Each index is given out once.
            let _ = slot.set(batch);
        }
    }

    /// The batches that have been added.
    pub(super) fn batches(&self) -> RequestBatches {
        RequestBatches {
            first: self.slots.iter().filter_map(OnceLock::get).cloned().collect(),
            count: self.count.load(Ordering::Acquire),
        }
    }
}

/// What a worker knows about a batch that has ended.
#[derive(Clone, Copy)]
pub(super) struct EndedBatch {
    pub(super) started: Instant,
    pub(super) took: Duration,
    pub(super) weight: u64,
    pub(super) reason: DispatchReason,
    pub(super) worker: usize,
}

impl EndedBatch {
    /// Records the batch for each request that follows its batches. The items of a request are next to each other.
    pub(super) fn record(self, items: &[BatchedItem]) {
        let requests = || items.chunk_by(|a, b| a.handle.is_of_same_request(&b.handle));
        let mut batch = None;
        for request in requests() {
            let Some(log) = request[0].handle.batch_log() else {
                continue;
            };
            let batch = batch.get_or_insert_with(|| {
                let contexts = || requests().filter_map(|request| request[0].handle.trace());
                let traced: Vec<TraceContext> = contexts().take(MAX_TRACED).collect();
                Arc::new(BatchRecord {
                    started: self.started,
                    took: self.took,
                    items: items.len(),
                    weight: self.weight,
                    reason: self.reason,
                    worker: self.worker,
                    more_traced: contexts().count() - traced.len(),
                    traced,
                })
            });
            let waits = request.iter().map(|item| item.waited(self.started));
            log.add(RequestBatch {
                batch: batch.clone(),
                waited: waits.max().unwrap_or_default(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_first_batches_are_kept_and_all_are_counted() {
        let log = BatchLog::new();
        for number in 0..MAX_BATCHES + 3 {
            log.add(RequestBatch {
                batch: Arc::new(BatchRecord {
                    started: clock::now(),
                    took: Duration::ZERO,
                    items: number,
                    weight: 1,
                    reason: DispatchReason::Full,
                    worker: 0,
                    traced: Vec::new(),
                    more_traced: 0,
                }),
                waited: Duration::ZERO,
            });
        }
        let batches = log.batches();
        assert_eq!(batches.count, MAX_BATCHES + 3);
        let sizes: Vec<usize> = batches.first.iter().map(|request| request.batch.items).collect();
        assert_eq!(sizes, (0..MAX_BATCHES).collect::<Vec<_>>());
    }
}
