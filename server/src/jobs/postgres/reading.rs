//! Queries that change nothing.

use super::errors::{corrupt, store_error};
use super::rows;
use super::session::Statements;
use crate::jobs::stored::StoredJob;
use crate::jobs::{
    Depth, JobFilter, JobId, JobPage, JobState, Owner, Statistics, StoreError, StoredReply, StoredRequest,
    Timestamp, Viewer,
};

/// What the limits of a store count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Number of queued jobs.
    pub(super) queued: u64,
    /// Bytes of requests and replies.
    pub(super) bytes: u64,
}

impl Statements<'_> {
    pub(super) async fn get(&mut self, id: JobId, viewer: &Viewer) -> Result<Option<StoredJob>, StoreError> {
        Ok(self.job(id).await?.filter(|job| job.is_visible_to(viewer)))
    }

    pub(super) async fn request(
        &mut self,
        id: JobId,
        viewer: &Viewer,
    ) -> Result<Option<StoredRequest>, StoreError> {
        let Some(job) = self.get(id, viewer).await? else {
            return Ok(None);
        };
        let sql = format!(
            "SELECT {} FROM inference_server.requests WHERE seq = $1",
            rows::REQUEST
        );
        let rows = self.query(&sql, &[&job.seq]).await?;
        let request = rows.first().map(rows::request).transpose();
        let request = request.map_err(|error| store_error(&error, self.place))?;
        Ok(request.map(|(_, request)| request))
    }

    pub(super) async fn reply(
        &mut self,
        id: JobId,
        viewer: &Viewer,
    ) -> Result<Option<StoredReply>, StoreError> {
        let Some(job) = self.get(id, viewer).await? else {
            return Ok(None);
        };
        let sql = "SELECT status, headers, content_type, body FROM inference_server.replies WHERE seq = $1";
        let rows = self.query(sql, &[&job.seq]).await?;
        let reply = rows.first().map(rows::reply).transpose();
        reply.map_err(|error| store_error(&error, self.place))
    }

    pub(super) async fn list(
        &mut self,
        filter: &JobFilter,
        viewer: &Viewer,
        cursor: Option<JobId>,
        limit: u32,
    ) -> Result<JobPage, StoreError> {
        let mut conditions = vec!["true".to_owned()];
        let mut params: Vec<Box<dyn tokio_postgres::types::ToSql + Sync + Send>> = Vec::new();
        let mut require = |condition: &str, param| {
            params.push(param);
            conditions.push(condition.replace('?', &format!("${}", params.len())));
        };
        if let Some(model) = &filter.model {
            require("model = ?", Box::new(model.clone()));
        }
        if let Some(label) = &filter.label {
            require("label = ?", Box::new(label.clone()));
        }
        if let Viewer::Owner(owner) = viewer {
            require("owner = ?", Box::new(Owner::as_str(owner).to_owned()));
        }
        if !filter.states.is_empty() {
            let names: Vec<&'static str> = filter.states.iter().map(|state| state.name()).collect();
            require("state = ANY(?)", Box::new(names));
        }
        if let Some(ids) = &filter.ids {
            let ids: Vec<uuid::Uuid> = ids.iter().map(JobId::uuid).collect();
            require("id = ANY(?)", Box::new(ids));
        }
        if let Some(cursor) = cursor {
            require("id < ?", Box::new(cursor.uuid()));
        }
        // One more shows whether there is another page.
        let condition = format!(
            "{} ORDER BY id DESC LIMIT {}",
            conditions.join(" AND "),
            u64::from(limit) + 1
        );
        let params: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = params
            .iter()
            .map(|param| &**param as &(dyn tokio_postgres::types::ToSql + Sync))
            .collect();
        let jobs = self.jobs_where(&condition, &params).await?;
        Ok(JobPage::new(jobs.iter().map(StoredJob::record).collect(), limit))
    }

    pub(super) async fn statistics(&mut self) -> Result<Statistics, StoreError> {
        let sql = "SELECT model, state, count(*), sum(items)::bigint, min(created_at), sum(request_bytes + reply_bytes)::bigint \
                   FROM inference_server.jobs GROUP BY model, state";
        let rows = self.query(sql, &[]).await?;
        let mut statistics = Statistics::default();
        for row in rows {
            let state: String = row.get(1);
            statistics.depths.push(Depth {
                model: row.get(0),
                state: JobState::from_name(&state)
                    .ok_or_else(|| corrupt(self.place, format!("invalid state `{state}`")))?,
                jobs: row.get::<_, i64>(2).unsigned_abs(),
                items: row.get::<_, i64>(3).unsigned_abs(),
                oldest: Timestamp::from_stored(row.get(4)),
            });
            statistics.stored_bytes += row.get::<_, i64>(5).unsigned_abs();
        }
        let sql = "SELECT count(*) FROM inference_server.jobs WHERE webhook_due_at IS NOT NULL";
        let rows = self.query(sql, &[]).await?;
        statistics.pending_deliveries = rows.first().map_or(0, |row| row.get::<_, i64>(0).unsigned_abs());
        Ok(statistics)
    }

    pub(super) async fn usage(&mut self) -> Result<Usage, StoreError> {
        let sql = "SELECT count(*) FILTER (WHERE state = 'queued'), coalesce(sum(request_bytes + reply_bytes), 0)::bigint \
                   FROM inference_server.jobs";
        let rows = self.query(sql, &[]).await?;
        Ok(rows.first().map_or(Usage::default(), |row| Usage {
            queued: row.get::<_, i64>(0).unsigned_abs(),
            bytes: row.get::<_, i64>(1).unsigned_abs(),
        }))
    }
}
