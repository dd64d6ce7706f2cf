//! What a task has done since its model was loaded, request by request, as clients of the Open Inference Protocol ask for it.
//!
//! The metrics count items and batches; here each request counts once, with the whole time of every batch it was in. Jobs
//! do not count, since no client waits for them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::request::Reply;
use crate::clock;

/// The totals of a task. No reader waits for a thread that runs a model: the totals of requests are written only by
/// threads that serve clients, and those of batches are shown as of a moment ago while a worker writes them.
#[derive(Default)]
pub(super) struct Statistics {
    /// One lock, so that what is read is consistent: clients compare the counts of the stages with each other.
    requests: Mutex<Totals>,
    batches: Mutex<BTreeMap<usize, Total>>,
    batches_shown: ArcSwap<BTreeMap<usize, Total>>,
}

/// Count and total duration of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// How often.
    pub count: u64,
    /// In all.
    pub time: Duration,
}

impl Total {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.time += time;
    }
}

/// What a task has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests all of whose items succeeded, from arrival to outcome, and the writing of the reply.
    pub succeeded: Total,
    /// Requests of which an item failed.
    pub failed: Total,
    /// Of those that succeeded: preparing.
    pub prepare: Total,
    /// Of those that succeeded: waiting.
    pub queue: Total,
    /// Of those that succeeded: the batches that they were in.
    pub inference: Total,
    /// Of those that succeeded: writing the reply; the time of one that is being written is still missing.
    pub encode: Total,
    /// Items that succeeded.
    pub items: u64,
    /// Batches that ran, by how many items they had. They may be those of a moment ago.
    pub batches: BTreeMap<usize, Total>,
    /// When a request was answered last, in Unix milliseconds; 0 if none was.
    pub last_unix_millis: u64,
}

impl Statistics {
    /// Counts a request that has its outcomes, `took` after it arrived.
    pub(super) fn record(&self, reply: &Reply, took: Duration) {
        let succeeded = reply.outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let mut totals = self.lock();
        totals.items += succeeded as u64;
        totals.last_unix_millis = clock::unix_millis();
        if succeeded < reply.outcomes.len() {
            totals.failed.add(took);
            return;
        }
        totals.succeeded.add(took);
        totals.prepare.add(reply.timing.prepare);
        totals.queue.add(reply.timing.queue);
        totals.inference.add(reply.timing.inference);
        totals.encode.count += 1;
    }

    /// Adds how long it took to write the reply of a request that succeeded.
    pub(super) fn encoded(&self, took: Duration) {
        let mut totals = self.lock();
        totals.succeeded.time += took;
        totals.encode.time += took;
    }

    /// Requests that have their outcomes, from arrival to outcome, and the writing of the reply.
    pub(super) fn answered(&self) -> Total {
        let totals = self.lock();
        Total {
            count: totals.succeeded.count + totals.failed.count,
            time: totals.succeeded.time + totals.failed.time,
        }
    }

    /// Counts a batch.
    pub(super) fn batch_ran(&self, items: usize, time: Duration) {
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        batches.entry(items).or_default().add(time);
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            batches: self.shown_batches().as_ref().clone(),
            ..self.lock().clone()
        }
    }

    /// Batches that ran, by how many items they had. They may be those of a moment ago.
    pub(super) fn shown_batches(&self) -> Arc<BTreeMap<usize, Total>> {
        // A worker that holds this lock may not run for long, as its priority is lower.
        if let Ok(batches) = self.batches.try_lock() {
            self.batches_shown.store(Arc::new(batches.clone()));
        }
        self.batches_shown.load_full()
    }

    fn lock(&self) -> MutexGuard<'_, Totals> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{RequestBatches, Timing};

    /// Clients compare the counts of what they read in the middle of the load, and give up if these differ.
    #[test]
    fn whatever_is_read_between_two_requests_counts_each_in_every_stage() {
        let statistics = Statistics::default();
        let reply = Reply {
            outcomes: Vec::new(),
            timing: Timing::default(),
            weight: 0,
            batches: RequestBatches::default(),
        };
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for _ in 0..100_000 {
                    statistics.record(&reply, Duration::ZERO);
                    statistics.encoded(Duration::ZERO);
                }
            });
            while !writer.is_finished() {
                let totals = statistics.totals();
                let stages = [totals.prepare, totals.queue, totals.inference, totals.encode];
                assert_eq!(stages.map(|stage| stage.count), [totals.succeeded.count; 4]);
            }
        });
        assert_eq!(statistics.totals().succeeded.count, 100_000);
    }

    #[test]
    fn a_worker_that_is_interrupted_while_it_counts_a_batch_holds_up_no_reader() {
        let statistics = Statistics::default();
        statistics.batch_ran(4, Duration::from_millis(1));
        let before = statistics.totals();
        let interrupted = statistics.batches.lock().expect("the lock is free");
        let totals = std::thread::scope(|scope| scope.spawn(|| statistics.totals()).join());
        assert_eq!(totals.expect("it does not panic"), before);
        drop(interrupted);
    }
}
