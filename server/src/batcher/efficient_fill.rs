//! Chooses the items of a padded batch by throughput, if the time of batches is calibrated.
//!
//! Called by `fill`, which knows the limits and the order of the queue. Without a calibration, `fill` prefers the largest
//! batch, which pads short items to the length of long ones.
//!
//! # The objective
//! The *value* of an item of weight w is the time that it takes in a full batch of items like it, `v(w) = t(n, w) / n`, where
//! n is the number of items of weight w that the limits permit. The best batch maximizes the efficiency
//!
//! ```text
//! E = Σ v(w) / t(batch)
//! ```
//!
//! A batch of equal items that is full has the efficiency 1. Padding and unused room lower it.
//!
//! In order of weight, the best batch for a given heaviest item is a range that ends with it, since heavier items are worth
//! more and take the same time. Adding the next lighter item raises E if and only if its value over the time of a further
//! padded item exceeds E, and once it does not, neither does any lighter one (E is the mediant of the two ratios). So the
//! start of the range is found by binary search, and all ranges in O(n log n).

use super::cost_model::{BatchShape, CostModel};
use super::fill::{Constraints, Limits, Load, PrefixSums};
use super::lane::{Entry, Position};
use crate::batching::WeightRule;

/// Efficiencies that differ by less than this fraction count as equal.
const TOLERANCE: f64 = 1e-9;

/// The time of the padded batches of one task.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchTime<'a> {
    model: &'a CostModel,
    limits: Limits,
}

impl<'a> BatchTime<'a> {
    /// The time of batches within `limits`. `None` if padding does not matter.
    pub(super) fn new(model: Option<&'a CostModel>, limits: Limits) -> Option<Self> {
        let model = model.filter(|model| model.rule() == WeightRule::Padded)?;
        (limits.rule == WeightRule::Padded).then_some(Self { model, limits })
    }

    /// Seconds of a batch of `items` items, the heaviest of which weighs `heaviest`.
    fn of(&self, items: usize, heaviest: u64) -> Option<f64> {
        let shape = BatchShape::uniform(items as u64, heaviest);
        self.model.expected(&shape).ok().filter(|seconds| *seconds > 0.0)
    }

    /// The value of an item.
    pub(super) fn value(&self, weight: u64) -> Option<f64> {
        let weight = weight.max(1);
        let by_weight = self.limits.max_weight.map_or(u64::MAX, |max| max / weight);
        let items = usize::try_from(by_weight)
            .unwrap_or(usize::MAX)
            .clamp(1, self.limits.max_size.max(1));
        Some(self.of(items, weight)? / items as f64)
    }
}

/// The items of `window` that join `load`, whose items are worth `value`. `None` if the time is not determined.
pub(super) fn most_efficient(
    load: Load,
    value: f64,
    window: &[(Position, Entry)],
    constraints: &Constraints<'_>,
    time: &BatchTime<'_>,
) -> Option<Vec<(Position, Entry)>> {
    let mut by_weight: Vec<&(Position, Entry)> = window.iter().collect();
    // Among equal weights the youngest come first, so that a range that contains only some of them contains the oldest.
    by_weight.sort_unstable_by(|(place, entry), (other_place, other)| {
        entry
            .weight
            .cmp(&other.weight)
            .then_with(|| other_place.cmp(place))
    });
    let mut values = Vec::with_capacity(by_weight.len() + 1);
    let mut sums = Vec::with_capacity(by_weight.len() + 1);
    values.push(0.0);
    sums.push(PrefixSums::default());
    for (nth, (_, entry)) in by_weight.iter().enumerate() {
        values.push(values[nth] + time.value(entry.weight)?);
        sums.push(sums[nth].with(entry.weight, 0));
    }
    let alone = value / time.of(load.size(), load.heaviest())?;
    let mut best = (alone, 0..0);
    for end in 1..=by_weight.len() {
        let heaviest = load.heaviest().max(by_weight[end - 1].1.weight);
        let seconds = |count: usize| time.of(load.size() + count, heaviest);
        let (one, two) = (seconds(1)?, seconds(2)?);
        // Linear in the number of items.
        let seconds = |count: usize| one + (two - one) * (count as f64 - 1.0);
        let worth = |count: usize| value + values[end] - values[end - count];
        let gains = |count: usize| {
            let next = values[end - count] - values[end - count - 1];
            next * seconds(count) >= worth(count) * (two - one) * (1.0 - TOLERANCE)
        };
        let fits = |count: usize| {
            constraints.admits_memory(&sums[end].since(&sums[end - count], count, heaviest, &load))
        };
        let most = load.room(&constraints.limits, heaviest).min(end);
        let count = last(most, |count| count == 1 || gains(count - 1));
        let count = if constraints.is_memory_limited() {
            last(count, fits)
        } else {
            count
        };
        if count == 0 {
            continue;
        }
        let efficiency = worth(count) / seconds(count);
        // Of equally efficient batches, the largest.
        let is_better = efficiency > best.0 * (1.0 + TOLERANCE)
            || (efficiency >= best.0 * (1.0 - TOLERANCE) && count > best.1.len());
        if is_better {
            best = (efficiency, end - count..end);
        }
    }
    Some(by_weight[best.1].iter().map(|item| **item).collect())
}

/// The greatest number from 1 to `most` for which `holds`, by binary search: it holds up to there and not above. 0 if there is
/// none.
fn last(most: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut known, mut above) = (0, most + 1);
    while above - known > 1 {
        let middle = known + (above - known) / 2;
        if holds(middle) {
            known = middle;
        } else {
            above = middle;
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_for_which_a_condition_holds_is_found() {
        for most in 0..20 {
            for limit in 0..25 {
                assert_eq!(last(most, |number| number <= limit), most.min(limit));
            }
        }
    }
}
