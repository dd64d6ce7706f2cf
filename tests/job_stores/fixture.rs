//! Jobs, and stores to put them in.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use inference_server::batching::Priority;
use inference_server::jobs::sqlite::SqliteStore;
use inference_server::jobs::{
    Claim, ClaimedJob, Completion, Fence, Header, JobError, JobId, JobRecord, JobState, JobStore, ModelRoom,
    NewJob, StoreClock, StoreLimits, StoredReply, StoredRequest, Submission, Verdict, Viewer, WorkerId,
};

/// How long claims are held.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// How long finished jobs are kept.
pub(super) const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// A store, and what it needs while it is open.
pub(super) struct Opened {
    pub(super) store: Arc<dyn JobStore>,
    pub(super) clock: StoreClock,
    /// Opens the same store again, after it was closed.
    pub(super) reopen: Box<dyn Fn() -> BoxFuture<'static, Arc<dyn JobStore>> + Send + Sync>,
    /// Removes the store when it is dropped.
    pub(super) _guard: Box<dyn Any + Send + Sync>,
}

/// Opens a new store.
pub(super) type Open = Arc<dyn Fn(StoreLimits) -> BoxFuture<'static, Opened> + Send + Sync>;

/// A store in a file of its own.
pub(super) fn open_sqlite(limits: StoreLimits) -> BoxFuture<'static, Opened> {
    Box::pin(async move {
        let directory = tempfile::tempdir().expect("a directory can be created");
        let path = directory.path().join("jobs.sqlite");
        let clock = StoreClock::default();
        let store = sqlite_at(&path, limits.clone(), clock.clone()).await;
        let reopened = clock.clone();
        Opened {
            store,
            clock,
            reopen: Box::new(move || {
                let (path, limits, clock) = (path.clone(), limits.clone(), reopened.clone());
                Box::pin(async move { sqlite_at(&path, limits, clock).await })
            }),
            _guard: Box::new(directory),
        }
    })
}

/// Opens a file as a store.
pub(super) async fn sqlite_at(path: &Path, limits: StoreLimits, clock: StoreClock) -> Arc<dyn JobStore> {
    Arc::new(
        SqliteStore::open(path, limits, clock)
            .await
            .expect("the store can be opened"),
    )
}

/// Limits that no test reaches by accident.
pub(super) fn limits() -> StoreLimits {
    StoreLimits {
        max_queued: 100_000,
        max_bytes: 1 << 30,
        retention: RETENTION,
    }
}

/// A job of the model "words" with one item.
pub(super) fn job(body: &str) -> NewJob {
    NewJob {
        request: StoredRequest {
            method: "POST".to_owned(),
            path: "/v1/models/words:predict".to_owned(),
            query: Some("pretty=1".to_owned()),
            headers: vec![Header {
                name: "accept".to_owned(),
                value: b"application/json".to_vec(),
            }],
            content_type: Some("application/json".to_owned()),
            body: body.to_owned().into(),
        },
        model: "words".to_owned(),
        task: "count".to_owned(),
        owner: None,
        priority: Priority::Normal,
        ttl: None,
        not_before: None,
        label: None,
        idempotency_key: None,
        webhook_url: None,
        max_attempts: 3,
        items: 1,
    }
}

/// What the synchronous call would have answered.
pub(super) fn reply_to(body: &[u8]) -> StoredReply {
    StoredReply {
        status: 200,
        content_type: Some("application/json".to_owned()),
        headers: vec![Header {
            name: "x-words".to_owned(),
            value: vec![b'1', 0xff],
        }],
        body: [b"reply to ", body].concat().into(),
    }
}

/// A successful outcome of a request.
pub(super) fn success(request: &StoredRequest) -> Completion {
    Completion::Succeeded(reply_to(&request.body))
}

/// An error of a job.
pub(super) fn error(code: &str) -> JobError {
    JobError {
        code: code.to_owned(),
        message: format!("message of {code}"),
    }
}

/// A claim of jobs of "words" with some items.
pub(super) fn claim_of(items: u32) -> Claim {
    Claim {
        worker: WorkerId::new("worker"),
        lease: LEASE,
        room: vec![ModelRoom {
            model: "words".to_owned(),
            items,
        }],
        max_bytes: u64::MAX,
    }
}

/// Calls whose failure fails the test.
pub(super) struct Sure<'a>(pub(super) &'a dyn JobStore);

impl Sure<'_> {
    pub(super) async fn submit(&self, job: NewJob) -> JobRecord {
        match self.0.submit(job).await.expect("the job can be stored") {
            Submission::Created(record) => record,
            other => panic!("not created: {other:?}"),
        }
    }

    pub(super) async fn get(&self, id: JobId) -> JobRecord {
        let job = self.0.get(id, &Viewer::All).await.expect("the job can be read");
        job.unwrap_or_else(|| panic!("there is no job {id}"))
    }

    pub(super) async fn state(&self, id: JobId) -> JobState {
        self.get(id).await.state
    }

    pub(super) async fn claim(&self, items: u32) -> Vec<ClaimedJob> {
        self.0.claim(claim_of(items)).await.expect("jobs can be claimed")
    }

    /// Claims the only job that can be claimed.
    pub(super) async fn claim_one(&self) -> ClaimedJob {
        let mut claimed = self.claim(1).await;
        assert_eq!(claimed.len(), 1, "{claimed:?}");
        claimed.remove(0)
    }

    /// Claims the only job that can be claimed, and starts it.
    pub(super) async fn start_one(&self) -> ClaimedJob {
        let claimed = self.claim_one().await;
        let verdict = self.begin(claimed.record.id, claimed.fence).await;
        assert_eq!(verdict, Verdict::Applied(JobState::Running));
        claimed
    }

    pub(super) async fn begin(&self, id: JobId, fence: Fence) -> Verdict {
        self.0
            .begin_attempt(id, fence)
            .await
            .expect("the attempt can be counted")
    }

    pub(super) async fn complete(&self, job: &ClaimedJob) -> Verdict {
        let outcome = success(&job.request);
        let completed = self.0.complete(job.record.id, job.fence, outcome).await;
        completed.expect("the job can be completed")
    }

    pub(super) async fn interrupt(&self, job: &ClaimedJob) -> Verdict {
        let interrupted = self
            .0
            .interrupt(job.record.id, job.fence, error("model_crashed"))
            .await;
        interrupted.expect("the attempt can be interrupted")
    }

    /// Submits a job, and uses its only attempt.
    pub(super) async fn dead_letter(&self, job: NewJob) -> JobRecord {
        let record = self
            .submit(NewJob {
                max_attempts: 1,
                ..job
            })
            .await;
        let claimed = self.start_one().await;
        assert_eq!(
            self.interrupt(&claimed).await,
            Verdict::Applied(JobState::DeadLetter)
        );
        record
    }

    /// Submits a job, and completes it.
    pub(super) async fn succeeded(&self, job: NewJob) -> JobRecord {
        let record = self.submit(job).await;
        let claimed = self.start_one().await;
        assert_eq!(
            self.complete(&claimed).await,
            Verdict::Applied(JobState::Succeeded)
        );
        record
    }

    pub(super) async fn reply(&self, id: JobId) -> Option<StoredReply> {
        self.0
            .reply(id, &Viewer::All)
            .await
            .expect("the reply can be read")
    }
}
