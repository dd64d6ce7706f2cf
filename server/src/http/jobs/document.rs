//! A job as JSON.

use serde_json::{Value as Json, json};

use crate::batching::Priority;
use crate::jobs::{JobRecord, JobState, Timestamp, WebhookDelivery, WebhookState};

/// The state of a job as clients see it.
pub(in crate::http) fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::DeadLetter => JobState::Failed.name(),
        other => other.name(),
    }
}

/// Describes a job for its client.
pub(super) fn describe(record: &JobRecord) -> Json {
    let mut job = describe_for_webhook(record);
    job["webhook"] = record.webhook.as_ref().map(webhook).into();
    job
}

fn webhook(delivery: &WebhookDelivery) -> Json {
    let is_delivered = delivery.state == WebhookState::Delivered;
    json!({
        "state": delivery.state.name(),
        "attempts": delivery.attempts,
        "last_attempt_at": text(delivery.attempted_at),
        "last_status": delivery.status,
        "last_error": delivery.error,
        "next_attempt_at": text(delivery.next_attempt_at),
        "delivered_at": text(delivery.attempted_at.filter(|_| is_delivered)),
    })
}

fn text(time: Option<Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}

/// Describes a job that has ended for the receiver of its webhook: the same for each attempt to deliver it.
pub fn describe_for_webhook(record: &JobRecord) -> Json {
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
        "started_at": text(record.started_at),
        "finished_at": text(record.finished_at),
        "not_before": text(record.not_before),
        "expires_at": text(record.expires_at),
        "can_retry": record.state == JobState::DeadLetter,
        "result_status": record.reply_status,
        "error": record
            .error
            .as_ref()
            .map(|error| json!({"code": error.code, "message": error.message})),
    })
}

pub(super) fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "high",
        Priority::Normal => "normal",
        _ => "low",
    }
}
