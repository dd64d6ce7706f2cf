//! The time of a batch by its size, learned from the batches that ran.
//!
//! Seconds by size are interpolated linearly between the sizes that occurred, so that nonlinear times are followed as well;
//! beyond them, the line through the two nearest sizes continues. The straight line `a + b × size` is only reported, and used
//! for waits by weight. A size is a number of items or of units of cost.
//!
//! # Efficient batch sizes
//! A model can have a size above which larger batches take longer per item, because a cache or the memory is full, for
//! example. That size is found by hill climbing: starting from the size with the highest throughput, the next smaller size
//! is tried a few times, and if larger ones are worse, batches are limited to the best size. Sizes that have not run for
//! long are forgotten and tried again, so that a model that changes is followed.

/// Steps per doubling of the size. Sizes of one step are not distinguished.
const STEPS: f64 = 2.0;
const POINTS: usize = 64;

/// The factor from one step to the next.
pub(super) const STEP: f64 = std::f64::consts::SQRT_2;

/// The minimum share of the newest batch in the estimate for its size.
const NEWEST: f64 = 1.0 / 8.0;

/// A size that has not occurred within this many batches is forgotten.
pub(super) const REMEMBERED: u64 = 1024;

/// The estimate for a size is trusted after this many batches.
const PROVEN: u32 = 4;

/// The number of batches that the estimate for a size effectively averages, however many ran.
pub(super) const AVERAGED: u32 = 16;

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
pub(super) struct Point {
    seen: u32,
    /// Number of the latest batch with this size.
    last: u64,
    pub(super) size: f64,
    seconds: f64,
    /// The least time since the size was last forgotten.
    fastest: f64,
}

impl Point {
    /// The time that waits are estimated from. One of the first batches can take much longer than all others, because the
    /// model initializes something, for example, so the mean of a few batches is not trusted if it is far above the least.
    pub(super) fn steady_seconds(&self) -> f64 {
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
pub(super) struct Curve {
    points: [Point; POINTS],
    /// Number of points up to the largest one that has occurred.
    used: usize,
    /// Batches learned from.
    pub(super) learned: u64,
    /// Recent mean relative error of the estimates.
    pub(super) error: f64,
    pub(super) advice: Advice<f64>,
}

impl Curve {
    pub(super) fn new() -> Self {
        Curve {
            points: [Point::default(); POINTS],
            used: 0,
            learned: 0,
            error: 0.0,
            advice: Advice::default(),
        }
    }

    pub(super) fn learn(&mut self, size: f64, seconds: f64) {
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

    pub(super) fn is_proven(&self, size: f64) -> bool {
        let point = &self.points[nth(size)];
        point.seen >= PROVEN && self.is_remembered(point)
    }

    pub(super) fn known(&self) -> impl Iterator<Item = &Point> {
        self.points[..self.used]
            .iter()
            .filter(|point| self.is_remembered(point))
    }

    /// Relative uncertainty of the estimate for a size that occurred this often.
    pub(super) fn doubt(&self, seen: u32) -> f64 {
        self.error / f64::from(seen.min(AVERAGED)).sqrt()
    }

    /// The estimate for a size; `None` before any batch has run.
    pub(super) fn seconds(&self, size: f64) -> Option<f64> {
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
    pub(super) fn floor(&self, size: f64) -> Option<f64> {
        let reached = self.known().filter(|point| point.size <= size).last()?;
        self.known()
            .filter(|point| point.size >= reached.size)
            .map(Point::steady_seconds)
            .min_by(f64::total_cmp)
    }

    /// The straight line `a + b × size` that fits best in the least-squares sense, counting each size once. `None` while
    /// fewer than two sizes are known.
    pub(super) fn line(&self) -> Option<(f64, f64)> {
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
    pub(super) fn nonnegative_line(&self) -> Option<(f64, f64)> {
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
pub(super) fn alike(seconds: f64, size: f64, other: f64) -> f64 {
    seconds * (SHARED + (1.0 - SHARED) * other / size)
}

/// Whether a throughput is higher than another by more than their relative uncertainty `doubt` explains.
pub(super) fn is_higher(throughput: f64, other: f64, doubt: f64) -> bool {
    throughput > other * (HIGHER + DOUBT * doubt)
}
