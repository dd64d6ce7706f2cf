//! Pooling of token vectors to one vector, and functions of vectors.

use schemars::JsonSchema;
use serde::Deserialize;

/// How the vectors of a text's tokens are reduced to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Mean of all vectors.
    Mean,
    /// Vector of the first token.
    Cls,
    /// Maximum of each dimension.
    Max,
}

impl Pooling {
    /// Pools `states`, which has a vector of `width` numbers for each token. There must be at least one token.
    pub fn pool(self, states: &[f32], width: usize) -> Vec<f32> {
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
                        .for_each(|(max, value)| *max = max.max(*value));
                }
            }
        }
        pooled
    }
}

/// Scales a vector to length 1. A zero vector is unchanged.
pub fn normalize(vector: &mut [f32]) {
    let length = dot(vector, vector).sqrt().max(1e-12);
    vector.iter_mut().for_each(|value| *value /= length);
}

/// Returns the dot product of two vectors of the same length.
pub fn dot(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [f32; 6] = [1.0, -2.0, 3.0, 4.0, -4.0, 1.0];

    #[test]
    fn tokens_are_pooled_dimension_by_dimension() {
        assert_eq!(Pooling::Mean.pool(&STATES, 2), [0.0, 1.0]);
        assert_eq!(Pooling::Cls.pool(&STATES, 2), [1.0, -2.0]);
        assert_eq!(Pooling::Max.pool(&STATES, 2), [3.0, 4.0]);
    }
}
