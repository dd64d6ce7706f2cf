//! Errors of items and requests. They do not know status codes, which `api` chooses.

use std::fmt;
use std::time::Duration;

/// Error of one item. Its message is sent to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// The model rejected the input.
    #[error("{0}")]
    Invalid(String),
    /// The model or its plugin failed: with an error, a panic, or missing or inconsistent outcomes.
    #[error("{0}")]
    Fault(String),
    /// The model ran out of memory, even with this item alone.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// The item alone is predicted to need more memory than the batches of its model may use.
    #[error(
        "the item needs {:.1} MiB of memory, more than the memory budget of {:.1} MiB: send a smaller item, or raise `memory_budget`",
        mebibytes(*.predicted), mebibytes(*.budget)
    )]
    TooHeavy {
        /// Predicted bound in bytes.
        predicted: u64,
        /// Maximum in bytes.
        budget: u64,
    },
    /// The model does not support something that the request asks for.
    #[error("{0}")]
    Unsupported(String),
    /// The deadline passed before the item had an outcome.
    #[error("deadline of {} ms passed while the item was {stage}", milliseconds(*.timeout))]
    Expired {
        /// The deadline, relative to the arrival of the request.
        timeout: Duration,
        /// The stage that the item was in.
        stage: Stage,
    },
    /// No batch could return an output before the deadline, and other items need the room.
    #[error("the item cannot be answered within its deadline of {} ms", milliseconds(*.timeout))]
    Infeasible {
        /// The deadline, from the arrival of the request.
        timeout: Duration,
    },
    /// The server dropped the item without an outcome, which is a bug.
    #[error("the item was lost in the server")]
    Lost,
    /// The model is being unloaded, or the server is shutting down.
    #[error("the model is shutting down")]
    ShuttingDown,
    /// No worker can run the item, and this is not expected to change soon. The message has the reason.
    #[error("{0}")]
    Unavailable(String),
}

impl ItemError {
    /// Whether the input is at fault, rather than the model or the server.
    pub fn is_of_input(&self) -> bool {
        matches!(
            self,
            Self::Invalid(_) | Self::Unsupported(_) | Self::TooHeavy { .. }
        )
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Displayed without a fraction if there is none. Clients can send deadlines in microseconds.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

/// Stage of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for its preparation, or being prepared.
    Preparation,
    /// In the queue.
    Queue,
    /// In a running batch.
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
    /// The queue of the task has too many items.
    #[error(
        "the queue of task `{task}` is full: {queued} of {limit} items are waiting, the request has {items}"
    )]
    QueueFull {
        /// Name of the task.
        task: String,
        /// Items in the queue.
        queued: usize,
        /// Maximum.
        limit: usize,
        /// Items in the request.
        items: usize,
        /// The expected wait.
        retry_after: Duration,
    },
    /// The items in the queue of the task are too heavy.
    #[error("the queue of task `{task}` is full: its items weigh {queued} of at most {limit}")]
    QueueTooHeavy {
        /// Name of the task.
        task: String,
        /// Total weight of the queue.
        queued: u64,
        /// Maximum.
        limit: u64,
        /// The expected wait.
        retry_after: Duration,
    },
    /// The items ahead of the request, or that it has itself, take longer than its deadline allows.
    #[error(
        "task `{task}` is overloaded: the request cannot be answered within its deadline of {} ms; the expected wait is {} ms",
        milliseconds(*.timeout), .retry_after.as_millis()
    )]
    Overloaded {
        /// Name of the task.
        task: String,
        /// The deadline, from the arrival of the request.
        timeout: Duration,
        /// The expected wait.
        retry_after: Duration,
    },
    /// The request has more items than the queue can hold.
    #[error("the request has {items} items; task `{task}` queues at most {limit}")]
    TooManyItems {
        /// Name of the task.
        task: String,
        /// Items in the request.
        items: usize,
        /// Maximum number of items in the queue.
        limit: usize,
    },
    /// The deadline had passed before the request was queued.
    #[error("deadline of {} ms passed before the request was queued", milliseconds(*.0))]
    Expired(Duration),
    /// The model is being unloaded, or the server is shutting down.
    #[error("the model is shutting down")]
    ShuttingDown,
}

/// Displays an error and its sources on one line.
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
