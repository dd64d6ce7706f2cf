//! How the items of a valid request run: for a client that waits, as those of a job, or not at all.

use std::fmt;
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;

use super::failure::{Code, Failure};
use crate::batching::Priority;
use crate::engine::Progress;

/// What happens to the items of a request that is valid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Execution {
    /// They are queued, and the client waits for the reply.
    #[default]
    Interactive,
    /// They are only checked: [`Call::run`](super::Call::run) stores what it would have run, and fails.
    Check(Arc<OnceLock<Checked>>),
    /// They run in the background, as those of a job.
    Job(Arc<JobExecution>),
}

impl Execution {
    /// The failure that stands for the success of a check. It never reaches a client.
    pub(super) fn checked() -> Failure {
        Failure::new(Code::Internal, "the request was only checked")
    }
}

/// A request that was checked: it would be queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Name of the model.
    pub model: String,
    /// Name of the task.
    pub task: String,
    /// Number of items.
    pub items: usize,
    /// The priority that the client asked for.
    pub priority: Priority,
}

/// The execution of a job.
pub struct JobExecution {
    gate: Box<dyn Gate>,
    outcome: OnceLock<ItemsOutcome>,
}

/// What has to succeed before the items of a job are queued, and follows them afterwards.
pub trait Gate: Send + Sync {
    /// Records that the items start now.
    ///
    /// # Errors
    /// They must not start.
    fn pass(&self) -> BoxFuture<'_, Result<(), Failure>>;

    /// Receives the count of the items that have an outcome, after they were queued.
    fn queued(&self, progress: Progress);
}

impl JobExecution {
    /// Creates an execution whose items are queued after `gate` was passed.
    pub fn new(gate: impl Gate + 'static) -> Self {
        Self {
            gate: Box::new(gate),
            outcome: OnceLock::new(),
        }
    }

    /// The outcome of the items. `None` if they did not run.
    pub fn outcome(&self) -> Option<&ItemsOutcome> {
        self.outcome.get()
    }

    pub(super) async fn start(&self) -> Result<(), Failure> {
        self.gate.pass().await
    }

    pub(super) fn queued(&self, progress: Progress) {
        self.gate.queued(progress);
    }

    pub(super) fn finish(&self, outcome: ItemsOutcome) {
        // A request runs once.
        let _ = self.outcome.set(outcome);
    }
}

impl fmt::Debug for JobExecution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobExecution")
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}

/// Executions are equal if they are the same one.
impl PartialEq for JobExecution {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for JobExecution {}

/// The outcome of the items of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemsOutcome {
    /// Number of items that have an output.
    pub succeeded: usize,
    /// The most severe error of an item.
    pub failure: Option<Failure>,
}
