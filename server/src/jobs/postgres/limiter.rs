//! The limits on what all servers together store.
//!
//! Counting takes time in proportion to the number of jobs. Far from a limit, a count that is a moment old is used, plus what this
//! server has stored since. Servers that submit at the same time can exceed a limit by what they store in this moment.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::reading::Usage;
use crate::clock;
use crate::jobs::{NewJob, StoreLimits, Submission};

/// Maximum age of a count, unless counting takes long.
const AGE: Duration = Duration::from_secs(1);

/// Counting takes at most this part of the time.
const SHARE: u32 = 20;

/// Number of jobs that counts as far from a limit.
const MARGIN: u64 = 64;

/// Bytes of a job besides its request: rows and indexes.
const OVERHEAD: u64 = 2048;

/// The last count.
#[derive(Default)]
pub(super) struct Limiter(Mutex<Option<Count>>);

#[derive(Clone, Copy)]
struct Count {
    usage: Usage,
    at: Instant,
    duration: Duration,
}

impl Limiter {
    /// The usage, if it is known well enough to decide about a job.
    pub(super) fn known(&self, job: &NewJob, limits: &StoreLimits) -> Option<Usage> {
        let count = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let age = clock::now().saturating_duration_since(count.at);
        let far = count.usage.queued.saturating_add(MARGIN) < limits.max_queued
            && count.usage.bytes.saturating_add(MARGIN * size(job)) < limits.max_bytes;
        (far && age < AGE.max(count.duration * SHARE)).then_some(count.usage)
    }

    /// Remembers a count that began at a time.
    pub(super) fn counted(&self, usage: Usage, began: Instant) {
        let at = clock::now();
        let duration = at.saturating_duration_since(began);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Count { usage, at, duration });
    }

    /// Adds a job of this server.
    pub(super) fn stored(&self, job: &NewJob) {
        if let Some(count) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            count.usage.queued += 1;
            count.usage.bytes += size(job);
        }
    }
}

/// Why a job is not stored.
pub(super) fn rejection(job: &NewJob, usage: Usage, limits: &StoreLimits) -> Option<Submission> {
    if usage.queued >= limits.max_queued {
        return Some(Submission::QueueFull {
            queued: usage.queued,
            limit: limits.max_queued,
        });
    }
    if usage.bytes.saturating_add(size(job)) > limits.max_bytes {
        return Some(Submission::StorageFull {
            used: usage.bytes,
            limit: limits.max_bytes,
        });
    }
    None
}

fn size(job: &NewJob) -> u64 {
    job.request.body.len() as u64 + OVERHEAD
}
