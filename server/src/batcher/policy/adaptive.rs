//! The policy that needs no knob: it waits where the arrivals that it expects are worth the wait.
//!
//! Owned by a [`TaskPolicy`](super::TaskPolicy), one per task, so what it knows is of that task alone. Everything is
//! learned from the arrivals and the completions that the batcher reports; there is no clock and no memory that grows.
//!
//! # What it learns
//! - *Returns*: how many arrivals come within a time after a completion, per reply sent. Callers that wait for a reply
//!   before they ask again are seen here. A request of n items is n arrivals and n replies.
//! - *Bursts*: how many arrivals follow the first one of a cluster within a time. A completion ends a cluster, for what
//!   comes after it may be its returns: so a lone caller is never taken for its own company.
//! - *Cost*: `service(k)`, the seconds of a batch of k, see [`super::cost`].
//! - *Balance*: whether the arrivals between two completions are as many as the replies before. They are where the same
//!   callers go round (a closed loop), and then those who have not come back are known to be on their way.
//!
//! Each knows about the last two dozen events, a fraction of a second of traffic; only new events push old ones out.
//!
//! # What it decides
//! With k items waiting and the worker free it weighs every wait d at which a profile has a step, up to `max_delay` from
//! when the worker became free. Of the arrivals that the profile promises, those that have come already are taken off;
//! r are left to come within d. If the batch runs now, they wait for `service(k)` and run in a batch of their own; if it
//! waits, all run together:
//!
//! ```text
//! gain  = r × (service(k) + service(r) − service(k + r))
//! price = k × (service(k + r) − service(k)) + (k + r) × d
//! ```
//!
//! It waits for the d whose gain exceeds the price, times a margin, by the most. Expectations that rest on few arrivals
//! count for less. In a closed loop all that have not come back are expected, and their gain is larger: one who is left
//! behind waits for this batch and then, as the others come round again, for them to think and to share the next one.
//! So it is `r × (service(k) + the time after which they come)`.
//!
//! A worker that is busy throughout has a second reason. Its throughput X is what its time is worth, and r items for
//! `d + service(k + r) − service(k)` of that time are a bargain if that is more than X (the marginal value theorem, or
//! Dinkelbach's condition for the best ratio of items to time). This is what merges two half-size groups that take turns
//! also where the wait looks long to the group that is here. X is what was measured lately: as waits make it grow, they
//! become harder to justify, and settle at the best. In plain Poisson arrivals r never exceeds X × d.
//!
//! # Several tasks and workers
//! While this task waits, another task's batch may run: the worker does not idle for a wait. A task that was overtaken
//! so does not wait again (the batcher sees to it). With several workers, a batch runs at once while another worker is
//! idle too, and otherwise those who come later would wait for the next free worker, not for this batch alone.
//!
//! # Deadlines
//! The batch must end before its first deadline as far as `service(k)` tells; a wait that would not leave that time is
//! not begun. An item that is too late even so runs with the rest: taking it out saves next to nothing, and whoever
//! submitted it is answered at its deadline anyhow.

use std::time::{Duration, Instant};

use super::beliefs::Beliefs;
use super::cost::Cost;
use super::profile::{Profile, Window};
use super::{Decision, View};
use crate::batcher::{Completion, DispatchReason};

/// By how much a gain must exceed its price, for what is expected may not come.
const MARGIN: f64 = 1.3;

/// Returns are watched this long, in seconds, if no further batch completes.
const RETURNS_WATCHED: f64 = 1.0;

/// Totals of batches cover about so many of the latest.
const BATCHES: f64 = 16.0;

/// A wait shorter than this, in seconds, is none.
const SHORTEST_WAIT: f64 = 10e-6;

/// Fewer arrivals than this are nothing to wait for.
const FEWEST: f64 = 0.1;

/// Fewer returns than this are nothing to spend a busy worker's time on.
const FEWEST_RETURNS: f64 = 0.5;

/// A profile that promises at least this part of the replies back tells of callers that go round.
const MOST_RETURN: f64 = 0.8;

/// Totals over the latest batches.
#[derive(Clone, Debug, Default)]
struct Totals {
    items: f64,
    /// Seconds that a worker computed, and seconds from completion to completion.
    busy: f64,
    elapsed: f64,
    /// Replies, and the squares of how many more or fewer arrivals followed them.
    replies: f64,
    imbalance: f64,
}

fn add(total: &mut f64, value: f64) {
    *total += value - *total / BATCHES;
}

/// A wait that pays.
#[derive(Clone, Copy, Debug)]
struct Wait {
    seconds: f64,
    benefit: f64,
    expected: f64,
    reason: DispatchReason,
}

/// What may come after an event.
struct Prospect<'a> {
    profile: &'a Profile,
    window: &'a Window,
    /// No arrival that is older than this belongs to the event, in seconds.
    horizon: f64,
    /// Whether it is known that as many come as there were causes.
    conserved: bool,
    reason: DispatchReason,
}

/// All that is known of one task.
#[derive(Clone, Debug)]
pub(super) struct Learned {
    cost: Cost,
    returns: Profile,
    bursts: Profile,
    /// What came after the latest completion, and after the one before, of which items may be pushed late.
    completed: Option<Window>,
    completed_before: Option<Window>,
    /// What came after the first arrival of the present cluster.
    cluster: Option<Window>,
    totals: Totals,
    /// What the batch that is open waits for.
    waiting_for: Option<DispatchReason>,
    last_wait: Option<Wait>,
}

impl Learned {
    pub(super) fn new() -> Self {
        Learned {
            cost: Cost::new(),
            returns: Profile::new(),
            bursts: Profile::new(),
            completed: None,
            completed_before: None,
            cluster: None,
            totals: Totals::default(),
            waiting_for: None,
            last_wait: None,
        }
    }

    /// Takes note of an item. Those that came while every worker was busy may be told after the completion.
    pub(super) fn arrived(&mut self, at: Instant, max_delay: Duration) {
        let windows = [&mut self.completed, &mut self.completed_before];
        if let Some(window) = windows.into_iter().flatten().find(|window| window.opened <= at) {
            window.count(at);
        }
        if let Some(cluster) = &mut self.cluster {
            // The completions are looked at from the older to the younger.
            let ended = [&self.completed_before, &self.completed]
                .into_iter()
                .flatten()
                .map(|window| window.opened)
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

    /// Takes note of a batch of this task that ran.
    pub(super) fn completed(&mut self, completion: &Completion) {
        let Completion {
            size,
            cost,
            started,
            finished,
            ..
        } = *completion;
        let seconds = finished.saturating_duration_since(started).as_secs_f64();
        self.cost.learn(size, cost, seconds);
        let latest = self.completed.replace(Window::open(finished, size));
        if let Some(latest) = &latest {
            add(&mut self.totals.busy, seconds);
            add(&mut self.totals.items, size as f64);
            add(&mut self.totals.elapsed, latest.age(finished));
        }
        if let (Some(before), Some(latest)) = (&self.completed_before, &latest) {
            // Nothing that came before the latest completion can be pushed any more.
            self.returns
                .learn(before, before.age(latest.opened).min(RETURNS_WATCHED));
            add(&mut self.totals.replies, before.causes);
            let more = f64::from(before.came) - before.causes;
            add(&mut self.totals.imbalance, more * more);
        }
        self.completed_before = latest;
    }

    /// Whether the batch in `view`, which is not full, runs now.
    pub(super) fn decide(&mut self, max_delay: Duration, view: &View) -> Decision {
        let wait = self.best_wait(max_delay, view);
        let open = self.waiting_for.take();
        let Some(wait) = wait else {
            return Decision::Run(open.unwrap_or(DispatchReason::Idle));
        };
        let until = view.now + Duration::from_secs_f64(wait.seconds);
        let service = self.service(view, view.size as f64);
        let latest_start = |deadline: Instant| deadline.checked_sub(Duration::from_secs_f64(service));
        match view.earliest_deadline {
            Some(deadline) if latest_start(deadline).is_none_or(|start| start <= until) => {
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
        self.cost.seconds(size, view.size, view.cost).unwrap_or(0.0)
    }

    /// Whether the same callers come again and again.
    fn goes_round(&self) -> bool {
        self.totals.imbalance < self.totals.replies / 2.0
    }

    fn best_wait(&self, max_delay: Duration, view: &View) -> Option<Wait> {
        if view.overtaken || view.other_worker_idle {
            return None;
        }
        let free_since = view
            .worker_free_since
            .map_or(view.oldest_arrival, |free| free.max(view.oldest_arrival));
        let left = max_delay.saturating_sub(view.now.saturating_duration_since(free_since));
        // Whoever comes later than that finds the worker free again, if the batch runs now.
        let longest = left.as_secs_f64().min(self.service(view, view.size as f64));
        let returns = self.completed.as_ref().map(|window| Prospect {
            profile: &self.returns,
            window,
            horizon: RETURNS_WATCHED,
            conserved: self.goes_round() && self.returns.expected_by(RETURNS_WATCHED) > MOST_RETURN,
            reason: DispatchReason::Returns,
        });
        let since = returns.as_ref().map(|returns| returns.window.opened);
        let cluster = self.cluster.as_ref();
        let burst = cluster
            .filter(|window| since.is_none_or(|since| window.opened >= since))
            .map(|window| Prospect {
                profile: &self.bursts,
                window,
                horizon: max_delay.as_secs_f64(),
                conserved: false,
                reason: DispatchReason::Burst,
            });
        [returns, burst]
            .into_iter()
            .flatten()
            .filter_map(|prospect| self.weigh(&prospect, view, longest))
            .max_by(|one, other| one.benefit.total_cmp(&other.benefit))
    }

    /// The best wait for what a prospect promises.
    fn weigh(&self, prospect: &Prospect<'_>, view: &View, longest: f64) -> Option<Wait> {
        let Prospect {
            profile,
            window,
            horizon,
            conserved,
            reason,
        } = *prospect;
        let age = window.age(view.now);
        let (past, all) = (profile.expected_by(age), profile.expected_by(horizon));
        let promised = if conserved { 1.0 } else { all } * window.causes;
        let missing = promised - f64::from(window.came);
        if missing < 0.5 {
            return None;
        }
        // More are to come than usual at this age if fewer have come. The half keeps the last of them, who may never
        // come, from being expected for certain.
        let scale = missing / (window.causes * (all - past) + 0.5) * window.causes;
        let room = (view.max_size - view.size) as f64;
        let alone = self.service(view, view.size as f64);
        profile
            .steps_after(age)
            .take_while(|step| step.age <= horizon && step.age - age <= longest)
            .filter(|step| step.age - age > SHORTEST_WAIT)
            .filter_map(|step| {
                let expected = (step.expected * scale).min(room);
                let doubt = if conserved {
                    0.0
                } else {
                    (step.evidence + 1.0).sqrt().recip()
                };
                let expected = expected * (1.0 - doubt);
                if expected < FEWEST {
                    return None;
                }
                let seconds = step.age - age;
                let think = conserved.then_some(step.age);
                let benefit = self.benefit(view, alone, expected, seconds, think);
                (benefit > 0.0).then_some(Wait {
                    seconds,
                    benefit,
                    expected,
                    reason,
                })
            })
            .max_by(|one, other| one.benefit.total_cmp(&other.benefit))
    }

    /// What a wait of so many seconds for so many items is worth, in seconds of all items together. For callers that go
    /// round, `think` is how long after their replies they come. The batch as it is would take `alone`.
    fn benefit(&self, view: &View, alone: f64, expected: f64, seconds: f64, think: Option<f64>) -> f64 {
        let waiting = view.size as f64;
        // Less than one item is one that comes perhaps.
        let (joining, chance) = (expected.max(1.0), expected.min(1.0));
        let together = self.service(view, waiting + joining);
        let longer = chance * (together - alone);
        let otherwise = alone / view.workers as f64;
        let gain = if let Some(think) = think {
            expected * (otherwise + think)
        } else {
            expected * (otherwise + self.service(view, joining) - together)
        };
        let price = waiting * longer + (waiting + expected) * seconds;
        let benefit = gain - MARGIN * price;
        let Totals {
            items, busy, elapsed, ..
        } = self.totals;
        if think.is_none() || expected < FEWEST_RETURNS || items <= 0.0 || elapsed <= 0.0 {
            return benefit;
        }
        // A worker with time to spare has less use for throughput.
        let (throughput, utilisation) = (items / elapsed, (busy / elapsed).clamp(0.05, 1.0));
        let needed = MARGIN / utilisation.powi(2) * throughput * (seconds + longer);
        benefit.max((expected - needed) / throughput)
    }

    /// What is believed, for people to see.
    pub(super) fn beliefs(&self) -> Beliefs {
        let returned_by = |part: f64| {
            let all = self.returns.expected_by(RETURNS_WATCHED);
            self.returns
                .steps_after(0.0)
                .find(|step| all > 0.0 && step.expected >= all * part)
                .map(|step| Duration::from_secs_f64(step.age))
        };
        let line = self.cost.line();
        let seconds = |value: f64| Duration::from_secs_f64(value.max(0.0));
        Beliefs {
            batches: self.cost.batches(),
            cost_per_batch: line.map(|(fixed, _)| seconds(fixed)),
            cost_per_unit: line.map(|(_, each)| seconds(each)),
            unit_is_weight: self.cost.goes_by_weight(),
            returns_per_reply: self.returns.expected_by(RETURNS_WATCHED),
            half_return_within: returned_by(0.5),
            most_return_within: returned_by(0.9),
            callers_go_round: self.goes_round() && self.totals.replies > 0.0,
            followers_in_burst: self.bursts.expected_by(RETURNS_WATCHED),
            last_wait: self.last_wait.map(|wait| seconds(wait.seconds)),
            last_wait_for: self.last_wait.map(|wait| wait.reason.as_str()),
            last_wait_expected: self.last_wait.map(|wait| wait.expected),
        }
    }
}
