//! Who runs: which items of a lane share a batch with the item that leads it.
//!
//! Called by the [`Batcher`](super::Batcher) with a lane and the head that leads; changes nothing. The lead is always
//! in the batch. The class of the lead is served first, then the others in their order, each from a bounded window of
//! its oldest items, so that a fill costs the same however many items are queued. Time and policies are unknown here.

use std::cmp::Reverse;
use std::time::Instant;

use super::policy::Limit;
use super::queue::{CLASSES, Entry, Head, Lane, Line, Place};
use crate::batching::{Policy, Priority, TaskBatching, WeightRule};

/// A class is searched at least this deep.
const MIN_WINDOW: usize = 64;

/// A class is searched this many times deeper than there are items that fit when taken in order.
const WINDOW_PER_FITTING: usize = 4;

/// What a batch may hold.
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
}

impl Limits {
    /// The same with a smaller batch.
    pub(super) fn narrowed(&self, max_size: Option<usize>) -> Self {
        Limits {
            max_size: max_size.map_or(self.max_size, |max_size| max_size.min(self.max_size)),
            ..*self
        }
    }
}

/// What the items of a batch weigh together.
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

    /// What is added where every item is padded to the heaviest.
    fn padding(&self) -> u64 {
        self.cost(WeightRule::Padded).saturating_sub(self.sum)
    }

    /// The most items that can join, if the heaviest of them is at most `weight`. For summed weights this only says
    /// whether anything that weighs something can.
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

/// A batch as it would run now: the items chosen, and what is to be known of them together.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) places: Vec<(Priority, Place)>,
    pub(super) oldest_arrival: Instant,
    pub(super) earliest_deadline: Option<Instant>,
    load: Load,
}

impl Draft {
    fn empty(lead: Head) -> Self {
        Draft {
            places: Vec::new(),
            oldest_arrival: lead.place.arrived,
            earliest_deadline: None,
            load: Load::default(),
        }
    }

    fn add(&mut self, class: Priority, place: Place, entry: Entry) {
        self.places.push((class, place));
        self.oldest_arrival = self.oldest_arrival.min(place.arrived);
        self.earliest_deadline = earlier(self.earliest_deadline, entry.deadline);
        self.load = self.load.with(entry.weight);
    }

    pub(super) fn size(&self) -> usize {
        self.load.size
    }

    /// What the batch costs by `rule`.
    pub(super) fn cost(&self, rule: WeightRule) -> u64 {
        self.load.cost(rule)
    }

    /// The limit that keeps the others that wait, or any that may come, out of this batch.
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

/// Chooses the batch that `lead`, the oldest item of `class` in `lane`, leads.
pub(super) fn fill(lane: &Lane, class: Priority, lead: Head, limits: &Limits) -> Draft {
    if let Some(draft) = whole(lane, lead, limits) {
        return draft;
    }
    let mut draft = Draft::empty(lead);
    if let Some(entry) = lane.line(class).get(&lead.place) {
        draft.add(class, lead.place, *entry);
    }
    for class in std::iter::once(class).chain(CLASSES.into_iter().filter(|other| *other != class)) {
        if draft.load.room(limits, 0) == 0 {
            break;
        }
        for (place, entry) in choose(lane.line(class), lead, draft.load, limits) {
            draft.add(class, place, entry);
        }
    }
    draft
}

/// All that wait in the lane, if they fit: then there is nothing to choose. A batch that stays open takes this way.
fn whole(lane: &Lane, lead: Head, limits: &Limits) -> Option<Draft> {
    if lane.len() > limits.max_size {
        return None;
    }
    let mut draft = Draft::empty(lead);
    for class in CLASSES {
        for (place, entry) in lane.line(class) {
            draft.add(class, *place, *entry);
            if !draft.load.is_within(limits) {
                return None;
            }
        }
    }
    Some(draft)
}

/// Chooses the items of one class that join a batch which weighs `load`.
///
/// The line is searched in order of age. How deep depends on how many fit when they are simply taken in that order, so
/// that the search stays in proportion to the batch. It ends early where no choice can be better.
fn choose(line: &Line, lead: Head, load: Load, limits: &Limits) -> Vec<(Place, Entry)> {
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

/// As many items as fit; of the ways to do that, the one with the least padding; of those, the one with the oldest
/// items.
///
/// Given the heaviest weight that the batch is to have, the best choice is the heaviest items up to that weight: they
/// are padded least. So in order of weight every choice worth looking at is a range, one for each item to end with,
/// and sums over prefixes make each a matter of a few operations.
fn least_padded(load: Load, window: &[(Place, Entry)], limits: &Limits) -> Vec<(Place, Entry)> {
    // Among equal weights the youngest come first, so that a range which takes only some of them takes the oldest.
    let mut by_weight: Vec<(u64, Reverse<usize>)> = window
        .iter()
        .enumerate()
        .map(|(age, (_, entry))| (entry.weight, Reverse(age)))
        .collect();
    by_weight.sort_unstable();

    // Sums over the first n items, by n: of their weights, and of their places in the queue.
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

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
