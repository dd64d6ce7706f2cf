//! From the vectors of tokens to one vector, and from two vectors to how similar they are. It knows nothing of networks.

use schemars::JsonSchema;
use serde::Deserialize;
use transformer::vectors::dot;

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pooling {
    /// Their mean.
    Mean,
    /// The vector of the first token.
    Cls,
    /// The largest value of each dimension.
    Max,
}

impl Pooling {
    /// Pools `states`, which holds a vector of `width` numbers for each token; there is at least one.
    pub(crate) fn pool(self, states: &[f32], width: usize) -> Vec<f32> {
        let mut tokens = states.chunks_exact(width);
        let mut pooled = tokens.next().map_or_else(|| vec![0.0; width], <[f32]>::to_vec);
        match self {
            Self::Cls => {}
            Self::Mean => {
                for token in tokens {
                    pooled
                        .iter_mut()
                        .zip(token)
                        .for_each(|(sum, value)| *sum += value);
                }
                let count = (states.len() / width) as f32;
                pooled.iter_mut().for_each(|sum| *sum /= count);
            }
            Self::Max => {
                for token in tokens {
                    pooled
                        .iter_mut()
                        .zip(token)
                        .for_each(|(most, value)| *most = most.max(*value));
                }
            }
        }
        pooled
    }
}

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

    const STATES: [f32; 6] = [1.0, -2.0, 3.0, 4.0, -4.0, 1.0];

    #[test]
    fn tokens_are_pooled_dimension_by_dimension() {
        assert_eq!(Pooling::Mean.pool(&STATES, 2), [0.0, 1.0]);
        assert_eq!(Pooling::Cls.pool(&STATES, 2), [1.0, -2.0]);
        assert_eq!(Pooling::Max.pool(&STATES, 2), [3.0, 4.0]);
    }

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
