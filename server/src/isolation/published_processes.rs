//! What a worker process does, for readers that must not wait for the lock of the pool.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::model::{WorkerPhase, WorkerProcess};

/// Not busy.
const IDLE: u64 = u64::MAX;

/// Published by the pool, which changes it only while its lock is held. A reader can see a part of a change: a duration that is
/// off by the time of one batch.
pub(super) struct PublishedProcess {
    epoch: Instant,
    is_serving: AtomicBool,
    process_id: AtomicU32,
    restarts: AtomicU64,
    /// Nanoseconds in batches that have ended.
    ended: AtomicU64,
    /// When its batch started, in nanoseconds since the epoch, or `IDLE`.
    started: AtomicU64,
}

impl PublishedProcess {
    pub(super) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            is_serving: AtomicBool::new(false),
            process_id: AtomicU32::new(0),
            restarts: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            started: AtomicU64::new(IDLE),
        }
    }

    pub(super) fn set_process_id(&self, id: u32) {
        self.process_id.store(id, Ordering::Relaxed);
    }

    pub(super) fn count_restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_phase(&self, phase: WorkerPhase) {
        let now = self.nanos(crate::clock::now());
        let started = match phase {
            WorkerPhase::Busy => now,
            WorkerPhase::Waiting | WorkerPhase::Restarting => IDLE,
        };
        let before = self.started.swap(started, Ordering::Relaxed);
        if before != IDLE {
            self.ended
                .fetch_add(now.saturating_sub(before), Ordering::Relaxed);
        }
        let is_serving = phase != WorkerPhase::Restarting;
        self.is_serving.store(is_serving, Ordering::Relaxed);
    }

    pub(super) fn read(&self, now: Instant) -> WorkerProcess {
        let started = self.started.load(Ordering::Relaxed);
        let running = match started {
            IDLE => 0,
            started => self.nanos(now).saturating_sub(started),
        };
        let is_serving = self.is_serving.load(Ordering::Relaxed);
        WorkerProcess {
            phase: match (is_serving, started) {
                (false, _) => WorkerPhase::Restarting,
                (true, IDLE) => WorkerPhase::Waiting,
                (true, _) => WorkerPhase::Busy,
            },
            process_id: is_serving.then(|| self.process_id.load(Ordering::Relaxed)),
            busy: Duration::from_nanos(self.ended.load(Ordering::Relaxed) + running),
            restarts: self.restarts.load(Ordering::Relaxed),
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        let nanos = at.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_time_of_batches_adds_up_and_a_lost_process_is_restarting() {
        let process = PublishedProcess::new(clock::now());
        assert_eq!(process.read(clock::now()).phase, WorkerPhase::Restarting);
        process.set_process_id(7);
        process.set_phase(WorkerPhase::Waiting);
        let waiting = process.read(clock::now());
        assert_eq!(
            (waiting.phase, waiting.process_id, waiting.busy),
            (WorkerPhase::Waiting, Some(7), Duration::ZERO)
        );
        process.set_phase(WorkerPhase::Busy);
        let later = clock::now() + Duration::from_secs(5);
        let busy = process.read(later);
        assert_eq!(busy.phase, WorkerPhase::Busy);
        assert!(busy.busy >= Duration::from_secs(5), "{busy:?}");
        process.set_phase(WorkerPhase::Waiting);
        let first = process.read(clock::now()).busy;
        assert_eq!(process.read(later).busy, first, "it is idle");
        process.set_phase(WorkerPhase::Restarting);
        process.count_restart();
        let lost = process.read(later);
        assert_eq!(
            (lost.phase, lost.process_id, lost.busy, lost.restarts),
            (WorkerPhase::Restarting, None, first, 1)
        );
    }
}
