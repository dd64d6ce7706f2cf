//! Durable jobs: requests that are stored before they are acknowledged, and that run in the background.
//!
//! [`JobStore`] keeps jobs. Every change of a job is decided by [`transition`], a pure function of its state, an event and the
//! time, so that all stores agree. Stores do not know HTTP, models or the engine: a job is an opaque request with a model, a
//! number of items and an owner.

#![cfg_attr(
    not(feature = "jobs"),
    allow(dead_code, reason = "stores use a part of it, and this build omits them")
)]

mod attempt;
mod error;
mod id;
mod job;
mod open;
#[cfg(feature = "jobs")]
pub mod postgres;
mod room;
mod runner;
mod service;
#[cfg(feature = "jobs")]
pub mod sqlite;
mod store;
#[cfg(feature = "jobs")]
mod stored;
mod timestamp;
pub mod transition;
pub mod webhooks;

pub use attempt::{Attempt, NotBegun};
pub use error::{Corruption, StoreError};
pub use id::JobId;
pub use job::{
    ClaimedJob, Delivery, DeliveryOutcome, DeliveryReport, Depth, Fence, Header, IdempotencyKey, JobError,
    JobRecord, JobState, NewJob, Owner, Statistics, StoredReply, StoredRequest, WebhookDelivery,
    WebhookState, WorkerId,
};
pub use runner::{Execute, Executed, Runner};
pub use service::Jobs;
pub use store::{
    Claim, Completion, JobChange, JobFilter, JobPage, JobStore, ModelRoom, Progress, Removal, StoreFuture,
    StoreLimits, Submission, Swept, Verdict, Viewer,
};
pub use timestamp::{StoreClock, Timestamp};
