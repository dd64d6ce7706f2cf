//! Functions of vectors.

/// Scales a vector to length 1. A zero vector is unchanged.
pub fn normalize(vector: &mut [f32]) {
    let length = dot(vector, vector).sqrt().max(1e-12);
    vector.iter_mut().for_each(|value| *value /= length);
}

/// Returns the dot product of two vectors of the same length.
pub fn dot(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}
