//! A job as stores keep it.

use std::time::Duration;

use super::transition::{Effect, Event, Lifecycle, Rejection};
use super::{
    Completion, Delivery, DeliveryOutcome, Fence, Header, JobChange, JobError, JobId, JobRecord, JobState,
    NewJob, Owner, StoredReply, Timestamp, Viewer, WebhookState,
};
use crate::batching::Priority;

/// A job without its bodies.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StoredJob {
    /// Position in the order of submission.
    pub(super) seq: i64,
    pub(super) id: JobId,
    pub(super) lifecycle: Lifecycle,
    pub(super) model: String,
    pub(super) task: String,
    pub(super) owner: Option<Owner>,
    pub(super) priority: Priority,
    pub(super) label: Option<String>,
    pub(super) items: u32,
    pub(super) items_done: u32,
    pub(super) created_at: Timestamp,
    pub(super) error: Option<JobError>,
    pub(super) reply_status: Option<u16>,
    /// Begin of the retention. Unlike the end of the job, it moves along when the clock jumps.
    pub(super) retained_since: Option<Timestamp>,
    pub(super) webhook: Option<Webhook>,
}

/// What a store does after an event has changed a job, besides storing the job.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct FollowUp {
    /// The change to announce.
    pub(super) change: Option<JobChange>,
    /// Whether the request is not needed any more.
    pub(super) drop_request: bool,
}

/// The webhook of a job.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Webhook {
    pub(super) url: String,
    pub(super) state: WebhookState,
    pub(super) attempts: u32,
    /// Number of the last claim of the delivery.
    pub(super) fence: Fence,
    /// When to deliver. `None` if the job has not ended, or the delivery is over.
    pub(super) due_at: Option<Timestamp>,
}

impl Webhook {
    fn new(url: String) -> Self {
        Self {
            url,
            state: WebhookState::Waiting,
            attempts: 0,
            fence: Fence(0),
            due_at: None,
        }
    }
}

impl StoredJob {
    /// A job that is submitted now, at a position that the store has chosen.
    pub(super) fn submitted(seq: i64, id: JobId, job: &NewJob, now: Timestamp) -> Self {
        Self {
            seq,
            id,
            lifecycle: Lifecycle::submitted(job.max_attempts, job.ttl, job.not_before, now),
            model: job.model.clone(),
            task: job.task.clone(),
            owner: job.owner.clone(),
            priority: job.priority,
            label: job.label.clone(),
            items: job.items,
            items_done: 0,
            created_at: now,
            error: None,
            reply_status: None,
            retained_since: None,
            webhook: job.webhook_url.clone().map(Webhook::new),
        }
    }

    /// Applies an event, including its effect on everything that belongs to the job.
    ///
    /// # Errors
    /// The event does not change the job.
    pub(super) fn apply(&mut self, event: Event, now: Timestamp) -> Result<FollowUp, Rejection> {
        let transition = self.lifecycle.apply(event, now)?;
        self.lifecycle = transition.next;
        let mut follow_up = FollowUp::default();
        match transition.effect {
            None => {}
            Some(Effect::Queued) => follow_up.change = Some(self.queued()),
            Some(Effect::Started) => {
                self.items_done = 0;
                follow_up.change = Some(JobChange::Started(self.id));
            }
            Some(Effect::Ended) => {
                self.retained_since = Some(now);
                if let Some(webhook) = &mut self.webhook {
                    webhook.state = WebhookState::Pending;
                    webhook.attempts = 0;
                    webhook.due_at = Some(now);
                }
                // A dead letter can be retried.
                follow_up.drop_request = self.lifecycle.state != JobState::DeadLetter;
                follow_up.change = Some(JobChange::Ended(self.id, self.lifecycle.state));
            }
            Some(Effect::Reset) => {
                self.error = None;
                self.items_done = 0;
                self.retained_since = None;
                if let Some(webhook) = &mut self.webhook {
                    webhook.state = WebhookState::Waiting;
                    webhook.due_at = None;
                }
                follow_up.change = Some(self.queued());
            }
        }
        Ok(follow_up)
    }

    /// Applies the outcome of the job. The caller stores the reply.
    ///
    /// # Errors
    /// The job cannot end now.
    pub(super) fn complete<'a>(
        &mut self,
        fence: Fence,
        completion: &'a Completion,
        now: Timestamp,
    ) -> Result<(FollowUp, Option<&'a StoredReply>), Rejection> {
        let (event, reply, error) = match completion {
            Completion::Succeeded(reply) => (Event::Succeed(fence), Some(reply), None),
            Completion::Failed { error, reply } => (Event::Fail(fence), reply.as_ref(), Some(error)),
        };
        let follow_up = self.apply(event, now)?;
        if error.is_none() {
            self.items_done = self.items;
        }
        self.error = error.cloned();
        self.reply_status = reply.map(|reply| reply.status);
        Ok((follow_up, reply))
    }

    /// Claims the delivery of its outcome. It is due again after the lease.
    pub(super) fn claim_delivery(&mut self, lease: Duration, now: Timestamp) {
        if let Some(webhook) = &mut self.webhook {
            webhook.fence.0 += 1;
            webhook.due_at = Some(now.plus(lease));
        }
    }

    /// Records the outcome of an attempt to deliver. Returns whether the claim still counts.
    pub(super) fn record_delivery(&mut self, fence: Fence, outcome: DeliveryOutcome) -> bool {
        let webhook = self.webhook.as_mut();
        let webhook =
            webhook.filter(|webhook| webhook.fence == fence && webhook.state == WebhookState::Pending);
        let Some(webhook) = webhook else { return false };
        webhook.attempts += 1;
        (webhook.state, webhook.due_at) = match outcome {
            DeliveryOutcome::Delivered => (WebhookState::Delivered, None),
            DeliveryOutcome::RetryAt(time) => (WebhookState::Pending, Some(time)),
            DeliveryOutcome::Abandoned => (WebhookState::Failed, None),
        };
        true
    }

    fn queued(&self) -> JobChange {
        JobChange::Queued {
            model: self.model.clone(),
        }
    }

    /// What callers see.
    pub(super) fn record(&self) -> JobRecord {
        JobRecord {
            id: self.id,
            state: self.lifecycle.state,
            model: self.model.clone(),
            task: self.task.clone(),
            owner: self.owner.clone(),
            priority: self.priority,
            label: self.label.clone(),
            attempts: self.lifecycle.attempts,
            max_attempts: self.lifecycle.max_attempts,
            items_done: self.items_done,
            items: self.items,
            created_at: self.created_at,
            started_at: self.lifecycle.started_at,
            finished_at: self.lifecycle.finished_at,
            not_before: self.lifecycle.not_before,
            expires_at: self.lifecycle.expires_at,
            error: self.error.clone(),
            reply_status: self.reply_status,
            webhook: self.webhook.as_ref().map(|webhook| webhook.state),
        }
    }

    /// The delivery of its outcome, if it has a webhook.
    pub(super) fn delivery(&self) -> Option<Delivery> {
        let webhook = self.webhook.as_ref()?;
        Some(Delivery {
            // The fence differs between the outcomes of a job that was retried.
            message_id: format!("msg_{}_{}", self.id, self.lifecycle.fence.0),
            url: webhook.url.clone(),
            record: self.record(),
            attempts: webhook.attempts,
            fence: webhook.fence,
        })
    }

    pub(super) fn is_visible_to(&self, viewer: &Viewer) -> bool {
        match viewer {
            Viewer::All => true,
            Viewer::Owner(owner) => self.owner.as_ref() == Some(owner),
        }
    }
}

/// The columns of [`RawJob`], in its order.
pub(super) const COLUMNS: &str = "seq, id, state, attempts, max_attempts, fence, lease_until, not_before, ttl_ms, expires_at, \
     started_at, finished_at, model, task, owner, priority, label, items, items_done, created_at, error_code, error_message, \
     reply_status, retained_since, webhook_url, webhook_state, webhook_attempts, webhook_fence, webhook_due_at";

/// The columns of a job in the types of the databases.
pub(super) struct RawJob {
    pub(super) seq: i64,
    pub(super) id: Vec<u8>,
    pub(super) state: String,
    pub(super) attempts: i64,
    pub(super) max_attempts: i64,
    pub(super) fence: i64,
    pub(super) lease_until: Option<i64>,
    pub(super) not_before: Option<i64>,
    pub(super) ttl_ms: Option<i64>,
    pub(super) expires_at: Option<i64>,
    pub(super) started_at: Option<i64>,
    pub(super) finished_at: Option<i64>,
    pub(super) model: String,
    pub(super) task: String,
    pub(super) owner: Option<String>,
    pub(super) priority: i64,
    pub(super) label: Option<String>,
    pub(super) items: i64,
    pub(super) items_done: i64,
    pub(super) created_at: i64,
    pub(super) error_code: Option<String>,
    pub(super) error_message: Option<String>,
    pub(super) reply_status: Option<i64>,
    pub(super) retained_since: Option<i64>,
    pub(super) webhook_url: Option<String>,
    pub(super) webhook_state: Option<String>,
    pub(super) webhook_attempts: i64,
    pub(super) webhook_fence: i64,
    pub(super) webhook_due_at: Option<i64>,
}

impl RawJob {
    /// The job.
    ///
    /// # Errors
    /// The name of a column with a value that no server has written.
    pub(super) fn parse(self) -> Result<StoredJob, &'static str> {
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
            reply_status: self
                .reply_status
                .map(u16::try_from)
                .transpose()
                .map_err(|_| "reply_status")?,
            retained_since: self.retained_since.map(Timestamp::from_stored),
            webhook,
        })
    }
}

fn duration(millis: i64) -> Result<Duration, &'static str> {
    u64::try_from(millis)
        .map(Duration::from_millis)
        .map_err(|_| "ttl_ms")
}

/// Lower numbers are claimed first.
pub(super) fn priority_to_stored(priority: Priority) -> i64 {
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
pub(super) fn millis_to_stored(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Headers as stores keep them: one line each, as in HTTP, so that any value is kept exactly.
pub(super) fn headers_to_stored(headers: &[Header]) -> Vec<u8> {
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
pub(super) fn headers_from_stored(text: &[u8]) -> Vec<Header> {
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
