//! Rows of the database as values.

use std::path::Path;

use rusqlite::{Connection, Params, Row};

use super::errors::{corrupt, store_error};
use crate::jobs::stored::{COLUMNS, RawJob, StoredJob, headers_from_stored};
use crate::jobs::{JobId, StoreError, StoredReply, StoredRequest};

/// A row with [`COLUMNS`].
pub(super) fn raw_job(row: &Row<'_>) -> rusqlite::Result<RawJob> {
    Ok(RawJob {
        seq: row.get(0)?,
        id: row.get(1)?,
        state: row.get(2)?,
        attempts: row.get(3)?,
        max_attempts: row.get(4)?,
        fence: row.get(5)?,
        lease_until: row.get(6)?,
        not_before: row.get(7)?,
        ttl_ms: row.get(8)?,
        expires_at: row.get(9)?,
        started_at: row.get(10)?,
        finished_at: row.get(11)?,
        model: row.get(12)?,
        task: row.get(13)?,
        owner: row.get(14)?,
        priority: row.get(15)?,
        label: row.get(16)?,
        items: row.get(17)?,
        items_done: row.get(18)?,
        created_at: row.get(19)?,
        error_code: row.get(20)?,
        error_message: row.get(21)?,
        reply_status: row.get(22)?,
        retained_since: row.get(23)?,
        webhook_url: row.get(24)?,
        webhook_state: row.get(25)?,
        webhook_attempts: row.get(26)?,
        webhook_fence: row.get(27)?,
        webhook_due_at: row.get(28)?,
        webhook_attempted_at: row.get(29)?,
        webhook_status: row.get(30)?,
        webhook_error: row.get(31)?,
    })
}

/// Jobs that satisfy a condition, which can be followed by an order and a limit.
pub(super) fn jobs_where(
    connection: &Connection,
    path: &Path,
    condition: &str,
    params: impl Params,
) -> Result<Vec<StoredJob>, StoreError> {
    let failed = |error: rusqlite::Error| store_error(&error, path);
    let sql = format!("SELECT {COLUMNS} FROM jobs WHERE {condition}");
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    let rows = statement.query_map(params, raw_job).map_err(failed)?;
    let mut jobs = Vec::new();
    for row in rows {
        let raw = row.map_err(failed)?;
        let id = raw.id.clone();
        let job = raw.parse();
        jobs.push(
            job.map_err(|column| corrupt(path, format!("the job {id:02x?} has an invalid `{column}`")))?,
        );
    }
    Ok(jobs)
}

/// The job with an identifier.
pub(super) fn job(connection: &Connection, path: &Path, id: JobId) -> Result<Option<StoredJob>, StoreError> {
    Ok(jobs_where(connection, path, "id = ?1", [&id.as_bytes()[..]])?.pop())
}

/// The request of a job, while it is kept.
pub(super) fn request(
    connection: &Connection,
    path: &Path,
    seq: i64,
) -> Result<Option<StoredRequest>, StoreError> {
    let sql = "SELECT method, path, query, headers, content_type, body FROM requests WHERE seq = ?1";
    optional_row(connection, path, sql, seq, |row| {
        Ok(StoredRequest {
            method: row.get(0)?,
            path: row.get(1)?,
            query: row.get(2)?,
            headers: headers_from_stored(row.get_ref(3)?.as_blob()?),
            content_type: row.get(4)?,
            body: row.get::<_, Vec<u8>>(5)?.into(),
        })
    })
}

/// The reply of a job, if it has one.
pub(super) fn reply(
    connection: &Connection,
    path: &Path,
    seq: i64,
) -> Result<Option<StoredReply>, StoreError> {
    let sql = "SELECT status, headers, content_type, body FROM replies WHERE seq = ?1";
    optional_row(connection, path, sql, seq, |row| {
        Ok(StoredReply {
            status: row.get(0)?,
            headers: headers_from_stored(row.get_ref(1)?.as_blob()?),
            content_type: row.get(2)?,
            body: row.get::<_, Vec<u8>>(3)?.into(),
        })
    })
}

fn optional_row<T>(
    connection: &Connection,
    path: &Path,
    sql: &str,
    seq: i64,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, StoreError> {
    use rusqlite::OptionalExtension as _;
    let failed = |error: rusqlite::Error| store_error(&error, path);
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    statement.query_row([seq], read).optional().map_err(failed)
}
