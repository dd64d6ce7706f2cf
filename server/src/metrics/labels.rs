//! Values of labels. They are closed sets: clients cannot add to them.

use crate::error::{ItemError, Rejection};

/// Outcome of an item, the label `outcome` of `inference_items_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemOutcome {
    /// Answered with an output.
    Success,
    /// The model rejected the input.
    Invalid,
    /// The plugin failed.
    Fault,
    /// The item did not fit in memory, even in a batch of one.
    OutOfMemory,
    /// The item requested something that the model does not support.
    Unsupported,
    /// The deadline passed.
    Expired,
    /// The client disconnected.
    Cancelled,
    /// The server dropped the item without an outcome.
    Lost,
    /// The model was unloaded before the item ran.
    ShuttingDown,
    /// The model was in a crash loop.
    Unavailable,
}

impl ItemOutcome {
    pub(super) const ALL: [Self; 10] = [
        Self::Success,
        Self::Invalid,
        Self::Fault,
        Self::OutOfMemory,
        Self::Unsupported,
        Self::Expired,
        Self::Cancelled,
        Self::Lost,
        Self::ShuttingDown,
        Self::Unavailable,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Invalid => "invalid",
            Self::Fault => "fault",
            Self::OutOfMemory => "out_of_memory",
            Self::Unsupported => "unsupported",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::ShuttingDown => "shutting_down",
            Self::Unavailable => "unavailable",
        }
    }
}

impl From<&ItemError> for ItemOutcome {
    fn from(error: &ItemError) -> Self {
        match error {
            ItemError::Invalid(_) | ItemError::TooHeavy { .. } => Self::Invalid,
            ItemError::Fault(_) => Self::Fault,
            ItemError::OutOfMemory(_) => Self::OutOfMemory,
            ItemError::Unsupported(_) => Self::Unsupported,
            ItemError::Expired { .. } | ItemError::Infeasible { .. } => Self::Expired,
            ItemError::Lost => Self::Lost,
            ItemError::ShuttingDown => Self::ShuttingDown,
            ItemError::Unavailable(_) => Self::Unavailable,
        }
    }
}

/// Label `reason` of `inference_rejections_total`.
pub const REJECTIONS: [&str; 6] = [
    "queue_full",
    "queue_too_heavy",
    "overloaded",
    "too_many_items",
    "expired",
    "shutting_down",
];

/// The reason of a rejection, one of [`REJECTIONS`].
pub(super) fn rejection_reason(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::QueueFull { .. } => "queue_full",
        Rejection::QueueTooHeavy { .. } => "queue_too_heavy",
        Rejection::Overloaded { .. } => "overloaded",
        Rejection::TooManyItems { .. } => "too_many_items",
        Rejection::Expired(_) => "expired",
        Rejection::ShuttingDown => "shutting_down",
    }
}

/// Result of a reload, the label `result` of `inference_reloads_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    /// The new state is live.
    Success,
    /// The configuration is invalid, or a model failed to load. The old state keeps serving.
    Failure,
}

impl ReloadResult {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// Why a worker process was lost and is restarted, the label `reason` of `inference_worker_restarts_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartReason {
    /// A fault of its code: a segmentation fault, an abort, a stack overflow.
    Crash,
    /// It exited.
    Exit,
    /// It was killed from outside, usually by the kernel because memory ran out.
    Killed,
    /// It exceeded `predict_timeout`.
    Hang,
    /// It sent a malformed message, or closed its connection.
    Breach,
    /// It exceeded `max_memory`.
    Memory,
    /// It failed to start.
    Start,
}

impl RestartReason {
    pub(super) const ALL: [Self; 7] = [
        Self::Crash,
        Self::Exit,
        Self::Killed,
        Self::Hang,
        Self::Breach,
        Self::Memory,
        Self::Start,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Exit => "exit",
            Self::Killed => "killed",
            Self::Hang => "hang",
            Self::Breach => "breach",
            Self::Memory => "memory",
            Self::Start => "start",
        }
    }
}
