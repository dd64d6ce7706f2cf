//! Who runs: which items of a lane share a batch with the item that leads it.
//!
//! Called by the [`Batcher`](super::Batcher) with a lane and the head that leads; changes nothing. The lead is always
//! in the batch. The class of the lead is served first, then the others in their order, each from a bounded window of
//! its oldest items, so that a fill costs the same however many items are queued. Time and policies are unknown here.

use std::cmp::Reverse;
use std::time::Instant;

use super::policy::Limit;
use super::queue::{CLASSES, Entry, Head, Lane, Place};
use crate::batching::{Policy, Priority, TaskBatching, WeightRule};

/// A class is searched at least this deep.
const MIN_WINDOW: usize = 64;

/// A class is searched at least this many times deeper than the batch has room.
const WINDOW_PER_ROOM: usize = 4;

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
            Policy::Fixed { .. } | Policy::Greedy => task.max_batch_size.get(),
        };
        Limits {
            max_size,
            max_weight: task.max_batch_weight,
            rule: task.weight_rule,
        }
    }
}

/// A batch as it would run now: the items chosen, and what is to be known of them together.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) places: Vec<(Priority, Place)>,
    pub(super) oldest_arrival: Instant,
    pub(super) earliest_deadline: Option<Instant>,
    heaviest: u64,
    sum: u64,
}

impl Draft {
    fn empty(lead: Head, capacity: usize) -> Self {
        Draft {
            places: Vec::with_capacity(capacity),
            oldest_arrival: lead.place.arrived,
            earliest_deadline: None,
            heaviest: 0,
            sum: 0,
        }
    }

    fn add(&mut self, class: Priority, place: Place, entry: Entry) {
        self.places.push((class, place));
        self.oldest_arrival = self.oldest_arrival.min(place.arrived);
        self.earliest_deadline = earlier(self.earliest_deadline, entry.deadline);
        self.heaviest = self.heaviest.max(entry.weight);
        self.sum = self.sum.saturating_add(entry.weight);
    }

    pub(super) fn size(&self) -> usize {
        self.places.len()
    }

    /// What the batch costs by `rule`.
    pub(super) fn cost(&self, rule: WeightRule) -> u64 {
        match rule {
            WeightRule::Padded => self.heaviest.saturating_mul(self.size() as u64),
            WeightRule::Sum => self.sum,
        }
    }

    /// The most items that can join, if none of them weighs more than `weight`.
    fn room(&self, limits: &Limits, weight: u64) -> usize {
        let by_size = limits.max_size.saturating_sub(self.size());
        let Some(max_weight) = limits.max_weight else {
            return by_size;
        };
        match limits.rule {
            WeightRule::Padded => match max_weight.checked_div(self.heaviest.max(weight)) {
                Some(fit) => by_size.min(
                    usize::try_from(fit)
                        .unwrap_or(usize::MAX)
                        .saturating_sub(self.size()),
                ),
                None => by_size,
            },
            WeightRule::Sum if self.sum >= max_weight => 0,
            WeightRule::Sum => by_size,
        }
    }

    /// The limit that keeps the others that wait, or any that may come, out of this batch.
    pub(super) fn reached(&self, limits: &Limits, waiting: usize) -> Option<Limit> {
        if self.size() >= limits.max_size {
            Some(Limit::Size)
        } else if waiting > self.size() || self.room(limits, 0) == 0 {
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
    let mut draft = Draft::empty(lead, limits.max_size.min(lane.len()));
    if let Some(entry) = lane.line(class).get(&lead.place) {
        draft.add(class, lead.place, *entry);
    }
    for class in std::iter::once(class).chain(CLASSES.into_iter().filter(|other| *other != class)) {
        let room = draft.room(limits, 0);
        if room == 0 {
            break;
        }
        let depth = MIN_WINDOW.max(room.saturating_mul(WINDOW_PER_ROOM));
        let others = lane.line(class).iter().filter(|(place, _)| **place != lead.place);
        let window = others.take(depth).map(|(place, entry)| (*place, *entry));
        match limits.rule {
            WeightRule::Padded => add_least_padded(&mut draft, class, window, limits),
            WeightRule::Sum => add_first_fitting(&mut draft, class, window, limits),
        }
    }
    draft
}

/// All that wait in the lane, if they fit: then there is nothing to choose. A batch that stays open takes this way.
fn whole(lane: &Lane, lead: Head, limits: &Limits) -> Option<Draft> {
    let waiting = lane.len();
    if waiting > limits.max_size {
        return None;
    }
    let mut draft = Draft::empty(lead, waiting);
    for class in CLASSES {
        for (place, entry) in lane.line(class) {
            draft.add(class, *place, *entry);
        }
    }
    let fits = limits
        .max_weight
        .is_none_or(|max_weight| draft.cost(limits.rule) <= max_weight);
    fits.then_some(draft)
}

/// Adds the oldest items that fit, leaving out those that do not.
fn add_first_fitting(
    draft: &mut Draft,
    class: Priority,
    window: impl Iterator<Item = (Place, Entry)>,
    limits: &Limits,
) {
    for (place, entry) in window {
        if draft.room(limits, 0) == 0 {
            break;
        }
        let sum = draft.sum.saturating_add(entry.weight);
        if limits.max_weight.is_none_or(|max_weight| sum <= max_weight) {
            draft.add(class, place, entry);
        }
    }
}

/// Adds as many items as fit; of the ways to do that, the one with the least padding; of those, the one with the
/// oldest items.
///
/// Given the heaviest weight that the batch is to have, the best choice is the heaviest items up to that weight: they
/// are padded least. So in order of weight every choice worth looking at is a range that ends with the last item of
/// its weight, and sums over prefixes make each a matter of a few operations.
fn add_least_padded(
    draft: &mut Draft,
    class: Priority,
    window: impl Iterator<Item = (Place, Entry)>,
    limits: &Limits,
) {
    let mut window: Vec<(Place, Entry)> = window.collect();
    let Some(heaviest) = window.iter().map(|(_, entry)| entry.weight).max() else {
        return;
    };
    let lightest = window
        .iter()
        .map(|(_, entry)| entry.weight)
        .min()
        .unwrap_or(heaviest);
    let room = draft.room(limits, heaviest);
    if window.len() > room && lightest < heaviest {
        window = least_padded(draft, &window, limits);
    } else {
        window.truncate(room);
    }
    for (place, entry) in window {
        draft.add(class, place, entry);
    }
}

fn least_padded(draft: &Draft, window: &[(Place, Entry)], limits: &Limits) -> Vec<(Place, Entry)> {
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
        let weight = by_weight[end - 1].0;
        let next = by_weight.get(end).map(|(next, _)| *next);
        // The range goes on over equal weights, and over all that the batch as it is already pads.
        if next.is_some_and(|next| next == weight || next <= draft.heaviest) {
            continue;
        }
        let heaviest = weight.max(draft.heaviest);
        let count = draft.room(limits, heaviest).min(end);
        let start = end - count;
        let size = (draft.size() + count) as u128;
        let weights = sums[end].0 - sums[start].0 + u128::from(draft.sum);
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
