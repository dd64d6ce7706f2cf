//! The time of a batch as a calibration measured it, until enough batches have run.
//!
//! Owned by the estimates of one task. Production may be faster or slower than the calibration by a factor, because other
//! models compute as well, for example. The factor is learned from the first batches. Weights are assumed to be equal within
//! a batch: only their number and the cost of the batch are known.

use std::time::Duration;

use super::duration;
use super::wait::Pace;
use crate::batcher::cost_model::{BatchShape, CostModel};

/// The factor averages about this many batches.
const AVERAGED: f64 = 8.0;

/// A lower bound is this part of the expected time, because a batch can be faster than any that was measured.
const LOWER: f64 = 0.7;

/// Seconds of a batch, by its size and cost.
#[derive(Clone, Debug)]
pub(super) struct CalibratedTime {
    model: CostModel,
    /// Measured time over calibrated time.
    factor: f64,
    batches: f64,
}

impl CalibratedTime {
    pub(super) fn new(model: CostModel) -> Self {
        Self {
            model,
            factor: 1.0,
            batches: 0.0,
        }
    }

    /// Records a batch of `size` items with this cost that ran.
    pub(super) fn learn(&mut self, size: usize, cost: u64, seconds: f64) {
        let Some(expected) = self.calibrated(size as f64, (size, cost)) else {
            return;
        };
        if expected > 0.0 {
            self.batches += 1.0;
            self.factor += (seconds / expected - self.factor) / self.batches.min(AVERAGED);
        }
    }

    /// Seconds of a batch of `count` items that are as heavy as those of a batch of `size` items with the cost `cost`;
    /// `None` if the calibration does not determine it.
    pub(super) fn seconds(&self, count: f64, (size, cost): (usize, u64)) -> Option<f64> {
        self.calibrated(count, (size, cost))
            .map(|seconds| seconds * self.factor)
    }

    /// A lower bound for the time of a batch of `size` items with this cost; zero if the calibration does not determine it.
    pub(super) fn lower_bound(&self, size: usize, cost: u64) -> Duration {
        let certain = (1.0 - self.model.margin()).max(0.0);
        let expected = self.seconds(size as f64, (size, cost)).unwrap_or(0.0);
        duration(expected * certain * LOWER)
    }

    /// What waits are estimated from, and the seconds of a full batch, for batches of at most `max_items` items and the cost
    /// `max_cost`. Every batch is assumed to be as light as possible.
    pub(super) fn pace(&self, max_items: usize, max_cost: Option<u64>) -> Option<(Pace, f64)> {
        let lightest = |items: usize| self.seconds(items as f64, (items, items as u64));
        let [per_batch, per_item, per_weight, per_square] = self.model.coefficients();
        // The weights of the items that wait are known. With every unit of weight, the time grows at least by this.
        let per_unit = (per_weight.value + per_square.value) * self.factor;
        let full_batch = match max_cost {
            // A batch can be full because of its cost, with a single item.
            Some(max_cost) => lightest(max_items)?.min(self.seconds(1.0, (1, max_cost))?),
            None => lightest(max_items)?,
        };
        let is_by_cost = per_weight.is_identifiable && per_square.is_identifiable && per_unit > 0.0;
        let pace = if is_by_cost {
            Pace::ByCost {
                per_batch: (per_batch.value + per_item.value) * self.factor,
                per_unit,
            }
        } else {
            Pace::ByCount {
                smallest: (1.0, lightest(1)?.min(full_batch)),
                full_batch,
            }
        };
        Some((pace, full_batch))
    }

    /// Without the factor. If all items weigh the same, the time is linear in their number.
    fn calibrated(&self, count: f64, (size, cost): (usize, u64)) -> Option<f64> {
        let weight = (cost / size.max(1) as u64).max(1);
        let of = |items: u64| {
            let shape = BatchShape::uniform(items, weight);
            self.model.expected(&shape).ok()
        };
        let (one, two) = (of(1)?, of(2)?);
        Some((one + (two - one) * (count - 1.0)).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batcher::cost_model::Sample;
    use crate::batching::WeightRule;

    /// 10 ms, 2 ms for each item and 1 ms for each unit of weight of a padded batch.
    fn calibrated() -> CalibratedTime {
        let shapes = [1, 2, 4, 8]
            .into_iter()
            .flat_map(|items| [1, 10, 30].map(|weight| BatchShape::of(std::iter::repeat_n(weight, items))));
        let samples: Vec<Sample> = shapes
            .map(|shape| Sample {
                shape,
                measured: 10e-3 + 2e-3 * shape.items as f64 + 1e-3 * (shape.items * shape.heaviest) as f64,
            })
            .collect();
        let model = CostModel::fit(WeightRule::Padded, &samples).expect("the samples are valid");
        CalibratedTime::new(model)
    }

    fn close(one: f64, other: f64) -> bool {
        (one - other).abs() < other * 1e-6
    }

    #[test]
    fn the_time_depends_on_the_number_of_items_and_on_their_weight() {
        let time = calibrated();
        let seconds = |count, example| time.seconds(count, example).expect("it is determined");
        assert!(close(seconds(4.0, (1, 5)), 10e-3 + 4.0 * 7e-3));
        assert!(close(seconds(4.0, (2, 40)), 10e-3 + 4.0 * 22e-3));
    }

    #[test]
    fn batches_that_take_twice_as_long_double_the_expected_time() {
        let mut time = calibrated();
        for _ in 0..20 {
            time.learn(2, 10, 2.0 * (10e-3 + 2.0 * 7e-3));
        }
        let seconds = time.seconds(8.0, (1, 5)).expect("it is determined");
        assert!(close(seconds, 2.0 * (10e-3 + 8.0 * 7e-3)), "{seconds}");
    }

    #[test]
    fn waits_are_estimated_for_the_lightest_batches() {
        let (pace, full_batch) = calibrated().pace(4, None).expect("it is determined");
        assert!(close(full_batch, 10e-3 + 4.0 * 3e-3));
        let Pace::ByCost { per_batch, per_unit } = pace else {
            panic!("weights determine the time")
        };
        assert!(close(per_batch, 12e-3) && close(per_unit, 1e-3));
    }

    #[test]
    fn a_lower_bound_leaves_room_for_faster_batches() {
        let bound = calibrated().lower_bound(4, 20).as_secs_f64();
        assert!(bound > 0.5 * 38e-3 && bound < 0.71 * 38e-3, "{bound}");
    }
}
