//! How similar two vectors are. It knows nothing of networks.

use serde::Deserialize;
use transformer::vectors::dot;

/// How two vectors are compared: the larger, the more similar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Similarity {
    #[default]
    Cosine,
    Dot,
    /// The distance, negated.
    Euclidean,
    /// The sum of the distances in each dimension, negated.
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
    use transformer::vectors::normalize;

    use super::*;

    #[test]
    fn a_vector_of_zeros_has_no_direction() {
        let mut vector = [0.0; 3];
        normalize(&mut vector);
        assert_eq!(vector, [0.0; 3]);
        assert_eq!(Similarity::Cosine.of(&vector, &[1.0, 0.0, 0.0]), 0.0);
    }

    #[test]
    fn similarities_grow_as_vectors_come_closer() {
        let (one, other) = ([3.0, 0.0], [0.0, 4.0]);
        assert_eq!(Similarity::Cosine.of(&one, &other), 0.0);
        assert_eq!(Similarity::Dot.of(&one, &one), 9.0);
        assert_eq!(Similarity::Euclidean.of(&one, &other), -5.0);
        assert_eq!(Similarity::Manhattan.of(&one, &other), -7.0);
    }
}
