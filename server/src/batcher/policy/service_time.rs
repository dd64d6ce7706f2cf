//! The time that a worker needs for a batch, learned from the batches that ran.
//!
//! Owned by the estimates of one task. Seconds by size are interpolated linearly between the sizes that occurred, so that
//! nonlinear times are followed as well; beyond them, the line through the two nearest sizes continues. The straight line
//! `a + b × size` is only reported, and used for waits by weight. It knows nothing of queues and deadlines.
//!
//! # Efficient batch sizes
//! A model can have a size above which larger batches take longer per item, because a cache or the memory is full, for
//! example. That size is found by hill climbing: starting from the size with the highest throughput, the next smaller size
//! is tried a few times, and if larger ones are worse, batches are limited to the best size. Sizes that have not run for
//! long are forgotten and tried again, so that a model that changes is followed.

use super::calibrated_time::CalibratedTime;
use super::wait::{Pace, ServiceEstimate};
use crate::batcher::cost_model::CostModel;

/// Steps per doubling of the size. Sizes of one step are not distinguished.
const STEPS: f64 = 2.0;
const POINTS: usize = 64;

/// The factor from one step to the next.
const STEP: f64 = std::f64::consts::SQRT_2;

/// The minimum share of the newest batch in the estimate for its size.
const NEWEST: f64 = 1.0 / 8.0;

/// A size that has not occurred within this many batches is forgotten.
const REMEMBERED: u64 = 1024;

/// The estimate for a size is trusted after this many batches.
const PROVEN: u32 = 4;

/// The number of batches that the estimate for a size effectively averages, however many ran.
const AVERAGED: u32 = 16;

/// Until a size has been seen often, its mean is limited to this multiple of its least time where waits are estimated.
const OUTLIER: f64 = 2.0;

/// A throughput counts as higher than another if it exceeds it by this factor, plus `DOUBT` times the uncertainty of both.
const HIGHER: f64 = 1.03;
const DOUBT: f64 = 2.0;

/// The share of a batch's time that is assumed to be independent of its size while only one size is known. A high value
/// leads to batches that pay if the assumption holds; once such a batch has run, its time is known.
const SHARED: f64 = 0.9;

/// The estimate for one size.
#[derive(Clone, Copy, Debug, Default)]
struct Point {
    seen: u32,
    /// Number of the latest batch with this size.
    last: u64,
    size: f64,
    seconds: f64,
    /// The least time since the size was last forgotten.
    fastest: f64,
}

impl Point {
    /// The time that waits are estimated from. One of the first batches can take much longer than all others, because the
    /// model initializes something, for example, so the mean of a few batches is not trusted if it is far above the least.
    fn steady_seconds(&self) -> f64 {
        if self.seen < AVERAGED {
            self.seconds.min(OUTLIER * self.fastest)
        } else {
            self.seconds
        }
    }

    /// Units per second.
    fn rate(&self) -> f64 {
        self.size / self.seconds.max(1e-9)
    }
}

/// Recommended batch sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Advice<Size = usize> {
    /// Larger batches take longer per item.
    pub(super) at_most: Option<Size>,
    /// If more items wait than this, a batch of this size is to be tried, because its throughput is not known.
    pub(super) try_out: Option<Size>,
}

/// Seconds of a batch by its size, in items or in units of cost.
#[derive(Clone, Debug)]
struct Curve {
    points: [Point; POINTS],
    /// Number of points up to the largest one that has occurred.
    used: usize,
    /// Batches learned from.
    learned: u64,
    /// Recent mean relative error of the estimates.
    error: f64,
    advice: Advice<f64>,
}

impl Curve {
    fn new() -> Self {
        Curve {
            points: [Point::default(); POINTS],
            used: 0,
            learned: 0,
            error: 0.0,
            advice: Advice::default(),
        }
    }

    fn learn(&mut self, size: f64, seconds: f64) {
        let size = size.max(1.0);
        if let Some(expected) = self.seconds(size) {
            let miss = ((expected - seconds) / seconds.max(1e-9)).abs().min(1.0);
            self.error += (miss - self.error) / f64::from(AVERAGED);
        }
        self.learned += 1;
        let nth = nth(size);
        self.used = self.used.max(nth + 1);
        let mut point = self.points[nth];
        if !self.is_remembered(&point) {
            point.seen = 0;
            point.fastest = seconds;
        }
        point.fastest = point.fastest.min(seconds);
        point.seen = point.seen.saturating_add(1);
        point.last = self.learned;
        let part = f64::from(point.seen).recip().max(NEWEST);
        point.size += (size - point.size) * part;
        point.seconds += (seconds - point.seconds) * part;
        self.points[nth] = point;
        self.advice = self.advise();
    }

    fn is_remembered(&self, point: &Point) -> bool {
        point.seen > 0 && self.learned - point.last <= REMEMBERED
    }

    fn is_proven(&self, size: f64) -> bool {
        let point = &self.points[nth(size)];
        point.seen >= PROVEN && self.is_remembered(point)
    }

    fn known(&self) -> impl Iterator<Item = &Point> {
        self.points[..self.used]
            .iter()
            .filter(|point| self.is_remembered(point))
    }

    /// Relative uncertainty of the estimate for a size that occurred this often.
    fn doubt(&self, seen: u32) -> f64 {
        self.error / f64::from(seen.min(AVERAGED)).sqrt()
    }

    /// The estimate for a size; `None` before any batch has run.
    fn seconds(&self, size: f64) -> Option<f64> {
        let mut below = (None::<&Point>, None::<&Point>);
        let mut above = (None::<&Point>, None::<&Point>);
        for point in self.known() {
            if point.size <= size {
                below = (Some(point), below.0);
            } else if above.0.is_none() {
                above.0 = Some(point);
            } else {
                above.1 = Some(point);
                break;
            }
        }
        match (below, above) {
            ((Some(low), _), (Some(high), _)) | ((None, _), (Some(low), Some(high))) => {
                Some(along(low, high, size))
            }
            ((Some(high), Some(low)), (None, _)) => Some(along(low, high, size).max(high.seconds)),
            ((Some(only), None), (None, _)) | ((None, _), (Some(only), None)) => {
                Some(alike(only.seconds, only.size, size))
            }
            ((None, _), (None, _)) => None,
        }
    }

    fn advise(&self) -> Advice<f64> {
        let proven = || self.known().filter(|point| point.seen >= PROVEN);
        let Some(best) = proven().max_by(|one, other| one.rate().total_cmp(&other.rate())) else {
            return Advice::default();
        };
        let larger = || proven().filter(|point| point.size > best.size);
        let is_worse = |point: &Point| {
            let doubt = self.doubt(point.seen) + self.doubt(best.seen);
            is_higher(best.rate(), point.rate(), doubt)
        };
        let none_larger = larger().next().is_none();
        let peaks = if none_larger {
            self.advice.at_most.is_some()
        } else {
            larger().any(is_worse)
        };
        let smaller = (best.size / STEP).floor();
        // A single item is not tried, because single items run anyway. A rare size does not justify a trial.
        let try_out = if smaller > 1.0 && !self.is_proven(smaller) {
            (best.seen >= AVERAGED).then_some(smaller)
        } else {
            (peaks && none_larger).then(|| (best.size * STEP).ceil())
        };
        Advice {
            at_most: peaks.then_some(best.size),
            try_out,
        }
    }

    /// A lower estimate that does not fall with the size and does not extrapolate: the least time among the largest known
    /// size up to this one and all larger ones. `None` if every known size is larger.
    fn floor(&self, size: f64) -> Option<f64> {
        let reached = self.known().filter(|point| point.size <= size).last()?;
        self.known()
            .filter(|point| point.size >= reached.size)
            .map(Point::steady_seconds)
            .min_by(f64::total_cmp)
    }

    /// The straight line `a + b × size` that fits best in the least-squares sense, counting each size once. `None` while
    /// fewer than two sizes are known.
    fn line(&self) -> Option<(f64, f64)> {
        let known = || self.known();
        let count = known().count() as f64;
        if count < 2.0 {
            return None;
        }
        let size = known().map(|point| point.size).sum::<f64>() / count;
        let seconds = known().map(|point| point.seconds).sum::<f64>() / count;
        let slope = known()
            .map(|point| (point.size - size) * (point.seconds - seconds))
            .sum::<f64>()
            / known().map(|point| (point.size - size).powi(2)).sum::<f64>();
        Some((seconds - slope * size, slope))
    }

    /// The line that fits best among those with nonnegative coefficients.
    fn nonnegative_line(&self) -> Option<(f64, f64)> {
        let (fixed, slope) = self.line()?;
        if slope <= 0.0 {
            return None;
        }
        if fixed >= 0.0 {
            return Some((fixed, slope));
        }
        let products: f64 = self.known().map(|point| point.size * point.seconds).sum();
        let squares: f64 = self.known().map(|point| point.size * point.size).sum();
        Some((0.0, products / squares))
    }
}

/// The index of the point for a size.
fn nth(size: f64) -> usize {
    ((size.log2() * STEPS).round() as usize).min(POINTS - 1)
}

/// The line through two points, made nondecreasing and nonnegative.
fn along(low: &Point, high: &Point, size: f64) -> f64 {
    let slope = (high.seconds - low.seconds) / (high.size - low.size).max(1e-9);
    (low.seconds + slope.max(0.0) * (size - low.size)).max(0.0)
}

/// The time of a batch of size `other`, given the time of the only known size.
fn alike(seconds: f64, size: f64, other: f64) -> f64 {
    seconds * (SHARED + (1.0 - SHARED) * other / size)
}

/// Whether a throughput is higher than another by more than their relative uncertainty `doubt` explains.
pub(super) fn is_higher(throughput: f64, other: f64, doubt: f64) -> bool {
    throughput > other * (HIGHER + DOUBT * doubt)
}

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

    /// What waits are estimated from; `None` before any batch has run, if the task was not calibrated. A batch has at most `max_size` items and at most
    /// the cost `max_cost`.
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
