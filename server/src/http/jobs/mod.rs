//! Durable jobs over HTTP.
//!
//! [`submission`] stores a request to a route that runs a task instead of running it, if the client asks for that.
//! [`executor`] runs stored requests through the same handlers. [`handlers`] answers the routes below `/v1/jobs`, and
//! [`document`] describes a job as JSON.

mod document;
mod executor;
mod failures;
pub(super) mod handlers;
mod options;
pub(super) mod parameters;
mod request;
mod submission;

pub use document::describe_for_webhook as describe_job_for_webhook;
#[cfg(feature = "ui")]
pub(super) use document::state_name;
pub use executor::JobExecutor;
#[cfg(feature = "ui")]
pub(super) use failures::of_store;
pub(super) use options::{reject_job_headers, wants_job};
pub(super) use submission::submit;
