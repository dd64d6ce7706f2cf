//! A job as JSON.

use serde_json::{Value as Json, json};

use crate::batching::Priority;
use crate::jobs::{JobRecord, JobState, Timestamp};

/// The state of a job as clients see it.
pub(super) fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::DeadLetter => JobState::Failed.name(),
        other => other.name(),
    }
}

/// Describes a job.
pub fn describe(record: &JobRecord) -> Json {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    let is_over = matches!(record.state, JobState::Succeeded | JobState::Failed);
    json!({
        "id": record.id.to_string(),
        "object": "job",
        "state": state_name(record.state),
        "model": record.model,
        "task": record.task,
        "label": record.label,
        "priority": priority_name(record.priority),
        "attempts": record.attempts,
        "max_attempts": record.max_attempts,
        "items": record.items,
        "items_done": if is_over { record.items } else { record.items_done },
        "created_at": record.created_at.to_string(),
        "started_at": time(record.started_at),
        "finished_at": time(record.finished_at),
        "not_before": time(record.not_before),
        "expires_at": time(record.expires_at),
        "can_retry": record.state == JobState::DeadLetter,
        "result_status": record.reply_status,
        "error": record
            .error
            .as_ref()
            .map(|error| json!({"code": error.code, "message": error.message})),
    })
}

fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "high",
        Priority::Normal => "normal",
        _ => "low",
    }
}
