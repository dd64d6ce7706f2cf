//! The interface of stores of jobs.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::broadcast;

use super::transition::Rejection;
use super::{
    ClaimedJob, Delivery, DeliveryReport, Fence, JobError, JobId, JobRecord, JobState, NewJob, Owner,
    Statistics, StoreError, StoredReply, StoredRequest, WorkerId,
};

/// Outcome of a call to a store.
pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Keeps jobs durably. What a call reports as done survives a crash of the server and of the machine.
///
/// A dropped future does not undo its call: it may or may not be carried out.
///
/// # The life of a job
/// [`submit`](Self::submit), [`claim`](Self::claim), [`begin_attempt`](Self::begin_attempt) when its batch starts, and
/// [`complete`](Self::complete). A claim is a lease: its holder calls [`renew`](Self::renew) until the job ends. A claim whose
/// lease is over is lost to [`sweep`](Self::sweep), and its fence no longer counts: later calls with it return
/// [`Verdict::Rejected`] and change nothing.
pub trait JobStore: Send + Sync {
    /// Stores a job.
    fn submit(&self, job: NewJob) -> StoreFuture<'_, Submission>;

    /// A job, if the viewer can see it.
    fn get<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<JobRecord>>;

    /// The request of a job, if the viewer can see it. It is kept until the job ends, and longer if the job can be retried.
    fn request<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<StoredRequest>>;

    /// The reply of a job, if the viewer can see it and the job has one.
    fn reply<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<StoredReply>>;

    /// Jobs that the viewer can see, newest first: at most `limit`, older than the cursor.
    fn list<'a>(
        &'a self,
        filter: &'a JobFilter,
        viewer: &'a Viewer,
        cursor: Option<JobId>,
        limit: u32,
    ) -> StoreFuture<'a, JobPage>;

    /// Cancels a job that has not ended. If it is running, its result will be discarded. `None` if the viewer cannot see it.
    fn cancel<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<Verdict>>;

    /// Removes a job that has ended, and its pending webhook delivery.
    fn remove<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Removal>;

    /// Queues a dead letter again, with all of its attempts and its time to live. `None` if the viewer cannot see it.
    fn retry<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<Verdict>>;

    /// Claims jobs for models that have room: by priority, then by the order of submission.
    fn claim(&self, claim: Claim) -> StoreFuture<'_, Vec<ClaimedJob>>;

    /// Counts an attempt of a claimed job. Called before its batch starts; if this is rejected, the job must not run.
    fn begin_attempt(&self, id: JobId, fence: Fence) -> StoreFuture<'_, Verdict>;

    /// Records how many items of running attempts have an outcome. Smaller numbers than before are ignored, and so are attempts
    /// that are not held with their fence.
    fn progress(&self, progress: Vec<Progress>) -> StoreFuture<'_, ()>;

    /// Ends a job with its outcome.
    fn complete(&self, id: JobId, fence: Fence, completion: Completion) -> StoreFuture<'_, Verdict>;

    /// Ends an attempt without an outcome, such as after a crash of the model's process. The job is queued again, or becomes a
    /// dead letter if it has no attempts left.
    fn interrupt(&self, id: JobId, fence: Fence, error: JobError) -> StoreFuture<'_, Verdict>;

    /// Returns a claim. If its attempt has not begun, it costs none; otherwise, the attempt stays counted.
    fn release(&self, id: JobId, fence: Fence) -> StoreFuture<'_, Verdict>;

    /// Extends the leases of claims. Returns the jobs that are no longer held with their fence: cancelled, removed, or lost.
    fn renew(&self, claims: Vec<(JobId, Fence)>, lease: Duration) -> StoreFuture<'_, Vec<JobId>>;

    /// Ends leases that are over, expires jobs that have waited too long, and removes jobs whose retention is over. Called
    /// every few seconds, by every server.
    fn sweep(&self) -> StoreFuture<'_, Swept>;

    /// What the store holds.
    fn statistics(&self) -> StoreFuture<'_, Statistics>;

    /// Claims webhook deliveries that are due: at most `limit`, for the duration of the lease.
    fn claim_deliveries(&self, limit: u32, lease: Duration) -> StoreFuture<'_, Vec<Delivery>>;

    /// Records an attempt to deliver. One with an old fence is ignored.
    fn record_delivery(&self, id: JobId, fence: Fence, report: DeliveryReport) -> StoreFuture<'_, ()>;

    /// Changes of jobs, by this server or others, after they are durable. A receiver that lags, or that is told
    /// [`JobChange::Unknown`], must look for itself.
    fn changes(&self) -> broadcast::Receiver<JobChange>;

    /// Writes what is waiting, and closes the store. Later calls return [`StoreError::Closed`].
    fn close(&self) -> StoreFuture<'_, ()>;
}

/// Limits of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Maximum number of queued jobs.
    pub max_queued: u64,
    /// Maximum number of bytes on disk. Submissions are rejected beyond it; results are still stored.
    pub max_bytes: u64,
    /// How long jobs are kept after they end.
    pub retention: Duration,
}

/// Outcome of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submission {
    /// The job is stored.
    Created(JobRecord),
    /// The same request was stored before, with the same idempotency key.
    Existing(JobRecord),
    /// Another request was stored before, with the same idempotency key.
    Conflict {
        /// The job of the other request.
        existing: JobId,
    },
    /// Too many jobs are queued.
    QueueFull {
        /// Number of queued jobs.
        queued: u64,
        /// Maximum.
        limit: u64,
    },
    /// The job does not fit in the storage limit, or on the disk.
    StorageFull {
        /// Bytes in use.
        used: u64,
        /// Maximum.
        limit: u64,
    },
}

/// Whose jobs a caller can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// Every job: the server itself, its administrator, and everyone if the server has no keys.
    All,
    /// The jobs of one owner.
    Owner(Owner),
}

/// Which jobs to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only jobs in one of these states; any state if it is empty.
    pub states: Vec<JobState>,
    /// Only jobs of this model.
    pub model: Option<String>,
    /// Only jobs with this label.
    pub label: Option<String>,
    /// Only these jobs.
    pub ids: Option<Vec<JobId>>,
}

/// A part of a list of jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobPage {
    /// The jobs, newest first.
    pub jobs: Vec<JobRecord>,
    /// Cursor of the next part. `None` at the end of the list.
    pub next: Option<JobId>,
}

impl JobPage {
    /// The first `limit` of some jobs. More jobs show that there is another page.
    pub(super) fn new(mut jobs: Vec<JobRecord>, limit: u32) -> Self {
        let limit = limit as usize;
        let more = jobs.len() > limit;
        jobs.truncate(limit);
        let next = jobs.last().filter(|_| more).map(|job| job.id);
        Self { jobs, next }
    }
}

/// Which jobs to claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// This server.
    pub worker: WorkerId,
    /// How long the jobs are held without being renewed.
    pub lease: Duration,
    /// The models that have room. A job is claimed while there is room for at least one item, even if the job has more.
    pub room: Vec<ModelRoom>,
    /// Maximum number of bytes of all claimed requests. One job is claimed even if it is larger.
    pub max_bytes: u64,
}

/// Room of a model for jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRoom {
    /// Name of the model.
    pub model: String,
    /// Number of items.
    pub items: u32,
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The job.
    pub id: JobId,
    /// Proves that the server holds it.
    pub fence: Fence,
    /// Number of items that have an outcome.
    pub items_done: u32,
}

/// The outcome of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The call succeeded.
    Succeeded(StoredReply),
    /// The call failed in a way that repeating it does not change, such as an invalid input.
    Failed {
        /// Why.
        error: JobError,
        /// What the synchronous call would have answered, if there is a reply.
        reply: Option<StoredReply>,
    },
}

/// Whether an event changed a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It did. The job is now in this state.
    Applied(JobState),
    /// It did not.
    Rejected(Rejection),
}

impl Verdict {
    /// There is no such job.
    pub const MISSING: Self = Self::Rejected(Rejection::Missing);

    /// Whether the event changed the job.
    pub fn is_applied(self) -> bool {
        matches!(self, Self::Applied(_))
    }
}

/// Outcome of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The job was removed.
    Removed,
    /// There is no job that the viewer can see.
    NotFound,
    /// The job has not ended: cancel it first.
    NotFinal(JobState),
}

/// What a sweep changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Claims whose lease was over and that were queued again.
    pub requeued: u64,
    /// Claims whose lease was over and that had no attempts left.
    pub dead_letters: u64,
    /// Jobs that had waited too long.
    pub expired: u64,
    /// Jobs whose retention was over.
    pub removed: u64,
}

impl Swept {
    /// Counts a claim that ended, or a job that expired.
    pub(super) fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Applied(JobState::Queued) => self.requeued += 1,
            Verdict::Applied(JobState::DeadLetter) => self.dead_letters += 1,
            Verdict::Applied(JobState::Expired) => self.expired += 1,
            Verdict::Applied(_) | Verdict::Rejected(_) => {}
        }
    }

    /// Adds the counts of another part.
    pub(super) fn add(&mut self, other: Self) {
        self.requeued += other.requeued;
        self.dead_letters += other.dead_letters;
        self.expired += other.expired;
        self.removed += other.removed;
    }
}

/// A change of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobChange {
    /// A job of a model can be claimed, now or later.
    Queued {
        /// Name of the model.
        model: String,
    },
    /// A job was started.
    Started(JobId),
    /// A job ended.
    Ended(JobId, JobState),
    /// Changes may have been missed, such as while the store was unreachable.
    Unknown,
}
