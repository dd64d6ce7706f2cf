//! The task that delivers messages: claims those that are due from the store, sends them, and records the outcome.
//!
//! A message is claimed for longer than an attempt takes, so a server that dies loses nothing: the message is due again
//! after the claim, and its receiver recognizes it by its identifier.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use serde_json::json;
use tokio::task::JoinSet;

use super::super::{Delivery, DeliveryOutcome, DeliveryReport, JobState, JobStore, StoreClock};
use super::Describe;
use super::schedule::FailedAttempt;
use super::sender::{Attempt, Message, Sender};
use crate::metrics::WebhookOutcome;

/// Interval between looks for messages that are due.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Maximum interval while the store fails.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Time of a claim beyond that of an attempt.
const CLAIM_RESERVE: Duration = Duration::from_secs(30);

/// Maximum length of the stored error of an attempt, in characters.
const MAX_ERROR: usize = 300;

/// Counts the outcomes of attempts.
pub type Count = Arc<dyn Fn(WebhookOutcome) + Send + Sync>;

/// Delivers messages until it is dropped or stopped.
pub struct DeliveryTask {
    store: Arc<dyn JobStore>,
    sender: Arc<Sender>,
    describe: Describe,
    count: Count,
    clock: StoreClock,
}

impl DeliveryTask {
    /// A task for the messages of a store.
    pub fn new(
        store: Arc<dyn JobStore>,
        sender: Sender,
        describe: Describe,
        count: Count,
        clock: StoreClock,
    ) -> Self {
        Self {
            store,
            sender: Arc::new(sender),
            describe,
            count,
            clock,
        }
    }

    /// Delivers messages until `stopping` completes. Attempts that run by then are completed.
    pub async fn run(self, stopping: impl Future<Output = ()> + Send) {
        let task = Arc::new(self);
        let mut attempts = JoinSet::new();
        let mut interval = POLL_INTERVAL;
        tokio::pin!(stopping);
        loop {
            while attempts.try_join_next().is_some() {}
            let claimed = task.claim(attempts.len()).await;
            interval = match claimed {
                Ok(deliveries) => {
                    for delivery in deliveries {
                        attempts.spawn(task.clone().deliver(delivery));
                    }
                    POLL_INTERVAL
                }
                Err(()) => (interval * 2).min(MAX_BACKOFF),
            };
            tokio::select! {
                () = &mut stopping => break,
                // A free place is used at once.
                Some(_) = attempts.join_next() => {}
                () = tokio::time::sleep(interval) => {}
            }
        }
        while attempts.join_next().await.is_some() {}
    }

    /// The messages that are due, as many as there are free places.
    async fn claim(&self, running: usize) -> Result<Vec<Delivery>, ()> {
        let settings = self.sender.settings();
        let free = settings.max_concurrency.saturating_sub(running);
        if free == 0 {
            return Ok(Vec::new());
        }
        let limit = u32::try_from(free).unwrap_or(u32::MAX);
        let claimed = self
            .store
            .claim_deliveries(limit, settings.timeout + CLAIM_RESERVE);
        claimed
            .await
            .map_err(|error| log::warn!("webhooks cannot be read from the store of jobs: {error}"))
    }

    async fn deliver(self: Arc<Self>, delivery: Delivery) {
        let id = delivery.record.id;
        let outcome = match self.message(&delivery) {
            Some(message) => self.sender.send(&delivery.url, &message).await,
            // Another server that shares the store can have a secret.
            None => {
                Attempt::failed("the server has no secret to sign messages with (`webhook_secret` in [jobs])")
            }
        };
        let report = report(&delivery, outcome);
        let counted = match report.outcome {
            DeliveryOutcome::Delivered => WebhookOutcome::Delivered,
            DeliveryOutcome::RetryAfter(_) => WebhookOutcome::Retried,
            DeliveryOutcome::Abandoned => WebhookOutcome::Abandoned,
        };
        if let Err(error) = self.store.record_delivery(id, delivery.fence, report).await {
            log::warn!(
                "the outcome of the webhook of job {id} cannot be stored, so it is sent again: {error}"
            );
        }
        (self.count)(counted);
    }

    /// The message of a delivery, signed. `None` without a secret.
    fn message(&self, delivery: &Delivery) -> Option<Message> {
        let secret = self.sender.settings().secret.as_ref()?;
        let record = &delivery.record;
        let body = json!({
            "type": event_type(record.state),
            "timestamp": record.finished_at.unwrap_or(record.created_at).to_string(),
            "data": (self.describe)(record),
        });
        let body = Bytes::from(body.to_string());
        let timestamp = self.clock.now().millis() / 1000;
        Some(Message {
            signature: secret.sign(&delivery.message_id, timestamp, &body),
            id: delivery.message_id.clone(),
            timestamp,
            body,
        })
    }
}

/// What an attempt means for the message. Failures are logged.
fn report(delivery: &Delivery, attempt: Attempt) -> DeliveryReport {
    let id = delivery.record.id;
    let (outcome, status, error) = match attempt {
        Attempt::Delivered(status) => (DeliveryOutcome::Delivered, Some(status), None),
        Attempt::Gone => {
            let reason = "the receiver replied with status 410".to_owned();
            (DeliveryOutcome::Abandoned, Some(410), Some(reason))
        }
        Attempt::Rejected(error) => (DeliveryOutcome::Abandoned, None, Some(error.to_string())),
        Attempt::Failed {
            reason,
            status,
            retry_after,
        } => {
            let failed = FailedAttempt {
                attempts: delivery.attempts,
                age: delivery.age,
                retry_after,
            };
            (failed.outcome(fastrand::f64()), status, Some(reason))
        }
    };
    let error = error.map(|error| error.chars().take(MAX_ERROR).collect::<String>());
    match (outcome, &error) {
        (DeliveryOutcome::RetryAfter(_), Some(error)) => {
            log::debug!("the webhook of job {id} failed and will be sent again: {error}");
        }
        (DeliveryOutcome::Abandoned, Some(error)) => {
            log::warn!("the webhook of job {id} was abandoned: {error}");
        }
        _ => {}
    }
    DeliveryReport {
        outcome,
        status,
        error,
    }
}

/// The type of the message of a job that has ended in this state. For clients, dead letters are failed jobs.
fn event_type(state: JobState) -> String {
    let state = match state {
        JobState::DeadLetter => JobState::Failed,
        other => other,
    };
    format!("job.{}", state.name())
}
