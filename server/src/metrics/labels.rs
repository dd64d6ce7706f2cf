//! Values of labels: closed sets, so that no client can add to them.

use crate::error::{ItemError, Rejection};

/// What became of an item, the label `outcome` of `inference_items_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemOutcome {
    /// Answered with an output.
    Success,
    /// The model refused the input.
    Invalid,
    /// The plugin failed.
    Fault,
    /// Did not fit in memory even alone.
    OutOfMemory,
    /// Asked for what the model cannot do.
    Unsupported,
    /// Its deadline passed.
    Expired,
    /// Its client went away.
    Cancelled,
    /// Dropped unanswered by the server.
    Lost,
    /// The model was unloaded first.
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
            ItemError::Invalid(_) => Self::Invalid,
            ItemError::Fault(_) => Self::Fault,
            ItemError::OutOfMemory(_) => Self::OutOfMemory,
            ItemError::Unsupported(_) => Self::Unsupported,
            ItemError::Expired { .. } => Self::Expired,
            ItemError::Lost => Self::Lost,
            ItemError::ShuttingDown => Self::ShuttingDown,
            ItemError::Unavailable(_) => Self::Unavailable,
        }
    }
}

/// Label `reason` of `inference_rejections_total`.
pub(super) const REJECTIONS: [&str; 5] = [
    "queue_full",
    "queue_too_heavy",
    "too_many_items",
    "expired",
    "shutting_down",
];

/// The reason of a rejection, one of [`REJECTIONS`].
pub(super) fn rejection_reason(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::QueueFull { .. } => "queue_full",
        Rejection::QueueTooHeavy { .. } => "queue_too_heavy",
        Rejection::TooManyItems { .. } => "too_many_items",
        Rejection::Expired(_) => "expired",
        Rejection::ShuttingDown => "shutting_down",
    }
}

/// How a reload ended, the label `result` of `inference_reloads_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    /// The new state is live.
    Success,
    /// The configuration or a model was refused; the old state goes on.
    Failure,
}

/// Why a worker process was lost and has to be started again, the label `reason` of `inference_worker_restarts_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartReason {
    /// A signal of its own doing: a segmentation fault, an abort, a stack overflow.
    Crash,
    /// It ended itself.
    Exit,
    /// Somebody killed it: as a rule the kernel, for want of memory.
    Killed,
    /// It did not answer in time.
    Hang,
    /// It sent nonsense, or closed its connection.
    Breach,
    /// It took more memory than it may.
    Memory,
    /// It could not be started again.
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
