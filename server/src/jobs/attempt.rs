//! One run of a claimed job.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use super::{Fence, JobId, JobState, JobStore, StoreError, StoredRequest, Verdict};
use crate::metrics::JobMetrics;

/// A run of a job, from its claim to its outcome. It is counted when it begins.
pub struct Attempt {
    store: Arc<dyn JobStore>,
    metrics: JobMetrics,
    /// The job.
    pub id: JobId,
    pub(super) fence: Fence,
    /// Name of the model.
    pub model: String,
    /// The request.
    pub request: StoredRequest,
    /// Whether this is the last attempt.
    pub is_last: bool,
    start: Mutex<Start>,
    begun: OnceCell<()>,
    count_items: Mutex<Option<CountItems>>,
    items_done: AtomicU32,
    is_lost: AtomicBool,
}

/// Whether the attempt may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Possible,
    /// The store is counting the attempt, or has counted it.
    Made,
    /// The job is returned without an attempt.
    Withdrawn,
}

/// Counts the items of a run that have an outcome. `None` after its end.
type CountItems = Box<dyn Fn() -> Option<usize> + Send + Sync>;

/// Why an attempt must not begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBegun {
    /// The server no longer holds the job, or the job has waited too long.
    #[error("the job was cancelled, has expired, or is held by another server")]
    Lost,
    /// The attempt could not be counted.
    #[error("the attempt could not be counted")]
    Store(#[from] StoreError),
}

impl Attempt {
    pub(super) fn new(store: Arc<dyn JobStore>, metrics: JobMetrics, claimed: super::ClaimedJob) -> Self {
        let super::ClaimedJob {
            record,
            request,
            fence,
        } = claimed;
        Self {
            store,
            metrics,
            id: record.id,
            fence,
            is_last: record.attempts.saturating_add(1) >= record.max_attempts,
            model: record.model,
            request,
            start: Mutex::new(Start::Possible),
            begun: OnceCell::new(),
            count_items: Mutex::new(None),
            items_done: AtomicU32::new(0),
            is_lost: AtomicBool::new(false),
        }
    }

    /// Counts the attempt durably, if it was not counted yet. Its items must not start before.
    ///
    /// # Errors
    /// The attempt must not begin.
    pub async fn begin(&self) -> Result<(), NotBegun> {
        let begin = || async {
            if self.decide_start(Start::Made) == Start::Withdrawn {
                self.is_lost.store(true, Ordering::Release);
                return Err(NotBegun::Lost);
            }
            match self.store.begin_attempt(self.id, self.fence).await? {
                Verdict::Applied(JobState::Running) => {
                    self.metrics.count_attempt();
                    Ok(())
                }
                Verdict::Applied(_) | Verdict::Rejected(_) => {
                    self.is_lost.store(true, Ordering::Release);
                    Err(NotBegun::Lost)
                }
            }
        };
        self.begun.get_or_try_init(begin).await.map(|_| ())
    }

    /// Prevents it from beginning. Returns false if that is too late: the store is counting it, or has counted it.
    pub(super) fn withdraw(&self) -> bool {
        self.decide_start(Start::Withdrawn) == Start::Withdrawn
    }

    /// Decides whether the attempt begins, unless that was decided before. Returns the decision.
    fn decide_start(&self, start: Start) -> Start {
        let mut decided = self.start.lock().unwrap_or_else(PoisonError::into_inner);
        if *decided == Start::Possible {
            *decided = start;
        }
        *decided
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.begun.initialized()
    }

    /// Sets how the items that have an outcome are counted from now on.
    pub fn follow(&self, count_items: impl Fn() -> Option<usize> + Send + Sync + 'static) {
        *self.count_items.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(count_items));
    }

    /// Number of items that have an outcome. It never decreases, also if the items run again within the attempt.
    pub(super) fn items_done(&self) -> u32 {
        let count_items = self.count_items.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = count_items.as_ref().and_then(|count| count()).unwrap_or(0);
        let counted = u32::try_from(counted).unwrap_or(u32::MAX);
        self.items_done.fetch_max(counted, Ordering::Relaxed).max(counted)
    }

    /// Whether the server was told that it does not hold the job.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }
}
