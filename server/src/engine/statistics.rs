//! What a task has done since its model was loaded, request by request, as clients of the Open Inference Protocol ask for it.
//!
//! The metrics count items and batches; here each request counts once, with the whole time of every batch it was in.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::request::Reply;
use crate::clock;

/// Counts up; written by whoever settles a request, read by anybody.
#[derive(Default)]
pub(super) struct Statistics {
    succeeded: Sum,
    failed: Sum,
    prepare: Sum,
    queue: Sum,
    inference: Sum,
    items: AtomicU64,
    batches: AtomicU64,
    /// By number of items.
    batch_sizes: Mutex<BTreeMap<usize, Total>>,
    last_unix_millis: AtomicU64,
}

#[derive(Default)]
struct Sum {
    count: AtomicU64,
    nanos: AtomicU64,
}

impl Sum {
    fn add(&self, time: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    fn total(&self) -> Total {
        Total {
            count: self.count.load(Ordering::Relaxed),
            time: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
        }
    }
}

/// How often something happened, and how long it took in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// How often.
    pub count: u64,
    /// In all.
    pub time: Duration,
}

/// What a task has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests all of whose items succeeded, from arrival to outcome.
    pub succeeded: Total,
    /// Requests of which an item failed.
    pub failed: Total,
    /// Of those that succeeded: preparing.
    pub prepare: Total,
    /// Of those that succeeded: waiting.
    pub queue: Total,
    /// Of those that succeeded: the batches that they were in.
    pub inference: Total,
    /// Items that succeeded.
    pub items: u64,
    /// Batches that ran.
    pub batches: u64,
    /// When a request was answered last, in Unix milliseconds; 0 if none was.
    pub last_unix_millis: u64,
}

impl Statistics {
    pub(super) fn record(&self, reply: &Reply, took: Duration) {
        let succeeded = reply.outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        self.items.fetch_add(succeeded as u64, Ordering::Relaxed);
        self.last_unix_millis
            .store(clock::unix_millis(), Ordering::Relaxed);
        if succeeded < reply.outcomes.len() {
            self.failed.add(took);
            return;
        }
        self.succeeded.add(took);
        self.prepare.add(reply.timing.prepare);
        self.queue.add(reply.timing.queue);
        self.inference.add(reply.timing.inference);
    }

    pub(super) fn batch_ran(&self, items: usize, time: Duration) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        let mut sizes = self.batch_sizes();
        let total = sizes.entry(items).or_default();
        total.count += 1;
        total.time += time;
    }

    fn batch_sizes(&self) -> MutexGuard<'_, BTreeMap<usize, Total>> {
        self.batch_sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn batch_totals(&self) -> BTreeMap<usize, Total> {
        self.batch_sizes().clone()
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            succeeded: self.succeeded.total(),
            failed: self.failed.total(),
            prepare: self.prepare.total(),
            queue: self.queue.total(),
            inference: self.inference.total(),
            items: self.items.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            last_unix_millis: self.last_unix_millis.load(Ordering::Relaxed),
        }
    }
}
