//! Compares the rows that a model computes in a batch with those that it computes individually. Pure.
//!
//! Runtimes select kernels by batch size, which changes the order of summation, so floats may differ by rounding noise: about
//! 1e-6 of the largest value with 32 bits, and 1e-3 with 16. A real dependence on other items causes far larger differences: an
//! int8 quantization scale computed over the batch causes 1e-3 or more, and a mean over the batch causes differences on the order
//! of the values.

use crate::runtime::Computed;
use crate::values::Values;

/// Maximum difference, relative to the largest magnitude in the row.
const TOLERANCE: f64 = 1e-4;
/// Like [`TOLERANCE`], for models that compute with 16 bits.
const HALF_TOLERANCE: f64 = 2e-2;

/// How a row of a batch differs from the result for the same item alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// Equal up to rounding noise.
    None,
    /// The values differ.
    Values,
    /// The dimensions after the first differ.
    Shape,
}

/// Compares row `row` of `together`, which has `count` rows, with `alone`, which has one. `half` selects the tolerance for 16
/// bits.
pub(super) fn compare(
    together: &Computed,
    row: usize,
    count: usize,
    alone: &Computed,
    half: bool,
) -> Difference {
    if together.shape.get(1..) != alone.shape.get(1..) {
        return Difference::Shape;
    }
    let length = together.values.len() / count.max(1);
    let values = together.values.slice(row * length..(row + 1) * length);
    match (values.fractions(), alone.values.fractions()) {
        (Some(row), Some(alone)) => {
            if are_close(&row, &alone, tolerance(half)) {
                Difference::None
            } else {
                Difference::Values
            }
        }
        _ if values == alone.values => Difference::None,
        _ => Difference::Values,
    }
}

/// Maximum difference, relative to the largest magnitude in the row. `half` selects the tolerance for 16 bits.
pub(super) fn tolerance(half: bool) -> f64 {
    if half { HALF_TOLERANCE } else { TOLERANCE }
}

/// Treats NaN as equal to NaN, and an infinity as equal to itself.
fn are_close(one: &[f64], other: &[f64], tolerance: f64) -> bool {
    let finite = other.iter().filter(|value| value.is_finite());
    let largest = finite.fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let close = |(one, other): (&f64, &f64)| {
        one == other || (one.is_nan() && other.is_nan()) || (one - other).abs() <= tolerance * largest
    };
    one.len() == other.len() && one.iter().zip(other).all(close)
}

impl Values {
    /// The values as `f64`; `None` for integers, booleans and strings.
    fn fractions(&self) -> Option<Vec<f64>> {
        Some(match self {
            Self::F64(values) => values.clone(),
            Self::F32(values) => values.iter().map(|value| f64::from(*value)).collect(),
            Self::F16(values) => values.iter().map(|value| value.to_f64()).collect(),
            Self::Bf16(values) => values.iter().map(|value| value.to_f64()).collect(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn computed(shape: &[usize], values: &[f32]) -> Computed {
        Computed {
            output: 0,
            position: None,
            shape: shape.to_vec(),
            values: Values::F32(values.to_vec()),
        }
    }

    #[test]
    fn noise_is_no_difference_and_a_changed_scale_is_one() {
        let alone = computed(&[1, 3], &[10.0, 0.001, f32::NAN]);
        for (row, expected) in [
            ([10.00001, 0.0011, f32::NAN], Difference::None),
            ([10.0, 0.003, f32::NAN], Difference::Values),
            ([10.0, 0.001, 0.0], Difference::Values),
        ] {
            let together = computed(&[2, 3], &[&[5.0; 3][..], &row].concat());
            assert_eq!(compare(&together, 1, 2, &alone, false), expected, "{row:?}");
        }
        let wider = computed(&[2, 2], &[0.0; 4]);
        assert_eq!(compare(&wider, 0, 2, &alone, false), Difference::Shape);
    }
}
