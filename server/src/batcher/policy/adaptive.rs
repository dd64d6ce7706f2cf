//! The policy that needs no knob: it waits where the arrivals that it expects are worth the wait.
//!
//! Owned by a [`TaskPolicy`](super::TaskPolicy), one per task, so what it knows is of that task alone. Everything is
//! learned from the arrivals and the completions that the batcher reports; there is no clock and no memory that grows.
//!
//! # What it learns
//! - *ClosedLoop* that go round: whether there are any, how many, how soon they are back, and what follows from that for
//!   their rounds: see [`super::closed_loop`].
//! - *Bursts*: how many arrivals follow the first one of a cluster within a time. A completion ends a cluster, for what
//!   comes after it may be its returns: so a lone caller is never taken for its own company.
//! - *Cost*: `service(k)`, the seconds of a batch of k, and from which size on larger batches are no gain: see
//!   [`super::cost`].
//!
//! Each knows about the last two dozen events, a fraction of a second of traffic; new events push old ones out.
//!
//! # What it decides
//! For callers that go round it follows their plan: a free worker waits until those who had a reply are back, or as long
//! as that pays. For others it weighs every wait d at which a profile has a step, up to `max_delay` from when the worker
//! became free. Of the k + r items that there are by then, k wait already. If the batch runs now, the r wait for
//! `service(k)` and run in a batch of their own; if it waits, all run together:
//!
//! ```text
//! gain  = r × (service(k) + service(r) − service(k + r))
//! price = k × (service(k + r) − service(k)) + (k + r) × d
//! ```
//!
//! It waits for the d whose gain exceeds the price, times a margin, by the most. Expectations that rest on few arrivals
//! count for less. In plain Poisson arrivals r never suffices.
//!
//! # Several tasks and workers
//! While this task waits, another task's batch may run: the worker does not idle for a wait. A task that was overtaken
//! so does not wait again (the batcher sees to it). With several workers, callers that go round are shared out among
//! them; for others, a batch runs at once while another worker is idle too, and otherwise those who come later would
//! wait for the next free worker, not for this batch alone.
//!
//! # Deadlines
//! The batch must end before its first deadline as far as `service(k)` tells; a wait that would not leave that time is
//! not begun.

use std::time::{Duration, Instant};

use super::closed_loop::{Bounds, ClosedLoop, Plan, WATCHED};
use super::cost::{Advice, Cost};
use super::estimates::Estimates;
use super::profile::{Profile, Window};
use super::{Decision, View};
use crate::batcher::Completion;
use crate::batching::DispatchReason;

/// By how much a gain must exceed its price, for what is expected may not come.
const MARGIN: f64 = 1.25;

/// A wait shorter than this, in seconds, is none.
const SHORTEST_WAIT: f64 = 10e-6;

/// Fewer arrivals than this are nothing to wait for.
const FEWEST: f64 = 0.1;

/// The part of its expected time that even a fast batch takes.
const AT_LEAST: f64 = 0.7;

/// A wait that pays.
#[derive(Clone, Copy, Debug)]
struct Wait {
    seconds: f64,
    expected: f64,
    /// In seconds of all items together.
    benefit: f64,
    reason: DispatchReason,
}

/// What may come after an event.
struct Prospect<'a> {
    profile: &'a Profile,
    window: &'a Window,
    /// No arrival that is older than this belongs to the event, in seconds.
    horizon: f64,
    reason: DispatchReason,
}

/// All that is known of one task.
#[derive(Clone, Debug)]
pub(super) struct Learned {
    cost: Cost,
    closed_loop: ClosedLoop,
    bursts: Profile,
    /// What came after the first arrival of the present cluster.
    cluster: Option<Window>,
    /// What the batch that is open waits for.
    waiting_for: Option<DispatchReason>,
    last_wait: Option<Wait>,
}

impl Learned {
    pub(super) fn new() -> Self {
        Learned {
            cost: Cost::new(),
            closed_loop: ClosedLoop::new(),
            bursts: Profile::new(),
            cluster: None,
            waiting_for: None,
            last_wait: None,
        }
    }

    /// Takes note of an item. Those that came while every worker was busy may be told after the completion.
    pub(super) fn arrived(&mut self, at: Instant, max_delay: Duration) {
        self.closed_loop.arrived(at);
        if let Some(cluster) = &mut self.cluster {
            let ended = self
                .closed_loop
                .completions()
                .find(|completed| *completed > cluster.opened)
                .map_or(f64::INFINITY, |completed| cluster.age(completed))
                .min(max_delay.as_secs_f64());
            if cluster.age(at) < ended {
                cluster.count(at);
                return;
            }
            self.bursts.learn(cluster, ended);
        }
        self.cluster = Some(Window::open(at, 1));
    }

    /// Takes note of a batch of this task that ran, while `present` items of the task were there, its own included.
    pub(super) fn completed(&mut self, completion: &Completion, present: usize, workers: usize) {
        let seconds = completion
            .finished
            .saturating_duration_since(completion.started)
            .as_secs_f64();
        if completion.succeeded {
            self.cost.learn(completion.size, completion.cost, seconds);
        }
        self.closed_loop.completed(completion, present, workers);
    }

    /// Most items for the next batch, of those that wait, if there is a reason for less than `bounds` say.
    pub(super) fn batch_limit(&mut self, waiting: usize, bounds: Bounds) -> Option<usize> {
        let Advice { at_most, try_out } = self.cost.advice();
        let plan = self.closed_loop.plan(&self.cost, bounds);
        try_out
            .filter(|size| waiting > *size)
            .or_else(|| plan.map_or(at_most, |plan| plan.batch))
    }

    /// The least time that a batch of `size` items which cost `cost` can be expected to take.
    pub(super) fn least_time(&self, size: usize, cost: u64) -> Duration {
        let seconds = self.cost.seconds(size as f64, (size, cost)).unwrap_or(0.0);
        Duration::from_secs_f64(seconds * AT_LEAST)
    }

    /// Whether the batch in `view`, which is not full, runs now.
    pub(super) fn decide(&mut self, max_delay: Duration, view: &View) -> Decision {
        let wait = self.best_wait(max_delay, view);
        let open = self.waiting_for.take();
        let Some(wait) = wait else {
            return Decision::Run(open.unwrap_or(DispatchReason::Idle));
        };
        let until = view.now + Duration::from_secs_f64(wait.seconds);
        let service = Duration::from_secs_f64(self.service(view, view.size as f64));
        match view.earliest_deadline {
            Some(deadline) if deadline.checked_sub(service).is_none_or(|start| start <= until) => {
                Decision::Run(DispatchReason::Deadline)
            }
            _ => {
                self.waiting_for = Some(wait.reason);
                self.last_wait = Some(wait);
                Decision::WaitUntil(until)
            }
        }
    }

    /// Forgets that a batch is open: it has run for another reason.
    pub(super) fn closed(&mut self) {
        self.waiting_for = None;
    }

    fn service(&self, view: &View, size: f64) -> f64 {
        self.cost.seconds(size, (view.size, view.cost)).unwrap_or(0.0)
    }

    fn best_wait(&mut self, max_delay: Duration, view: &View) -> Option<Wait> {
        if view.overtaken {
            return None;
        }
        let free_since = view
            .worker_free_since
            .map_or(view.oldest_arrival, |free| free.max(view.oldest_arrival));
        let left = max_delay
            .saturating_sub(view.now.saturating_duration_since(free_since))
            .as_secs_f64();
        let plan = self.closed_loop.plan(&self.cost, view.bounds(max_delay));
        let gathering = plan.and_then(|plan| self.gather(plan, view, left));
        if gathering.is_some() || view.other_worker_idle {
            return gathering;
        }
        // Whoever comes later than that finds the worker free again, if the batch runs now.
        let longest = left.min(self.service(view, view.size as f64));
        self.prospects(plan.is_some(), max_delay)
            .filter_map(|prospect| self.weigh(&prospect, view, longest))
            .max_by(|one, other| one.benefit.total_cmp(&other.benefit))
    }

    /// The wait for callers that go round, as planned.
    fn gather(&self, plan: Plan, view: &View, left: f64) -> Option<Wait> {
        let missing = self.closed_loop.missing(view.present);
        let age = self.closed_loop.since_completion()?.age(view.now);
        let seconds = (plan.patience? - age).min(left);
        (missing > 0 && seconds > SHORTEST_WAIT).then_some(Wait {
            seconds,
            expected: missing as f64,
            benefit: 0.0,
            reason: DispatchReason::Returns,
        })
    }

    /// What may come. Of callers that go round it is known better than by chance.
    fn prospects(&self, callers_go_round: bool, max_delay: Duration) -> impl Iterator<Item = Prospect<'_>> {
        let completion = self.closed_loop.since_completion();
        let returns = completion.filter(|_| !callers_go_round).map(|window| Prospect {
            profile: self.closed_loop.returns(),
            window,
            horizon: WATCHED,
            reason: DispatchReason::Returns,
        });
        let since = completion.map(|window| window.opened);
        let cluster = self.cluster.as_ref();
        let burst = cluster
            .filter(|window| since.is_none_or(|since| window.opened >= since))
            .map(|window| Prospect {
                profile: &self.bursts,
                window,
                horizon: max_delay.as_secs_f64(),
                reason: DispatchReason::Burst,
            });
        returns.into_iter().chain(burst)
    }

    /// The best wait for what a prospect promises.
    fn weigh(&self, prospect: &Prospect<'_>, view: &View, longest: f64) -> Option<Wait> {
        let Prospect {
            profile,
            window,
            horizon,
            reason,
        } = *prospect;
        let age = window.age(view.now);
        let (past, all) = (profile.expected_by(age), profile.expected_by(horizon));
        let missing = all * window.causes - f64::from(window.came);
        if missing < 0.5 {
            return None;
        }
        // More are to come than usual at this age if fewer have come. The half keeps the last of them, who may never
        // come, from being expected for certain.
        let scale = missing / (all - past + 0.5 / window.causes);
        let room = (view.max_size - view.size) as f64;
        profile
            .steps_after(age)
            .take_while(|step| step.age <= horizon && step.age - age <= longest)
            .filter(|step| step.age - age > SHORTEST_WAIT)
            .filter_map(|step| {
                let certainty = 1.0 - (step.evidence + 1.0).sqrt().recip();
                let expected = (step.expected * scale).min(room) * certainty;
                let seconds = step.age - age;
                let benefit = self.benefit(view, expected, seconds);
                (expected >= FEWEST && benefit > 0.0).then_some(Wait {
                    seconds,
                    expected,
                    benefit,
                    reason,
                })
            })
            .max_by(|one, other| one.benefit.total_cmp(&other.benefit))
    }

    /// What a wait of so many seconds for so many items is worth, in seconds of all items together.
    fn benefit(&self, view: &View, expected: f64, seconds: f64) -> f64 {
        let waiting = view.size as f64;
        // Less than one item is one that comes perhaps.
        let (joining, chance) = (expected.max(1.0), expected.min(1.0));
        let alone = self.service(view, waiting);
        let together = self.service(view, waiting + joining);
        let otherwise = alone / view.workers as f64 + self.service(view, joining);
        let gain = expected * (otherwise - together);
        let price = waiting * chance * (together - alone) + (waiting + expected) * seconds;
        gain - MARGIN * price
    }

    /// What is believed, for people to see.
    pub(super) fn estimates(&self) -> Estimates {
        let returns = self.closed_loop.returns();
        let returned_by = |part: f64| {
            let all = returns.expected_by(WATCHED);
            returns
                .steps_after(0.0)
                .find(|step| all > 0.0 && step.expected >= all * part)
                .map(|step| Duration::from_secs_f64(step.age))
        };
        let line = self.cost.line();
        let seconds = |value: f64| Duration::from_secs_f64(value.max(0.0));
        Estimates {
            batches: self.cost.batches(),
            cost_per_batch: line.map(|(fixed, _)| seconds(fixed)),
            cost_per_unit: line.map(|(_, each)| seconds(each)),
            unit_is_weight: self.cost.goes_by_weight(),
            efficient_size: self.cost.advice().at_most,
            returns_per_reply: returns.expected_by(WATCHED),
            half_return_within: returned_by(0.5),
            most_return_within: returned_by(0.9),
            closed_loop_clients: self.closed_loop.number(),
            followers_in_burst: self.bursts.expected_by(WATCHED),
            last_wait: self.last_wait.map(|wait| seconds(wait.seconds)),
            last_wait_for: self.last_wait.map(|wait| wait.reason.as_str()),
            last_wait_expected: self.last_wait.map(|wait| wait.expected),
        }
    }
}
