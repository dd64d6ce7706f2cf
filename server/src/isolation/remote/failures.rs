//! Errors of calls to a child process.

use crate::error::ItemError;
use crate::isolation::channel::ChannelError;
use crate::isolation::messages::Reply;
use crate::isolation::process::{KillReason, Process};
use crate::model::BatchError;

/// The child process has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::isolation) enum ChildLost {
    /// It had failed before this call started.
    BeforeCall,
    /// It failed during this call. The text describes how, as in [`ProcessExit`](crate::isolation::process::ProcessExit).
    DuringCall(String),
}

impl ChildLost {
    pub(in crate::isolation) fn reason(self) -> String {
        match self {
            Self::BeforeCall => "has exited".to_owned(),
            Self::DuringCall(reason) => reason,
        }
    }
}

/// Describes a reply that does not match the request.
pub(super) fn unexpected(reply: &Reply) -> String {
    let what = match reply {
        Reply::Loaded(_) | Reply::LoadFailed(_) => "load",
        Reply::Prepared { .. } | Reply::PrepareFailed(_) => "prepare",
        Reply::Part { .. } | Reply::Done { .. } => "predict",
        Reply::Released => "release",
        Reply::Sampled(_) => "sample",
        Reply::Memory { .. } => "memory",
    };
    format!("unexpected reply to a {what} request")
}

/// The error of a batch whose message does not fit, or `None` for other errors. The process has not failed.
pub(super) fn size_error(error: &ChannelError) -> Option<BatchError> {
    match error {
        ChannelError::TooLong { .. } => Some(BatchError::TooLarge(ItemError::Invalid(format!(
            "the input cannot be sent to the worker process: {error}"
        )))),
        ChannelError::NoMemory(source) => Some(BatchError::OutOfMemory(format!("{error}: {source}"))),
        _ => None,
    }
}

/// The error of an item that is too large to be prepared in the process.
pub(super) fn item_size_error(error: &ChannelError) -> ItemError {
    match size_error(error) {
        Some(BatchError::TooLarge(error)) => error,
        _ => ItemError::OutOfMemory(error.to_string()),
    }
}

/// Terminates a process after a failed call, and returns how it exited. `timeout_key` is the configuration key of the
/// timeout of the call.
pub(super) fn terminate(process: &Process, error: ChannelError, timeout_key: &'static str) -> String {
    match error {
        ChannelError::Closed => process.connection_closed(),
        ChannelError::TimedOut(limit) => process.kill_for(KillReason::Hang {
            limit,
            key: timeout_key,
        }),
        ChannelError::Malformed(_) => {
            process.kill_for(KillReason::ProtocolViolation(format!("sent a {error}")))
        }
        ChannelError::TooLong { .. } | ChannelError::NoMemory(_) => {
            process.kill_for(KillReason::ProtocolViolation(format!(
                "could not be sent a message: {error}"
            )));
        }
        ChannelError::Io(source) => {
            process.kill_for(KillReason::ProtocolViolation(format!(
                "lost its connection: {source}"
            )));
        }
    }
    process.reap().description
}
