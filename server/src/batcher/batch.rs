//! A batch, the obligation to report its end, and how it ran.

use std::time::Instant;

use super::Item;
use crate::batching::DispatchReason;

/// Items of one task and one group that run together.
#[derive(Debug)]
pub struct Batch<T> {
    /// Index of the task.
    pub task: usize,
    /// The items, by arrival, then by name.
    pub items: Vec<Item<T>>,
    /// Why it runs now.
    pub reason: DispatchReason,
    /// What it costs, by the task's weight rule.
    pub cost: u64,
    /// Obliges the holder to complete or abandon the batch.
    pub token: BatchToken,
}

/// The obligation to report the end of a batch to its batcher: [`Batcher::complete`](super::Batcher::complete) and
/// [`Batcher::abandon`](super::Batcher::abandon) consume it.
///
/// As long as it exists, its items count as present and its worker as busy. Dropping it is a bug, which debug builds
/// report by a panic.
#[derive(Debug)]
#[must_use = "a batch has to be completed or abandoned"]
pub struct BatchToken {
    pub(super) task: usize,
    /// Items that still count as running.
    pub(super) size: usize,
    /// Those of them that are background items.
    pub(super) background: usize,
    /// Whether all items of the batch were background items when it was formed.
    pub(super) is_background: bool,
    pub(super) cost: u64,
    /// Bytes that the batch holds of its memory budget.
    pub(super) memory: u64,
    /// Bound of its memory in bytes, if it can be predicted.
    pub(super) predicted_memory: Option<u64>,
    /// When it is expected to end, if anything is known about the time of such batches.
    pub(super) expected_end: Option<Instant>,
}

impl BatchToken {
    /// Index of the task.
    pub fn task(&self) -> usize {
        self.task
    }

    /// Number of items in the batch.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Cost of the batch, by the task's weight rule.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// Bytes that the batch holds of its memory budget while the token exists.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// Bound of its memory in bytes, if it can be predicted.
    pub fn predicted_memory(&self) -> Option<u64> {
        self.predicted_memory
    }

    /// When the batch is expected to end, if anything is known about the time of such batches.
    pub fn expected_end(&self) -> Option<Instant> {
        self.expected_end
    }

    /// Fulfills the obligation.
    pub(super) fn consume(self) -> Ended {
        let ended = Ended {
            task: self.task,
            size: self.size,
            background: self.background,
            is_background: self.is_background,
            cost: self.cost,
        };
        std::mem::forget(self);
        ended
    }
}

/// What a token counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) task: usize,
    pub(super) size: usize,
    pub(super) background: usize,
    pub(super) is_background: bool,
    pub(super) cost: u64,
}

impl Drop for BatchToken {
    fn drop(&mut self) {
        debug_assert!(
            std::thread::panicking(),
            "a batch of {} items was neither completed nor abandoned",
            self.size
        );
    }
}

/// How a batch ran.
#[derive(Clone, Copy, Debug)]
pub struct BatchOutcome {
    /// When the model began.
    pub started: Instant,
    /// When the model returned.
    pub finished: Instant,
    /// Whether any item succeeded. The time of failed batches does not predict that of others.
    pub succeeded: bool,
}

/// A batch that ran, as policies see it.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// Index of its task.
    pub task: usize,
    /// Number of items that it had.
    pub size: usize,
    /// Number of those that were background items. Their clients send nothing after a reply.
    pub background: usize,
    /// What it cost, by the task's weight rule.
    pub cost: u64,
    /// When the worker began.
    pub started: Instant,
    /// When the worker was free again.
    pub finished: Instant,
    /// Whether any item succeeded. How long it takes to fail says nothing about batches that do not.
    pub succeeded: bool,
}
