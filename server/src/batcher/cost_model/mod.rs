//! A model of what a batch costs in memory or in time, fitted to measurements.
//!
//! Pure: samples in, a [`CostModel`] out. How samples are measured, in which unit, and what is done with a prediction is
//! decided elsewhere.
//!
//! # The model
//! The cost of a batch of B items with the weights `w` is linear in four features. L is the greatest weight.
//!
//! ```text
//! padded items:    c0 + c1·B + c2·B·L + c3·B·L²
//! unpadded items:  c0 + c1·B + c2·Σw  + c3·Σw²
//! ```
//!
//! The squares represent attention, whose memory and time grow with the square of the length (Vaswani et al. 2017,
//! "Attention is all you need", table 1).
//!
//! # The fit
//! Errors are relative, so each sample is divided by its scale, the measured value or [`SCALE_FLOOR`] of the largest one,
//! whichever is greater. The coefficients are the nonnegative least-squares solution. Its nonzero coefficients are the
//! unconstrained solution on their support (Lawson and Hanson 1974, "Solving least squares problems", chapter 23); with
//! four coefficients, all 15 supports are tried, which gives the exact optimum. If several supports fit equally well, the
//! one with the fewest and lowest features is chosen.
//!
//! # Costs that cannot be measured
//! A measurement may have a minimum below which batches cannot be told apart, as the memory of a process has. Such a sample says only
//! that its batch costs no more than the minimum, and [`CostModel::fit_above`] fits the model to the others (a censored regression,
//! Tobin 1958, "Estimation of relationships for limited dependent variables"). Predictions are at least the minimum.
//!
//! # What is not identifiable
//! Samples determine a linear combination of the coefficients if and only if it is orthogonal to the null space of the
//! design matrix (Searle 1971, "Linear models", section 5.4). If all items have weight 1, for example, `c1 + c2 + c3` is
//! determined and the single coefficients are not. Such a coefficient is reported as not identifiable, as is one whose
//! largest contribution to a sample is uncertain by more than [`MAX_UNCERTAINTY`] (95% confidence). A prediction that
//! requires a combination which is not determined is rejected.
//!
//! # The bound
//! The margin is the 99th percentile of the errors that the model makes on samples it was not fitted to, relative to the
//! scale: the leave-one-out residuals `e / (1 − h)`, where h is the leverage of the sample (Allen 1974, "The relationship
//! between variable selection and data augmentation"). With fewer than 99 samples, no percentile of the sample is that
//! high, so the margin is at least 2.33 standard deviations. A batch outside of the measured range has a high leverage,
//! and its bound is wider by `√(1 + h)`.

mod design;
mod linear_algebra;
mod stored;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::batching::WeightRule;
use design::{Design, Row};
use linear_algebra::{N, Vector, dot};
use stored::StoredModel;

/// Minimum number of samples: one more than there are coefficients.
pub const MIN_SAMPLES: usize = N + 1;

/// The minimum scale of a sample, as a fraction of the largest measured value.
pub const SCALE_FLOOR: f64 = 0.02;

/// Maximum uncertainty of an identifiable coefficient's largest contribution to a sample, relative to the sample.
pub const MAX_UNCERTAINTY: f64 = 0.1;

/// The size and the weights of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BatchShape {
    /// Number of items.
    pub items: u64,
    /// The greatest weight.
    pub heaviest: u64,
    /// The sum of the weights.
    pub sum: u64,
    /// The sum of the squares of the weights.
    pub sum_of_squares: f64,
}

impl BatchShape {
    /// The shape of a batch of items with these weights.
    pub fn of(weights: impl IntoIterator<Item = u64>) -> Self {
        let mut shape = Self::default();
        for weight in weights {
            shape.add(weight);
        }
        shape
    }

    /// The shape of a batch of items with the same weight.
    pub fn uniform(items: u64, weight: u64) -> Self {
        Self {
            items,
            heaviest: if items > 0 { weight } else { 0 },
            sum: weight.saturating_mul(items),
            sum_of_squares: (weight as f64).powi(2) * items as f64,
        }
    }

    /// Adds an item.
    pub fn add(&mut self, weight: u64) {
        self.items += 1;
        self.heaviest = self.heaviest.max(weight);
        self.sum = self.sum.saturating_add(weight);
        self.sum_of_squares += (weight as f64).powi(2);
    }

    fn features(&self, rule: WeightRule) -> Vector {
        let (items, heaviest) = (self.items as f64, self.heaviest as f64);
        match rule {
            WeightRule::Padded => [1.0, items, items * heaviest, items * heaviest * heaviest],
            WeightRule::Sum => [1.0, items, self.sum as f64, self.sum_of_squares],
        }
    }
}

/// A batch that was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The batch.
    pub shape: BatchShape,
    /// What it cost: bytes or seconds, for example.
    pub measured: f64,
}

/// Why samples cannot be fitted.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum FitError {
    /// Too few samples.
    #[error("{found} samples are too few for a fit: expected at least {MIN_SAMPLES}")]
    TooFew {
        /// Number of samples.
        found: usize,
    },
    /// A measured value is not a finite, nonnegative number.
    #[error("invalid measured value {0}: expected a finite number of at least 0")]
    Invalid(f64),
    /// All measured values are zero.
    #[error("all measured values are zero")]
    Zero,
}

/// The samples do not determine what a batch costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not identifiable: the measured batches do not determine the cost of such a batch")]
pub struct NotIdentifiable;

/// A coefficient of the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficient {
    /// Its value, at least zero. One of several possible values if it is not identifiable.
    pub value: f64,
    /// Whether the samples determine it.
    pub is_identifiable: bool,
}

/// What a batch is predicted to cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// The expected cost.
    pub expected: f64,
    /// The 99th percentile.
    pub bound: f64,
}

/// What the batches of one task cost, as far as it was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskCosts {
    /// Bytes that a batch adds to the memory of an idle worker.
    pub memory: Option<CostModel>,
    /// Seconds that a batch takes.
    pub time: Option<CostModel>,
}

/// A fitted model. Its serialized form contains what predictions need, but not the samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StoredModel", into = "StoredModel")]
pub struct CostModel {
    rule: WeightRule,
    /// `c0` to `c3`.
    coefficients: [Coefficient; N],
    /// The 99th percentile of the errors, relative to the scale. At least zero.
    margin: f64,
    /// The minimum scale.
    floor: f64,
    /// The minimum cost of a batch.
    minimum: f64,
    r_squared: f64,
    design: Design,
}

impl CostModel {
    /// Fits the model to samples.
    ///
    /// # Errors
    /// If there are fewer than [`MIN_SAMPLES`] samples, if a value is invalid, or if all are zero. Coefficients that the
    /// samples do not determine are not an error: see [`Coefficient::is_identifiable`].
    pub fn fit(rule: WeightRule, samples: &[Sample]) -> Result<Self, FitError> {
        let invalid = |sample: &&Sample| !(sample.measured.is_finite() && sample.measured >= 0.0);
        if let Some(sample) = samples.iter().find(invalid) {
            return Err(FitError::Invalid(sample.measured));
        }
        if samples.len() < MIN_SAMPLES {
            return Err(FitError::TooFew { found: samples.len() });
        }
        let largest = samples.iter().map(|sample| sample.measured).fold(0.0, f64::max);
        if largest == 0.0 {
            return Err(FitError::Zero);
        }
        let floor = largest * SCALE_FLOOR;
        let rows: Vec<Row> = samples
            .iter()
            .map(|sample| Row::of(sample, rule, floor))
            .collect();
        let design = Design::of(&rows);
        let coefficients = design.nonnegative_least_squares(&rows);
        let residuals: Vec<f64> = rows
            .iter()
            .map(|row| row.measured - dot(&row.features, &coefficients))
            .collect();
        let identifiable = design.identifiable(&rows, &residuals);
        let expected = samples
            .iter()
            .map(|sample| dot(&sample.shape.features(rule), &coefficients));
        Ok(Self {
            rule,
            coefficients: std::array::from_fn(|nth| Coefficient {
                value: coefficients[nth],
                is_identifiable: identifiable[nth],
            }),
            margin: design.margin(&rows, &residuals),
            floor,
            minimum: 0.0,
            r_squared: r_squared(samples, expected),
            design,
        })
    }

    /// Like [`fit`](Self::fit), for costs that are measured as `minimum` if they are lower.
    ///
    /// Samples of the minimum are left out, except for those of which the model would otherwise predict more. If the others determine
    /// less than all samples together, the model is fitted to all of them.
    ///
    /// # Errors
    /// Those of [`fit`](Self::fit).
    pub fn fit_above(minimum: f64, rule: WeightRule, samples: &[Sample]) -> Result<Self, FitError> {
        let of_all = Self::fit(rule, samples)?;
        let (mut used, mut censored): (Vec<_>, Vec<_>) = samples
            .iter()
            .copied()
            .partition(|sample| sample.measured > minimum);
        let mut model = Self::fit(rule, &used).ok();
        while let Some(found) = model
            .as_ref()
            .filter(|found| found.design.rank() == of_all.design.rank())
        {
            let (contradicting, rest): (Vec<_>, Vec<_>) = censored
                .into_iter()
                .partition(|sample| found.expected(&sample.shape).is_ok_and(|cost| cost > minimum));
            if contradicting.is_empty() {
                break;
            }
            used.extend(contradicting);
            censored = rest;
            model = Self::fit(rule, &used).ok();
        }
        let determines_all = |found: &Self| found.design.rank() == of_all.design.rank();
        let mut model = model.filter(determines_all).unwrap_or(of_all);
        model.minimum = minimum;
        let expected = samples
            .iter()
            .map(|sample| model.cost(&sample.shape.features(rule)));
        model.r_squared = r_squared(samples, expected);
        Ok(model)
    }

    /// What a batch costs.
    ///
    /// # Errors
    /// If the samples do not determine it.
    pub fn predict(&self, shape: &BatchShape) -> Result<Prediction, NotIdentifiable> {
        self.predict_with_margin(shape, self.margin)
    }

    /// Like [`predict`](Self::predict), with another margin than that of the samples: the 99th percentile of later
    /// [errors](Self::error), for example.
    ///
    /// # Errors
    /// If the samples do not determine the cost.
    pub fn predict_with_margin(
        &self,
        shape: &BatchShape,
        margin: f64,
    ) -> Result<Prediction, NotIdentifiable> {
        let (expected, deviation) = self.expect(shape)?;
        Ok(Prediction {
            expected,
            bound: expected + margin * deviation,
        })
    }

    /// The error of the prediction for a batch that was measured, in the unit of the margin: the bound is exact for a batch
    /// whose error is the margin.
    ///
    /// # Errors
    /// If the samples do not determine the cost.
    pub fn error(&self, shape: &BatchShape, measured: f64) -> Result<f64, NotIdentifiable> {
        let (expected, deviation) = self.expect(shape)?;
        Ok((measured - expected) / deviation)
    }

    /// The expected cost of a batch, without its bound.
    ///
    /// # Errors
    /// If the samples do not determine it.
    pub fn expected(&self, shape: &BatchShape) -> Result<f64, NotIdentifiable> {
        let features = shape.features(self.rule);
        if !self.design.determines(&features) {
            return Err(NotIdentifiable);
        }
        Ok(self.cost(&features))
    }

    /// The cost of a batch with these features.
    fn cost(&self, features: &Vector) -> f64 {
        let cost = dot(features, &self.coefficients.map(|coefficient| coefficient.value));
        cost.max(self.minimum)
    }

    /// The expected cost, and the unit of its error.
    fn expect(&self, shape: &BatchShape) -> Result<(f64, f64), NotIdentifiable> {
        let features = shape.features(self.rule);
        let expected = self.expected(shape)?;
        let scale = expected.max(self.floor);
        let leverage = self.design.leverage(&features.map(|feature| feature / scale));
        Ok((expected, scale * (1.0 + leverage).sqrt()))
    }

    /// How the weights of the items of a batch add up.
    pub fn rule(&self) -> WeightRule {
        self.rule
    }

    /// The coefficients `c0` to `c3`.
    pub fn coefficients(&self) -> [Coefficient; N] {
        self.coefficients
    }

    /// The fraction of the variance of the samples that the model explains.
    pub fn r_squared(&self) -> f64 {
        self.r_squared
    }

    /// The 99th percentile of the relative errors within the measured range.
    pub fn margin(&self) -> f64 {
        self.margin
    }
}

/// The fraction of the variance that `expected` explains.
fn r_squared(samples: &[Sample], expected: impl Iterator<Item = f64>) -> f64 {
    let mean = samples.iter().map(|sample| sample.measured).sum::<f64>() / samples.len() as f64;
    let total: f64 = samples
        .iter()
        .map(|sample| (sample.measured - mean).powi(2))
        .sum();
    let unexplained: f64 = samples
        .iter()
        .zip(expected)
        .map(|(sample, expected)| (sample.measured - expected).powi(2))
        .sum();
    if total > 0.0 {
        1.0 - unexplained / total
    } else {
        1.0
    }
}
