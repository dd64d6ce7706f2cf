//! The store in PostgreSQL, shared by any number of servers.
//!
//! Each call is a transaction that locks the rows that it changes; claims skip rows that another server has locked. Time is that of
//! the database, so that the clocks of the servers do not matter. A server that dies loses its claims when their leases are over.
//!
//! Connections are opened when they are needed. After a failure, calls fail at once until the next attempt to connect, with backoff.

mod errors;
mod limiter;
mod migration;
mod notifications;
mod pool;
mod reading;
mod rows;
mod session;
mod writing;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use limiter::{Limiter, rejection};
use notifications::Announcer;
use pool::Pool;
use session::Statements;
use writing::Writing;

use super::transition::Event;
use super::{
    Claim, ClaimedJob, Completion, Delivery, DeliveryReport, Fence, JobChange, JobError, JobFilter, JobId,
    JobPage, JobRecord, JobStore, NewJob, Progress, Removal, Statistics, StoreClock, StoreError, StoreFuture,
    StoreLimits, StoredReply, StoredRequest, Submission, Swept, Verdict, Viewer,
};
use crate::clock;
use crate::secret::Secret;

/// Maximum duration of a transaction. A database that does not answer is treated as unreachable.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Number of changes that a receiver can lag behind.
const CHANGES: usize = 4096;

/// A store in PostgreSQL.
pub struct PostgresStore {
    pool: Arc<Pool>,
    limits: StoreLimits,
    clock: StoreClock,
    limiter: Limiter,
    announcer: Announcer,
    listener: Mutex<Option<JoinHandle<()>>>,
}

impl PostgresStore {
    /// Opens a store, and creates or updates its schema. If the database cannot be reached, the store is opened nevertheless, and
    /// connects later.
    ///
    /// # Errors
    /// The address is malformed, or the database rejects the server for a reason that does not go away.
    pub async fn open(url: &Secret, limits: StoreLimits, clock: StoreClock) -> Result<Self, StoreError> {
        let pool = Arc::new(Pool::new(url)?);
        match pool.get().await {
            Ok(_) => {}
            Err(error) if error.is_transient() => log::warn!("{error}"),
            Err(error) => return Err(error),
        }
        let (announcer, listener) = Announcer::start(pool.clone(), broadcast::Sender::new(CHANGES));
        Ok(Self {
            pool,
            limits,
            clock,
            limiter: Limiter::default(),
            announcer,
            listener: Mutex::new(Some(listener)),
        })
    }

    /// Names the database, without credentials.
    pub fn place(&self) -> &str {
        self.pool.place()
    }

    /// Runs statements, each on its own.
    async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        F: for<'a> FnOnce(&'a mut Statements<'_>) -> BoxFuture<'a, Result<T, StoreError>>,
    {
        let mut lent = self.pool.get().await?;
        let place = self.pool.place();
        let outcome = {
            let mut statements = lent.session()?.statements(place);
            tokio::time::timeout(CALL_TIMEOUT, query(&mut statements)).await
        };
        let outcome = outcome.unwrap_or_else(|_| Err(no_answer(place)));
        if outcome.as_ref().is_err_and(loses_connection) {
            lent.discard();
        }
        outcome
    }

    /// Runs statements in a transaction.
    async fn write<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        F: for<'a> FnOnce(&'a mut Writing<'_>) -> BoxFuture<'a, Result<T, StoreError>>,
    {
        let mut lent = self.pool.get().await?;
        let place = self.pool.place();
        let committing = AtomicBool::new(false);
        let outcome = {
            let session = lent.session()?;
            let transaction = async {
                let mut open = session.begin(place).await?;
                let now = open.statements().now(&self.clock).await?;
                let mut writing = Writing {
                    open,
                    limits: &self.limits,
                    now,
                    changes: Vec::new(),
                };
                let value = operation(&mut writing).await?;
                let Writing { open, changes, .. } = writing;
                committing.store(true, Ordering::Relaxed);
                open.commit().await?;
                Ok((value, changes))
            };
            tokio::time::timeout(CALL_TIMEOUT, transaction).await
        };
        let outcome = outcome.unwrap_or_else(|_| {
            let error = no_answer(place);
            Err(match error {
                StoreError::Unavailable { reason } if committing.load(Ordering::Relaxed) => {
                    StoreError::OutcomeUnknown { reason }
                }
                other => other,
            })
        });
        match outcome {
            Ok((value, changes)) => {
                self.announcer.announce(changes);
                Ok(value)
            }
            Err(error) => {
                if loses_connection(&error) {
                    lent.discard();
                }
                Err(error)
            }
        }
    }

    async fn submit_within_limits(&self, job: NewJob) -> Result<Submission, StoreError> {
        let usage = match self.limiter.known(&job, &self.limits) {
            Some(usage) => usage,
            None => {
                let began = clock::now();
                let usage = self.read(|statements| Box::pin(statements.usage())).await?;
                self.limiter.counted(usage, began);
                usage
            }
        };
        let job = Arc::new(job);
        if let Some(rejected) = rejection(&job, usage, &self.limits) {
            // A repeated submission needs no room.
            let Some(key) = job.idempotency_key.clone() else {
                return Ok(rejected);
            };
            let owner = job.owner.clone();
            let repeated = self
                .write(move |writing| Box::pin(async move { writing.repeated(&key, owner.as_ref()).await }));
            return Ok(repeated.await?.unwrap_or(rejected));
        }
        let submitted = job.clone();
        let submission = self
            .write(move |writing| Box::pin(async move { writing.submit(&submitted).await }))
            .await?;
        if let Submission::Created(_) = submission {
            self.limiter.stored(&job);
        }
        Ok(submission)
    }

    fn apply(&self, id: JobId, event: Event) -> StoreFuture<'_, Verdict> {
        Box::pin(self.write(move |writing| Box::pin(writing.apply(id, event))))
    }

    fn apply_as<'a>(
        &'a self,
        id: JobId,
        viewer: &'a Viewer,
        event: Event,
    ) -> StoreFuture<'a, Option<Verdict>> {
        let viewer = viewer.clone();
        Box::pin(
            self.write(move |writing| Box::pin(async move { writing.apply_as(id, &viewer, event).await })),
        )
    }

    fn stop(&self) -> Option<JoinHandle<()>> {
        self.pool.close();
        let listener = self
            .listener
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        listener.inspect(JoinHandle::abort)
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether the connection cannot be used again. A server that only reads may no longer be the primary.
fn loses_connection(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Unavailable { .. } | StoreError::OutcomeUnknown { .. } | StoreError::ReadOnly { .. }
    )
}

fn no_answer(place: &str) -> StoreError {
    StoreError::Unavailable {
        reason: format!("{place} has not answered for {} s", CALL_TIMEOUT.as_secs()),
    }
}

impl JobStore for PostgresStore {
    fn submit(&self, job: NewJob) -> StoreFuture<'_, Submission> {
        Box::pin(self.submit_within_limits(job))
    }

    fn get<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<JobRecord>> {
        let viewer = viewer.clone();
        Box::pin(self.read(move |statements| {
            Box::pin(async move { Ok(statements.get(id, &viewer).await?.map(|job| job.record())) })
        }))
    }

    fn request<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<StoredRequest>> {
        let viewer = viewer.clone();
        Box::pin(self.read(move |statements| Box::pin(async move { statements.request(id, &viewer).await })))
    }

    fn reply<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<StoredReply>> {
        let viewer = viewer.clone();
        Box::pin(self.read(move |statements| Box::pin(async move { statements.reply(id, &viewer).await })))
    }

    fn list<'a>(
        &'a self,
        filter: &'a JobFilter,
        viewer: &'a Viewer,
        cursor: Option<JobId>,
        limit: u32,
    ) -> StoreFuture<'a, JobPage> {
        let (filter, viewer) = (filter.clone(), viewer.clone());
        Box::pin(self.read(move |statements| {
            Box::pin(async move { statements.list(&filter, &viewer, cursor, limit).await })
        }))
    }

    fn cancel<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<Verdict>> {
        self.apply_as(id, viewer, Event::Cancel)
    }

    fn remove<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Removal> {
        let viewer = viewer.clone();
        Box::pin(self.write(move |writing| Box::pin(async move { writing.remove(id, &viewer).await })))
    }

    fn retry<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<Verdict>> {
        self.apply_as(id, viewer, Event::Retry)
    }

    fn claim(&self, claim: Claim) -> StoreFuture<'_, Vec<ClaimedJob>> {
        Box::pin(self.write(move |writing| Box::pin(async move { writing.claim(&claim).await })))
    }

    fn begin_attempt(&self, id: JobId, fence: Fence) -> StoreFuture<'_, Verdict> {
        self.apply(id, Event::BeginAttempt(fence))
    }

    fn progress(&self, progress: Vec<Progress>) -> StoreFuture<'_, ()> {
        Box::pin(self.write(move |writing| Box::pin(async move { writing.progress(&progress).await })))
    }

    fn complete(&self, id: JobId, fence: Fence, completion: Completion) -> StoreFuture<'_, Verdict> {
        Box::pin(
            self.write(move |writing| {
                Box::pin(async move { writing.complete(id, fence, &completion).await })
            }),
        )
    }

    fn interrupt(&self, id: JobId, fence: Fence, error: JobError) -> StoreFuture<'_, Verdict> {
        Box::pin(
            self.write(move |writing| Box::pin(async move { writing.interrupt(id, fence, &error).await })),
        )
    }

    fn release(&self, id: JobId, fence: Fence) -> StoreFuture<'_, Verdict> {
        self.apply(id, Event::Release(fence))
    }

    fn renew(&self, claims: Vec<(JobId, Fence)>, lease: Duration) -> StoreFuture<'_, Vec<JobId>> {
        Box::pin(self.write(move |writing| Box::pin(async move { writing.renew(&claims, lease).await })))
    }

    fn sweep(&self) -> StoreFuture<'_, Swept> {
        Box::pin(async move {
            let mut total = Swept::default();
            loop {
                let part = self.write(|writing| Box::pin(writing.sweep())).await?;
                total.add(part.swept);
                if !part.unfinished {
                    return Ok(total);
                }
            }
        })
    }

    fn statistics(&self) -> StoreFuture<'_, Statistics> {
        Box::pin(self.read(|statements| Box::pin(statements.statistics())))
    }

    fn claim_deliveries(&self, limit: u32, lease: Duration) -> StoreFuture<'_, Vec<Delivery>> {
        Box::pin(self.write(move |writing| Box::pin(writing.claim_deliveries(limit, lease))))
    }

    fn record_delivery(&self, id: JobId, fence: Fence, report: DeliveryReport) -> StoreFuture<'_, ()> {
        Box::pin(self.write(move |writing| Box::pin(writing.record_delivery(id, fence, report))))
    }

    fn changes(&self) -> broadcast::Receiver<JobChange> {
        self.announcer.subscribe()
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        let listener = self.stop();
        Box::pin(async move {
            if let Some(listener) = listener {
                // Aborted.
                let _ = listener.await;
            }
            Ok(())
        })
    }
}
