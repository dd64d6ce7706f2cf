//! Bounds of the histograms' buckets.

/// Of the endpoints, in low resolution.
pub const ENDPOINT_SECONDS: [f64; 7] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0];

/// Four buckets a decade from 100 µs to 10 s, and a minute.
pub(super) fn seconds() -> Vec<f64> {
    let mut buckets: Vec<f64> = decades(-4, 0, &[1.0, 2.0, 4.0, 7.0]);
    buckets.extend([10.0, 60.0]);
    buckets
}

/// Nine buckets a decade from 10 µs to 10 s, and a minute.
pub(super) fn seconds_in_high_resolution() -> Vec<f64> {
    let mut buckets = decades(-5, 0, &[1.0, 1.3, 1.7, 2.2, 2.8, 3.6, 4.6, 6.0, 7.7]);
    buckets.extend([10.0, 30.0, 60.0]);
    buckets
}

fn decades(from: i32, to: i32, steps: &[f64]) -> Vec<f64> {
    (from..=to)
        .flat_map(|exponent| {
            // Dividing keeps the printed bounds short (0.0002, not 0.00019999999999999998).
            let scale = 10f64.powi(exponent.abs());
            steps
                .iter()
                .map(move |step| if exponent < 0 { step / scale } else { step * scale })
        })
        .collect()
}

/// 1, `factor`, `factor`², …: `count` bounds.
pub(super) fn powers(factor: f64, count: i32) -> Vec<f64> {
    (0..count).map(|exponent| factor.powi(exponent)).collect()
}
