//! The linear algebra of a fit: which coefficients the samples determine, their values, and the margin of the bound. See the
//! documentation of [`cost_model`](super) for the method and its sources.

use super::linear_algebra::{Matrix, N, Vector, dot, eigen, quadratic, solve};
use super::{MAX_UNCERTAINTY, Sample};
use crate::batching::WeightRule;

/// The percentile of the bound, and its quantile in the normal distribution.
const PERCENTILE: f64 = 0.99;
const NORMAL_QUANTILE: f64 = 2.326;

/// The quantile of a 95% confidence interval in the normal distribution.
const CONFIDENCE: f64 = 1.96;

/// Eigenvalues of the scaled normal equations below this fraction of the greatest one count as zero. Rounding errors are
/// about 1e-15, so differences of features down to the fraction 1e-4 are resolved.
const RANK_TOLERANCE: f64 = 1e-9;

/// Maximum component of a combination of coefficients in the null space, relative to its length.
const NULL_TOLERANCE: f64 = 1e-3;

/// A sample divided by its scale.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) features: Vector,
    pub(super) measured: f64,
}

impl Row {
    pub(super) fn of(sample: &Sample, rule: WeightRule, floor: f64) -> Self {
        let scale = sample.measured.max(floor);
        Self {
            features: sample.shape.features(rule).map(|feature| feature / scale),
            measured: sample.measured / scale,
        }
    }
}

/// What the features of the samples determine. The columns are divided by their norms.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Design {
    pub(super) norms: Vector,
    pub(super) normal: Matrix,
    /// Orthonormal directions of coefficients that the samples do not determine.
    null: Vec<Vector>,
    /// The pseudoinverse of `normal`.
    inverse: Matrix,
    rank: usize,
}

impl Design {
    pub(super) fn of(rows: &[Row]) -> Self {
        let norms: Vector = std::array::from_fn(|nth| {
            let squares: f64 = rows.iter().map(|row| row.features[nth].powi(2)).sum();
            // A feature that is always zero keeps its column of zeros.
            if squares > 0.0 { squares.sqrt() } else { 1.0 }
        });
        let scaled: Vec<Vector> = rows
            .iter()
            .map(|row| row.features.map_with(&norms, |feature, norm| feature / norm))
            .collect();
        let normal: Matrix = std::array::from_fn(|row| {
            std::array::from_fn(|column| {
                scaled
                    .iter()
                    .map(|features| features[row] * features[column])
                    .sum()
            })
        });
        Self::of_normal(norms, normal)
    }

    /// The design with these norms of the columns, and these normal equations of the scaled columns.
    pub(super) fn of_normal(norms: Vector, normal: Matrix) -> Self {
        let eigen = eigen(&normal);
        let greatest = eigen.iter().map(|(value, _)| *value).fold(0.0, f64::max);
        let (determined, null): (Vec<_>, Vec<_>) = eigen
            .iter()
            .partition(|(value, _)| *value > greatest * RANK_TOLERANCE);
        let inverse = std::array::from_fn(|row| {
            std::array::from_fn(|column| {
                let terms = determined
                    .iter()
                    .map(|(value, vector)| vector[row] * vector[column] / value);
                terms.sum()
            })
        });
        Self {
            norms,
            normal,
            null: null.into_iter().map(|(_, vector)| vector).collect(),
            inverse,
            rank: determined.len(),
        }
    }

    /// The nonnegative coefficients with the least sum of squared residuals.
    pub(super) fn nonnegative_least_squares(&self, rows: &[Row]) -> Vector {
        let products: Vector = std::array::from_fn(|nth| {
            let sum: f64 = rows.iter().map(|row| row.features[nth] * row.measured).sum();
            sum / self.norms[nth]
        });
        let squares: f64 = rows.iter().map(|row| row.measured.powi(2)).sum();
        let mut supports: Vec<Vec<usize>> = (1..1_usize << N)
            .map(|mask| (0..N).filter(|nth| mask >> nth & 1 == 1).collect())
            .collect();
        supports.sort_by_key(|support: &Vec<usize>| (support.len(), support.clone()));
        let mut best = ([0.0; N], squares);
        for support in supports {
            let Some(solution) = solve(&self.normal, &products, &support, RANK_TOLERANCE) else {
                continue;
            };
            if solution.iter().any(|coefficient| *coefficient < 0.0) {
                continue;
            }
            let coefficients = solution.map_with(&self.norms, |c, norm| c / norm);
            let error: f64 = rows
                .iter()
                .map(|row| (row.measured - dot(&row.features, &coefficients)).powi(2))
                .sum();
            // Larger supports come later, and are worth it only if they improve the fit beyond rounding errors.
            if error < best.1 - squares * 1e-12 {
                best = (coefficients, error);
            }
        }
        best.0
    }

    /// Number of independent combinations of coefficients that the samples determine.
    pub(super) fn rank(&self) -> usize {
        self.rank
    }

    /// Whether the samples determine the cost of a batch with these features.
    pub(super) fn determines(&self, features: &Vector) -> bool {
        let scaled = features.map_with(&self.norms, |feature, norm| feature / norm);
        let length = dot(&scaled, &scaled).sqrt();
        self.null
            .iter()
            .all(|null| dot(null, &scaled).abs() <= length * NULL_TOLERANCE)
    }

    /// The leverage of a row with these features: how strongly its own value would influence its prediction.
    pub(super) fn leverage(&self, features: &Vector) -> f64 {
        let scaled = features.map_with(&self.norms, |feature, norm| feature / norm);
        quadratic(&self.inverse, &scaled)
    }

    /// Which coefficients the samples determine.
    pub(super) fn identifiable(&self, rows: &[Row], residuals: &[f64]) -> [bool; N] {
        let freedom = (rows.len() - self.rank).max(1) as f64;
        let variance = residuals.iter().map(|residual| residual.powi(2)).sum::<f64>() / freedom;
        std::array::from_fn(|nth| {
            let is_determined = self.null.iter().all(|null| null[nth].abs() <= NULL_TOLERANCE);
            let largest = rows.iter().map(|row| row.features[nth]).fold(0.0, f64::max) / self.norms[nth];
            let error = (variance * self.inverse[nth][nth]).sqrt();
            is_determined && CONFIDENCE * error * largest <= MAX_UNCERTAINTY
        })
    }

    /// The 99th percentile of the leave-one-out residuals.
    pub(super) fn margin(&self, rows: &[Row], residuals: &[f64]) -> f64 {
        let mut errors: Vec<f64> = rows
            .iter()
            .zip(residuals)
            .map(|(row, residual)| {
                // A sample that alone determines a coefficient has a leverage of 1, and no residual.
                let rest = (1.0 - self.leverage(&row.features)).max(1e-3);
                residual / rest
            })
            .collect();
        errors.sort_unstable_by(f64::total_cmp);
        let rank = (PERCENTILE * (errors.len() + 1) as f64).ceil() as usize;
        let percentile = errors[rank.min(errors.len()) - 1];
        if rank <= errors.len() {
            return percentile.max(0.0);
        }
        let variance = errors.iter().map(|error| error.powi(2)).sum::<f64>() / errors.len() as f64;
        percentile.max(NORMAL_QUANTILE * variance.sqrt())
    }
}

/// Componentwise operations on vectors.
trait MapWith {
    fn map_with(&self, other: &Self, operation: impl Fn(f64, f64) -> f64) -> Self;
}

impl MapWith for Vector {
    fn map_with(&self, other: &Self, operation: impl Fn(f64, f64) -> f64) -> Self {
        std::array::from_fn(|nth| operation(self[nth], other[nth]))
    }
}
