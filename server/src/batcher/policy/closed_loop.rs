//! ClosedLoop that go round: who wait for a reply, think, and ask again.
//!
//! Owned by the policy [`adaptive`](super::adaptive) of one task. It learns from arrivals and completions whether the
//! task's callers go round, how many they are and how soon they are back, and plans their rounds by that. It knows
//! nothing of the queue, and of the cost of a batch only what it is told.
//!
//! # What is learned
//! - *Returns*, F(t): the part of those who had a reply that are back after t. A request of n items is n arrivals and n
//!   replies.
//! - *Balance*: whether as many come between two completions as had a reply in the first. Only callers that go round
//!   keep it; in Poisson arrivals the difference is as large as chance makes it.
//! - *Crowd*, N: the most items that were there at once, at any of the latest completions. Where callers go round, each
//!   is there shortly before the completion that ends its waiting, whichever groups they form: N is their number.
//!
//! # The plan
//! A worker that is free runs what waits, or lets it wait for those who are on their way. If it waits for up to w, F(w)
//! of those who had a reply join its next batch; the others wait for the one after, where they meet the same again. In a
//! steady state with W workers a batch so holds
//!
//! ```text
//! j(w) = N / (W + 1 − F(w))
//! ```
//!
//! which is half of one worker's callers if it never waits (two groups that take turns), and all of them if it waits for
//! all. What the worker gets done is
//!
//! ```text
//! rate(w) = j(w) / (service(j(w)) + E[min(w, time until all are back)])
//! ```
//!
//! By Little's law the callers' mean latency is N / rate less their thinking, so the best rate is the best latency too.
//! The w with the best rate is taken if it is worth it. One rule goes before: whoever just misses a batch waits for a
//! round more than the others, so waiting for practically everybody is preferred if it is nearly as good, and better
//! than not to wait at all.

use std::time::Instant;

use super::cost::{Cost, Example};
use super::profile::{Profile, Window};
use crate::batcher::Completion;

/// Returns are watched this long, in seconds, if no further batch completes. After a longer silence, those who come are
/// not taken for the callers of before.
pub(super) const WATCHED: f64 = 1.0;

/// Totals of rounds cover about so many of the latest.
const ROUNDS: f64 = 16.0;

/// How many completions the number of callers is taken from.
const CROWDS: usize = 8;

/// A profile that promises at least this part of the replies back tells of callers that go round.
const MOST_RETURN: f64 = 0.8;

/// When this part is back, practically everybody is.
const EVERYBODY: f64 = 0.995;

/// The part of the best rate that is enough where nobody is left out.
const NEARLY_AS_GOOD: f64 = 0.8;

/// By how much a plan must be better than not to wait, and how much of the doubt about costs is added to that.
const WORTH_IT: f64 = 1.03;
const DOUBT: f64 = 2.0;

/// The most items that were there at once, at each of the latest completions.
#[derive(Clone, Copy, Debug, Default)]
struct Crowd {
    peaks: [usize; CROWDS],
    latest: usize,
}

impl Crowd {
    fn saw(&mut self, present: usize) {
        self.latest = (self.latest + 1) % CROWDS;
        self.peaks[self.latest] = present;
    }

    /// One more than was known was there at the latest completion.
    fn add(&mut self) {
        self.peaks[self.latest] += 1;
    }

    fn most(&self) -> usize {
        self.peaks.into_iter().max().unwrap_or(0)
    }
}

/// Whether as many come as had a reply.
#[derive(Clone, Copy, Debug, Default)]
struct Balance {
    /// The round that is not over: its completions, its replies, and how many more came.
    completions: usize,
    replies: f64,
    more: f64,
    /// Over the latest rounds: the replies, and the squares of how many more or fewer came.
    all_replies: f64,
    imbalance: f64,
}

impl Balance {
    /// Takes note of what followed a completion. A round is a completion of each worker.
    fn followed(&mut self, window: &Window, workers: usize) {
        self.completions += 1;
        self.replies += window.causes;
        self.more += f64::from(window.came) - window.causes;
        if self.completions >= workers {
            self.all_replies += self.replies - self.all_replies / ROUNDS;
            self.imbalance += self.more * self.more - self.imbalance / ROUNDS;
            (self.completions, self.replies, self.more) = (0, 0.0, 0.0);
        }
    }

    /// Chance alone makes the square as large as the replies.
    fn is_kept(&self) -> bool {
        self.imbalance < self.all_replies / 2.0
    }
}

/// What a task's batches are bounded by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    pub(super) max_size: usize,
    pub(super) workers: usize,
    /// Longest wait, in seconds.
    pub(super) max_delay: f64,
}

/// How the callers go round until the next batch completes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    /// How long after a completion those who had a reply are waited for, in seconds; none where that is worth nothing.
    pub(super) patience: Option<f64>,
    /// Most items in a batch, if there is a reason for less than the limit.
    pub(super) batch: Option<usize>,
}

/// All that is known of the callers of one task.
#[derive(Clone, Debug)]
pub(super) struct ClosedLoop {
    returns: Profile,
    /// What came after the latest completion, and after the one before, of which items may be told late.
    latest: Option<Window>,
    before: Option<Window>,
    crowd: Crowd,
    balance: Balance,
    /// The latest batch.
    example: Example,
    /// Holds until the next completion.
    plan: Option<(Bounds, Plan)>,
}

impl ClosedLoop {
    pub(super) fn new() -> Self {
        ClosedLoop {
            returns: Profile::new(),
            latest: None,
            before: None,
            crowd: Crowd::default(),
            balance: Balance::default(),
            example: (1, 1),
            plan: None,
        }
    }

    /// Takes note of an item. Those that came while every worker was busy may be told after the completion.
    pub(super) fn arrived(&mut self, at: Instant) {
        if self.latest.as_ref().is_some_and(|window| at < window.opened) {
            self.crowd.add();
        }
        let windows = [&mut self.latest, &mut self.before];
        if let Some(window) = windows.into_iter().flatten().find(|window| window.opened <= at) {
            window.count(at);
        }
    }

    /// Takes note of a batch that ran, while `present` items were there, its own included.
    pub(super) fn completed(&mut self, completion: &Completion, present: usize, workers: usize) {
        let latest = self
            .latest
            .replace(Window::open(completion.finished, completion.size));
        if latest
            .as_ref()
            .is_some_and(|latest| latest.age(completion.started) > WATCHED)
        {
            self.crowd = Crowd::default();
            self.balance = Balance::default();
        }
        self.crowd.saw(present);
        if let (Some(before), Some(latest)) = (&self.before, &latest) {
            // Nothing that came before the latest completion can be told any more.
            self.returns.learn(before, before.age(latest.opened).min(WATCHED));
            self.balance.followed(before, workers);
        }
        self.before = latest;
        self.example = (completion.size, completion.cost);
        self.plan = None;
    }

    /// The completions whose returns are watched, the older first.
    pub(super) fn completions(&self) -> impl Iterator<Item = Instant> {
        [&self.before, &self.latest]
            .into_iter()
            .flatten()
            .map(|window| window.opened)
    }

    /// What came after the latest completion.
    pub(super) fn since_completion(&self) -> Option<&Window> {
        self.latest.as_ref()
    }

    pub(super) fn returns(&self) -> &Profile {
        &self.returns
    }

    /// How many there are, if they go round.
    pub(super) fn number(&self) -> Option<usize> {
        let go_round = self.balance.is_kept() && self.returns.expected_by(WATCHED) > MOST_RETURN;
        go_round.then(|| self.crowd.most())
    }

    /// How many of those who had a reply in the latest batch are not back, if `present` items of all are there.
    pub(super) fn missing(&self, present: usize) -> usize {
        let Some(latest) = &self.latest else {
            return 0;
        };
        let replies = latest.causes as usize;
        replies
            .saturating_sub(latest.came as usize)
            .min(self.crowd.most().saturating_sub(present))
    }

    /// How they go round, if they do.
    pub(super) fn plan(&mut self, cost: &Cost, bounds: Bounds) -> Option<Plan> {
        let callers = self.number()?;
        if let Some((planned_for, plan)) = self.plan
            && planned_for == bounds
        {
            return Some(plan);
        }
        let plan = self.make_plan(callers, cost, bounds);
        self.plan = Some((bounds, plan));
        Some(plan)
    }

    fn make_plan(&self, callers: usize, cost: &Cost, bounds: Bounds) -> Plan {
        // What one worker has to do, in groups of an efficient size, all as large.
        let share = callers.div_ceil(bounds.workers).max(1);
        let efficient = cost.advice().at_most;
        let in_groups = |least: usize| {
            efficient.map_or(share, |size| {
                let groups = (share as f64 / size as f64).round() as usize;
                share.div_ceil(groups.max(least))
            })
        };
        let gathered = in_groups(1).min(bounds.max_size);
        let patience = self.patience(callers, gathered, cost, bounds);
        // ClosedLoop who are not waited for are at least in two groups, that take turns.
        let divided = efficient.is_some() || bounds.workers > 1;
        let batch = divided.then(|| {
            if patience.is_some() {
                gathered
            } else {
                in_groups(2)
            }
        });
        Plan { patience, batch }
    }

    /// The wait with the best rate, if it is worth it, for batches of up to `most`.
    fn patience(&self, callers: usize, most: usize, cost: &Cost, bounds: Bounds) -> Option<f64> {
        if callers <= bounds.workers {
            return None;
        }
        let (callers, workers, most) = (callers as f64, bounds.workers as f64, most as f64);
        let batch_with = |back: f64| (callers / (workers + 1.0 - back)).clamp(1.0, most);
        let at_once = batch_with(0.0);
        let rate = |batch: f64, waited: f64| {
            let seconds = cost.hopeful_seconds(batch, at_once, self.example)?;
            Some(batch / (seconds + waited))
        };
        let without = rate(at_once, 0.0)?;
        // Whoever comes later than that finds the worker free again, if the batch runs at once.
        let longest = cost.seconds(at_once, self.example)?.min(bounds.max_delay);
        let all = self.returns.expected_by(WATCHED);
        let (mut best, mut everybody) = ((without, 0.0), None);
        // Seconds that a worker waits until an age, and the chance that it goes on there.
        let (mut waited, mut until, mut goes_on) = (0.0, 0.0, 1.0);
        for age in Profile::ages().take_while(|age| *age < longest).chain([longest]) {
            let back = (self.returns.expected_by(age) / all).min(1.0);
            let batch = batch_with(back);
            let still = 1.0 - back.powf(batch);
            waited += (age - until) * (goes_on + still) / 2.0;
            (until, goes_on) = (age, still);
            let rate = rate(batch, waited)?;
            if rate > best.0 {
                best = (rate, age);
            }
            everybody = Some((rate, age));
            // A full batch does not wait for those who do not fit.
            if back > EVERYBODY || (batch >= most && callers > workers * most) {
                break;
            }
        }
        let chosen = everybody
            .filter(|everybody| everybody.0 > best.0 * NEARLY_AS_GOOD)
            .unwrap_or(best);
        (chosen.0 > without * (WORTH_IT + DOUBT * cost.doubt())).then_some(chosen.1)
    }
}
