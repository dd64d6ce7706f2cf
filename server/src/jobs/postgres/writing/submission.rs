//! Stores jobs.

use super::Writing;
use crate::jobs::stored::{StoredJob, headers_to_stored, millis_to_stored, priority_to_stored};
use crate::jobs::{IdempotencyKey, JobChange, JobId, NewJob, Owner, StoreError, Submission, Timestamp};

impl Writing<'_> {
    pub(in crate::jobs::postgres) async fn submit(&mut self, job: &NewJob) -> Result<Submission, StoreError> {
        loop {
            if let Some(stored) = self.insert(job).await? {
                self.insert_request(stored.seq, job).await?;
                self.changes.push(JobChange::Queued {
                    model: job.model.clone(),
                });
                return Ok(Submission::Created(stored.record()));
            }
            // Another one has the key, unless it has been removed in the meantime.
            if let Some(key) = &job.idempotency_key
                && let Some(repeated) = self.repeated(key, job.owner.as_ref()).await?
            {
                return Ok(repeated);
            }
        }
    }

    /// The outcome for a key that was used before.
    pub(in crate::jobs::postgres) async fn repeated(
        &mut self,
        key: &IdempotencyKey,
        owner: Option<&Owner>,
    ) -> Result<Option<Submission>, StoreError> {
        let mut statements = self.statements();
        let owner = owner.map_or("", Owner::as_str);
        let condition = "coalesce(owner, '') = $1 AND idempotency_key = $2";
        let sql = format!("SELECT seq, idempotency_digest FROM inference_server.jobs WHERE {condition}");
        let rows = statements.query(&sql, &[&owner, &key.key]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (seq, digest): (i64, Option<String>) = (row.get(0), row.get(1));
        let jobs = statements.jobs_where("seq = $1", &[&seq]).await?;
        Ok(jobs.first().map(|job| {
            if digest.as_deref() == Some(&key.request.to_string()) {
                Submission::Existing(job.record())
            } else {
                Submission::Conflict { existing: job.id }
            }
        }))
    }

    /// `None` if the idempotency key is in use.
    async fn insert(&mut self, job: &NewJob) -> Result<Option<StoredJob>, StoreError> {
        let id = JobId::new(self.now).map_err(|error| StoreError::Unavailable {
            reason: format!("the system has no random numbers: {error}"),
        })?;
        let mut submitted = StoredJob::submitted(0, id, job, self.now);
        let lifecycle = &submitted.lifecycle;
        let stored = |time: Option<Timestamp>| time.map(Timestamp::to_stored);
        let sql = "INSERT INTO inference_server.jobs (id, state, max_attempts, due_at, not_before, ttl_ms, expires_at, model, \
                   task, owner, priority, label, idempotency_key, idempotency_digest, items, created_at, request_bytes, \
                   webhook_url, webhook_state) VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
                   $16, $17, $18) ON CONFLICT DO NOTHING RETURNING seq";
        let rows = self
            .open
            .statements()
            .query(
                sql,
                &[
                    &id.uuid(),
                    &lifecycle.state.name(),
                    &i64::from(lifecycle.max_attempts),
                    &stored(lifecycle.not_before),
                    &lifecycle.ttl.map(millis_to_stored),
                    &stored(lifecycle.expires_at),
                    &job.model,
                    &job.task,
                    &job.owner.as_ref().map(Owner::as_str),
                    &priority_to_stored(job.priority),
                    &job.label,
                    &job.idempotency_key.as_ref().map(|key| &key.key),
                    &job.idempotency_key.as_ref().map(|key| key.request.to_string()),
                    &i64::from(job.items),
                    &self.now.to_stored(),
                    &(job.request.body.len() as i64),
                    &job.webhook_url,
                    &submitted.webhook.as_ref().map(|webhook| webhook.state.name()),
                ],
            )
            .await?;
        let Some(row) = rows.first() else { return Ok(None) };
        submitted.seq = row.get(0);
        Ok(Some(submitted))
    }

    async fn insert_request(&mut self, seq: i64, job: &NewJob) -> Result<(), StoreError> {
        let request = &job.request;
        let sql = "INSERT INTO inference_server.requests (seq, method, path, query, headers, content_type, body) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let headers = headers_to_stored(&request.headers);
        let body: &[u8] = &request.body;
        let (method, path, query) = (&request.method, &request.path, &request.query);
        let params = &[
            &seq as _,
            method as _,
            path as _,
            query as _,
            &headers as _,
            &request.content_type as _,
            &body as _,
        ];
        self.statements().execute(sql, params).await?;
        Ok(())
    }
}
