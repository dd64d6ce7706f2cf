//! A store whose calls fail.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use inference_server::jobs::{
    Claim, ClaimedJob, Completion, Delivery, DeliveryReport, Fence, JobChange, JobError, JobFilter, JobId,
    JobPage, JobRecord, JobStore, NewJob, Progress, Removal, Statistics, StoreError, StoreFuture,
    StoredReply, StoredRequest, Submission, Swept, Verdict, Viewer,
};
use tokio::sync::broadcast;

/// Passes calls on to another store. One in eight fails before it, and one in eight after it, so that its outcome is unknown to the
/// caller.
pub(super) struct FaultyStore {
    inner: Arc<dyn JobStore>,
    random: Mutex<fastrand::Rng>,
}

/// When a call fails.
enum Fault {
    Before,
    After,
    Never,
}

impl FaultyStore {
    pub(super) fn new(inner: Arc<dyn JobStore>, seed: u64) -> Self {
        Self {
            inner,
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
        }
    }

    fn call<'a, T: Send + 'a>(
        &'a self,
        call: impl FnOnce(&'a dyn JobStore) -> StoreFuture<'a, T>,
    ) -> StoreFuture<'a, T> {
        let drawn = self
            .random
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .u8(0..8);
        let fault = match drawn {
            0 => Fault::Before,
            1 => Fault::After,
            _ => Fault::Never,
        };
        let reason = "injected".to_owned();
        match fault {
            Fault::Before => Box::pin(async { Err(StoreError::Unavailable { reason }) }),
            Fault::After => {
                let call = call(&*self.inner);
                Box::pin(async {
                    call.await?;
                    Err(StoreError::OutcomeUnknown { reason })
                })
            }
            Fault::Never => call(&*self.inner),
        }
    }
}

impl JobStore for FaultyStore {
    fn submit(&self, job: NewJob) -> StoreFuture<'_, Submission> {
        self.call(|store| store.submit(job))
    }

    fn get<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<JobRecord>> {
        self.call(|store| store.get(id, viewer))
    }

    fn request<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<StoredRequest>> {
        self.call(|store| store.request(id, viewer))
    }

    fn reply<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<StoredReply>> {
        self.call(|store| store.reply(id, viewer))
    }

    fn list<'a>(
        &'a self,
        filter: &'a JobFilter,
        viewer: &'a Viewer,
        cursor: Option<JobId>,
        limit: u32,
    ) -> StoreFuture<'a, JobPage> {
        self.call(|store| store.list(filter, viewer, cursor, limit))
    }

    fn cancel<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<Verdict>> {
        self.call(|store| store.cancel(id, viewer))
    }

    fn remove<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Removal> {
        self.call(|store| store.remove(id, viewer))
    }

    fn retry<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<Verdict>> {
        self.call(|store| store.retry(id, viewer))
    }

    fn claim(&self, claim: Claim) -> StoreFuture<'_, Vec<ClaimedJob>> {
        self.call(|store| store.claim(claim))
    }

    fn begin_attempt(&self, id: JobId, fence: Fence) -> StoreFuture<'_, Verdict> {
        self.call(|store| store.begin_attempt(id, fence))
    }

    fn progress(&self, progress: Vec<Progress>) -> StoreFuture<'_, ()> {
        self.call(|store| store.progress(progress))
    }

    fn complete(&self, id: JobId, fence: Fence, completion: Completion) -> StoreFuture<'_, Verdict> {
        self.call(|store| store.complete(id, fence, completion))
    }

    fn interrupt(&self, id: JobId, fence: Fence, error: JobError) -> StoreFuture<'_, Verdict> {
        self.call(|store| store.interrupt(id, fence, error))
    }

    fn release(&self, id: JobId, fence: Fence) -> StoreFuture<'_, Verdict> {
        self.call(|store| store.release(id, fence))
    }

    fn renew(&self, claims: Vec<(JobId, Fence)>, lease: Duration) -> StoreFuture<'_, Vec<JobId>> {
        self.call(|store| store.renew(claims, lease))
    }

    fn sweep(&self) -> StoreFuture<'_, Swept> {
        self.call(|store| store.sweep())
    }

    fn statistics(&self) -> StoreFuture<'_, Statistics> {
        self.call(|store| store.statistics())
    }

    fn claim_deliveries(&self, limit: u32, lease: Duration) -> StoreFuture<'_, Vec<Delivery>> {
        self.call(|store| store.claim_deliveries(limit, lease))
    }

    fn record_delivery(&self, id: JobId, fence: Fence, report: DeliveryReport) -> StoreFuture<'_, ()> {
        self.call(|store| store.record_delivery(id, fence, report))
    }

    fn changes(&self) -> broadcast::Receiver<JobChange> {
        self.inner.changes()
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        self.inner.close()
    }
}
