//! Policies: whether a batch runs now or waits for more items.
//!
//! The [`Batcher`](super::Batcher) fills the batch that could run now, passes it to the policy as a [`View`], and runs it
//! or waits according to the [`Decision`]. A policy does not choose items, and knows neither the queue nor the other
//! tasks. What is learned from the batches that ran is kept in the [`TaskPolicy`], which survives a change of the limits.

mod adaptive;
mod calibrated_time;
mod closed_loop;
mod curve;
mod estimates;
mod min_time;
mod profile;
mod service_time;
mod several_workers;
mod thinking;
mod wait;

use std::time::{Duration, Instant};

use adaptive::Learned;
use closed_loop::Bounds;
pub use estimates::Estimates;
pub use wait::{Backlog, Preparation, ServiceEstimate, TaskLoad, Workload};

use super::Completion;
use super::cost_model::CostModel;
use crate::batching::{DispatchReason, Policy};

/// Replaces durations and instants that are out of range.
const FAR_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);

/// How long bursts are observed if the policy has no maximum delay.
const DEFAULT_MAX_DELAY: Duration = Duration::from_millis(10);

/// Computed seconds as a duration between zero and [`FAR_AHEAD`], whatever the computation yields.
fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).map_or(FAR_AHEAD, |duration| duration.min(FAR_AHEAD))
}

/// The limit that prevents further items from joining a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The batch has `max_batch_size` items.
    Size,
    /// No further item fits into `max_batch_weight`.
    Weight,
    /// No further item fits into the memory budget.
    Memory,
    /// The batch has as many items as [`TaskPolicy::batch_limit`] permits.
    Policy,
}

/// The batch that would run now, and the state of its task and of the workers.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The current time.
    pub now: Instant,
    /// Since when a worker has been idle; `None` if it has been since the beginning.
    pub idle_since: Option<Instant>,
    /// Number of items of the same task that wait or run.
    pub present: usize,
    /// Number of items in this batch.
    pub size: usize,
    /// Maximum number of items in this batch.
    pub max_size: usize,
    /// Maximum number of items in any batch of the task.
    pub max_batch_size: usize,
    /// Cost of this batch, by the task's weight rule.
    pub cost: u64,
    /// When the first item of this batch was ready to run.
    pub oldest_ready: Instant,
    /// The earliest deadline in this batch; after `now`.
    pub earliest_deadline: Option<Instant>,
    /// The workers.
    pub crew: Crew,
    /// Whether a batch of another task or group has run while this one stayed open. Such a batch does not wait again.
    pub overtaken: bool,
    /// The limit that this batch has reached. If there is none, the batch contains all waiting items, and further items
    /// can join it.
    pub reached: Option<Limit>,
}

impl View {
    fn bounds(&self, max_delay: Duration) -> Bounds {
        Bounds {
            max_size: self.max_batch_size,
            workers: self.crew.workers,
            max_delay: max_delay.as_secs_f64(),
        }
    }
}

/// The workers that share the batches, at the time of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crew {
    /// Their number.
    pub workers: usize,
    /// Number of those that are idle, at least 1.
    pub idle: usize,
    /// Number of items of the task that the others run.
    pub running_items: usize,
    /// Time until the next of the running batches is expected to end.
    pub until_next_end: Option<Duration>,
}

/// The decision of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The batch runs now.
    Run(DispatchReason),
    /// The batch stays open. The policy decides again when anything changes, and at this instant at the latest, which is
    /// after `now`.
    WaitUntil(Instant),
}

/// The policy of one task, and what has been learned about the task. All policies learn: deadlines and expected waits
/// need the service time under every policy, and a change to `adaptive` starts with estimates.
#[derive(Clone, Debug)]
pub struct TaskPolicy {
    policy: Policy,
    learned: Box<Learned>,
}

impl TaskPolicy {
    /// A policy without estimates.
    pub fn new(policy: Policy) -> Self {
        TaskPolicy {
            policy,
            learned: Box::new(Learned::new()),
        }
    }

    /// Sets the time of a batch that a calibration has measured. It is used until enough batches have run.
    pub fn set_calibrated_time(&mut self, model: CostModel) {
        self.learned.set_calibrated_time(model);
    }

    /// Changes the policy and keeps the estimates.
    pub fn reconfigure(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Records that an item of this task became ready to run.
    pub fn arrived(&mut self, at: Instant) {
        let max_delay = match self.policy {
            Policy::Adaptive { max_delay } => max_delay,
            Policy::Fixed { .. } | Policy::Greedy | Policy::Off => DEFAULT_MAX_DELAY,
        };
        self.learned.arrived(at, max_delay);
    }

    /// Records a batch of this task that one of `workers` workers ran. `present` counts the items of the task that waited
    /// or ran when it ended, including its own, without background items.
    pub fn observe(&mut self, completion: &Completion, present: usize, workers: usize) {
        self.learned.completed(completion, present, workers);
    }

    /// The estimates, if the policy uses them.
    pub fn estimates(&self) -> Option<Estimates> {
        match self.policy {
            Policy::Adaptive { .. } => Some(self.learned.estimates()),
            Policy::Fixed { .. } | Policy::Greedy | Policy::Off => None,
        }
    }

    /// Maximum number of items for the next batch of a lane in which `waiting` items wait, if the policy has a reason for
    /// less than `max_batch_size`: larger batches take longer per item, for example, or other workers share the items.
    pub fn batch_limit(&mut self, waiting: usize, max_batch_size: usize, crew: Crew) -> Option<usize> {
        match self.policy {
            Policy::Adaptive { max_delay } => {
                let bounds = Bounds {
                    max_size: max_batch_size,
                    workers: crew.workers,
                    max_delay: max_delay.as_secs_f64(),
                };
                self.learned.batch_limit(waiting, bounds, crew)
            }
            Policy::Fixed { .. } | Policy::Greedy | Policy::Off => None,
        }
    }

    /// The expected time of a batch of `size` items with this cost. `None` before any batch has run, if the task was not
    /// calibrated.
    pub fn expected_time(&self, size: usize, cost: u64) -> Option<Duration> {
        self.learned.expected_time(size, cost)
    }

    /// A lower bound for the time of a batch of `size` items with this cost. It is not extrapolated; zero if no batch has
    /// run that this one contains, unless the task was calibrated.
    pub fn min_time(&self, size: usize, cost: u64) -> Duration {
        self.learned.min_time(size, cost)
    }

    /// What waits are estimated from, for batches of at most `max_size` items and the cost `max_cost`; `None` before any
    /// batch has run, if the task was not calibrated.
    pub fn service_estimate(&self, max_size: usize, max_cost: Option<u64>) -> Option<ServiceEstimate> {
        let follows_advice = matches!(self.policy, Policy::Adaptive { .. });
        self.learned.service_estimate(max_size, max_cost, follows_advice)
    }

    /// Seconds of a batch of `size` items that are as heavy as those of an example of this size and cost. `None` if no
    /// batch has run that is not much larger than the example, so that too little is known.
    pub(super) fn known_seconds(&self, size: f64, example: (usize, u64)) -> Option<f64> {
        self.learned.known_seconds(size, example)
    }

    /// Seconds of a batch of `size` items that are as heavy as those of the latest batch of requests.
    pub(super) fn usual_seconds(&self, size: usize) -> Option<f64> {
        self.learned.usual_seconds(size)
    }

    /// The least size up to that of the example whose throughput is nearly the best, for items as heavy as those of the
    /// example.
    pub(super) fn sufficient_size(&self, example: (usize, u64)) -> Option<usize> {
        self.learned.sufficient_size(example)
    }

    /// When most of the closed-loop clients that were answered are expected to have returned, while `present` items of
    /// requests are present. `None` if there are no such clients, or if they have returned.
    pub(super) fn returned_by(&self, present: usize, now: Instant) -> Option<Instant> {
        self.learned.returned_by(present, now)
    }

    /// The largest number of items in a batch that has run recently; zero before any batch has run.
    pub(super) fn largest(&self) -> usize {
        self.learned.largest()
    }

    /// Size above which batches take longer per item, if the policy avoids it.
    pub(super) fn efficient_size(&self) -> Option<usize> {
        let follows_advice = matches!(self.policy, Policy::Adaptive { .. });
        self.learned.advice().at_most.filter(|_| follows_advice)
    }

    /// A size that is to be tried while more items wait than that.
    pub(super) fn size_to_try(&self) -> Option<usize> {
        let follows_advice = matches!(self.policy, Policy::Adaptive { .. });
        self.learned.advice().try_out.filter(|_| follows_advice)
    }

    /// Whether this policy can leave a batch open that could run.
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
            (_, Some(Limit::Memory)) => Decision::Run(DispatchReason::Memory),
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
        .oldest_ready
        .checked_add(max_delay)
        .unwrap_or(view.now + FAR_AHEAD);
    if closes <= view.now {
        return Decision::Run(DispatchReason::Delay);
    }
    match view.earliest_deadline {
        // Waiting would let the deadline of this item pass, and any shorter wait would leave its batch less time to run.
        Some(deadline) if deadline <= closes => Decision::Run(DispatchReason::Deadline),
        _ => Decision::WaitUntil(closes),
    }
}
