//! A job as stores keep it.

mod columns;

use std::time::Duration;

use super::transition::{Effect, Event, Lifecycle, Rejection};
use super::{
    Completion, Delivery, DeliveryOutcome, DeliveryReport, Fence, JobChange, JobError, JobId, JobRecord,
    JobState, NewJob, Owner, Progress, StoredReply, Timestamp, Viewer, WebhookDelivery, WebhookState,
};
use crate::batching::Priority;

pub(super) use columns::{
    COLUMNS, RawJob, headers_from_stored, headers_to_stored, millis_to_stored, priority_to_stored,
};

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
    /// When the last attempt ended, with its status and error.
    pub(super) attempted_at: Option<Timestamp>,
    pub(super) status: Option<u16>,
    pub(super) error: Option<String>,
}

impl Webhook {
    fn new(url: String) -> Self {
        Self {
            url,
            state: WebhookState::Waiting,
            attempts: 0,
            fence: Fence(0),
            due_at: None,
            attempted_at: None,
            status: None,
            error: None,
        }
    }

    /// What callers see.
    fn delivery(&self) -> WebhookDelivery {
        WebhookDelivery {
            state: self.state,
            attempts: self.attempts,
            attempted_at: self.attempted_at,
            status: self.status,
            error: self.error.clone(),
            next_attempt_at: self.due_at,
        }
    }

    /// Forgets the attempts to deliver. Claims of them no longer count.
    fn restart(&mut self, state: WebhookState, due_at: Option<Timestamp>) {
        *self = Self {
            state,
            due_at,
            fence: Fence(self.fence.0 + 1),
            ..Self::new(std::mem::take(&mut self.url))
        };
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
                    webhook.restart(WebhookState::Pending, Some(now));
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
                    webhook.restart(WebhookState::Waiting, None);
                }
                follow_up.change = Some(self.queued());
            }
        }
        Ok(follow_up)
    }

    /// Records how many items of the attempt have an outcome.
    ///
    /// # Errors
    /// The server does not run the attempt.
    pub(super) fn record_progress(
        &mut self,
        progress: Progress,
        now: Timestamp,
    ) -> Result<FollowUp, Rejection> {
        let follow_up = self.apply(Event::Progress(progress.fence), now)?;
        self.items_done = self.items_done.max(progress.items_done.min(self.items));
        Ok(follow_up)
    }

    /// Ends the attempt without an outcome.
    ///
    /// # Errors
    /// The server does not hold the job.
    pub(super) fn interrupt(
        &mut self,
        fence: Fence,
        error: &JobError,
        now: Timestamp,
    ) -> Result<FollowUp, Rejection> {
        let follow_up = self.apply(Event::Interrupt(fence), now)?;
        self.error = Some(storable(error));
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
        self.error = error.map(storable);
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

    /// Records an attempt to deliver that has ended now. Returns whether the claim still counts.
    pub(super) fn record_delivery(&mut self, fence: Fence, report: DeliveryReport, now: Timestamp) -> bool {
        let webhook = self.webhook.as_mut();
        let webhook =
            webhook.filter(|webhook| webhook.fence == fence && webhook.state == WebhookState::Pending);
        let Some(webhook) = webhook else { return false };
        webhook.attempts += 1;
        webhook.attempted_at = Some(now);
        webhook.status = report.status;
        webhook.error = report.error;
        (webhook.state, webhook.due_at) = match report.outcome {
            DeliveryOutcome::Delivered => (WebhookState::Delivered, None),
            DeliveryOutcome::RetryAfter(delay) => (WebhookState::Pending, Some(now.plus(delay))),
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
            webhook: self.webhook.as_ref().map(Webhook::delivery),
        }
    }

    /// The delivery of its outcome, if it has a webhook.
    pub(super) fn delivery(&self, now: Timestamp) -> Option<Delivery> {
        let webhook = self.webhook.as_ref()?;
        Some(Delivery {
            // The fence differs between the outcomes of a job that was retried.
            message_id: format!("msg_{}_{}", self.id, self.lifecycle.fence.0),
            url: webhook.url.clone(),
            record: self.record(),
            attempts: webhook.attempts,
            age: self.retained_since.map_or(Duration::ZERO, |end| now.since(end)),
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

/// An error in a form that every store can keep: a text in PostgreSQL cannot contain U+0000.
fn storable(error: &JobError) -> JobError {
    JobError {
        code: error.code.replace('\0', "\u{fffd}"),
        message: error.message.replace('\0', "\u{fffd}"),
    }
}
