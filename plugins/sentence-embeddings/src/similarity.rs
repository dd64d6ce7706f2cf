//! Similarity of vectors.

use serde::Deserialize;
use transformer::dot;

/// Similarity function. Larger values mean more similar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Similarity {
    #[default]
    Cosine,
    Dot,
    /// Negative Euclidean distance.
    Euclidean,
    /// Negative Manhattan distance: the sum of the absolute differences.
    Manhattan,
}

impl Similarity {
    pub(crate) fn of(self, one: &[f32], other: &[f32]) -> f32 {
        let differences = || one.iter().zip(other).map(|(one, other)| one - other);
        match self {
            Self::Dot => dot(one, other),
            Self::Cosine => {
                let length = |vector| dot(vector, vector).sqrt().max(1e-12);
                dot(one, other) / (length(one) * length(other))
            }
            Self::Euclidean => -differences()
                .map(|difference| difference * difference)
                .sum::<f32>()
                .sqrt(),
            Self::Manhattan => -differences().map(f32::abs).sum::<f32>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use transformer::normalize;

    use super::*;

    #[test]
    fn the_cosine_of_a_zero_vector_is_zero() {
        let mut vector = [0.0; 3];
        normalize(&mut vector);
        assert_eq!(vector, [0.0; 3]);
        assert_eq!(Similarity::Cosine.of(&vector, &[1.0, 0.0, 0.0]), 0.0);
    }

    #[test]
    fn similarity_increases_as_distance_decreases() {
        let (one, other) = ([3.0, 0.0], [0.0, 4.0]);
        assert_eq!(Similarity::Cosine.of(&one, &other), 0.0);
        assert_eq!(Similarity::Dot.of(&one, &one), 9.0);
        assert_eq!(Similarity::Euclidean.of(&one, &other), -5.0);
        assert_eq!(Similarity::Manhattan.of(&one, &other), -7.0);
    }
}
