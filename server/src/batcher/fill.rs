//! Chooses the items of a lane that share a batch with the item that leads it.
//!
//! Called by the [`Batcher`](super::Batcher) with a lane and its leading item; changes nothing. The leading item is always
//! in the batch. Its class is considered first, then the others in their order, each within a bounded window of its oldest
//! items, so that the cost of filling does not depend on the length of the queue. Time and policies are unknown here.

use std::cmp::Reverse;
use std::time::Instant;

use super::cost_model::{BatchShape, CostModel};
use super::efficient_fill::{BatchTime, most_efficient};
use super::extremes::earlier;
use super::lane::{CLASSES, Entry, Lane, Line, Position};
use super::memory_budget::TaskMemory;
use super::policy::Limit;
use super::queue::Head;
use crate::batching::{Policy, Priority, TaskBatching, WeightRule};

/// Minimum number of items of a class that are considered.
const MIN_WINDOW: usize = 64;

/// The same if the time of batches is calibrated, so that the most efficient items are worth searching for.
const MIN_EFFICIENT_WINDOW: usize = 256;

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

/// What a batch must satisfy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Constraints<'a> {
    pub(super) limits: Limits,
    /// The predicted memory, if it is known.
    pub(super) memory: Option<&'a TaskMemory>,
    /// The calibrated time, if it is known.
    pub(super) time: Option<&'a CostModel>,
}

impl Constraints<'_> {
    pub(super) fn is_memory_limited(&self) -> bool {
        self.memory.is_some_and(TaskMemory::is_limited)
    }

    pub(super) fn admits_memory(&self, load: &Load) -> bool {
        self.memory.is_none_or(|memory| memory.admits(&load.shape))
    }

    pub(super) fn admits(&self, load: &Load) -> bool {
        load.is_within(&self.limits) && self.admits_memory(load)
    }

    /// The limit that prevents even the lightest item from joining.
    pub(super) fn exhausted(&self, load: &Load) -> Option<Limit> {
        if load.size() >= self.limits.max_size {
            Some(Limit::Size)
        } else if load.room(&self.limits, 0) == 0 {
            Some(Limit::Weight)
        } else {
            (!self.admits_memory(&load.with(1))).then_some(Limit::Memory)
        }
    }
}

/// The items of a batch together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    shape: BatchShape,
}

impl Load {
    pub(super) fn of(shape: BatchShape) -> Self {
        Self { shape }
    }

    pub(super) fn shape(&self) -> BatchShape {
        self.shape
    }

    pub(super) fn with(mut self, weight: u64) -> Self {
        self.shape.add(weight);
        self
    }

    pub(super) fn heaviest(&self) -> u64 {
        self.shape.heaviest
    }

    pub(super) fn size(&self) -> usize {
        self.shape.items as usize
    }

    pub(super) fn cost(&self, rule: WeightRule) -> u64 {
        match rule {
            WeightRule::Padded => self.shape.heaviest.saturating_mul(self.shape.items),
            WeightRule::Sum => self.shape.sum,
        }
    }

    fn is_within(&self, limits: &Limits) -> bool {
        self.size() <= limits.max_size
            && limits
                .max_weight
                .is_none_or(|max_weight| self.cost(limits.rule) <= max_weight)
    }

    /// The padding if every item is padded to the heaviest one.
    fn padding(&self) -> u64 {
        self.cost(WeightRule::Padded).saturating_sub(self.shape.sum)
    }

    /// Maximum number of items that can join if the heaviest of them weighs at most `weight`. For summed weights, only
    /// whether it is zero has a meaning.
    pub(super) fn room(&self, limits: &Limits, weight: u64) -> usize {
        let by_size = limits.max_size.saturating_sub(self.size());
        let Some(max_weight) = limits.max_weight else {
            return by_size;
        };
        let by_weight = match limits.rule {
            WeightRule::Padded => max_weight
                .checked_div(self.shape.heaviest.max(weight))
                .map(|fit| {
                    let fit = usize::try_from(fit).unwrap_or(usize::MAX);
                    fit.saturating_sub(self.size())
                }),
            WeightRule::Sum => (self.shape.sum >= max_weight).then_some(0),
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
    /// Why the batch has fewer items than `max_size` and the maximum weight permit.
    restraint: Option<Limit>,
}

impl Draft {
    pub(super) fn size(&self) -> usize {
        self.load.size()
    }

    pub(super) fn shape(&self) -> &BatchShape {
        &self.load.shape
    }

    /// The cost of the batch by `rule`.
    pub(super) fn cost(&self, rule: WeightRule) -> u64 {
        self.load.cost(rule)
    }

    /// The limit that prevents the other waiting items, or items that may arrive, from joining this batch.
    pub(super) fn reached(&self, constraints: &Constraints<'_>, waiting: usize) -> Option<Limit> {
        match constraints.exhausted(&self.load) {
            Some(Limit::Size) => Some(Limit::Size),
            _ if self.restraint.is_some() => self.restraint,
            exhausted => exhausted.or_else(|| (waiting > self.size()).then_some(Limit::Weight)),
        }
    }
}

/// The cost of a batch of this shape.
pub(super) fn cost(shape: &BatchShape, rule: WeightRule) -> u64 {
    Load { shape: *shape }.cost(rule)
}

/// Chooses the batch that `lead`, the oldest item of `class` in `lane`, leads.
pub(super) fn fill(lane: &mut Lane, class: Priority, lead: Head, constraints: &Constraints<'_>) -> Draft {
    whole(lane, constraints).unwrap_or_else(|| choose(lane, class, lead, constraints))
}

/// All items of the lane, if they fit. Every batch that stays open is of this kind, so this neither reads the items nor
/// allocates.
fn whole(lane: &mut Lane, constraints: &Constraints<'_>) -> Option<Draft> {
    let limits = &constraints.limits;
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
        shape: BatchShape {
            items: totals.size as u64,
            heaviest: totals.extremes.heaviest,
            sum: totals.sum,
            sum_of_squares: totals.sum_of_squares as f64,
        },
    };
    constraints.admits(&load).then_some(Draft {
        members: Members::All,
        oldest_arrival: totals.oldest_arrival?,
        oldest_ready: totals.extremes.oldest_ready?,
        earliest_deadline: totals.extremes.earliest_deadline,
        load,
        restraint: None,
    })
}

/// The best choice if not all items of the lane fit.
fn choose(lane: &Lane, class: Priority, lead: Head, constraints: &Constraints<'_>) -> Draft {
    let mut chosen: Vec<(Priority, Position, Entry)> = Vec::new();
    let mut load = Load::default();
    let mut restraint = None;
    let time = BatchTime::new(constraints.time, constraints.limits);
    let worth = |weight| time.as_ref().and_then(|time| time.value(weight)).unwrap_or(0.0);
    let mut value = 0.0;
    if let Some(entry) = lane.line(class).get(&lead.place) {
        chosen.push((class, lead.place, *entry));
        load = load.with(entry.weight);
        value += worth(entry.weight);
    }
    for class in std::iter::once(class).chain(CLASSES.into_iter().filter(|other| *other != class)) {
        if let Some(limit) = constraints.exhausted(&load) {
            restraint = restraint.or((limit == Limit::Memory).then_some(limit));
            break;
        }
        let of_class = choose_of_class(lane.line(class), lead, (load, value), constraints, time.as_ref());
        restraint = restraint.or(of_class.restraint);
        for (place, entry) in of_class.items {
            chosen.push((class, place, entry));
            load = load.with(entry.weight);
            value += worth(entry.weight);
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
        restraint,
    }
}

/// The items of one class that join a batch.
struct OfClass {
    items: Vec<(Position, Entry)>,
    /// Why they are fewer than `max_size` and the maximum weight permit.
    restraint: Option<Limit>,
}

/// Chooses the items of one class that join a batch with this `load`, which is worth `value`.
///
/// The line is searched in order of age. The depth depends on how many items fit if they are simply taken in that order, so
/// that the search stays proportional to the batch. It ends early if no choice can be better.
fn choose_of_class(
    line: &Line,
    lead: Head,
    (load, value): (Load, f64),
    constraints: &Constraints<'_>,
    time: Option<&BatchTime<'_>>,
) -> OfClass {
    let limits = &constraints.limits;
    let mut window = Vec::new();
    let mut fitting = Vec::new();
    let mut filled = load;
    let mut restraint = None;
    let min_window = if time.is_some() {
        MIN_EFFICIENT_WINDOW
    } else {
        MIN_WINDOW
    };
    for (place, entry) in line.iter().filter(|(place, _)| **place != lead.place) {
        let is_best = limits.rule == WeightRule::Sum || filled.padding() == 0;
        if is_best && let Some(limit) = constraints.exhausted(&filled) {
            return OfClass {
                items: fitting,
                restraint: restraint.or((limit == Limit::Memory).then_some(limit)),
            };
        }
        if window.len() >= min_window.max(WINDOW_PER_FITTING * fitting.len()) {
            break;
        }
        window.push((*place, *entry));
        let with = filled.with(entry.weight);
        if !with.is_within(limits) {
            continue;
        }
        if constraints.admits_memory(&with) {
            filled = with;
            fitting.push((*place, *entry));
        } else {
            restraint = Some(Limit::Memory);
        }
    }
    if limits.rule == WeightRule::Sum || fitting.len() == window.len() {
        return OfClass {
            items: fitting,
            restraint,
        };
    }
    if let Some(items) = time.and_then(|time| most_efficient(load, value, &window, constraints, time)) {
        // The batch is as large as it should be, unless memory restrains it.
        let restraint = restraint.or((items.len() < fitting.len()).then_some(Limit::Policy));
        return OfClass { items, restraint };
    }
    OfClass {
        items: least_padded(load, &window, constraints),
        restraint,
    }
}

/// As many items as fit; among those choices, the one with the least padding; among those, the one with the oldest items.
///
/// For a given heaviest weight of the batch, the best choice is the heaviest items up to that weight, because they are
/// padded least. In order of weight, the candidates are therefore ranges, one for each item at the end, and prefix sums
/// evaluate each of them in constant time. From one candidate to the next, the number of items that fit grows by at most
/// one, so that all of them together are found in linear time.
fn least_padded(
    load: Load,
    window: &[(Position, Entry)],
    constraints: &Constraints<'_>,
) -> Vec<(Position, Entry)> {
    // Among equal weights the youngest come first, so that a range that contains only some of them contains the oldest.
    let mut by_weight: Vec<(u64, Reverse<usize>)> = window
        .iter()
        .enumerate()
        .map(|(age, (_, entry))| (entry.weight, Reverse(age)))
        .collect();
    by_weight.sort_unstable();

    let mut sums = Vec::with_capacity(by_weight.len() + 1);
    sums.push(PrefixSums::default());
    for &(weight, Reverse(age)) in &by_weight {
        sums.push(sums[sums.len() - 1].with(weight, age));
    }

    let mut best = None;
    let mut count = 0;
    for end in 1..=by_weight.len() {
        let heaviest = load.shape.heaviest.max(by_weight[end - 1].0);
        let with = |count: usize| sums[end].since(&sums[end - count], count, heaviest, &load);
        count = (count + 1).min(load.room(&constraints.limits, heaviest));
        while count > 0 && !constraints.admits_memory(&with(count)) {
            count -= 1;
        }
        let start = end - count;
        let padding = with(count).padding();
        let score = (
            count,
            Reverse(padding),
            Reverse(sums[end].ages - sums[start].ages),
        );
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

/// Sums over the first items in order of weight.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PrefixSums {
    weights: u64,
    squares: u128,
    /// Of their positions in the queue.
    ages: usize,
}

impl PrefixSums {
    pub(super) fn with(self, weight: u64, age: usize) -> Self {
        Self {
            weights: self.weights + weight,
            squares: self.squares + square(weight),
            ages: self.ages + age,
        }
    }

    /// The batch of `load` and the `count` items between `start` and this, the heaviest of which weighs `heaviest`.
    pub(super) fn since(&self, start: &Self, count: usize, heaviest: u64, load: &Load) -> Load {
        let shape = &load.shape;
        Load {
            shape: BatchShape {
                items: shape.items + count as u64,
                heaviest: if count > 0 { heaviest } else { shape.heaviest },
                sum: shape.sum.saturating_add(self.weights - start.weights),
                sum_of_squares: shape.sum_of_squares + (self.squares - start.squares) as f64,
            },
        }
    }
}

/// Does not overflow: weights are bounded by [`MAX_WEIGHT`](crate::batching::MAX_WEIGHT).
pub(super) fn square(weight: u64) -> u128 {
    u128::from(weight) * u128::from(weight)
}
