//! Explains in words why a model is not ready, why its batches are small, and what limits its throughput.
//!
//! The [`History`] of a model has a [`Sample`] of its counters for each second. The difference between two samples is a
//! [`Window`]: what happened in between. [`throughput`] and [`batches`] explain the window of the last minute, [`Figures`]
//! summarize a window, and [`readiness`] explains the state of a model. Everything is computed from counters that the engine has
//! anyway. Who counts, and when samples are taken, is unknown here.

mod batches;
mod figures;
mod history;
mod readiness;
#[cfg(test)]
mod tests;
mod throughput;
mod wording;

use std::time::Duration;

use serde::Serialize;

use crate::batching::{Policy, TaskBatching};

pub use batches::batches;
pub use figures::Figures;
pub use history::{History, Sample, Stage, TaskTotals, Window};
pub use readiness::{Readiness, readiness};
pub use throughput::throughput;
pub use wording::bytes;

/// Length of the window that is explained.
pub const EXPLAINED: Duration = Duration::from_secs(60);

/// Length of the window that [`Figures`] summarize: long enough for a mean, and short enough to follow a change.
pub const SUMMARIZED: Duration = Duration::from_secs(10);

/// A finding, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Identifies the finding. The codes are documented and stable.
    pub code: &'static str,
    /// A sentence with the figures that led to it.
    pub message: String,
}

impl Explanation {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// The limits of a model that explanations refer to.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Maximum number of batches that run at the same time.
    pub workers: usize,
    /// Maximum number of threads that prepare items.
    pub prepare_threads: usize,
    /// Maximum predicted memory of the batches that run at the same time, in bytes.
    pub memory_budget: Option<u64>,
    /// The batching rules of each task, in the order of the manifest.
    pub tasks: Vec<TaskBatching>,
}

impl Limits {
    /// Maximum number of items in a batch of `task`.
    fn max_size(&self, task: usize) -> usize {
        match self.tasks.get(task) {
            Some(rules) if rules.policy == Policy::Off => 1,
            Some(rules) => rules.max_batch_size.get(),
            None => 1,
        }
    }
}
