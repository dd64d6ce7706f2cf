//! Measures the memory of batches in production, from outside the child process.
//!
//! The peak of a process's memory is reset before a batch. A batch is measured only if the process has grown by much more than
//! what the allocator had kept from earlier batches: the batch may have used any part of that memory, which is not visible.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::process_memory::{ProcessMemory, reset_peak};
use crate::clock;

/// Minimum interval between the measurements of one worker. Reading the files of the kernel takes about 0.1 ms.
const INTERVAL: Duration = Duration::from_millis(20);

/// Minimum growth of a process that is attributed to a batch, in bytes.
const MIN_GROWTH: u64 = 1 << 20;

/// Maximum memory that the allocator had kept from earlier batches, as a part of the growth.
const MAX_KEPT: u64 = 16;

/// Stands for a batch that was not measured.
const NOT_MEASURED: u64 = u64::MAX;

/// The latest measurement of each worker.
pub(super) struct BatchMemory {
    is_enabled: AtomicBool,
    workers: Box<[Worker]>,
    /// Smallest resident memory of each process between batches, by process id.
    idle: Mutex<HashMap<u32, u64>>,
}

struct Worker {
    bytes: AtomicU64,
    measured: Mutex<Option<Instant>>,
}

/// A batch that is being measured.
pub(super) struct Measurement {
    pid: u32,
    idle: u64,
    before: u64,
}

impl BatchMemory {
    pub(super) fn new(workers: usize) -> Self {
        let worker = || Worker {
            bytes: AtomicU64::new(NOT_MEASURED),
            measured: Mutex::new(None),
        };
        Self {
            is_enabled: AtomicBool::new(false),
            workers: std::iter::repeat_with(worker).take(workers).collect(),
            idle: Mutex::default(),
        }
    }

    pub(super) fn enable(&self) {
        self.is_enabled.store(true, Ordering::Relaxed);
    }

    /// Starts to measure a batch of `worker` in a process, unless a batch was measured just before.
    pub(super) fn begin(&self, worker: usize, pid: u32) -> Option<Measurement> {
        let state = self.workers.get(worker)?;
        state.bytes.store(NOT_MEASURED, Ordering::Relaxed);
        if !self.is_enabled.load(Ordering::Relaxed) {
            return None;
        }
        let now = clock::now();
        let mut measured = state.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if measured.is_some_and(|measured| now.saturating_duration_since(measured) < INTERVAL) {
            return None;
        }
        *measured = Some(now);
        // A kernel that does not support this measures nothing.
        reset_peak(pid).ok()?;
        let before = ProcessMemory::read(pid).ok()?.resident;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() > 2 * self.workers.len() {
            // Most of these processes have exited.
            idle.clear();
        }
        let idle = idle.entry(pid).or_insert(before);
        *idle = before.min(*idle);
        Some(Measurement {
            pid,
            idle: *idle,
            before,
        })
    }

    /// Records the peak of a batch that has ended.
    pub(super) fn end(&self, worker: usize, measurement: &Measurement) {
        let memory = ProcessMemory::read(measurement.pid).ok();
        let bytes = memory.and_then(|memory| added(measurement, memory.peak));
        if let (Some(bytes), Some(state)) = (bytes, self.workers.get(worker)) {
            state.bytes.store(bytes, Ordering::Relaxed);
        }
    }

    /// The memory of the latest batch of `worker`, if it was measured.
    pub(super) fn of(&self, worker: usize) -> Option<u64> {
        let bytes = self.workers.get(worker)?.bytes.load(Ordering::Relaxed);
        (bytes != NOT_MEASURED).then_some(bytes)
    }
}

/// Bytes that a batch with this peak added to an idle process.
fn added(measurement: &Measurement, peak: u64) -> Option<u64> {
    let growth = peak.saturating_sub(measurement.before);
    let kept = measurement.before.saturating_sub(measurement.idle);
    (growth >= MIN_GROWTH && kept <= growth / MAX_KEPT).then_some(growth + kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_peak_of_a_batch_is_measured_above_the_idle_process() {
        let memory = BatchMemory::new(1);
        let pid = std::process::id();
        assert!(memory.begin(0, pid).is_none(), "it is not enabled");
        memory.enable();
        let measurement = memory.begin(0, pid).expect("the kernel supports it");
        let batch = std::hint::black_box(vec![1_u8; 64 * MIB as usize]);
        memory.end(0, &measurement);
        drop(batch);
        let bytes = memory.of(0).expect("the process has grown");
        assert!((63 * MIB..200 * MIB).contains(&bytes), "{bytes}");
        memory.begin(0, pid);
        assert_eq!(memory.of(0), None, "the batch before does not count for this one");
    }

    #[test]
    fn a_batch_that_uses_memory_of_earlier_ones_is_not_measured() {
        let measurement = Measurement {
            pid: 1,
            idle: 100 * MIB,
            before: 110 * MIB,
        };
        assert_eq!(added(&measurement, 110 * MIB), None);
        assert_eq!(added(&measurement, 200 * MIB), None);
        assert_eq!(added(&measurement, 300 * MIB), Some(200 * MIB));
    }
}
