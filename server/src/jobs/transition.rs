//! The life of a job as a pure function of its state, an event and the time.
//!
//! Stores keep a [`Lifecycle`] for each job, and change it only with [`Lifecycle::apply`]. They do not decide anything
//! themselves.
//!
//! # Invariants
//! - A job that has ended stays as it is, unless it is a dead letter that is retried.
//! - A job has at most one outcome: only the holder of the last claim can end it.
//! - An attempt is counted when it begins, and there are never more than `max_attempts`.
//! - A claim whose attempt did not begin costs nothing.

use std::time::Duration;

use super::{Fence, JobState, Timestamp};

/// The part of a job that events change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// State.
    pub state: JobState,
    /// Attempts that have begun.
    pub attempts: u32,
    /// Maximum number of attempts, at least 1.
    pub max_attempts: u32,
    /// Number of the last claim.
    pub fence: Fence,
    /// End of the lease of the holder. `None` if nobody holds the job.
    pub lease_until: Option<Timestamp>,
    /// The job is not claimed before this time.
    pub not_before: Option<Timestamp>,
    /// How long the job may wait, from its submission or retry.
    pub ttl: Option<Duration>,
    /// The job expires if it waits at this time.
    pub expires_at: Option<Timestamp>,
    /// When the last attempt began.
    pub started_at: Option<Timestamp>,
    /// When the job ended.
    pub finished_at: Option<Timestamp>,
}

/// Something that happens to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A server takes the job.
    Claim {
        /// Duration of its lease.
        lease: Duration,
    },
    /// The batch of the job starts.
    BeginAttempt(Fence),
    /// Some items have an outcome.
    Progress(Fence),
    /// The call was answered.
    Succeed(Fence),
    /// The call failed in a way that repeating it does not change.
    Fail(Fence),
    /// The attempt ended without an outcome.
    Interrupt(Fence),
    /// The holder returns the job.
    Release(Fence),
    /// The holder is alive.
    Renew {
        /// Its claim.
        fence: Fence,
        /// Duration of its lease, from now.
        lease: Duration,
    },
    /// Time has passed.
    Tick,
    /// The process that held the job is gone, whatever the time.
    HolderLost,
    /// The owner cancels the job.
    Cancel,
    /// The owner wants a dead letter to run again.
    Retry,
}

/// What a store does besides storing the lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Servers may want to claim the job.
    Queued,
    /// The attempt began: no item has an outcome, and the error of the last attempt stays until there is another.
    Started,
    /// The job ended: delete its request unless it can be retried, and make its webhook due.
    Ended,
    /// Delete the error, and the state of the webhook.
    Reset,
}

/// Why an event does not change a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such job: it was removed.
    #[error("the job does not exist")]
    Missing,
    /// The caller does not hold the job: its lease was over, or the job was cancelled.
    #[error("the job is held by another server, or by none")]
    Fenced,
    /// The event is not possible in this state.
    #[error("the job is {}", .0.name())]
    State(JobState),
    /// The job waits for its time.
    #[error("the job waits for its time")]
    NotDue,
    /// Another server holds the job.
    #[error("the job is held by another server")]
    Held,
    /// Nothing to do.
    #[error("nothing changes")]
    Unchanged,
}

/// A permitted change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The job afterwards.
    pub next: Lifecycle,
    /// What else to do.
    pub effect: Option<Effect>,
}

impl Lifecycle {
    /// A job that is submitted now.
    pub fn submitted(
        max_attempts: u32,
        ttl: Option<Duration>,
        not_before: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        Self {
            state: JobState::Queued,
            attempts: 0,
            max_attempts: max_attempts.max(1),
            fence: Fence(0),
            lease_until: None,
            not_before,
            ttl,
            expires_at: ttl.map(|ttl| now.plus(ttl)),
            started_at: None,
            finished_at: None,
        }
    }

    /// What an event does to the job.
    ///
    /// A job that has waited too long expires instead of being claimed or started: the transition is returned as the success of
    /// the event, with [`JobState::Expired`] as its state. Callers check the state.
    ///
    /// # Errors
    /// The event does not change the job.
    pub fn apply(&self, event: Event, now: Timestamp) -> Result<Transition, Rejection> {
        match event {
            Event::Claim { lease } => self.claim(lease, now),
            Event::BeginAttempt(fence) => self.begin_attempt(fence, now),
            Event::Progress(fence) => {
                self.running(fence)?;
                Ok(unaffected(*self))
            }
            Event::Succeed(fence) => {
                self.running(fence)?;
                Ok(self.ended(JobState::Succeeded, now))
            }
            Event::Fail(fence) => {
                // A job can be rejected before its attempt begins.
                self.held(fence)?;
                Ok(self.ended(JobState::Failed, now))
            }
            Event::Interrupt(fence) | Event::Release(fence) => {
                self.held(fence)?;
                Ok(self.lost(now))
            }
            Event::Renew { fence, lease } => {
                self.held(fence)?;
                Ok(unaffected(Self {
                    lease_until: Some(now.plus(lease)),
                    ..*self
                }))
            }
            Event::Tick => self.tick(now),
            Event::HolderLost if self.lease_until.is_some() => Ok(self.lost(now)),
            Event::HolderLost => Err(Rejection::Unchanged),
            Event::Cancel if self.state.is_final() => Err(Rejection::State(self.state)),
            Event::Cancel => Ok(self.ended(JobState::Cancelled, now)),
            Event::Retry => self.retry(now),
        }
    }

    fn claim(&self, lease: Duration, now: Timestamp) -> Result<Transition, Rejection> {
        if self.state != JobState::Queued {
            return Err(Rejection::State(self.state));
        }
        if self.lease_until.is_some() {
            return Err(Rejection::Held);
        }
        if self.waited_too_long(now) {
            return Ok(self.ended(JobState::Expired, now));
        }
        if self.not_before.is_some_and(|time| now < time) {
            return Err(Rejection::NotDue);
        }
        Ok(unaffected(Self {
            fence: Fence(self.fence.0 + 1),
            lease_until: Some(now.plus(lease)),
            ..*self
        }))
    }

    fn begin_attempt(&self, fence: Fence, now: Timestamp) -> Result<Transition, Rejection> {
        self.held(fence)?;
        if self.state == JobState::Running {
            return Err(Rejection::State(self.state));
        }
        if self.waited_too_long(now) {
            return Ok(self.ended(JobState::Expired, now));
        }
        let next = Self {
            state: JobState::Running,
            attempts: self.attempts + 1,
            started_at: Some(now),
            ..*self
        };
        Ok(Transition {
            next,
            effect: Some(Effect::Started),
        })
    }

    fn tick(&self, now: Timestamp) -> Result<Transition, Rejection> {
        match self.lease_until {
            Some(end) if end <= now => Ok(self.lost(now)),
            _ if self.state == JobState::Queued && self.waited_too_long(now) => {
                Ok(self.ended(JobState::Expired, now))
            }
            _ => Err(Rejection::Unchanged),
        }
    }

    fn retry(&self, now: Timestamp) -> Result<Transition, Rejection> {
        if self.state != JobState::DeadLetter {
            return Err(Rejection::State(self.state));
        }
        let next = Self {
            // Outcomes of different runs have different fences.
            fence: Fence(self.fence.0 + 1),
            ..Self::submitted(self.max_attempts, self.ttl, None, now)
        };
        Ok(Transition {
            next,
            effect: Some(Effect::Reset),
        })
    }

    /// The job after its holder is gone.
    fn lost(&self, now: Timestamp) -> Transition {
        if self.state == JobState::Running && self.attempts >= self.max_attempts {
            return self.ended(JobState::DeadLetter, now);
        }
        let next = Self {
            state: JobState::Queued,
            lease_until: None,
            ..*self
        };
        if next.waited_too_long(now) {
            return next.ended(JobState::Expired, now);
        }
        Transition {
            next,
            effect: Some(Effect::Queued),
        }
    }

    fn ended(&self, state: JobState, now: Timestamp) -> Transition {
        let next = Self {
            state,
            lease_until: None,
            finished_at: Some(now),
            ..*self
        };
        Transition {
            next,
            effect: Some(Effect::Ended),
        }
    }

    fn waited_too_long(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|time| time <= now)
    }

    fn held(&self, fence: Fence) -> Result<(), Rejection> {
        if self.fence == fence && self.lease_until.is_some() {
            Ok(())
        } else {
            Err(Rejection::Fenced)
        }
    }

    fn running(&self, fence: Fence) -> Result<(), Rejection> {
        self.held(fence)?;
        if self.state == JobState::Running {
            Ok(())
        } else {
            Err(Rejection::State(self.state))
        }
    }
}

fn unaffected(next: Lifecycle) -> Transition {
    Transition { next, effect: None }
}

#[cfg(test)]
mod tests;
