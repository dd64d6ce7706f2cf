//! Rows of the database as values.

use tokio_postgres::{Error, Row};
use uuid::Uuid;

use crate::jobs::stored::{RawJob, headers_from_stored};
use crate::jobs::{StoredReply, StoredRequest};

/// A row with the columns of a job.
pub(super) fn raw_job(row: &Row) -> Result<RawJob, Error> {
    Ok(RawJob {
        seq: row.try_get(0)?,
        id: row.try_get::<_, Uuid>(1)?.into_bytes().to_vec(),
        state: row.try_get(2)?,
        attempts: row.try_get(3)?,
        max_attempts: row.try_get(4)?,
        fence: row.try_get(5)?,
        lease_until: row.try_get(6)?,
        not_before: row.try_get(7)?,
        ttl_ms: row.try_get(8)?,
        expires_at: row.try_get(9)?,
        started_at: row.try_get(10)?,
        finished_at: row.try_get(11)?,
        model: row.try_get(12)?,
        task: row.try_get(13)?,
        owner: row.try_get(14)?,
        priority: row.try_get(15)?,
        label: row.try_get(16)?,
        items: row.try_get(17)?,
        items_done: row.try_get(18)?,
        created_at: row.try_get(19)?,
        error_code: row.try_get(20)?,
        error_message: row.try_get(21)?,
        reply_status: row.try_get(22)?,
        retained_since: row.try_get(23)?,
        webhook_url: row.try_get(24)?,
        webhook_state: row.try_get(25)?,
        webhook_attempts: row.try_get(26)?,
        webhook_fence: row.try_get(27)?,
        webhook_due_at: row.try_get(28)?,
        webhook_attempted_at: row.try_get(29)?,
        webhook_status: row.try_get(30)?,
        webhook_error: row.try_get(31)?,
    })
}

/// The columns of [`request`], in its order.
pub(super) const REQUEST: &str = "seq, method, path, query, headers, content_type, body";

/// A row with [`REQUEST`], with the job that it belongs to.
pub(super) fn request(row: &Row) -> Result<(i64, StoredRequest), Error> {
    let request = StoredRequest {
        method: row.try_get(1)?,
        path: row.try_get(2)?,
        query: row.try_get(3)?,
        headers: headers_from_stored(row.try_get(4)?),
        content_type: row.try_get(5)?,
        body: row.try_get::<_, Vec<u8>>(6)?.into(),
    };
    Ok((row.try_get(0)?, request))
}

/// A row with status, headers, content type and body.
pub(super) fn reply(row: &Row) -> Result<StoredReply, Error> {
    Ok(StoredReply {
        status: u16::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default(),
        headers: headers_from_stored(row.try_get(1)?),
        content_type: row.try_get(2)?,
        body: row.try_get::<_, Vec<u8>>(3)?.into(),
    })
}
