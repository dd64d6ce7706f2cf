//! When to run: the one decision a policy takes.
//!
//! The [`Batcher`](super::Batcher) fills the batch that could run now, shows it to the policy as a [`View`], and runs
//! it or waits as the policy says. A policy knows neither the queue nor the other tasks, and chooses no items. What a
//! policy learns from the batches that ran lives in its [`TaskPolicy`], which survives a change of the limits.

mod adaptive;
mod closed_loop;
mod cost;
mod estimates;
mod profile;

use std::time::{Duration, Instant};

use adaptive::Learned;
use closed_loop::Bounds;
pub use estimates::Estimates;

use super::Completion;
use crate::batching::{DispatchReason, Policy};

/// What stands in for an instant that lies beyond what the clock can express.
const FAR_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);

/// How long bursts are watched where no policy says how long it may wait.
const DEFAULT_MAX_DELAY: Duration = Duration::from_millis(10);

/// The limit that keeps further items out of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The batch has `max_batch_size` items.
    Size,
    /// No further item fits `max_batch_weight`.
    Weight,
    /// The batch has as many items as [`TaskPolicy::batch_limit`] lets it have.
    Policy,
}

/// The batch that would run now, and what surrounds it.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The present.
    pub now: Instant,
    /// When the worker finished its last batch; none before the first. It is free now.
    pub worker_free_since: Option<Instant>,
    /// Items of the same task that wait or run.
    pub present: usize,
    /// Items in this batch.
    pub size: usize,
    /// Most items that this batch may have.
    pub max_size: usize,
    /// Most items that any batch of the task may have.
    pub max_batch_size: usize,
    /// What this batch costs, by the task's weight rule.
    pub cost: u64,
    /// When the oldest item of this batch arrived.
    pub oldest_arrival: Instant,
    /// The earliest deadline in this batch; after `now`.
    pub earliest_deadline: Option<Instant>,
    /// How many workers there are.
    pub workers: usize,
    /// Whether another worker is free as well.
    pub other_worker_idle: bool,
    /// Whether a batch of another task or group ran since while this one stayed open. Then it has waited enough.
    pub overtaken: bool,
    /// The limit that this batch has reached. Without one, the batch holds all that wait, and waiting may add to it.
    pub reached: Option<Limit>,
}

impl View {
    fn bounds(&self, max_delay: Duration) -> Bounds {
        Bounds {
            max_size: self.max_batch_size,
            workers: self.workers,
            max_delay: max_delay.as_secs_f64(),
        }
    }
}

/// What a policy makes of a [`View`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The batch runs now.
    Run(DispatchReason),
    /// The batch stays open. The policy is asked again when anything changes, and at this instant, which is after
    /// `now`, at the latest.
    WaitUntil(Instant),
}

/// The policy of one task, with what has been learned of it. All policies learn, so that a change to `adaptive` does not
/// begin with nothing.
#[derive(Clone, Debug)]
pub struct TaskPolicy {
    policy: Policy,
    learned: Box<Learned>,
}

impl TaskPolicy {
    /// A policy that has not learned anything yet.
    pub fn new(policy: Policy) -> Self {
        TaskPolicy {
            policy,
            learned: Box::new(Learned::new()),
        }
    }

    /// Goes on under another policy, with what was learned.
    pub fn reconfigure(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Takes note of an item of this task.
    pub fn arrived(&mut self, at: Instant) {
        let max_delay = match self.policy {
            Policy::Adaptive { max_delay } => max_delay,
            Policy::Fixed { .. } | Policy::Greedy | Policy::Off => DEFAULT_MAX_DELAY,
        };
        self.learned.arrived(at, max_delay);
    }

    /// Takes note of a batch of this task that one of so many workers ran, while `present` items of the task were there,
    /// its own included.
    pub fn observe(&mut self, completion: &Completion, present: usize, workers: usize) {
        self.learned.completed(completion, present, workers);
    }

    /// What has been learned, where the policy goes by it.
    pub fn estimates(&self) -> Option<Estimates> {
        match self.policy {
            Policy::Adaptive { .. } => Some(self.learned.estimates()),
            Policy::Fixed { .. } | Policy::Greedy | Policy::Off => None,
        }
    }

    /// Most items for the next batch of a lane where so many wait, if the policy has a reason for less than
    /// `max_batch_size`: large batches take longer per item, say, or other workers want their share.
    pub fn batch_limit(&mut self, waiting: usize, max_batch_size: usize, workers: usize) -> Option<usize> {
        match self.policy {
            Policy::Adaptive { max_delay } => {
                let bounds = Bounds {
                    max_size: max_batch_size,
                    workers,
                    max_delay: max_delay.as_secs_f64(),
                };
                self.learned.batch_limit(waiting, bounds)
            }
            Policy::Fixed { .. } | Policy::Greedy | Policy::Off => None,
        }
    }

    /// The least time that a batch of `size` items which cost `cost` takes, by the batches that ran.
    pub fn least_time(&self, size: usize, cost: u64) -> Duration {
        self.learned.least_time(size, cost)
    }

    /// Whether this policy ever leaves a batch open that could run.
    pub fn may_wait(&self) -> bool {
        match self.policy {
            Policy::Fixed { .. } | Policy::Adaptive { .. } => true,
            Policy::Greedy | Policy::Off => false,
        }
    }

    /// Whether the batch in `view` runs now.
    pub fn decide(&mut self, view: &View) -> Decision {
        let decision = match (self.policy, view.reached) {
            (Policy::Off, _) => Decision::Run(DispatchReason::Off),
            (_, Some(Limit::Size)) => Decision::Run(DispatchReason::Full),
            (_, Some(Limit::Weight)) => Decision::Run(DispatchReason::Weight),
            (_, Some(Limit::Policy)) => Decision::Run(DispatchReason::Enough),
            (Policy::Greedy, None) => Decision::Run(DispatchReason::Idle),
            (Policy::Fixed { max_delay }, None) => decide_fixed(max_delay, view),
            (Policy::Adaptive { max_delay }, None) => return self.learned.decide(max_delay, view),
        };
        self.learned.closed();
        decision
    }
}

fn decide_fixed(max_delay: Duration, view: &View) -> Decision {
    let closes = view
        .oldest_arrival
        .checked_add(max_delay)
        .unwrap_or(view.now + FAR_AHEAD);
    if closes <= view.now {
        return Decision::Run(DispatchReason::Delay);
    }
    match view.earliest_deadline {
        // Waiting would outlive this item, and every moment of it is taken from what its batch has left to run.
        Some(deadline) if deadline <= closes => Decision::Run(DispatchReason::Deadline),
        _ => Decision::WaitUntil(closes),
    }
}
