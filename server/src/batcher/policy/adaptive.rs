//! The policy `adaptive`: waits for more items if the expected arrivals are worth the wait.
//!
//! Owned by a [`TaskPolicy`](super::TaskPolicy), one per task, so the estimates of one task never affect another. It learns
//! from the arrivals and completions that the batcher reports. It has no clock, and its memory does not grow.
//!
//! # Estimates
//! - *Closed-loop clients*: whether there are any, how many, and how soon they return after a reply: see
//!   [`super::closed_loop`].
//! - *Bursts*: how many arrivals follow the first one of a burst within a time. A completion ends a burst, because later
//!   arrivals can be returns; a single client is therefore never mistaken for a burst.
//! - *Service time*: `service(k)`, the seconds of a batch of k items, and the size above which larger batches are not more
//!   efficient: see [`super::curve`].
//!
//! Each estimate covers about the last two dozen events, a fraction of a second of traffic; new events replace old ones.
//!
//! # Decisions
//! Closed-loop clients are handled by their plan: an idle worker waits until the clients that received a reply have
//! returned, or for as long as that pays. For other traffic, every wait d at which a profile has a step is evaluated, up
//! to `max_delay` after the worker became free. Of the k + r items that are present by then, k wait already. If the batch
//! runs now, the other r wait for `service(k)` and run in a batch of their own; if it waits, all run together:
//!
//! ```text
//! gain  = r × (service(k) + service(r) − service(k + r))
//! price = k × (service(k + r) − service(k)) + (k + r) × d
//! ```
//!
//! The policy chooses the d whose gain exceeds the price, times a margin, by the most. Expectations that are based on few
//! arrivals count for less. With plain Poisson arrivals, r never suffices.
//!
//! # Several tasks and workers
//! While this task waits, a batch of another task can run: a wait never leaves the worker idle if there is other work. A
//! task whose wait was interrupted in this way does not wait again (the batcher ensures that). Several workers share the
//! closed-loop clients. Beyond their plan, and for other traffic, several workers spread the starts of their batches, and
//! leave items to each other: see [`super::several_workers`].
//!
//! # Deadlines
//! A batch must end before its first deadline as far as `service(k)` predicts. A wait that would not leave enough time is
//! not started.

use std::time::{Duration, Instant};

use super::closed_loop::{Bounds, ClosedLoop, Plan, WATCHED};
use super::curve::Advice;
use super::estimates::Estimates;
use super::min_time::MinTimes;
use super::profile::{Profile, Window};
use super::service_time::{Example, ServiceTime};
use super::several_workers::{self, Rate};
use super::wait::ServiceEstimate;
use super::{Crew, Decision, View, duration};
use crate::batcher::Completion;
use crate::batcher::cost_model::CostModel;
use crate::batching::DispatchReason;

/// Factor by which a gain must exceed its price, because expected arrivals may not happen.
const MARGIN: f64 = 1.25;

/// The fraction of the best throughput that suffices for batches of background items while requests arrive, so that these
/// do not wait for longer batches than necessary.
const NEARLY_BEST: f64 = 0.96;

/// Minimum duration of a wait in seconds.
const MIN_WAIT: f64 = 10e-6;

/// Minimum number of expected arrivals that justifies a wait.
const MIN_EXPECTED: f64 = 0.1;

/// A wait that is worth it.
#[derive(Clone, Copy, Debug)]
struct Wait {
    seconds: f64,
    expected: f64,
    /// Sum over all items, in seconds.
    benefit: f64,
    reason: DispatchReason,
}

/// The arrivals that can follow an event.
struct Prospect<'a> {
    profile: &'a Profile,
    window: &'a Window,
    /// Maximum age, in seconds, at which an arrival is attributed to the event.
    horizon: f64,
    reason: DispatchReason,
}

impl Prospect<'_> {
    /// Expected arrivals at this age, relative to those of the profile; `None` if none are missing.
    fn scale(&self, age: f64) -> Option<f64> {
        let (profile, window) = (self.profile, self.window);
        let (past, all) = (profile.expected_by(age), profile.expected_by(self.horizon));
        let missing = all * window.causes - f64::from(window.came);
        // If fewer arrivals than usual have happened by this age, more are still to come. The half keeps the last of them,
        // which may never come, from being expected with certainty.
        (missing >= 0.5).then(|| missing / (all - past + 0.5 / window.causes))
    }

    /// Expected arrivals within this time from now.
    fn within(&self, seconds: f64, now: Instant) -> f64 {
        let age = self.window.age(now);
        let until = (age + seconds).min(self.horizon);
        let more = self.profile.expected_by(until) - self.profile.expected_by(age);
        self.scale(age).map_or(0.0, |scale| more.max(0.0) * scale)
    }
}

/// The estimates of one task.
#[derive(Clone, Debug)]
pub(super) struct Learned {
    service_time: ServiceTime,
    min_times: MinTimes,
    closed_loop: ClosedLoop,
    rate: Rate,
    bursts: Profile,
    /// The arrivals after the first one of the current burst.
    burst: Option<Window>,
    /// Why the open batch waits.
    waiting_for: Option<DispatchReason>,
    last_wait: Option<Wait>,
}

impl Learned {
    pub(super) fn new() -> Self {
        Learned {
            service_time: ServiceTime::new(),
            min_times: MinTimes::new(),
            closed_loop: ClosedLoop::new(),
            rate: Rate::default(),
            bursts: Profile::new(),
            burst: None,
            waiting_for: None,
            last_wait: None,
        }
    }

    /// Sets the time of a batch that a calibration has measured.
    pub(super) fn set_calibrated_time(&mut self, model: CostModel) {
        self.service_time.set_calibrated(model);
    }

    /// Records an arrival. Arrivals during a batch may be reported after its completion.
    pub(super) fn arrived(&mut self, at: Instant, max_delay: Duration) {
        self.closed_loop.arrived(at);
        self.rate.arrived(at);
        if let Some(burst) = &mut self.burst {
            let ended = self
                .closed_loop
                .completions()
                .find(|completed| *completed > burst.opened)
                .map_or(f64::INFINITY, |completed| burst.age(completed))
                .min(max_delay.as_secs_f64());
            if burst.age(at) < ended {
                burst.count(at);
                return;
            }
            self.bursts.learn(burst, ended);
        }
        self.burst = Some(Window::open(at, 1));
    }

    /// Records a batch of this task that ran. `present` counts the items of the task that waited or ran when it ended,
    /// including its own, without background items. A batch of background items answers no client of a closed loop, so it
    /// only shows how long batches take.
    pub(super) fn completed(&mut self, completion: &Completion, present: usize, workers: usize) {
        let time = completion.finished.saturating_duration_since(completion.started);
        if completion.succeeded {
            let (size, cost) = (completion.size, completion.cost);
            self.service_time.learn(size, cost, time.as_secs_f64());
            self.min_times.learn(size, cost, time);
        }
        if completion.size > completion.background {
            self.closed_loop.completed(completion, present, workers);
        }
    }

    /// Maximum number of items for the next batch while `waiting` items wait, if there is a reason for less than `bounds`
    /// permit.
    pub(super) fn batch_limit(&mut self, waiting: usize, bounds: Bounds, crew: Crew) -> Option<usize> {
        let Advice { at_most, try_out } = self.service_time.advice();
        let plan = self.closed_loop.plan(&self.service_time, bounds);
        let limit = try_out
            .filter(|size| waiting > *size)
            .or_else(|| plan.map_or(at_most, |plan| self.closed_loop.limit(plan, crew)));
        if bounds.workers == 1 {
            return limit;
        }
        let size = waiting.min(limit.unwrap_or(usize::MAX)).min(bounds.max_size);
        let example = self.closed_loop.latest_batch();
        let service = |size: f64| self.service_time.seconds(size, example).unwrap_or(0.0);
        several_workers::first_part(size, crew, service).or(limit)
    }

    /// The expected time of a batch of `size` items with this cost.
    pub(super) fn expected_time(&self, size: usize, cost: u64) -> Option<Duration> {
        self.service_time.seconds(size as f64, (size, cost)).map(duration)
    }

    /// Seconds of a batch of `size` items that are as heavy as those of the example, if batches of about the size of the
    /// example, or smaller ones, have run. Otherwise too little is known about what further items cost.
    pub(super) fn known_seconds(&self, size: f64, example: Example) -> Option<f64> {
        let is_known = self.service_time.calibrated().is_some() || self.service_time.covers(example);
        self.service_time.seconds(size, example).filter(|_| is_known)
    }

    /// Seconds of a batch of `size` items that are as heavy as those of the latest batch of requests.
    pub(super) fn usual_seconds(&self, size: usize) -> Option<f64> {
        self.service_time
            .seconds(size as f64, self.closed_loop.latest_batch())
    }

    /// The least size up to that of the example whose throughput is nearly the best, for items as heavy as those of the
    /// example.
    pub(super) fn sufficient_size(&self, example: Example) -> Option<usize> {
        let (max, _) = example;
        let sizes = std::iter::successors(Some(1), |size| Some((size + 1).max(size * 9 / 8)))
            .take_while(|size| *size < max)
            .chain([max]);
        let rates: Vec<(usize, f64)> = sizes
            .filter_map(|size| {
                let seconds = self.service_time.seconds(size as f64, example)?;
                Some((size, size as f64 / seconds.max(1e-9)))
            })
            .collect();
        let best = rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
        let sufficient = rates.into_iter().find(|(_, rate)| *rate >= best * NEARLY_BEST)?;
        Some(sufficient.0)
    }

    /// See [`ClosedLoop::returned_by`].
    pub(super) fn returned_by(&self, present: usize, now: Instant) -> Option<Instant> {
        self.closed_loop.returned_by(present, now)
    }

    /// The largest number of items in a batch that has run recently, or zero; see [`ServiceTime::largest`].
    pub(super) fn largest(&self) -> usize {
        self.service_time.largest()
    }

    /// Recommended batch sizes.
    pub(super) fn advice(&self) -> Advice {
        self.service_time.advice()
    }

    /// A lower bound for the time of a batch of `size` items with this cost.
    pub(super) fn min_time(&self, size: usize, cost: u64) -> Duration {
        let bound = self.min_times.bound(size, cost);
        match self.service_time.calibrated() {
            Some(calibrated) if bound.is_zero() => calibrated.lower_bound(size, cost),
            _ => bound,
        }
    }

    /// What waits are estimated from; `None` before any batch has run. If the policy follows the recommended batch sizes,
    /// batches have that size.
    pub(super) fn service_estimate(
        &self,
        max_size: usize,
        max_cost: Option<u64>,
        follows_advice: bool,
    ) -> Option<ServiceEstimate> {
        let efficient = self.service_time.advice().at_most;
        let max_size = match efficient.filter(|_| follows_advice) {
            Some(efficient) => max_size.min(efficient),
            None => max_size,
        };
        self.service_time.estimate(max_size, max_cost)
    }

    /// Whether the batch in `view`, which is not full, runs now.
    pub(super) fn decide(&mut self, max_delay: Duration, view: &View) -> Decision {
        let wait = self.best_wait(max_delay, view);
        let open = self.waiting_for.take();
        let Some(wait) = wait else {
            return Decision::Run(open.unwrap_or(DispatchReason::Idle));
        };
        let until = view.now + duration(wait.seconds);
        let service = duration(self.service(view, view.size as f64));
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

    /// Records that the open batch runs for another reason than its wait.
    pub(super) fn closed(&mut self) {
        self.waiting_for = None;
    }

    fn service(&self, view: &View, size: f64) -> f64 {
        self.service_time
            .seconds(size, (view.size, view.cost))
            .unwrap_or(0.0)
    }

    fn best_wait(&mut self, max_delay: Duration, view: &View) -> Option<Wait> {
        if view.overtaken {
            return None;
        }
        let free_since = view
            .idle_since
            .map_or(view.oldest_ready, |idle| idle.max(view.oldest_ready));
        let left = max_delay
            .saturating_sub(view.now.saturating_duration_since(free_since))
            .as_secs_f64();
        let plan = self.closed_loop.plan(&self.service_time, view.bounds(max_delay));
        let planned = plan.and_then(|plan| self.planned_wait(plan, view, left));
        if planned.is_some() {
            return planned;
        }
        if view.crew.workers > 1 {
            return self.spread_wait(plan, view, left, max_delay);
        }
        // An item that arrives later finds the worker free again if the batch runs now.
        let longest = left.min(self.service(view, view.size as f64));
        self.prospects(plan.is_some(), max_delay)
            .filter_map(|prospect| self.weigh(&prospect, view, longest))
            .max_by(|one, other| one.benefit.total_cmp(&other.benefit))
    }

    /// The wait for closed-loop clients, as planned.
    fn planned_wait(&self, plan: Plan, view: &View, left: f64) -> Option<Wait> {
        let (seconds, missing) = self.closed_loop.planned_wait(plan, view)?;
        let seconds = seconds.min(left);
        (seconds > MIN_WAIT).then_some(Wait {
            seconds,
            expected: missing as f64,
            benefit: 0.0,
            reason: DispatchReason::Returns,
        })
    }

    /// The wait that spreads the starts of several workers.
    fn spread_wait(&self, plan: Option<Plan>, view: &View, left: f64, max_delay: Duration) -> Option<Wait> {
        let service = |size: f64| self.service(view, size);
        let longest = left.min(service(view.size as f64));
        let (wait, reason) = if let Some(plan) = plan {
            let room = self.closed_loop.room(plan, view);
            let returns = |seconds: f64| self.closed_loop.returns_within(seconds, view.now);
            let wait = several_workers::best_wait(view, room, longest, returns, service);
            (wait?, DispatchReason::Returns)
        } else {
            let room = view.max_size - view.size;
            let rate = self.rate.per_second();
            let burst = self.burst(max_delay);
            let arrivals = |seconds: f64| {
                let burst = burst
                    .as_ref()
                    .map_or(0.0, |burst| burst.within(seconds, view.now));
                burst.max(rate * seconds)
            };
            let wait = several_workers::best_wait(view, room, longest, arrivals, service);
            (wait?, DispatchReason::Burst)
        };
        (wait.seconds > MIN_WAIT).then_some(Wait {
            seconds: wait.seconds,
            expected: wait.expected,
            benefit: wait.benefit,
            reason,
        })
    }

    /// The events after which arrivals are expected. Returns of closed-loop clients are covered by their plan.
    fn prospects(&self, is_closed_loop: bool, max_delay: Duration) -> impl Iterator<Item = Prospect<'_>> {
        let completion = self.closed_loop.since_completion();
        let returns = completion.filter(|_| !is_closed_loop).map(|window| Prospect {
            profile: self.closed_loop.returns(),
            window,
            horizon: WATCHED,
            reason: DispatchReason::Returns,
        });
        returns.into_iter().chain(self.burst(max_delay))
    }

    /// The burst that is not over.
    fn burst(&self, max_delay: Duration) -> Option<Prospect<'_>> {
        let completion = self.closed_loop.since_completion();
        let window = self.burst.as_ref()?;
        let goes_on = completion.is_none_or(|completion| window.opened >= completion.opened);
        goes_on.then_some(Prospect {
            profile: &self.bursts,
            window,
            horizon: max_delay.as_secs_f64(),
            reason: DispatchReason::Burst,
        })
    }

    /// The best wait for the arrivals of a prospect.
    fn weigh(&self, prospect: &Prospect<'_>, view: &View, longest: f64) -> Option<Wait> {
        let Prospect {
            profile,
            window,
            horizon,
            reason,
        } = *prospect;
        let age = window.age(view.now);
        let scale = prospect.scale(age)?;
        let room = (view.max_size - view.size) as f64;
        profile
            .steps_after(age)
            .take_while(|step| step.age <= horizon && step.age - age <= longest)
            .filter(|step| step.age - age > MIN_WAIT)
            .filter_map(|step| {
                let certainty = 1.0 - (step.evidence + 1.0).sqrt().recip();
                let expected = (step.expected * scale).min(room) * certainty;
                let seconds = step.age - age;
                let benefit = self.benefit(view, expected, seconds);
                (expected >= MIN_EXPECTED && benefit > 0.0).then_some(Wait {
                    seconds,
                    expected,
                    benefit,
                    reason,
                })
            })
            .max_by(|one, other| one.benefit.total_cmp(&other.benefit))
    }

    /// The benefit of waiting `seconds` for `expected` items: the sum over all items, in seconds.
    fn benefit(&self, view: &View, expected: f64, seconds: f64) -> f64 {
        let waiting = view.size as f64;
        // Less than one expected item is a single item with a probability.
        let (joining, chance) = (expected.max(1.0), expected.min(1.0));
        let alone = self.service(view, waiting);
        let together = self.service(view, waiting + joining);
        let otherwise = alone / view.crew.workers as f64 + self.service(view, joining);
        let gain = expected * (otherwise - together);
        let price = waiting * chance * (together - alone) + (waiting + expected) * seconds;
        gain - MARGIN * price
    }

    /// The estimates, for people and metrics.
    pub(super) fn estimates(&self) -> Estimates {
        let returns = self.closed_loop.returns();
        let returned_by = |part: f64| {
            let all = returns.expected_by(WATCHED);
            returns
                .steps_after(0.0)
                .find(|step| all > 0.0 && step.expected >= all * part)
                .map(|step| duration(step.age))
        };
        let line = self.service_time.line();
        Estimates {
            batches: self.service_time.batches(),
            cost_per_batch: line.map(|(fixed, _)| duration(fixed)),
            cost_per_unit: line.map(|(_, each)| duration(each)),
            unit_is_weight: self.service_time.goes_by_weight(),
            efficient_size: self.service_time.advice().at_most,
            returns_per_reply: returns.expected_by(WATCHED),
            half_return_within: returned_by(0.5),
            most_return_within: returned_by(0.9),
            closed_loop_clients: self.closed_loop.number(),
            followers_in_burst: self.bursts.expected_by(WATCHED),
            last_wait: self.last_wait.map(|wait| duration(wait.seconds)),
            last_wait_for: self.last_wait.map(|wait| wait.reason.as_str()),
            last_wait_expected: self.last_wait.map(|wait| wait.expected),
        }
    }
}
