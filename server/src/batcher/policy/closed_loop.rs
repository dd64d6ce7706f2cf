//! Closed-loop clients: clients that wait for a reply, think, and send the next request.
//!
//! Owned by the policy [`adaptive`](super::adaptive) of one task. From arrivals and completions it learns whether the
//! clients of the task form a closed loop, how many there are and how soon they return, and plans batches accordingly.
//! It does not know the queue, and receives the service time as an argument.
//!
//! # Estimates
//! - *Returns*, F(t): the fraction of clients that have returned within t after their reply. A request of n items counts
//!   as n arrivals and n replies.
//! - *Balance*: whether as many items arrive between two completions as were answered by the first. Only closed-loop
//!   clients keep the balance; with Poisson arrivals the difference is as large as chance makes it.
//! - *Population*, N: the maximum number of items that were present at once at any of the latest completions. In a closed
//!   loop, every client is present shortly before the completion that answers it, whichever groups the clients form, so N
//!   is their number. With several workers, other clients think at a completion, and are added: see [`super::thinking`].
//!
//! # The plan
//! An idle worker runs the waiting items or waits for clients that are about to return. If it waits for up to w, a
//! fraction F(w) of the answered clients join its next batch; the others wait for the batch after it, where the same
//! happens again. In the steady state with W workers, a batch therefore contains
//!
//! ```text
//! j(w) = N / (W + 1 − F(w))
//! ```
//!
//! clients: half of a worker's clients if it never waits (two groups that take turns), and all of them if it waits for
//! all. The throughput of the worker is
//!
//! ```text
//! rate(w) = j(w) / (service(j(w)) + E[min(w, time until all have returned)])
//! ```
//!
//! By Little's law, the mean latency of the clients is N / rate minus their think time, so the best rate also gives the
//! best latency. The w with the best rate is chosen if it is worth it. One rule takes precedence: a client that just misses
//! a batch waits one round longer than the others, so waiting for practically all clients is preferred if that is nearly as
//! good, and better than not waiting.

use std::time::{Duration, Instant};

use super::curve::is_higher;
use super::profile::{Profile, Window};
use super::service_time::{Example, ServiceTime};
use super::thinking::Thinking;
use super::{Crew, View};
use crate::batcher::Completion;

/// Returns are observed for up to this many seconds after a completion. Arrivals after a longer silence do not count as
/// returns of earlier clients.
pub(super) const WATCHED: f64 = 1.0;

/// Number of recent rounds that the totals of the balance cover.
const ROUNDS: f64 = 16.0;

/// Number of recent completions from which the population is taken.
const PEAKS: usize = 8;

/// Minimum fraction of replies that are followed by a return in a closed loop.
const MIN_RETURNS: f64 = 0.8;

/// The fraction that counts as practically all clients.
const ALL_RETURNED: f64 = 0.995;

/// The fraction that counts as most clients.
const MOST_RETURNED: f64 = 0.9;

/// The fraction of the best rate that suffices if no client is left out.
const NEARLY_AS_GOOD: f64 = 0.8;

/// The maximum number of items present at once, at each of the latest completions.
#[derive(Clone, Copy, Debug, Default)]
struct Population {
    peaks: [usize; PEAKS],
    latest: usize,
}

impl Population {
    fn completed(&mut self, present: usize) {
        self.latest = (self.latest + 1) % PEAKS;
        self.peaks[self.latest] = present;
    }

    /// Counts an item that was present at the latest completion but reported after it.
    fn add(&mut self) {
        self.peaks[self.latest] += 1;
    }

    fn max(&self) -> usize {
        self.peaks.into_iter().max().unwrap_or(0)
    }
}

/// Whether arrivals balance replies.
#[derive(Clone, Copy, Debug, Default)]
struct Balance {
    /// The current round: its completions, its replies, and its arrivals minus its replies.
    completions: usize,
    replies: f64,
    surplus: f64,
    /// Over the latest rounds: the replies, and the squares of the surplus.
    all_replies: f64,
    imbalance: f64,
}

impl Balance {
    /// Records the arrivals after a completion. A round consists of one completion per worker.
    fn observed(&mut self, window: &Window, workers: usize) {
        self.completions += 1;
        self.replies += window.causes;
        self.surplus += f64::from(window.came) - window.causes;
        if self.completions >= workers {
            self.all_replies += self.replies - self.all_replies / ROUNDS;
            self.imbalance += self.surplus * self.surplus - self.imbalance / ROUNDS;
            (self.completions, self.replies, self.surplus) = (0, 0.0, 0.0);
        }
    }

    /// With random arrivals, the expected square of the surplus equals the number of replies.
    fn is_kept(&self) -> bool {
        self.imbalance < self.all_replies / 2.0
    }
}

/// The limits of a task's batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    pub(super) max_size: usize,
    pub(super) workers: usize,
    /// Maximum wait in seconds.
    pub(super) max_delay: f64,
}

/// How closed-loop clients are batched until the next completion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    /// How long to wait for the answered clients after a completion, in seconds; `None` if waiting does not pay.
    pub(super) patience: Option<f64>,
    /// Maximum number of items in a batch, if there is a reason for less than the limit.
    pub(super) batch: Option<usize>,
}

/// The estimates about the clients of one task.
#[derive(Clone, Debug)]
pub(super) struct ClosedLoop {
    returns: Profile,
    /// The arrivals after the latest completion and after the one before it, which may still be reported.
    latest: Option<Window>,
    before: Option<Window>,
    /// With several workers, these replace the windows.
    thinking: Thinking,
    workers: usize,
    population: Population,
    balance: Balance,
    /// The latest batch.
    example: Example,
    /// Valid until the next completion.
    plan: Option<(Bounds, Plan)>,
}

impl ClosedLoop {
    pub(super) fn new() -> Self {
        ClosedLoop {
            returns: Profile::new(),
            latest: None,
            before: None,
            thinking: Thinking::new(),
            workers: 1,
            population: Population::default(),
            balance: Balance::default(),
            example: (1, 1),
            plan: None,
        }
    }

    /// Records an arrival. Arrivals during a batch may be reported after its completion.
    pub(super) fn arrived(&mut self, at: Instant) {
        let was_thinking = self.workers > 1 && self.thinking.arrived(at);
        if !was_thinking && self.latest.as_ref().is_some_and(|window| at < window.opened) {
            self.population.add();
        }
        let windows = [&mut self.latest, &mut self.before];
        if let Some(window) = windows.into_iter().flatten().find(|window| window.opened <= at) {
            window.count(at);
        }
    }

    /// Records a batch that ran. `present` counts the items that waited or ran when it ended, including its own, without
    /// background items.
    pub(super) fn completed(&mut self, completion: &Completion, present: usize, workers: usize) {
        let replies = completion.size - completion.background;
        let latest = self.latest.replace(Window::open(completion.finished, replies));
        if latest
            .as_ref()
            .is_some_and(|latest| latest.age(completion.started) > WATCHED)
        {
            self.population = Population::default();
            self.balance = Balance::default();
            self.thinking.clear();
        }
        self.workers = workers;
        if workers > 1 {
            let thinking = self.thinking.number(completion.finished);
            self.population.completed(present + thinking);
            self.thinking.answered(completion.finished, replies, workers);
        } else {
            self.population.completed(present);
        }
        if let (Some(before), Some(latest)) = (&self.before, &latest) {
            // Arrivals before the latest completion can no longer be reported.
            self.returns.learn(before, before.age(latest.opened).min(WATCHED));
            self.balance.observed(before, workers);
        }
        self.before = latest;
        self.example = (completion.size, completion.cost);
        self.plan = None;
    }

    /// The completions whose returns are observed, older first.
    pub(super) fn completions(&self) -> impl Iterator<Item = Instant> {
        [&self.before, &self.latest]
            .into_iter()
            .flatten()
            .map(|window| window.opened)
    }

    /// The arrivals after the latest completion.
    pub(super) fn since_completion(&self) -> Option<&Window> {
        self.latest.as_ref()
    }

    pub(super) fn returns(&self) -> &Profile {
        &self.returns
    }

    /// The number of closed-loop clients; `None` if the clients do not form a closed loop.
    pub(super) fn number(&self) -> Option<usize> {
        let is_closed = self.balance.is_kept() && self.returned().expected_by(WATCHED) > MIN_RETURNS;
        is_closed.then(|| self.population.max())
    }

    /// When clients return after their reply.
    fn returned(&self) -> &Profile {
        if self.workers > 1 {
            self.thinking.returns()
        } else {
            &self.returns
        }
    }

    /// When most of the clients that were answered are expected to have returned, if they form a closed loop and some of
    /// them have not. `present` items are present, without background items.
    pub(super) fn returned_by(&self, present: usize, now: Instant) -> Option<Instant> {
        self.number()?;
        let answered = if self.workers > 1 {
            self.thinking.answered_at(self.thinking.number(now), now)?
        } else {
            self.latest.as_ref().filter(|_| self.missing(present) > 0)?.opened
        };
        let returns = self.returned();
        let all = returns.expected_by(WATCHED);
        let most = returns
            .steps_after(0.0)
            .find(|step| step.expected >= all * MOST_RETURNED)?;
        let until = answered.checked_add(Duration::try_from_secs_f64(most.age).ok()?)?;
        (until > now).then_some(until)
    }

    /// How long the batch in `view` waits according to the plan, in seconds, and for how many clients.
    pub(super) fn planned_wait(&self, plan: Plan, view: &View) -> Option<(f64, usize)> {
        let patience = plan.patience?;
        let (missing, answered) = if view.crew.workers > 1 {
            let missing = self.thinking.number(view.now).min(self.room(plan, view));
            (missing, self.thinking.answered_at(missing, view.now)?)
        } else {
            (self.missing(view.present), self.latest.as_ref()?.opened)
        };
        let age = view.now.saturating_duration_since(answered).as_secs_f64();
        (missing > 0).then_some((patience - age, missing))
    }

    /// How many clients can join the batch in `view`.
    pub(super) fn room(&self, plan: Plan, view: &View) -> usize {
        self.share(plan, view.crew).saturating_sub(view.size)
    }

    /// With several workers: how many clients are expected to return within this time.
    pub(super) fn returns_within(&self, seconds: f64, now: Instant) -> f64 {
        self.thinking.expected_within(seconds, now)
    }

    /// Size and cost of the latest batch.
    pub(super) fn latest_batch(&self) -> Example {
        self.example
    }

    /// Maximum number of items in the next batch according to the plan, if there is a reason for less than the limit.
    pub(super) fn limit(&self, plan: Plan, crew: Crew) -> Option<usize> {
        if crew.workers > 1 {
            Some(self.share(plan, crew))
        } else {
            plan.batch
        }
    }

    /// With several workers: the clients that are not being served are divided among the idle workers.
    fn share(&self, plan: Plan, crew: Crew) -> usize {
        let clients = self.population.max();
        let share = clients
            .saturating_sub(crew.running_items)
            .div_ceil(crew.idle.max(1));
        share.min(plan.batch.unwrap_or(usize::MAX)).max(1)
    }

    /// How many clients that were answered by the latest batch have not returned, while `present` items are present.
    fn missing(&self, present: usize) -> usize {
        let Some(latest) = &self.latest else {
            return 0;
        };
        let replies = latest.causes as usize;
        replies
            .saturating_sub(latest.came as usize)
            .min(self.population.max().saturating_sub(present))
    }

    /// The plan for closed-loop clients, if there are any.
    pub(super) fn plan(&mut self, service_time: &ServiceTime, bounds: Bounds) -> Option<Plan> {
        let clients = self.number()?;
        if let Some((planned_for, plan)) = self.plan
            && planned_for == bounds
        {
            return Some(plan);
        }
        let plan = self.make_plan(clients, service_time, bounds);
        self.plan = Some((bounds, plan));
        Some(plan)
    }

    fn make_plan(&self, clients: usize, service_time: &ServiceTime, bounds: Bounds) -> Plan {
        // The clients of one worker, in groups of equal and efficient size.
        let share = clients.div_ceil(bounds.workers).max(1);
        let efficient = service_time.advice().at_most;
        let in_groups = |least: usize| {
            efficient.map_or(share, |size| {
                let groups = (share as f64 / size as f64).round() as usize;
                share.div_ceil(groups.max(least))
            })
        };
        let together = in_groups(1).min(bounds.max_size);
        let patience = self.patience(clients, together, service_time, bounds);
        // Clients that are not waited for form at least two groups, which take turns.
        let divided = efficient.is_some() || bounds.workers > 1;
        let batch = divided.then(|| {
            if patience.is_some() {
                together
            } else {
                in_groups(if bounds.workers > 1 { 1 } else { 2 }).min(bounds.max_size)
            }
        });
        Plan { patience, batch }
    }

    /// The wait with the best rate, if it is worth it, for batches of up to `most` items.
    fn patience(
        &self,
        clients: usize,
        most: usize,
        service_time: &ServiceTime,
        bounds: Bounds,
    ) -> Option<f64> {
        if clients <= bounds.workers {
            return None;
        }
        let (clients, workers, most) = (clients as f64, bounds.workers as f64, most as f64);
        let batch_with = |back: f64| (clients / (workers + 1.0 - back)).clamp(1.0, most);
        let at_once = batch_with(0.0);
        let rate = |batch: f64, waited: f64| {
            let seconds = service_time.hopeful_seconds(batch, at_once, self.example)?;
            Some(batch / (seconds + waited))
        };
        let without = rate(at_once, 0.0)?;
        // A client that returns later finds the worker free again if the batch runs immediately.
        let longest = service_time.seconds(at_once, self.example)?.min(bounds.max_delay);
        let returns = self.returned();
        let all = returns.expected_by(WATCHED);
        let (mut best, mut all_returned) = ((without, 0.0), None);
        // The expected seconds of waiting up to an age, and the probability that the wait continues there.
        let (mut waited, mut until, mut continues) = (0.0, 0.0, 1.0);
        for age in Profile::ages().take_while(|age| *age < longest).chain([longest]) {
            let back = (returns.expected_by(age) / all).min(1.0);
            let batch = batch_with(back);
            let still = 1.0 - back.powf(batch);
            waited += (age - until) * (continues + still) / 2.0;
            (until, continues) = (age, still);
            let rate = rate(batch, waited)?;
            if rate > best.0 {
                best = (rate, age);
            }
            all_returned = Some((rate, age));
            // A full batch does not wait for clients that do not fit.
            if back > ALL_RETURNED || (batch >= most && clients > workers * most) {
                break;
            }
        }
        let chosen = all_returned
            .filter(|candidate| candidate.0 > best.0 * NEARLY_AS_GOOD)
            .unwrap_or(best);
        is_higher(chosen.0, without, service_time.doubt()).then_some(chosen.1)
    }
}
