//! Changes of jobs, inside of a transaction. What an event does to a job is decided by [`StoredJob::apply`].

mod claims;
mod submission;
mod sweep;

use std::collections::HashMap;

use futures_util::future::try_join_all;
use uuid::Uuid;

use super::errors::store_error;
use super::session::{Open, Statements};
use crate::jobs::stored::{FollowUp, StoredJob, headers_to_stored};
use crate::jobs::transition::{Event, Rejection};
use crate::jobs::{
    Completion, Fence, JobChange, JobError, JobId, Progress, Removal, StoreError, StoreLimits, StoredReply,
    Timestamp, Verdict, Viewer,
};

/// An open transaction.
pub(super) struct Writing<'a> {
    pub(super) open: Open<'a>,
    pub(super) limits: &'a StoreLimits,
    pub(super) now: Timestamp,
    /// Announced after the transaction is durable.
    pub(super) changes: Vec<JobChange>,
}

impl Writing<'_> {
    pub(super) async fn apply(&mut self, id: JobId, event: Event) -> Result<Verdict, StoreError> {
        self.change_by_id(id, |job, now| job.apply(event, now)).await
    }

    pub(super) async fn apply_as(
        &mut self,
        id: JobId,
        viewer: &Viewer,
        event: Event,
    ) -> Result<Option<Verdict>, StoreError> {
        match self.locked(id).await?.filter(|job| job.is_visible_to(viewer)) {
            Some(mut job) => {
                let verdict = self.change(&mut job, |job, now| job.apply(event, now)).await?;
                Ok(Some(verdict))
            }
            None => Ok(None),
        }
    }

    pub(super) async fn remove(&mut self, id: JobId, viewer: &Viewer) -> Result<Removal, StoreError> {
        let Some(job) = self.locked(id).await?.filter(|job| job.is_visible_to(viewer)) else {
            return Ok(Removal::NotFound);
        };
        if !job.lifecycle.state.is_final() {
            return Ok(Removal::NotFinal(job.lifecycle.state));
        }
        let sql = "DELETE FROM inference_server.jobs WHERE seq = $1";
        self.statements().execute(sql, &[&job.seq]).await?;
        Ok(Removal::Removed)
    }

    pub(super) async fn progress(&mut self, progress: &[Progress]) -> Result<(), StoreError> {
        let of_job: HashMap<JobId, Progress> =
            progress.iter().map(|progress| (progress.id, *progress)).collect();
        let ids: Vec<Uuid> = of_job.keys().map(|id| id.uuid()).collect();
        // In one order, so that servers do not wait for each other in a circle.
        let condition = "id = ANY($1) ORDER BY id FOR UPDATE";
        let mut jobs = self.statements().jobs_where(condition, &[&ids]).await?;
        let record = |job: &mut StoredJob, now| match of_job.get(&job.id) {
            Some(progress) => job.record_progress(*progress, now),
            None => Err(Rejection::Missing),
        };
        self.change_all(&mut jobs, record).await?;
        Ok(())
    }

    pub(super) async fn complete(
        &mut self,
        id: JobId,
        fence: Fence,
        completion: &Completion,
    ) -> Result<Verdict, StoreError> {
        let Some(mut job) = self.locked(id).await? else {
            return Ok(Verdict::MISSING);
        };
        let mut reply = None;
        let complete = |job: &mut StoredJob, now| {
            let (follow_up, stored) = job.complete(fence, completion, now)?;
            reply = stored;
            Ok(follow_up)
        };
        let verdict = self.change(&mut job, complete).await?;
        if let Some(reply) = reply {
            self.store_reply(job.seq, reply).await?;
        }
        Ok(verdict)
    }

    pub(super) async fn interrupt(
        &mut self,
        id: JobId,
        fence: Fence,
        error: &JobError,
    ) -> Result<Verdict, StoreError> {
        self.change_by_id(id, |job, now| job.interrupt(fence, error, now))
            .await
    }

    fn statements(&mut self) -> Statements<'_> {
        self.open.statements()
    }

    /// A job that no other transaction changes until this one ends.
    async fn locked(&mut self, id: JobId) -> Result<Option<StoredJob>, StoreError> {
        let jobs = self
            .statements()
            .jobs_where("id = $1 FOR UPDATE", &[&id.uuid()])
            .await?;
        Ok(jobs.into_iter().next())
    }

    async fn change_by_id(
        &mut self,
        id: JobId,
        change: impl FnOnce(&mut StoredJob, Timestamp) -> Result<FollowUp, Rejection>,
    ) -> Result<Verdict, StoreError> {
        match self.locked(id).await? {
            Some(mut job) => self.change(&mut job, change).await,
            None => Ok(Verdict::MISSING),
        }
    }

    /// Changes a job that is locked, and stores it.
    async fn change(
        &mut self,
        job: &mut StoredJob,
        change: impl FnOnce(&mut StoredJob, Timestamp) -> Result<FollowUp, Rejection>,
    ) -> Result<Verdict, StoreError> {
        match change(job, self.now) {
            Ok(follow_up) => {
                self.save(&[(&*job, follow_up)]).await?;
                Ok(Verdict::Applied(job.lifecycle.state))
            }
            Err(rejection) => Ok(Verdict::Rejected(rejection)),
        }
    }

    /// Changes jobs that are locked, and stores them at once. Returns the outcome for each.
    async fn change_all(
        &mut self,
        jobs: &mut [StoredJob],
        change: impl Fn(&mut StoredJob, Timestamp) -> Result<FollowUp, Rejection>,
    ) -> Result<Vec<Verdict>, StoreError> {
        let mut verdicts = Vec::new();
        let mut changed = Vec::new();
        for job in jobs {
            match change(job, self.now) {
                Ok(follow_up) => {
                    verdicts.push(Verdict::Applied(job.lifecycle.state));
                    changed.push((&*job, follow_up));
                }
                Err(rejection) => verdicts.push(Verdict::Rejected(rejection)),
            }
        }
        self.save(&changed).await?;
        Ok(verdicts)
    }

    /// Stores what can change, and carries out what follows.
    async fn save(&mut self, jobs: &[(&StoredJob, FollowUp)]) -> Result<(), StoreError> {
        const SQL: &str = "UPDATE inference_server.jobs SET state = $2, attempts = $3, fence = $4, lease_until = $5, \
             not_before = $6, expires_at = $7, started_at = $8, finished_at = $9, retained_since = $10, items_done = $11, \
             error_code = $12, error_message = $13, reply_status = $14, webhook_state = $15, webhook_attempts = $16, \
             webhook_fence = $17, webhook_due_at = $18, request_bytes = CASE WHEN $19 THEN 0 ELSE request_bytes END, \
             webhook_attempted_at = $20, webhook_status = $21, webhook_error = $22 WHERE seq = $1";
        let mut statements = self.open.statements();
        let statement = statements.prepare(SQL).await?;
        let (client, place) = (statements.client, statements.place);
        let updates = jobs.iter().map(async |(job, follow_up)| {
            let stored = |time: Option<Timestamp>| time.map(Timestamp::to_stored);
            let (lifecycle, webhook) = (&job.lifecycle, job.webhook.as_ref());
            client
                .execute(
                    &statement,
                    &[
                        &job.seq,
                        &lifecycle.state.name(),
                        &i64::from(lifecycle.attempts),
                        &lifecycle.fence.0.cast_signed(),
                        &stored(lifecycle.lease_until),
                        &stored(lifecycle.not_before),
                        &stored(lifecycle.expires_at),
                        &stored(lifecycle.started_at),
                        &stored(lifecycle.finished_at),
                        &stored(job.retained_since),
                        &i64::from(job.items_done),
                        &job.error.as_ref().map(|error| &error.code),
                        &job.error.as_ref().map(|error| &error.message),
                        &job.reply_status.map(i64::from),
                        &webhook.map(|webhook| webhook.state.name()),
                        &webhook.map_or(0, |webhook| i64::from(webhook.attempts)),
                        &webhook.map_or(0, |webhook| webhook.fence.0.cast_signed()),
                        &stored(webhook.and_then(|webhook| webhook.due_at)),
                        &follow_up.drop_request,
                        &stored(webhook.and_then(|webhook| webhook.attempted_at)),
                        &webhook.and_then(|webhook| webhook.status).map(i64::from),
                        &webhook.and_then(|webhook| webhook.error.as_ref()),
                    ],
                )
                .await
        });
        // All of them are sent before the first one is answered.
        try_join_all(updates)
            .await
            .map_err(|error| store_error(&error, place))?;
        let ended = jobs.iter().filter(|(_, follow_up)| follow_up.drop_request);
        let ended: Vec<i64> = ended.map(|(job, _)| job.seq).collect();
        if !ended.is_empty() {
            let sql = "DELETE FROM inference_server.requests WHERE seq = ANY($1)";
            statements.execute(sql, &[&ended]).await?;
        }
        self.changes
            .extend(jobs.iter().filter_map(|(_, follow_up)| follow_up.change.clone()));
        Ok(())
    }

    async fn store_reply(&mut self, seq: i64, reply: &StoredReply) -> Result<(), StoreError> {
        let mut statements = self.statements();
        let sql = "INSERT INTO inference_server.replies (seq, status, headers, content_type, body) VALUES ($1, $2, $3, $4, $5)";
        let headers = headers_to_stored(&reply.headers);
        let body: &[u8] = &reply.body;
        let status = i64::from(reply.status);
        statements
            .execute(sql, &[&seq, &status, &headers, &reply.content_type, &body])
            .await?;
        let sql = "UPDATE inference_server.jobs SET reply_bytes = $2 WHERE seq = $1";
        let bytes = reply.body.len() as i64;
        statements.execute(sql, &[&seq, &bytes]).await?;
        Ok(())
    }
}
