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
    begun: OnceCell<()>,
    count_items: Mutex<Option<CountItems>>,
    items_done: AtomicU32,
    is_lost: AtomicBool,
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
