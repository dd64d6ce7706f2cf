//! Why an item or a request came to nothing. Status codes are chosen at the edge (`http`, `grpc`), never here.

use std::fmt;
use std::time::Duration;

/// One item's failure. Its message is shown to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// The model cannot take this input.
    #[error("{0}")]
    Invalid(String),
    /// The model or its plugin failed: an error of its own, a panic, a missing or contradictory outcome.
    #[error("{0}")]
    Fault(String),
    /// The model ran out of memory even for this item alone.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// What the request asks for, this model cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// The deadline passed before an outcome was there.
    #[error("deadline of {} ms passed while the item was {stage}", .timeout.as_millis())]
    Expired {
        /// The deadline, from the arrival of the request.
        timeout: Duration,
        /// How far the item had come.
        stage: Stage,
    },
    /// The item was dropped without an outcome; the server's own fault.
    #[error("the item was lost in the server")]
    Lost,
    /// The model is being unloaded or the server stops.
    #[error("the model is shutting down")]
    ShuttingDown,
    /// Nothing can run the item, and that is not expected to change soon. Says why.
    #[error("{0}")]
    Unavailable(String),
}

impl ItemError {
    /// Whether the input is at fault, and not the model or the server.
    pub fn is_of_input(&self) -> bool {
        matches!(self, Self::Invalid(_) | Self::Unsupported(_))
    }
}

/// How far an item has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits for its preparation, or is being prepared.
    Preparation,
    /// It is in the queue.
    Queue,
    /// It is in a batch that runs.
    Model,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preparation => "waiting for its preparation",
            Self::Queue => "in the queue",
            Self::Model => "in the model",
        })
    }
}

/// Why a request was not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Too many items wait for this task.
    #[error(
        "the queue of task `{task}` is full: {queued} of {limit} items are waiting, the request has {items}"
    )]
    QueueFull {
        /// Name of the task.
        task: String,
        /// Items that wait.
        queued: usize,
        /// Most that may.
        limit: usize,
        /// Items of the request.
        items: usize,
        /// When it is worth coming back.
        retry_after: Duration,
    },
    /// Too much weight waits for this task.
    #[error("the queue of task `{task}` is full: its items weigh {queued} of at most {limit}")]
    QueueTooHeavy {
        /// Name of the task.
        task: String,
        /// Weight that waits.
        queued: u64,
        /// Most that may.
        limit: u64,
        /// When it is worth coming back.
        retry_after: Duration,
    },
    /// The request alone has more items than the queue holds.
    #[error("the request has {items} items; task `{task}` queues at most {limit}")]
    TooManyItems {
        /// Name of the task.
        task: String,
        /// Items of the request.
        items: usize,
        /// Most that may wait.
        limit: usize,
    },
    /// The deadline had passed on arrival.
    #[error("deadline of {} ms passed before the request was queued", .0.as_millis())]
    Expired(Duration),
    /// The model is being unloaded or the server stops.
    #[error("the model is shutting down")]
    ShuttingDown,
}

/// An error with its sources, on one line.
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
