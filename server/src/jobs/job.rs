//! What a job is made of.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::{JobId, Timestamp};
use crate::batching::Priority;
use crate::digest::Digest;

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobState {
    /// Waits for its time, for a server with room, or in the queue of a model.
    Queued,
    /// In a running batch.
    Running,
    /// Has its result.
    Succeeded,
    /// Has its error: the request was rejected, or its result could not be kept.
    Failed,
    /// Used all of its attempts. Clients see it as failed. It can be retried.
    DeadLetter,
    /// Cancelled by its owner.
    Cancelled,
    /// Waited longer than its time to live.
    Expired,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::DeadLetter,
        Self::Cancelled,
        Self::Expired,
    ];

    /// Name in stores and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::DeadLetter => "dead_letter",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// The state with a name in stores and metrics.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether the job has ended: it changes only if it is retried or removed.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// Identifies the API key that created a job, without revealing it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Owner(String);

impl Owner {
    /// Wraps a fingerprint. It must not be empty.
    pub fn new(fingerprint: impl Into<String>) -> Self {
        Self(fingerprint.into())
    }

    /// The fingerprint.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Identifies the process that claims jobs, in logs and in the store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WorkerId(String);

impl WorkerId {
    /// Wraps a name, unique among the servers that share a store and over restarts.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Number of a claim of a job. Each claim has a higher one than the claim before it, so that a server whose lease was lost
/// cannot change the job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub u64);

/// A header of a request or a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Name, in lower case.
    pub name: String,
    /// Value.
    pub value: Vec<u8>,
}

/// The key by which a client repeats a submission without creating a second job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The text of the client. Its scope is the owner.
    pub key: String,
    /// Digest of everything that makes the request: method, path, query, headers that matter, body.
    pub request: Digest,
}

/// The request of a job, as the synchronous call would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRequest {
    /// HTTP method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Query without `?`, if there is one.
    pub query: Option<String>,
    /// The headers that affect the reply, other than `content_type`.
    pub headers: Vec<Header>,
    /// Value of `content-type`.
    pub content_type: Option<String>,
    /// Body.
    pub body: Bytes,
}

/// The reply of a job, as the synchronous call would have answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReply {
    /// HTTP status.
    pub status: u16,
    /// Value of `content-type`.
    pub content_type: Option<String>,
    /// The headers that are part of the result, other than `content_type`.
    pub headers: Vec<Header>,
    /// Body.
    pub body: Bytes,
}

/// A job to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// The request.
    pub request: StoredRequest,
    /// Name of the model.
    pub model: String,
    /// Name of the task.
    pub task: String,
    /// Who can see the job. `None` if the server has no keys.
    pub owner: Option<Owner>,
    /// Order among the jobs of a model.
    pub priority: Priority,
    /// How long the job may wait, from its submission or its retry.
    pub ttl: Option<Duration>,
    /// The job is not claimed before this time.
    pub not_before: Option<Timestamp>,
    /// Label to filter by.
    pub label: Option<String>,
    /// Detects repeated submissions.
    pub idempotency_key: Option<IdempotencyKey>,
    /// Receives the outcome.
    pub webhook_url: Option<String>,
    /// How often the job may be started.
    pub max_attempts: u32,
    /// Number of items.
    pub items: u32,
}

/// Why a job, or an attempt of it, failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    /// Stable code, in the terms of the API.
    pub code: String,
    /// Message for the client.
    pub message: String,
}

/// Everything about a job except bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    /// Identifier.
    pub id: JobId,
    /// State.
    pub state: JobState,
    /// Name of the model.
    pub model: String,
    /// Name of the task.
    pub task: String,
    /// Who can see the job.
    pub owner: Option<Owner>,
    /// Order among the jobs of a model.
    pub priority: Priority,
    /// Label.
    pub label: Option<String>,
    /// How often the job was started.
    pub attempts: u32,
    /// How often it may be started.
    pub max_attempts: u32,
    /// Items that have an outcome, in the current attempt.
    pub items_done: u32,
    /// Number of items.
    pub items: u32,
    /// When the job was stored.
    pub created_at: Timestamp,
    /// When the last attempt started.
    pub started_at: Option<Timestamp>,
    /// When the job ended.
    pub finished_at: Option<Timestamp>,
    /// The job is not claimed before this time.
    pub not_before: Option<Timestamp>,
    /// The job expires if it has not started by this time.
    pub expires_at: Option<Timestamp>,
    /// Why the job failed; for other states, why its last attempt did.
    pub error: Option<JobError>,
    /// HTTP status of its reply, if it has one.
    pub reply_status: Option<u16>,
    /// Delivery of its outcome. `None` if the job has no webhook.
    pub webhook: Option<WebhookDelivery>,
}

/// Delivery of the outcome of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookDelivery {
    /// State.
    pub state: WebhookState,
    /// How often delivery was attempted.
    pub attempts: u32,
    /// When the last attempt ended.
    pub attempted_at: Option<Timestamp>,
    /// HTTP status with which the receiver answered the last attempt.
    pub status: Option<u16>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// When the message is sent, unless it was delivered or abandoned. While an attempt is in progress, the time at which another
    /// server repeats it if this one dies.
    pub next_attempt_at: Option<Timestamp>,
}

/// State of the delivery of the outcome of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookState {
    /// The job has not ended.
    Waiting,
    /// To be delivered, or delivered again after a failure.
    Pending,
    /// Received.
    Delivered,
    /// Abandoned after the last retry.
    Failed,
}

impl WebhookState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Pending, Self::Delivered, Self::Failed];

    /// Name in stores and replies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    /// The state with a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A job that this server holds.
#[derive(Clone, Debug)]
pub struct ClaimedJob {
    /// The job.
    pub record: JobRecord,
    /// Its request.
    pub request: StoredRequest,
    /// Proves that the server holds the job.
    pub fence: Fence,
}

/// An outcome to deliver to a webhook. It is held for the duration of the claim, and is due again afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Identifier of the message: the same for every attempt to deliver it.
    pub message_id: String,
    /// Where to deliver.
    pub url: String,
    /// The job, in its final state.
    pub record: JobRecord,
    /// How often delivery was attempted before.
    pub attempts: u32,
    /// Time since the end of the job.
    pub age: Duration,
    /// Proves that the server holds the delivery.
    pub fence: Fence,
}

/// An attempt to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryReport {
    /// Its outcome.
    pub outcome: DeliveryOutcome,
    /// HTTP status with which the receiver answered.
    pub status: Option<u16>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Outcome of an attempt to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The receiver accepted the message.
    Delivered,
    /// Try again after this time.
    RetryAfter(Duration),
    /// Do not try again.
    Abandoned,
}

/// Number of jobs of a model in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Name of the model.
    pub model: String,
    /// State.
    pub state: JobState,
    /// Number of jobs.
    pub jobs: u64,
    /// Number of items.
    pub items: u64,
    /// Submission of the oldest.
    pub oldest: Timestamp,
}

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Jobs by model and state. States without jobs are absent.
    pub depths: Vec<Depth>,
    /// Bytes on disk.
    pub stored_bytes: u64,
    /// Outcomes that wait for delivery.
    pub pending_deliveries: u64,
}
