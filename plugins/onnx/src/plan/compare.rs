//! Whether the rows that a model computes together are those that it computes alone. Pure.
//!
//! Runtimes choose their kernels by the size of a batch, which changes the order of sums, so fractions may differ by noise:
//! about 1e-6 of the largest value in 32 bits, 1e-3 in 16. What depends on other items differs by far more: a scale of 8-bit
//! integers over the batch by 1e-3 and more, a mean over it by the order of the values.

use crate::runtime::Computed;
use crate::values::Values;

/// Maximum difference, relative to the largest value of the row.
const TOLERANCE: f64 = 1e-4;
/// As [`TOLERANCE`], if the model computes with 16 bits.
const HALF_TOLERANCE: f64 = 2e-2;

/// How a row of a batch relates to the same item alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// Equal, except for noise.
    None,
    /// The values differ.
    Values,
    /// The dimensions after the first differ.
    Shape,
}

/// Compares row `row` of `together`, which has `count` rows, with `alone`, which has one.
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
            let tolerance = if half { HALF_TOLERANCE } else { TOLERANCE };
            if are_close(&row, &alone, tolerance) {
                Difference::None
            } else {
                Difference::Values
            }
        }
        _ if values == alone.values => Difference::None,
        _ => Difference::Values,
    }
}

/// NaN equals NaN, and infinities equal themselves.
fn are_close(one: &[f64], other: &[f64], tolerance: f64) -> bool {
    let finite = other.iter().filter(|value| value.is_finite());
    let largest = finite.fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let close = |(one, other): (&f64, &f64)| {
        one == other || (one.is_nan() && other.is_nan()) || (one - other).abs() <= tolerance * largest
    };
    one.len() == other.len() && one.iter().zip(other).all(close)
}

impl Values {
    /// As 64-bit fractions; `None` for integers, flags and strings.
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
