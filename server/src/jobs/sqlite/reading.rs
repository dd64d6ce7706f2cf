//! Queries that change nothing.

use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::errors::{corrupt, store_error};
use super::rows;
use crate::jobs::stored::StoredJob;
use crate::jobs::{
    Depth, JobFilter, JobId, JobPage, JobState, Statistics, StoreError, StoredReply, StoredRequest,
    Timestamp, Viewer,
};

/// A connection for queries.
pub(super) struct Reading<'a> {
    pub(super) connection: &'a Connection,
    pub(super) path: &'a Path,
}

impl Reading<'_> {
    pub(super) fn get(&self, id: JobId, viewer: &Viewer) -> Result<Option<StoredJob>, StoreError> {
        let job = rows::job(self.connection, self.path, id)?;
        Ok(job.filter(|job| job.is_visible_to(viewer)))
    }

    pub(super) fn request(&self, id: JobId, viewer: &Viewer) -> Result<Option<StoredRequest>, StoreError> {
        match self.get(id, viewer)? {
            Some(job) => rows::request(self.connection, self.path, job.seq),
            None => Ok(None),
        }
    }

    pub(super) fn reply(&self, id: JobId, viewer: &Viewer) -> Result<Option<StoredReply>, StoreError> {
        match self.get(id, viewer)? {
            Some(job) => rows::reply(self.connection, self.path, job.seq),
            None => Ok(None),
        }
    }

    pub(super) fn list(
        &self,
        filter: &JobFilter,
        viewer: &Viewer,
        cursor: Option<JobId>,
        limit: u32,
    ) -> Result<JobPage, StoreError> {
        let mut conditions = vec!["1".to_owned()];
        let mut values: Vec<Value> = Vec::new();
        let mut equals = |column: &str, value: Option<&str>| {
            if let Some(value) = value {
                conditions.push(format!("{column} = ?"));
                values.push(Value::Text(value.to_owned()));
            }
        };
        equals("model", filter.model.as_deref());
        equals("label", filter.label.as_deref());
        if let Viewer::Owner(owner) = viewer {
            equals("owner", Some(owner.as_str()));
        }
        if !filter.states.is_empty() {
            let marks = vec!["?"; filter.states.len()].join(", ");
            conditions.push(format!("state IN ({marks})"));
            values.extend(
                filter
                    .states
                    .iter()
                    .map(|state| Value::Text(state.name().to_owned())),
            );
        }
        if let Some(ids) = &filter.ids {
            let marks = vec!["?"; ids.len()].join(", ");
            conditions.push(format!("id IN ({marks})"));
            values.extend(ids.iter().map(|id| Value::Blob(id.as_bytes().to_vec())));
        }
        if let Some(cursor) = cursor {
            conditions.push("id < ?".to_owned());
            values.push(Value::Blob(cursor.as_bytes().to_vec()));
        }
        // One more shows whether there is another page.
        values.push(Value::Integer(i64::from(limit) + 1));
        let condition = format!("{} ORDER BY id DESC LIMIT ?", conditions.join(" AND "));
        let jobs = rows::jobs_where(self.connection, self.path, &condition, params_from_iter(values))?;
        Ok(JobPage::new(jobs.iter().map(StoredJob::record).collect(), limit))
    }

    pub(super) fn statistics(&self) -> Result<Statistics, StoreError> {
        let failed = |error: rusqlite::Error| store_error(&error, self.path);
        let sql =
            "SELECT model, state, count(*), sum(items), min(created_at) FROM jobs GROUP BY model, state";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let rows = statement.query_map([], |row| {
            Ok((
                row.get(0)?,
                row.get::<_, String>(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        });
        let mut depths = Vec::new();
        for row in rows.map_err(failed)? {
            let (model, state, jobs, items, oldest): (_, _, i64, i64, _) = row.map_err(failed)?;
            let state = JobState::from_name(&state)
                .ok_or_else(|| corrupt(self.path, format!("invalid state `{state}`")))?;
            depths.push(Depth {
                model,
                state,
                jobs: jobs.unsigned_abs(),
                items: items.unsigned_abs(),
                oldest: Timestamp::from_stored(oldest),
            });
        }
        let sql = "SELECT count(*) FROM jobs WHERE webhook_due_at IS NOT NULL";
        let pending: i64 = self
            .connection
            .query_row(sql, [], |row| row.get(0))
            .map_err(failed)?;
        Ok(Statistics {
            depths,
            stored_bytes: stored_bytes(self.connection).map_err(failed)?,
            pending_deliveries: pending.unsigned_abs(),
        })
    }
}

/// Bytes of the pages in use.
pub(super) fn stored_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
    let mut statement = connection.prepare_cached(sql)?;
    let bytes: i64 = statement.query_row([], |row| row.get(0))?;
    Ok(bytes.unsigned_abs())
}
