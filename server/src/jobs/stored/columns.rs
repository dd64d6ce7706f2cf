//! The columns of a job, in the types of the databases.

use std::time::Duration;

use super::{StoredJob, Webhook};
use crate::batching::Priority;
use crate::jobs::transition::Lifecycle;
use crate::jobs::{Fence, Header, JobError, JobId, JobState, Owner, Timestamp, WebhookState};

/// The columns of [`RawJob`], in its order.
pub(in crate::jobs) const COLUMNS: &str = "seq, id, state, attempts, max_attempts, fence, lease_until, not_before, ttl_ms, expires_at, \
     started_at, finished_at, model, task, owner, priority, label, items, items_done, created_at, error_code, error_message, \
     reply_status, retained_since, webhook_url, webhook_state, webhook_attempts, webhook_fence, webhook_due_at, webhook_attempted_at, \
     webhook_status, webhook_error";

/// The columns of a job in the types of the databases.
pub(in crate::jobs) struct RawJob {
    pub(in crate::jobs) seq: i64,
    pub(in crate::jobs) id: Vec<u8>,
    pub(in crate::jobs) state: String,
    pub(in crate::jobs) attempts: i64,
    pub(in crate::jobs) max_attempts: i64,
    pub(in crate::jobs) fence: i64,
    pub(in crate::jobs) lease_until: Option<i64>,
    pub(in crate::jobs) not_before: Option<i64>,
    pub(in crate::jobs) ttl_ms: Option<i64>,
    pub(in crate::jobs) expires_at: Option<i64>,
    pub(in crate::jobs) started_at: Option<i64>,
    pub(in crate::jobs) finished_at: Option<i64>,
    pub(in crate::jobs) model: String,
    pub(in crate::jobs) task: String,
    pub(in crate::jobs) owner: Option<String>,
    pub(in crate::jobs) priority: i64,
    pub(in crate::jobs) label: Option<String>,
    pub(in crate::jobs) items: i64,
    pub(in crate::jobs) items_done: i64,
    pub(in crate::jobs) created_at: i64,
    pub(in crate::jobs) error_code: Option<String>,
    pub(in crate::jobs) error_message: Option<String>,
    pub(in crate::jobs) reply_status: Option<i64>,
    pub(in crate::jobs) retained_since: Option<i64>,
    pub(in crate::jobs) webhook_url: Option<String>,
    pub(in crate::jobs) webhook_state: Option<String>,
    pub(in crate::jobs) webhook_attempts: i64,
    pub(in crate::jobs) webhook_fence: i64,
    pub(in crate::jobs) webhook_due_at: Option<i64>,
    pub(in crate::jobs) webhook_attempted_at: Option<i64>,
    pub(in crate::jobs) webhook_status: Option<i64>,
    pub(in crate::jobs) webhook_error: Option<String>,
}

impl RawJob {
    /// The job.
    ///
    /// # Errors
    /// The name of a column with a value that no server has written.
    pub(in crate::jobs) fn parse(self) -> Result<StoredJob, &'static str> {
        let id: [u8; 16] = self.id.try_into().map_err(|_| "id")?;
        let lifecycle = Lifecycle {
            state: JobState::from_name(&self.state).ok_or("state")?,
            attempts: u32::try_from(self.attempts).map_err(|_| "attempts")?,
            max_attempts: u32::try_from(self.max_attempts).map_err(|_| "max_attempts")?,
            fence: Fence(u64::try_from(self.fence).map_err(|_| "fence")?),
            lease_until: self.lease_until.map(Timestamp::from_stored),
            not_before: self.not_before.map(Timestamp::from_stored),
            ttl: self.ttl_ms.map(duration).transpose()?,
            expires_at: self.expires_at.map(Timestamp::from_stored),
            started_at: self.started_at.map(Timestamp::from_stored),
            finished_at: self.finished_at.map(Timestamp::from_stored),
        };
        let webhook = match (self.webhook_url, self.webhook_state) {
            (None, None) => None,
            (Some(url), Some(state)) => Some(Webhook {
                url,
                state: WebhookState::from_name(&state).ok_or("webhook_state")?,
                attempts: u32::try_from(self.webhook_attempts).map_err(|_| "webhook_attempts")?,
                fence: Fence(u64::try_from(self.webhook_fence).map_err(|_| "webhook_fence")?),
                due_at: self.webhook_due_at.map(Timestamp::from_stored),
                attempted_at: self.webhook_attempted_at.map(Timestamp::from_stored),
                status: status(self.webhook_status).ok_or("webhook_status")?,
                error: self.webhook_error,
            }),
            _ => return Err("webhook_state"),
        };
        let error = self.error_code.map(|code| JobError {
            code,
            message: self.error_message.unwrap_or_default(),
        });
        Ok(StoredJob {
            seq: self.seq,
            id: JobId::from_bytes(id),
            lifecycle,
            model: self.model,
            task: self.task,
            owner: self.owner.map(Owner::new),
            priority: priority_from_stored(self.priority).ok_or("priority")?,
            label: self.label,
            items: u32::try_from(self.items).map_err(|_| "items")?,
            items_done: u32::try_from(self.items_done).map_err(|_| "items_done")?,
            created_at: Timestamp::from_stored(self.created_at),
            error,
            reply_status: status(self.reply_status).ok_or("reply_status")?,
            retained_since: self.retained_since.map(Timestamp::from_stored),
            webhook,
        })
    }
}

/// An HTTP status, if there is one. `None` if it is invalid.
fn status(stored: Option<i64>) -> Option<Option<u16>> {
    stored.map(u16::try_from).transpose().ok()
}

fn duration(millis: i64) -> Result<Duration, &'static str> {
    u64::try_from(millis)
        .map(Duration::from_millis)
        .map_err(|_| "ttl_ms")
}

/// Lower numbers are claimed first.
pub(in crate::jobs) fn priority_to_stored(priority: Priority) -> i64 {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        // Clients cannot ask for a lower class.
        _ => 2,
    }
}

fn priority_from_stored(number: i64) -> Option<Priority> {
    match number {
        0 => Some(Priority::High),
        1 => Some(Priority::Normal),
        2 => Some(Priority::Low),
        _ => None,
    }
}

/// A duration as stores keep it.
pub(in crate::jobs) fn millis_to_stored(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Headers as stores keep them: one line each, as in HTTP, so that any value is kept exactly.
pub(in crate::jobs) fn headers_to_stored(headers: &[Header]) -> Vec<u8> {
    let mut text = Vec::new();
    for header in headers {
        text.extend_from_slice(header.name.as_bytes());
        text.push(b':');
        text.extend_from_slice(&header.value);
        text.push(b'\n');
    }
    text
}

/// What [`headers_to_stored`] returned.
pub(in crate::jobs) fn headers_from_stored(text: &[u8]) -> Vec<Header> {
    let lines = text.split(|byte| *byte == b'\n');
    let headers = lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some(Header {
            name: String::from_utf8_lossy(&line[..colon]).into_owned(),
            value: line[colon + 1..].to_vec(),
        })
    });
    headers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_kept_exactly() {
        let headers = [
            ("accept", &b"a/b; q=0.5"[..]),
            ("x-empty", b""),
            ("x-bytes", b"\xff: :"),
        ];
        let headers = headers.map(|(name, value)| Header {
            name: name.to_owned(),
            value: value.to_vec(),
        });
        assert_eq!(headers_from_stored(&headers_to_stored(&headers)), headers);
        assert_eq!(headers_from_stored(&headers_to_stored(&[])), []);
    }

    #[test]
    fn priorities_are_claimed_from_high_to_low() {
        let stored = [Priority::High, Priority::Normal, Priority::Low].map(priority_to_stored);
        assert!(stored.is_sorted());
        assert_eq!(
            stored.map(priority_from_stored),
            [Priority::High, Priority::Normal, Priority::Low].map(Some)
        );
        assert_eq!(priority_from_stored(3), None);
    }
}
