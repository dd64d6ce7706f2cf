//! Chooses the items of a lane that share a batch with the item that leads it.
//!
//! Called by the [`Batcher`](super::Batcher) with a lane and its leading item; changes nothing. The leading item is always
//! in the batch. Its class is considered first, then the others in their order, each within a bounded window of its oldest
//! items, so that the cost of filling does not depend on the length of the queue. Time and policies are unknown here.

use std::cmp::Reverse;
use std::time::Instant;

use super::extremes::earlier;
use super::lane::{CLASSES, Entry, Lane, Line, Position};
use super::policy::Limit;
use super::queue::Head;
use crate::batching::{Policy, Priority, TaskBatching, WeightRule};

/// Minimum number of items of a class that are considered.
const MIN_WINDOW: usize = 64;

/// The window of a class is larger by this factor than the number of its items that fit in order of age.
const WINDOW_PER_FITTING: usize = 4;

/// The limits of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_size: usize,
    pub(super) max_weight: Option<u64>,
    pub(super) rule: WeightRule,
}

impl Limits {
    pub(super) fn of(task: &TaskBatching) -> Self {
        let max_size = match task.policy {
            Policy::Off => 1,
            Policy::Adaptive { .. } | Policy::Fixed { .. } | Policy::Greedy => task.max_batch_size.get(),
        };
        Limits {
            max_size,
            max_weight: task.max_batch_weight,
            rule: task.weight_rule,
        }
    }

    /// The same limits with a smaller maximum size.
    pub(super) fn narrowed(&self, max_size: Option<usize>) -> Self {
        Limits {
            max_size: max_size.map_or(self.max_size, |max_size| max_size.min(self.max_size)),
            ..*self
        }
    }
}

/// Size and weights of the items of a batch.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    size: usize,
    heaviest: u64,
    sum: u64,
}

impl Load {
    fn with(self, weight: u64) -> Self {
        Load {
            size: self.size + 1,
            heaviest: self.heaviest.max(weight),
            sum: self.sum.saturating_add(weight),
        }
    }

    fn cost(&self, rule: WeightRule) -> u64 {
        match rule {
            WeightRule::Padded => self.heaviest.saturating_mul(self.size as u64),
            WeightRule::Sum => self.sum,
        }
    }

    fn is_within(&self, limits: &Limits) -> bool {
        self.size <= limits.max_size
            && limits
                .max_weight
                .is_none_or(|max_weight| self.cost(limits.rule) <= max_weight)
    }

    /// The padding if every item is padded to the heaviest one.
    fn padding(&self) -> u64 {
        self.cost(WeightRule::Padded).saturating_sub(self.sum)
    }

    /// Maximum number of items that can join if the heaviest of them weighs at most `weight`. For summed weights, only
    /// whether it is zero has a meaning.
    fn room(&self, limits: &Limits, weight: u64) -> usize {
        let by_size = limits.max_size.saturating_sub(self.size);
        let Some(max_weight) = limits.max_weight else {
            return by_size;
        };
        let by_weight = match limits.rule {
            WeightRule::Padded => max_weight.checked_div(self.heaviest.max(weight)).map(|fit| {
                let fit = usize::try_from(fit).unwrap_or(usize::MAX);
                fit.saturating_sub(self.size)
            }),
            WeightRule::Sum => (self.sum >= max_weight).then_some(0),
        };
        by_weight.map_or(by_size, |by_weight| by_size.min(by_weight))
    }
}

/// Which items of a lane form a batch.
#[derive(Clone, Debug)]
pub(super) enum Members {
    /// All of them.
    All,
    /// These, by class and place.
    Chosen(Vec<(Priority, Position)>),
}

/// A batch as it would run now: the chosen items, and their properties together.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) members: Members,
    pub(super) oldest_arrival: Instant,
    pub(super) oldest_ready: Instant,
    pub(super) earliest_deadline: Option<Instant>,
    load: Load,
}

impl Draft {
    pub(super) fn size(&self) -> usize {
        self.load.size
    }

    /// The cost of the batch by `rule`.
    pub(super) fn cost(&self, rule: WeightRule) -> u64 {
        self.load.cost(rule)
    }

    /// The limit that prevents the other waiting items, or items that may arrive, from joining this batch.
    pub(super) fn reached(&self, limits: &Limits, waiting: usize) -> Option<Limit> {
        if self.size() >= limits.max_size {
            Some(Limit::Size)
        } else if waiting > self.size() || self.load.room(limits, 0) == 0 {
            Some(Limit::Weight)
        } else {
            None
        }
    }
}

/// The cost of a batch of items with these weights.
pub(super) fn cost(weights: impl Iterator<Item = u64>, rule: WeightRule) -> u64 {
    weights.fold(Load::default(), Load::with).cost(rule)
}

/// Chooses the batch that `lead`, the oldest item of `class` in `lane`, leads.
pub(super) fn fill(lane: &mut Lane, class: Priority, lead: Head, limits: &Limits) -> Draft {
    whole(lane, limits).unwrap_or_else(|| choose(lane, class, lead, limits))
}

/// All items of the lane, if they fit. Every batch that stays open is of this kind, so this neither reads the items nor
/// allocates.
fn whole(lane: &mut Lane, limits: &Limits) -> Option<Draft> {
    // A padded batch costs at least the sum of its weights as well.
    let is_too_heavy = limits
        .max_weight
        .is_some_and(|max_weight| lane.sum() > max_weight);
    if lane.len() > limits.max_size || is_too_heavy {
        lane.forget_totals();
        return None;
    }
    let totals = lane.totals();
    let load = Load {
        size: totals.size,
        heaviest: totals.extremes.heaviest,
        sum: totals.sum,
    };
    load.is_within(limits).then_some(Draft {
        members: Members::All,
        oldest_arrival: totals.oldest_arrival?,
        oldest_ready: totals.extremes.oldest_ready?,
        earliest_deadline: totals.extremes.earliest_deadline,
        load,
    })
}

/// The best choice if not all items of the lane fit.
fn choose(lane: &Lane, class: Priority, lead: Head, limits: &Limits) -> Draft {
    let mut chosen: Vec<(Priority, Position, Entry)> = Vec::new();
    let mut load = Load::default();
    if let Some(entry) = lane.line(class).get(&lead.place) {
        chosen.push((class, lead.place, *entry));
        load = load.with(entry.weight);
    }
    for class in std::iter::once(class).chain(CLASSES.into_iter().filter(|other| *other != class)) {
        if load.room(limits, 0) == 0 {
            break;
        }
        for (place, entry) in choose_of_class(lane.line(class), lead, load, limits) {
            chosen.push((class, place, entry));
            load = load.with(entry.weight);
        }
    }
    let arrived = chosen.iter().map(|(_, place, _)| place.arrived);
    let ready = chosen.iter().map(|(_, place, entry)| entry.ready(*place));
    let deadlines = chosen.iter().map(|(_, _, entry)| entry.deadline);
    Draft {
        oldest_arrival: arrived.min().unwrap_or(lead.place.arrived),
        oldest_ready: ready.min().unwrap_or(lead.place.arrived),
        earliest_deadline: deadlines.fold(None, earlier),
        members: Members::Chosen(
            chosen
                .into_iter()
                .map(|(class, place, _)| (class, place))
                .collect(),
        ),
        load,
    }
}

/// Chooses the items of one class that join a batch with this `load`.
///
/// The line is searched in order of age. The depth depends on how many items fit if they are simply taken in that order, so
/// that the search stays proportional to the batch. It ends early if no choice can be better.
fn choose_of_class(line: &Line, lead: Head, load: Load, limits: &Limits) -> Vec<(Position, Entry)> {
    let mut window = Vec::new();
    let mut fitting = Vec::new();
    let mut filled = load;
    for (place, entry) in line.iter().filter(|(place, _)| **place != lead.place) {
        let is_best = limits.rule == WeightRule::Sum || filled.padding() == 0;
        if is_best && filled.room(limits, 0) == 0 {
            return fitting;
        }
        if window.len() >= MIN_WINDOW.max(WINDOW_PER_FITTING * fitting.len()) {
            break;
        }
        window.push((*place, *entry));
        let with = filled.with(entry.weight);
        if with.is_within(limits) {
            filled = with;
            fitting.push((*place, *entry));
        }
    }
    if limits.rule == WeightRule::Sum || fitting.len() == window.len() {
        fitting
    } else {
        least_padded(load, &window, limits)
    }
}

/// As many items as fit; among those choices, the one with the least padding; among those, the one with the oldest items.
///
/// For a given heaviest weight of the batch, the best choice is the heaviest items up to that weight, because they are
/// padded least. In order of weight, the candidates are therefore ranges, one for each item at the end, and prefix sums
/// evaluate each of them in constant time.
fn least_padded(load: Load, window: &[(Position, Entry)], limits: &Limits) -> Vec<(Position, Entry)> {
    // Among equal weights the youngest come first, so that a range that contains only some of them contains the oldest.
    let mut by_weight: Vec<(u64, Reverse<usize>)> = window
        .iter()
        .enumerate()
        .map(|(age, (_, entry))| (entry.weight, Reverse(age)))
        .collect();
    by_weight.sort_unstable();

    // Sums over the first n items, by n: of their weights, and of their positions in the queue.
    let mut sums = Vec::with_capacity(by_weight.len() + 1);
    sums.push((0_u128, 0_usize));
    for &(weight, Reverse(age)) in &by_weight {
        let (weights, ages) = sums[sums.len() - 1];
        sums.push((weights + u128::from(weight), ages + age));
    }

    let mut best = None;
    for end in 1..=by_weight.len() {
        let heaviest = load.heaviest.max(by_weight[end - 1].0);
        let count = load.room(limits, heaviest).min(end);
        let start = end - count;
        let size = (load.size + count) as u128;
        let weights = sums[end].0 - sums[start].0 + u128::from(load.sum);
        let padding = (size * u128::from(heaviest)).saturating_sub(weights);
        let score = (count, Reverse(padding), Reverse(sums[end].1 - sums[start].1));
        if best.as_ref().is_none_or(|(best_score, _)| score > *best_score) {
            best = Some((score, start..end));
        }
    }
    let (_, range) = best.unwrap_or(((0, Reverse(0), Reverse(0)), 0..0));
    by_weight[range]
        .iter()
        .map(|(_, Reverse(age))| window[*age])
        .collect()
}
