//! The run of one claimed job, until the store knows its outcome.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{Execute, Executed};
use crate::error::Chain;
use crate::jobs::attempt::Attempt;
use crate::jobs::{Completion, JobError, JobStore, StoreError, StoreFuture, Verdict};
use crate::metrics::ClaimOutcome;

/// Backoff of calls to a store that fails: the first, and the maximum.
const STORE_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The run of one job.
pub(super) struct Run {
    pub(super) store: Arc<dyn JobStore>,
    pub(super) execute: Rc<dyn Execute>,
    pub(super) attempt: Arc<Attempt>,
}

impl Run {
    pub(super) async fn run(self) -> Ended {
        loop {
            let executed = self.execute.execute(self.attempt.clone()).await;
            if self.attempt.is_lost() {
                return Ended::Settled(ClaimOutcome::Lost);
            }
            match executed {
                Executed::Done(completion) => return self.complete(completion).await,
                Executed::Interrupted(error) => return self.interrupt(error).await,
                // The attempt is counted, so it is not wasted.
                Executed::Postponed(pause) if self.attempt.has_begun() => tokio::time::sleep(pause).await,
                Executed::Postponed(pause) => {
                    let release = || self.store.release(self.attempt.id, self.attempt.fence);
                    self.settle(release).await;
                    return Ended::Postponed(pause);
                }
            }
        }
    }

    async fn complete(&self, completion: Completion) -> Ended {
        let outcome = match &completion {
            Completion::Succeeded(_) => ClaimOutcome::Succeeded,
            Completion::Failed { .. } => ClaimOutcome::Failed,
        };
        let complete = || {
            self.store
                .complete(self.attempt.id, self.attempt.fence, completion.clone())
        };
        Ended::Settled(
            self.settle(complete)
                .await
                .map_or(ClaimOutcome::Lost, |()| outcome),
        )
    }

    async fn interrupt(&self, error: JobError) -> Ended {
        log::warn!("an attempt of job {} failed: {}", self.attempt.id, error.message);
        let interrupt = || {
            self.store
                .interrupt(self.attempt.id, self.attempt.fence, error.clone())
        };
        let settled = self.settle(interrupt).await;
        Ended::Settled(settled.map_or(ClaimOutcome::Lost, |()| ClaimOutcome::Interrupted))
    }

    /// Repeats a call until the store has made it. `None` if the job was not held.
    async fn settle<'f>(&self, call: impl Fn() -> StoreFuture<'f, Verdict>) -> Option<()> {
        let mut backoff = Backoff::default();
        let mut has_failed = false;
        loop {
            match call().await {
                Ok(Verdict::Applied(_)) => return Some(()),
                Ok(Verdict::Rejected(_)) => return None,
                Err(StoreError::Closed) => return None,
                Err(error) => {
                    if !std::mem::replace(&mut has_failed, true) {
                        log_store_error(&error);
                    }
                    backoff.wait().await;
                }
            }
        }
    }
}

/// How the run of a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The store knows the outcome.
    Settled(ClaimOutcome),
    /// The job was released, since the model cannot run it for some time.
    Postponed(Duration),
}

/// Growing pauses between calls to a store that fails.
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(STORE_BACKOFF.0)
    }
}

impl Backoff {
    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(STORE_BACKOFF.1);
    }
}

pub(super) fn log_store_error(error: &StoreError) {
    log::warn!("the store of jobs failed: {}", Chain(error));
}
