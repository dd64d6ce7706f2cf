//! The serialized form of a [`CostModel`].
//!
//! It contains the independent values of a model. The others are computed from them when it is read, so that a file cannot
//! contradict itself, and a model that was written and read is equal to the original.

use serde::{Deserialize, Serialize};

use super::design::Design;
use super::linear_algebra::{Matrix, N, Vector};
use super::{Coefficient, CostModel};
use crate::batching::WeightRule;

/// The members of the serialized form.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredModel {
    weight_rule: WeightRule,
    coefficients: Vector,
    identifiable: [bool; N],
    margin: f64,
    floor: f64,
    #[serde(default)]
    minimum: f64,
    r_squared: f64,
    norms: Vector,
    normal: Matrix,
}

/// A value that no fit produces.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("invalid `{member}` of a cost model: found {found}, expected {expected}")]
pub struct InvalidModel {
    member: &'static str,
    found: f64,
    expected: &'static str,
}

impl From<CostModel> for StoredModel {
    fn from(model: CostModel) -> Self {
        Self {
            weight_rule: model.rule,
            coefficients: model.coefficients.map(|coefficient| coefficient.value),
            identifiable: model.coefficients.map(|coefficient| coefficient.is_identifiable),
            margin: model.margin,
            floor: model.floor,
            minimum: model.minimum,
            r_squared: model.r_squared,
            norms: model.design.norms,
            normal: model.design.normal,
        }
    }
}

impl TryFrom<StoredModel> for CostModel {
    type Error = InvalidModel;

    fn try_from(stored: StoredModel) -> Result<Self, InvalidModel> {
        let check = |member, values: &[f64], is_valid: fn(f64) -> bool, expected| {
            let invalid = values.iter().find(|value| !is_valid(**value));
            invalid.map_or(Ok(()), |found| {
                Err(InvalidModel {
                    member,
                    found: *found,
                    expected,
                })
            })
        };
        let (nonnegative, finite) = ("a finite number of at least 0", "a finite number");
        let is_nonnegative = |value: f64| value.is_finite() && value >= 0.0;
        check("coefficients", &stored.coefficients, is_nonnegative, nonnegative)?;
        check("margin", &[stored.margin], is_nonnegative, nonnegative)?;
        // A model without a scale would divide by zero.
        let is_positive = |value: f64| value.is_finite() && value > 0.0;
        check("floor", &[stored.floor], is_positive, "a finite number above 0")?;
        check("minimum", &[stored.minimum], is_nonnegative, nonnegative)?;
        check("r_squared", &[stored.r_squared], f64::is_finite, finite)?;
        check("norms", &stored.norms, is_positive, "a finite number above 0")?;
        check("normal", stored.normal.as_flattened(), f64::is_finite, finite)?;
        Ok(Self {
            rule: stored.weight_rule,
            coefficients: std::array::from_fn(|nth| Coefficient {
                value: stored.coefficients[nth],
                is_identifiable: stored.identifiable[nth],
            }),
            margin: stored.margin,
            floor: stored.floor,
            minimum: stored.minimum,
            r_squared: stored.r_squared,
            design: Design::of_normal(stored.norms, stored.normal),
        })
    }
}
