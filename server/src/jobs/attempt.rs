//! One run of a claimed job.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    is_lost: AtomicBool,
}

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

    /// Whether the server was told that it does not hold the job.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }
}
