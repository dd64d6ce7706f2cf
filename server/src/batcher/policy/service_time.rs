//! What a batch costs a worker, learned from the batches that ran.
//!
//! Seconds by size are a line through what was measured at the sizes that occurred, so that a cost which is no straight
//! line is followed too. What lies beyond goes on as between the two nearest; `a + b × size` is only told, not used.
//!
//! A model may also have a size from which on larger batches take longer per item: where a cache or a memory is full,
//! say. That is found by climbing: from the size with the most items per second, the next smaller one is tried a few
//! times, and if larger ones are worse, batches are kept to the best. What has not run for long is forgotten and tried
//! anew, so a model that changes is followed.

/// Sizes are told apart by so many steps per doubling.
const STEPS: f64 = 2.0;
const POINTS: usize = 64;

/// From one step to the next.
const STEP: f64 = std::f64::consts::SQRT_2;

/// The newest batch of a size makes up at least this part of what is known of it.
const NEWEST: f64 = 1.0 / 8.0;

/// A size that was not seen in so many batches is forgotten.
const REMEMBERED: u64 = 1024;

/// A size that ran so often is believed.
const PROVEN: u32 = 4;

/// About so many batches of a size are behind what is known of it, however many ran.
const AVERAGED: u32 = 16;

/// By how much a larger size must be worse to be kept from, and how much of the doubt about both is added to that.
const WORSE: f64 = 1.03;
const DOUBT: f64 = 2.0;

/// Of the cost of the only size known, what a batch of another size is thought to share. High, so that batches are
/// tried which would pay if it were so: one that was tried is known.
const SHARED: f64 = 0.9;

/// A size, and what is known of it.
#[derive(Clone, Copy, Debug, Default)]
struct Point {
    seen: u32,
    /// The latest batch that had it, counted from the first of all.
    last: u64,
    size: f64,
    seconds: f64,
}

impl Point {
    /// Units per second.
    fn rate(&self) -> f64 {
        self.size / self.seconds.max(1e-9)
    }
}

/// How large batches should be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Advice<Size = usize> {
    /// Larger ones were found to take longer per item.
    pub(super) at_most: Option<Size>,
    /// Where more would run, this many are to be tried, for it is not known whether that is better.
    pub(super) try_out: Option<Size>,
}

/// Seconds of a batch by its size, in items or in weight.
#[derive(Clone, Debug)]
struct Curve {
    points: [Point; POINTS],
    /// How many of the points are worth a look: none further up has been seen.
    used: usize,
    /// Batches that it learned from.
    learned: u64,
    /// By which part it was wrong lately.
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
        }
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

    /// The part by which what is known of a size that ran so often may be wrong.
    fn doubt(&self, seen: u32) -> f64 {
        self.error / f64::from(seen.min(AVERAGED)).sqrt()
    }

    /// None before anything ran.
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
            let doubt = DOUBT * (self.doubt(point.seen) + self.doubt(best.seen));
            point.rate() * (WORSE + doubt) < best.rate()
        };
        let none_larger = larger().next().is_none();
        let peaks = if none_larger {
            self.advice.at_most.is_some()
        } else {
            larger().any(is_worse)
        };
        let smaller = (best.size / STEP).floor();
        // A single item is not tried: where that pays, it is seen without. And nothing is for the sake of a rare size.
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

    /// The straight line `a + b × size` that fits best, each size counted once.
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
}

/// The point of a size.
fn nth(size: f64) -> usize {
    ((size.log2() * STEPS).round() as usize).min(POINTS - 1)
}

/// The line through two points; never falling with size, never below nothing.
fn along(low: &Point, high: &Point, size: f64) -> f64 {
    let slope = (high.seconds - low.seconds) / (high.size - low.size).max(1e-9);
    (low.seconds + slope.max(0.0) * (size - low.size)).max(0.0)
}

/// What a batch of another size costs that shares as much of the cost of `seconds` as is thought.
fn alike(seconds: f64, size: f64, other: f64) -> f64 {
    seconds * (SHARED + (1.0 - SHARED) * other / size)
}

/// A batch that ran, by count and by weight, as an example of how heavy a task's items are.
pub(super) type Example = (usize, u64);

/// Seconds of a batch, by count or by weight: whichever tells them better.
#[derive(Clone, Debug)]
pub(super) struct Cost {
    by_count: Curve,
    by_weight: Curve,
}

impl Cost {
    pub(super) fn new() -> Self {
        Cost {
            by_count: Curve::new(),
            by_weight: Curve::new(),
        }
    }

    pub(super) fn learn(&mut self, count: usize, weight: u64, seconds: f64) {
        self.by_count.learn(count as f64, seconds);
        self.by_weight.learn(weight as f64, seconds);
    }

    /// Seconds of a batch of `count` items that are as heavy as those of the example.
    pub(super) fn seconds(&self, count: f64, (size, weight): Example) -> Option<f64> {
        if self.goes_by_weight() {
            self.by_weight.seconds(weight as f64 * count / size.max(1) as f64)
        } else {
            self.by_count.seconds(count)
        }
    }

    /// The same, but a size that has not been tried is hoped to share most of the cost of a batch of `tried`.
    pub(super) fn hopeful_seconds(&self, count: f64, tried: f64, example: Example) -> Option<f64> {
        let expected = self.seconds(count, example)?;
        if self.goes_by_weight() || self.by_count.is_proven(count.round().max(1.0)) {
            return Some(expected);
        }
        Some(expected.min(alike(self.by_count.seconds(tried)?, tried, count)))
    }

    /// How many items batches should have, if their time goes by that.
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

    /// The part by which costs that are well known may be wrong.
    pub(super) fn doubt(&self) -> f64 {
        self.best().doubt(AVERAGED)
    }

    pub(super) fn goes_by_weight(&self) -> bool {
        self.by_weight.error < self.by_count.error * 0.9
    }

    /// Seconds of a batch and of each unit in it, once two sizes are known.
    pub(super) fn line(&self) -> Option<(f64, f64)> {
        self.best().line()
    }

    /// Batches that were learned from.
    pub(super) fn batches(&self) -> u64 {
        self.by_count.learned
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
    fn a_straight_cost_is_found_from_two_sizes() {
        let mut cost = Cost::new();
        for (count, seconds) in [(1, 5.1e-3), (8, 5.8e-3)] {
            cost.learn(count, count as u64, seconds);
        }
        assert!(close(cost.seconds(16.0, (8, 8)).expect("batches ran"), 6.6e-3));
        let (fixed, each) = cost.line().expect("two sizes ran");
        assert!(close(fixed, 5e-3) && close(each, 0.1e-3));
    }

    #[test]
    fn weight_is_gone_by_where_it_tells_more_than_the_count() {
        let mut cost = Cost::new();
        for nth in 0..200_u64 {
            let weight = 10 + nth * 37 % 400;
            cost.learn(4, weight, 1e-3 + 1e-5 * weight as f64);
        }
        assert!(cost.goes_by_weight());
        assert!(close(cost.seconds(8.0, (4, 100)).expect("batches ran"), 3e-3));
    }

    /// Runs batches of as many as advised, of `waiting` items each, that take as long as `seconds` says.
    fn run(cost: &mut Cost, batches: usize, waiting: usize, seconds: impl Fn(f64) -> f64) -> Vec<usize> {
        let mut sizes = Vec::new();
        for _ in 0..batches {
            let Advice { at_most, try_out } = cost.advice();
            let size = try_out.or(at_most).map_or(waiting, |size| size.min(waiting));
            cost.learn(size, size as u64, seconds(size as f64));
            sizes.push(size);
        }
        sizes
    }

    #[test]
    fn the_size_with_the_most_items_per_second_is_found_and_kept() {
        let mut cost = Cost::new();
        // Best at 10.
        run(&mut cost, 100, 32, |size| {
            2e-3 + 0.1e-3 * size + 0.02e-3 * size * size
        });
        assert!(
            matches!(cost.advice().at_most, Some(8..=12)),
            "{:?}",
            cost.advice()
        );
    }

    #[test]
    fn nothing_is_advised_where_larger_batches_are_no_worse() {
        let mut cost = Cost::new();
        let sizes = run(&mut cost, 1000, 32, |size| 5e-3 + 0.1e-3 * size);
        assert!(sizes.iter().filter(|size| **size < 32).count() <= 8, "{sizes:?}");
        assert_eq!(cost.advice().at_most, None);
    }

    #[test]
    fn a_model_that_no_longer_suffers_from_large_batches_is_found_out() {
        let mut cost = Cost::new();
        run(&mut cost, 200, 32, |size| 2e-3 + 0.02e-3 * size * size);
        assert!(cost.advice().at_most.is_some());
        let sizes = run(&mut cost, 4 * REMEMBERED as usize, 32, |size| {
            5e-3 + 0.1e-3 * size
        });
        assert!(sizes.ends_with(&[32; 8]), "{:?}", &sizes[sizes.len() - 8..]);
    }

    #[test]
    fn what_has_not_run_for_long_is_forgotten() {
        let mut cost = Cost::new();
        for size in iter::repeat_n(2, 8).chain(iter::repeat_n(16, REMEMBERED as usize + 1)) {
            cost.learn(size, size as u64, if size == 2 { 20e-3 } else { 1e-3 });
        }
        assert!(cost.seconds(2.0, (2, 2)).expect("batches ran") <= 1e-3);
    }
}
