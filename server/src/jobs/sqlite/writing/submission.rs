//! Stores jobs.

use rusqlite::{OptionalExtension as _, named_params};

use super::Writing;
use crate::jobs::sqlite::errors::corrupt;
use crate::jobs::sqlite::reading::stored_bytes;
use crate::jobs::sqlite::rows;
use crate::jobs::stored::{StoredJob, headers_to_stored, millis_to_stored, priority_to_stored};
use crate::jobs::{IdempotencyKey, JobChange, JobId, NewJob, Owner, StoreError, Submission, Timestamp};

/// Bytes of a job on disk besides its request: rows, indexes and partly filled pages.
const OVERHEAD: u64 = 2048;

/// Space on the disk that submissions leave for the results of the jobs and for the log; on a small disk, a quarter.
const RESERVE: u64 = 64 << 20;

impl Writing<'_> {
    pub(in crate::jobs::sqlite) fn submit(&mut self, job: &NewJob) -> Result<Submission, StoreError> {
        if let Some(key) = &job.idempotency_key
            && let Some(repeated) = self.repeated(key, job.owner.as_ref())?
        {
            return Ok(repeated);
        }
        let limits = self.limits;
        if self.usage.queued >= limits.max_queued {
            return Ok(Submission::QueueFull {
                queued: self.usage.queued,
                limit: limits.max_queued,
            });
        }
        let size = job.request.body.len() as u64 + OVERHEAD;
        let used = match self.usage.stored {
            Some(used) => used,
            None => {
                self.require_space(size)?;
                stored_bytes(self.connection).map_err(|error| self.error(&error))?
            }
        };
        if used.saturating_add(size) > limits.max_bytes {
            return Ok(Submission::StorageFull {
                used,
                limit: limits.max_bytes,
            });
        }
        let stored = self.insert(job)?;
        self.usage.queued += 1;
        self.usage.stored = Some(used + size);
        self.changes.push(JobChange::Queued {
            model: job.model.clone(),
        });
        Ok(Submission::Created(stored.record()))
    }

    /// The outcome for a key that was used before.
    fn repeated(
        &self,
        key: &IdempotencyKey,
        owner: Option<&Owner>,
    ) -> Result<Option<Submission>, StoreError> {
        let sql =
            "SELECT seq, idempotency_digest FROM jobs WHERE ifnull(owner, '') = ?1 AND idempotency_key = ?2";
        let owner = owner.map_or("", Owner::as_str);
        let found = self.connection.prepare_cached(sql).and_then(|mut statement| {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, Option<String>>(1)?));
            statement.query_row((owner, &key.key), row).optional()
        });
        let Some((seq, digest)) = found.map_err(|error| self.error(&error))? else {
            return Ok(None);
        };
        let seq: i64 = seq;
        let job = rows::jobs_where(self.connection, self.path, "seq = ?1", [seq])?.pop();
        let job = job.ok_or_else(|| corrupt(self.path, "an index names a job that does not exist"))?;
        Ok(Some(if digest.as_deref() == Some(&key.request.to_string()) {
            Submission::Existing(job.record())
        } else {
            Submission::Conflict { existing: job.id }
        }))
    }

    /// Checks that the disk has space for a job, twice because it is written to the log first, and for results.
    fn require_space(&self, size: u64) -> Result<(), StoreError> {
        let Ok(disk) = rustix::fs::statvfs(self.path) else {
            // Writing reports what is wrong.
            return Ok(());
        };
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        let available = disk.f_bavail.saturating_mul(disk.f_frsize);
        if available < (2 * size).saturating_add(RESERVE.min(total / 4)) {
            return Err(StoreError::DiskFull {
                place: self.path.display().to_string(),
            });
        }
        Ok(())
    }

    fn insert(&self, job: &NewJob) -> Result<StoredJob, StoreError> {
        let id = JobId::new(self.now).map_err(|error| StoreError::Unavailable {
            reason: format!("the system has no random numbers: {error}"),
        })?;
        let mut submitted = StoredJob::submitted(0, id, job, self.now);
        let lifecycle = &submitted.lifecycle;
        let stored = |time: Option<Timestamp>| time.map(Timestamp::to_stored);
        let sql = "INSERT INTO jobs (id, state, attempts, max_attempts, fence, due_at, not_before, ttl_ms, expires_at, model, \
                   task, owner, priority, label, idempotency_key, idempotency_digest, items, created_at, request_bytes, \
                   webhook_url, webhook_state) VALUES (:id, :state, 0, :max_attempts, 0, :not_before, :not_before, :ttl_ms, \
                   :expires_at, :model, :task, :owner, :priority, :label, :key, :digest, :items, :now, :bytes, :url, \
                   :webhook_state)";
        let params = named_params! {
            ":id": &id.as_bytes()[..],
            ":state": lifecycle.state.name(),
            ":max_attempts": lifecycle.max_attempts,
            ":not_before": stored(lifecycle.not_before),
            ":ttl_ms": lifecycle.ttl.map(millis_to_stored),
            ":expires_at": stored(lifecycle.expires_at),
            ":model": job.model,
            ":task": job.task,
            ":owner": job.owner.as_ref().map(Owner::as_str),
            ":priority": priority_to_stored(job.priority),
            ":label": job.label,
            ":key": job.idempotency_key.as_ref().map(|key| &key.key),
            ":digest": job.idempotency_key.as_ref().map(|key| key.request.to_string()),
            ":items": job.items,
            ":now": self.now.to_stored(),
            ":bytes": job.request.body.len().cast_signed(),
            ":url": job.webhook_url,
            ":webhook_state": submitted.webhook.as_ref().map(|webhook| webhook.state.name()),
        };
        self.execute(sql, params)?;
        submitted.seq = self.connection.last_insert_rowid();
        let request = &job.request;
        let params = named_params! {
            ":seq": submitted.seq,
            ":method": request.method,
            ":path": request.path,
            ":query": request.query,
            ":headers": headers_to_stored(&request.headers),
            ":content_type": request.content_type,
            ":body": &request.body[..],
        };
        let sql = "INSERT INTO requests (seq, method, path, query, headers, content_type, body) VALUES (:seq, :method, :path, \
                   :query, :headers, :content_type, :body)";
        self.execute(sql, params)?;
        Ok(submitted)
    }
}
