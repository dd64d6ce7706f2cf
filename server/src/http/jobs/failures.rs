//! Errors of the store as errors for clients, without the paths and addresses that the log has.

use std::time::Duration;

use crate::api::{Code, Failure};
use crate::jobs::{StoreError, Submission};

/// When a client should try again after the queue was full.
const QUEUE_RETRY: Duration = Duration::from_secs(10);

/// The error for a client whose call to the store failed.
pub(in crate::http) fn of_store(error: &StoreError) -> Failure {
    let reason = match error {
        StoreError::Unavailable { .. } => "the database cannot be reached; retry later",
        StoreError::OutcomeUnknown { .. } => {
            "the connection to the database was lost, and the outcome is unknown; repeat the request with the same \
             idempotency key, or look at the job"
        }
        StoreError::Overloaded { .. } => "too many calls are waiting for it; retry later",
        StoreError::DiskFull { .. } => {
            return Failure::new(
                Code::StorageFull,
                "the disk of the job store is full; the operator has to free some space",
            );
        }
        StoreError::ReadOnly { .. } => "its disk is read-only; the operator has to make it writable",
        StoreError::Io { .. } => "its disk failed; the operator has to check the disk",
        StoreError::Corrupt(_) => "its content is damaged; the operator has to repair it",
        StoreError::Locked { .. } => "another server uses it",
        StoreError::NewerSchema { .. } => "a newer version of the server has written it",
        StoreError::Misconfigured { .. } => "it is not configured correctly; the log has the cause",
        StoreError::Closed => "the server is shutting down",
    };
    let failure = Failure::new(
        Code::Unavailable,
        format!("the job store is unavailable: {reason}"),
    );
    Failure {
        retry_after: error.is_transient().then_some(Duration::from_secs(1)),
        ..failure
    }
}

/// The error for a client whose job was rejected.
pub(super) fn of_submission(submission: &Submission) -> Failure {
    match submission {
        Submission::Conflict { existing } => Failure::new(
            Code::Conflict,
            format!(
                "another request was sent with this idempotency key, for job {existing}; use another key for a request with another \
                 body or other options"
            ),
        ),
        Submission::QueueFull { queued, limit } => Failure {
            retry_after: Some(QUEUE_RETRY),
            ..Failure::new(
                Code::QueueFull,
                format!("too many jobs are queued: {queued} of at most {limit}; retry later"),
            )
        },
        Submission::StorageFull { used, limit } => Failure::new(
            Code::StorageFull,
            format!(
                "the job store is full: {used} of at most {limit} bytes are in use; remove finished jobs, or retry later"
            ),
        ),
        Submission::Created(_) | Submission::Existing(_) => {
            Failure::new(Code::Internal, "the job was stored")
        }
    }
}
