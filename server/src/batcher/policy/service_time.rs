//! The time that a worker needs for a batch: by the number of its items or by its cost, whichever predicts it better.
//!
//! Owned by the estimates of one task. It knows nothing of queues and deadlines.

use super::calibrated_time::CalibratedTime;
use super::curve::{AVERAGED, Advice, Curve, STEP, alike};
use super::wait::{Pace, ServiceEstimate};
use crate::batcher::cost_model::CostModel;

/// Size and cost of a batch that ran, as an example of how heavy the items of a task are.
pub(super) type Example = (usize, u64);

/// Seconds of a batch by its size or by its cost, whichever predicts them better.
#[derive(Clone, Debug)]
pub(super) struct ServiceTime {
    by_count: Curve,
    by_weight: Curve,
    /// Used until enough batches have run.
    calibrated: Option<CalibratedTime>,
}

/// After this many batches, the times of a calibration are not used any more.
const CALIBRATED: u64 = 16;

impl ServiceTime {
    pub(super) fn new() -> Self {
        ServiceTime {
            by_count: Curve::new(),
            by_weight: Curve::new(),
            calibrated: None,
        }
    }

    /// Sets the time that a calibration has measured.
    pub(super) fn set_calibrated(&mut self, model: CostModel) {
        self.calibrated = Some(CalibratedTime::new(model));
    }

    /// The calibrated time, until enough batches have run.
    pub(super) fn calibrated(&self) -> Option<&CalibratedTime> {
        self.calibrated.as_ref().filter(|_| self.batches() < CALIBRATED)
    }

    /// Records a batch of `count` items whose cost is `weight`.
    pub(super) fn learn(&mut self, count: usize, weight: u64, seconds: f64) {
        self.by_count.learn(count as f64, seconds);
        self.by_weight.learn(weight as f64, seconds);
        if let Some(calibrated) = &mut self.calibrated {
            calibrated.learn(count, weight, seconds);
        }
    }

    /// Seconds of a batch of `count` items that are as heavy as those of the example. `None` before any batch has run, if
    /// the task was not calibrated.
    pub(super) fn seconds(&self, count: f64, (size, weight): Example) -> Option<f64> {
        let calibrated = self
            .calibrated()
            .and_then(|calibrated| calibrated.seconds(count, (size, weight)));
        if calibrated.is_some() {
            return calibrated;
        }
        if self.goes_by_weight() {
            self.by_weight.seconds(weight as f64 * count / size.max(1) as f64)
        } else {
            self.by_count.seconds(count)
        }
    }

    /// Whether a batch that is not much larger than this example has run recently.
    pub(super) fn covers(&self, (size, weight): Example) -> bool {
        let (curve, size) = if self.goes_by_weight() {
            (&self.by_weight, weight as f64)
        } else {
            (&self.by_count, size as f64)
        };
        curve.known().any(|point| point.size <= size.max(1.0) * STEP)
    }

    /// The largest number of items in a batch that has run recently; zero before any batch has run.
    pub(super) fn largest(&self) -> usize {
        self.by_count
            .known()
            .last()
            .map_or(0, |point| point.size.round() as usize)
    }

    /// Like [`seconds`](Self::seconds), but optimistic about sizes without a trusted estimate: most of their time is
    /// assumed to be that of a batch of `tried` items.
    pub(super) fn hopeful_seconds(&self, count: f64, tried: f64, example: Example) -> Option<f64> {
        let expected = self.seconds(count, example)?;
        let is_known = self.goes_by_weight() || self.by_count.is_proven(count.round().max(1.0));
        if is_known || self.calibrated().is_some() {
            return Some(expected);
        }
        Some(expected.min(alike(self.by_count.seconds(tried)?, tried, count)))
    }

    /// Recommended batch sizes, if the time depends on the number of items.
    pub(super) fn advice(&self) -> Advice {
        if self.goes_by_weight() {
            return Advice::default();
        }
        let whole = |size: f64| size.round().max(1.0) as usize;
        let Advice { at_most, try_out } = self.by_count.advice;
        Advice {
            at_most: at_most.map(whole),
            try_out: try_out.map(whole),
        }
    }

    /// Relative uncertainty of the estimates for sizes that occur often.
    pub(super) fn doubt(&self) -> f64 {
        self.best().doubt(AVERAGED)
    }

    /// Whether the cost of a batch predicts its time better than the number of its items.
    pub(super) fn goes_by_weight(&self) -> bool {
        self.by_weight.error < self.by_count.error * 0.9
    }

    /// Seconds per batch and per unit in it, once two sizes are known.
    pub(super) fn line(&self) -> Option<(f64, f64)> {
        self.best().line()
    }

    /// Batches learned from.
    pub(super) fn batches(&self) -> u64 {
        self.by_count.learned
    }

    /// What waits are estimated from; `None` before any batch has run, if the task was not calibrated. A batch has at most
    /// `max_size` items and at most the cost `max_cost`.
    pub(super) fn estimate(&self, max_size: usize, max_cost: Option<u64>) -> Option<ServiceEstimate> {
        let max_items = max_size.max(1);
        let calibrated = self.calibrated().filter(|_| self.batches() == 0);
        if let Some((pace, _)) = calibrated.and_then(|calibrated| calibrated.pace(max_items, max_cost)) {
            return Some(ServiceEstimate {
                max_items,
                max_cost,
                pace,
                error: 0.0,
            });
        }
        let by_cost = self
            .goes_by_weight()
            .then(|| self.by_weight.nonnegative_line())
            .flatten();
        let pace = match by_cost {
            Some((per_batch, per_unit)) => Pace::ByCost { per_batch, per_unit },
            None => {
                let full_batch = self.by_count.floor(max_items as f64)?;
                let smallest = self.by_count.known().next()?;
                Pace::ByCount {
                    smallest: (smallest.size, smallest.steady_seconds().min(full_batch)),
                    full_batch,
                }
            }
        };
        Some(ServiceEstimate {
            max_items,
            max_cost,
            pace,
            error: self.best().error,
        })
    }

    fn best(&self) -> &Curve {
        if self.goes_by_weight() {
            &self.by_weight
        } else {
            &self.by_count
        }
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;
    use crate::batcher::policy::curve::REMEMBERED;

    fn close(one: f64, other: f64) -> bool {
        (one - other).abs() < other.abs() * 0.01
    }

    #[test]
    fn a_linear_service_time_is_found_from_two_sizes() {
        let mut service_time = ServiceTime::new();
        for (count, seconds) in [(1, 5.1e-3), (8, 5.8e-3)] {
            service_time.learn(count, count as u64, seconds);
        }
        assert!(close(
            service_time.seconds(16.0, (8, 8)).expect("batches ran"),
            6.6e-3
        ));
        let (fixed, each) = service_time.line().expect("two sizes ran");
        assert!(close(fixed, 5e-3) && close(each, 0.1e-3));
    }

    #[test]
    fn the_cost_is_used_if_it_predicts_the_time_better_than_the_count() {
        let mut service_time = ServiceTime::new();
        for nth in 0..200_u64 {
            let weight = 10 + nth * 37 % 400;
            service_time.learn(4, weight, 1e-3 + 1e-5 * weight as f64);
        }
        assert!(service_time.goes_by_weight());
        assert!(close(
            service_time.seconds(8.0, (4, 100)).expect("batches ran"),
            3e-3
        ));
    }

    /// Runs batches of the recommended size while `waiting` items wait, which take `seconds`. Returns their sizes.
    fn run(
        service_time: &mut ServiceTime,
        batches: usize,
        waiting: usize,
        seconds: impl Fn(f64) -> f64,
    ) -> Vec<usize> {
        let mut sizes = Vec::new();
        for _ in 0..batches {
            let Advice { at_most, try_out } = service_time.advice();
            let size = try_out.or(at_most).map_or(waiting, |size| size.min(waiting));
            service_time.learn(size, size as u64, seconds(size as f64));
            sizes.push(size);
        }
        sizes
    }

    #[test]
    fn the_size_with_the_highest_throughput_is_found_and_kept() {
        let mut service_time = ServiceTime::new();
        // Best at 10.
        run(&mut service_time, 100, 32, |size| {
            2e-3 + 0.1e-3 * size + 0.02e-3 * size * size
        });
        assert!(
            matches!(service_time.advice().at_most, Some(8..=12)),
            "{:?}",
            service_time.advice()
        );
    }

    #[test]
    fn no_size_is_recommended_if_larger_batches_are_not_worse() {
        let mut service_time = ServiceTime::new();
        let sizes = run(&mut service_time, 1000, 32, |size| 5e-3 + 0.1e-3 * size);
        assert!(sizes.iter().filter(|size| **size < 32).count() <= 8, "{sizes:?}");
        assert_eq!(service_time.advice().at_most, None);
    }

    #[test]
    fn a_model_that_becomes_efficient_with_large_batches_gets_large_batches() {
        let mut service_time = ServiceTime::new();
        run(&mut service_time, 200, 32, |size| 2e-3 + 0.02e-3 * size * size);
        assert!(service_time.advice().at_most.is_some());
        let sizes = run(&mut service_time, 4 * REMEMBERED as usize, 32, |size| {
            5e-3 + 0.1e-3 * size
        });
        assert!(sizes.ends_with(&[32; 8]), "{:?}", &sizes[sizes.len() - 8..]);
    }

    #[test]
    fn a_size_that_has_not_run_for_long_is_forgotten() {
        let mut service_time = ServiceTime::new();
        for size in iter::repeat_n(2, 8).chain(iter::repeat_n(16, REMEMBERED as usize + 1)) {
            service_time.learn(size, size as u64, if size == 2 { 20e-3 } else { 1e-3 });
        }
        assert!(service_time.seconds(2.0, (2, 2)).expect("batches ran") <= 1e-3);
    }
}
