//! What a batch costs a worker, learned from the batches that ran.
//!
//! Seconds by size are a line through what was measured at the sizes that occurred, so that a cost which is no straight
//! line is followed too. What lies beyond goes on as between the two nearest; `a + b × size` is only told, not used.

/// Sizes are told apart by so many steps per doubling.
const STEPS: f64 = 2.0;
const POINTS: usize = 64;

/// The newest batch of a size makes up at least this part of what is known of it.
const NEWEST: f64 = 1.0 / 8.0;

/// A size that was not seen in so many batches moves along with the one that is seen.
const STALE: u64 = 64;

/// Of the cost of the only size known, what a batch of another size is thought to share. High, so that batches are
/// tried which would pay if it were so: one that was tried is known.
const SHARED: f64 = 0.9;

#[derive(Clone, Copy, Debug, Default)]
struct Point {
    seen: u32,
    last: u64,
    size: f64,
    seconds: f64,
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
}

impl Curve {
    fn new() -> Self {
        Curve {
            points: [Point::default(); POINTS],
            used: 0,
            learned: 0,
            error: 0.0,
        }
    }

    fn learn(&mut self, size: f64, seconds: f64) {
        let size = size.max(1.0);
        if let Some(expected) = self.seconds(size) {
            let miss = ((expected - seconds) / seconds.max(1e-9)).abs().min(1.0);
            self.error += (miss - self.error) / 16.0;
        }
        self.learned += 1;
        let nth = ((size.log2() * STEPS).round() as usize).min(POINTS - 1);
        self.used = self.used.max(nth + 1);
        let point = &mut self.points[nth];
        let before = *point;
        point.seen = point.seen.saturating_add(1);
        point.last = self.learned;
        let part = (1.0 / f64::from(point.seen)).max(NEWEST);
        point.size += (size - before.size) * part;
        point.seconds += (seconds - before.seconds) * part;
        if before.seconds > 0.0 {
            let change = (point.seconds / before.seconds).clamp(0.5, 2.0);
            let learned = self.learned;
            let stale = |point: &&mut Point| point.seen > 0 && learned - point.last > STALE;
            for point in self.points.iter_mut().filter(stale) {
                point.seconds *= change;
            }
        }
    }

    fn known(&self) -> impl Iterator<Item = &Point> {
        self.points[..self.used].iter().filter(|point| point.seen > 0)
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
                Some(only.seconds * (SHARED + (1.0 - SHARED) * size / only.size))
            }
            ((None, _), (None, _)) => None,
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

/// The line through two points; never falling with size, never below nothing.
fn along(low: &Point, high: &Point, size: f64) -> f64 {
    let slope = (high.seconds - low.seconds) / (high.size - low.size).max(1e-9);
    (low.seconds + slope.max(0.0) * (size - low.size)).max(0.0)
}

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

    /// Seconds of a batch of `count` items that are as heavy as those of a batch of `size` which weighs `weight`.
    pub(super) fn seconds(&self, count: f64, size: usize, weight: u64) -> Option<f64> {
        if self.goes_by_weight() {
            self.by_weight.seconds(weight as f64 * count / size.max(1) as f64)
        } else {
            self.by_count.seconds(count)
        }
    }

    pub(super) fn goes_by_weight(&self) -> bool {
        self.by_weight.error < self.by_count.error * 0.9
    }

    /// Seconds of a batch and of each unit in it, once two sizes are known.
    pub(super) fn line(&self) -> Option<(f64, f64)> {
        if self.goes_by_weight() {
            self.by_weight.line()
        } else {
            self.by_count.line()
        }
    }

    /// Batches that were learned from.
    pub(super) fn batches(&self) -> u64 {
        self.by_count.learned
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
        assert!(close(cost.seconds(16.0, 8, 8).expect("batches ran"), 6.6e-3));
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
        assert!(close(cost.seconds(8.0, 4, 100).expect("batches ran"), 3e-3));
    }

    #[test]
    fn a_model_that_became_slower_is_slower_at_the_sizes_that_do_not_occur_any_more() {
        let mut cost = Cost::new();
        for size in iter::repeat_n(2, 8).chain(iter::repeat_n(16, 200)) {
            cost.learn(size, size as u64, 1e-3);
        }
        for _ in 0..100 {
            cost.learn(16, 16, 3e-3);
        }
        assert!(close(cost.seconds(2.0, 2, 2).expect("batches ran"), 3e-3));
    }
}
