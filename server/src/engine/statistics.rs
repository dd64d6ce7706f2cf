//! What a task has done since its model was loaded, request by request, as clients of the Open Inference Protocol ask for it.
//!
//! The metrics count items and batches; here each request counts once, with the whole time of every batch it was in.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::request::Reply;
use crate::clock;

/// Counts up; written by whoever settles a request, read by anybody. One lock keeps what is read of one piece: clients
/// compare the counts of the stages with each other.
#[derive(Default)]
pub(super) struct Statistics(Mutex<Totals>);

/// How often something happened, and how long it took in all.
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
    /// Batches that ran, by how many items they had.
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

    pub(super) fn batch_ran(&self, items: usize, time: Duration) {
        self.lock().batches.entry(items).or_default().add(time);
    }

    pub(super) fn totals(&self) -> Totals {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Totals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Timing;

    /// Clients compare the counts of what they read in the middle of the load, and give up if these differ.
    #[test]
    fn whatever_is_read_between_two_requests_counts_each_in_every_stage() {
        let statistics = Statistics::default();
        let reply = Reply {
            outcomes: Vec::new(),
            timing: Timing::default(),
            weight: 0,
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
}
