//! Changes of jobs, inside of a transaction. What an event does to a job is decided by [`StoredJob::apply`].

mod claims;
mod submission;
mod sweep;

use std::path::Path;

use rusqlite::{Connection, Params, named_params};

use super::errors::store_error;
use super::rows;
use crate::jobs::stored::{FollowUp, StoredJob, headers_to_stored};
use crate::jobs::transition::{Event, Rejection};
use crate::jobs::{
    Completion, Fence, JobChange, JobError, JobId, JobState, Progress, Removal, StoreError, StoreLimits,
    StoredReply, Timestamp, Verdict, Viewer,
};
pub(super) use sweep::SweptPart;

/// An open transaction.
pub(super) struct Writing<'a> {
    pub(super) connection: &'a Connection,
    pub(super) path: &'a Path,
    pub(super) limits: &'a StoreLimits,
    pub(super) now: Timestamp,
    pub(super) usage: Usage,
    /// Announced after the transaction is durable.
    pub(super) changes: Vec<JobChange>,
}

/// What counts towards the limits.
#[derive(Clone, Copy)]
pub(super) struct Usage {
    /// Number of queued jobs.
    pub(super) queued: u64,
    /// Bytes in use; `None` if they were not counted in this transaction.
    pub(super) stored: Option<u64>,
}

impl Writing<'_> {
    pub(super) fn cancel(&mut self, id: JobId, viewer: &Viewer) -> Result<Option<Verdict>, StoreError> {
        self.apply_as(id, viewer, Event::Cancel)
    }

    pub(super) fn retry(&mut self, id: JobId, viewer: &Viewer) -> Result<Option<Verdict>, StoreError> {
        self.apply_as(id, viewer, Event::Retry)
    }

    pub(super) fn remove(&mut self, id: JobId, viewer: &Viewer) -> Result<Removal, StoreError> {
        let Some(job) = self.job(id)?.filter(|job| job.is_visible_to(viewer)) else {
            return Ok(Removal::NotFound);
        };
        if !job.lifecycle.state.is_final() {
            return Ok(Removal::NotFinal(job.lifecycle.state));
        }
        self.execute("DELETE FROM jobs WHERE seq = ?1", [job.seq])?;
        Ok(Removal::Removed)
    }

    pub(super) fn begin_attempt(&mut self, id: JobId, fence: Fence) -> Result<Verdict, StoreError> {
        self.apply(id, Event::BeginAttempt(fence))
    }

    pub(super) fn progress(&mut self, progress: &[Progress]) -> Result<(), StoreError> {
        for progress in progress {
            self.change_by_id(progress.id, |job, now| job.record_progress(*progress, now))?;
        }
        Ok(())
    }

    pub(super) fn complete(
        &mut self,
        id: JobId,
        fence: Fence,
        completion: &Completion,
    ) -> Result<Verdict, StoreError> {
        let Some(mut job) = self.job(id)? else {
            return Ok(Verdict::MISSING);
        };
        let mut reply = None;
        let verdict = self.change_with(&mut job, |job, now| {
            let (follow_up, stored) = job.complete(fence, completion, now)?;
            reply = stored;
            Ok(follow_up)
        })?;
        if let Some(reply) = reply {
            self.store_reply(job.seq, reply)?;
        }
        Ok(verdict)
    }

    pub(super) fn interrupt(
        &mut self,
        id: JobId,
        fence: Fence,
        error: &JobError,
    ) -> Result<Verdict, StoreError> {
        self.change_by_id(id, |job, now| job.interrupt(fence, error, now))
    }

    pub(super) fn release(&mut self, id: JobId, fence: Fence) -> Result<Verdict, StoreError> {
        self.apply(id, Event::Release(fence))
    }

    /// Moves the end of durations by a jump of the clock. Times that a client has chosen stay as they are.
    pub(super) fn move_times(&self, millis: i64) -> Result<(), StoreError> {
        for sql in [
            "UPDATE jobs SET lease_until = max(0, lease_until + ?1) WHERE lease_until IS NOT NULL",
            "UPDATE jobs SET expires_at = max(0, expires_at + ?1) WHERE expires_at IS NOT NULL AND state IN ('queued', 'running')",
            "UPDATE jobs SET retained_since = max(0, retained_since + ?1) WHERE retained_since IS NOT NULL",
            "UPDATE jobs SET webhook_due_at = max(0, webhook_due_at + ?1) WHERE webhook_due_at IS NOT NULL",
        ] {
            self.execute(sql, [millis])?;
        }
        Ok(())
    }

    pub(super) fn count_queued(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM jobs WHERE state = 'queued'";
        let count: i64 = self
            .connection
            .query_row(sql, [], |row| row.get(0))
            .map_err(|error| self.error(&error))?;
        Ok(count.unsigned_abs())
    }

    fn apply(&mut self, id: JobId, event: Event) -> Result<Verdict, StoreError> {
        self.change_by_id(id, |job, now| job.apply(event, now))
    }

    fn apply_as(&mut self, id: JobId, viewer: &Viewer, event: Event) -> Result<Option<Verdict>, StoreError> {
        match self.job(id)?.filter(|job| job.is_visible_to(viewer)) {
            Some(mut job) => self.change(&mut job, event).map(Some),
            None => Ok(None),
        }
    }

    fn change_by_id(
        &mut self,
        id: JobId,
        change: impl FnOnce(&mut StoredJob, Timestamp) -> Result<FollowUp, Rejection>,
    ) -> Result<Verdict, StoreError> {
        match self.job(id)? {
            Some(mut job) => self.change_with(&mut job, change),
            None => Ok(Verdict::MISSING),
        }
    }

    /// Applies an event to a job and stores the job.
    fn change(&mut self, job: &mut StoredJob, event: Event) -> Result<Verdict, StoreError> {
        self.change_with(job, |job, now| job.apply(event, now))
    }

    fn change_with(
        &mut self,
        job: &mut StoredJob,
        change: impl FnOnce(&mut StoredJob, Timestamp) -> Result<FollowUp, Rejection>,
    ) -> Result<Verdict, StoreError> {
        let was_queued = job.lifecycle.state == JobState::Queued;
        let follow_up = match change(job, self.now) {
            Ok(follow_up) => follow_up,
            Err(rejection) => return Ok(Verdict::Rejected(rejection)),
        };
        self.save(job)?;
        let state = job.lifecycle.state;
        self.usage.queued += u64::from(state == JobState::Queued);
        self.usage.queued -= u64::from(was_queued);
        if follow_up.drop_request {
            self.execute("DELETE FROM requests WHERE seq = ?1", [job.seq])?;
        }
        self.changes.extend(follow_up.change);
        Ok(Verdict::Applied(state))
    }

    /// Stores what can change.
    fn save(&self, job: &StoredJob) -> Result<(), StoreError> {
        let sql = "UPDATE jobs SET state = :state, attempts = :attempts, fence = :fence, lease_until = :lease_until, \
                   not_before = :not_before, expires_at = :expires_at, started_at = :started_at, finished_at = :finished_at, \
                   retained_since = :retained_since, items_done = :items_done, error_code = :error_code, \
                   error_message = :error_message, reply_status = :reply_status, webhook_state = :webhook_state, \
                   webhook_attempts = :webhook_attempts, webhook_fence = :webhook_fence, webhook_due_at = :webhook_due_at, \
                   webhook_attempted_at = :webhook_attempted_at, webhook_status = :webhook_status, \
                   webhook_error = :webhook_error WHERE seq = :seq";
        let stored = |time: Option<Timestamp>| time.map(Timestamp::to_stored);
        let (lifecycle, webhook) = (&job.lifecycle, job.webhook.as_ref());
        let params = named_params! {
            ":seq": job.seq,
            ":state": lifecycle.state.name(),
            ":attempts": lifecycle.attempts,
            ":fence": lifecycle.fence.0.cast_signed(),
            ":lease_until": stored(lifecycle.lease_until),
            ":not_before": stored(lifecycle.not_before),
            ":expires_at": stored(lifecycle.expires_at),
            ":started_at": stored(lifecycle.started_at),
            ":finished_at": stored(lifecycle.finished_at),
            ":retained_since": stored(job.retained_since),
            ":items_done": job.items_done,
            ":error_code": job.error.as_ref().map(|error| &error.code),
            ":error_message": job.error.as_ref().map(|error| &error.message),
            ":reply_status": job.reply_status,
            ":webhook_state": webhook.map(|webhook| webhook.state.name()),
            ":webhook_attempts": webhook.map_or(0, |webhook| webhook.attempts),
            ":webhook_fence": webhook.map_or(0, |webhook| webhook.fence.0.cast_signed()),
            ":webhook_due_at": stored(webhook.and_then(|webhook| webhook.due_at)),
            ":webhook_attempted_at": stored(webhook.and_then(|webhook| webhook.attempted_at)),
            ":webhook_status": webhook.and_then(|webhook| webhook.status),
            ":webhook_error": webhook.and_then(|webhook| webhook.error.as_ref()),
        };
        self.execute(sql, params)
    }

    fn store_reply(&self, seq: i64, reply: &StoredReply) -> Result<(), StoreError> {
        let sql =
            "INSERT INTO replies (seq, status, headers, content_type, body) VALUES (?1, ?2, ?3, ?4, ?5)";
        let headers = headers_to_stored(&reply.headers);
        self.execute(
            sql,
            (seq, reply.status, headers, &reply.content_type, &reply.body[..]),
        )
    }

    fn job(&self, id: JobId) -> Result<Option<StoredJob>, StoreError> {
        rows::job(self.connection, self.path, id)
    }

    fn execute(&self, sql: &str, params: impl Params) -> Result<(), StoreError> {
        let statement = self.connection.prepare_cached(sql);
        let executed = statement.and_then(|mut statement| statement.execute(params));
        executed.map(|_| ()).map_err(|error| self.error(&error))
    }

    fn error(&self, error: &rusqlite::Error) -> StoreError {
        store_error(error, self.path)
    }
}
