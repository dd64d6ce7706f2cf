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
    /// Sum of all vectors, divided by the root of their number.
    #[serde(rename = "mean_sqrt_len_tokens")]
    MeanSqrtLength,
    /// Mean of all vectors, weighted by their position, counted from 1.
    WeightedMean,
    /// Vector of the last token.
    LastToken,
}

impl Pooling {
    /// Returns the name in text-embeddings-inference, or else that of sentence-transformers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Max => "max",
            Self::MeanSqrtLength => "mean_sqrt_len_tokens",
            Self::WeightedMean => "weightedmean",
            Self::LastToken => "last_token",
        }
    }

    /// Pools `states`, which has a vector of `width` numbers for each token. There must be at least one token.
    pub fn pool(self, states: &[f32], width: usize) -> Vec<f32> {
        self.pool_after(0, states, width)
    }

    /// Like [`pool`](Self::pool), but without the first tokens, as many as `skipped`. If no tokens remain, the result is that of
    /// sentence-transformers: the first vector, or zeros.
    pub fn pool_after(self, skipped: usize, states: &[f32], width: usize) -> Vec<f32> {
        let count = states.len() / width;
        let skipped = skipped.min(count);
        let (states, count) = (&states[skipped * width..], count - skipped);
        let tokens = states.chunks_exact(width);
        let (first, zeros) = (tokens.clone().next(), || vec![0.0; width]);
        match self {
            Self::Cls => first.map_or_else(zeros, <[f32]>::to_vec),
            Self::LastToken => tokens.last().map_or_else(zeros, <[f32]>::to_vec),
            Self::Max => {
                let mut pooled = first.map_or_else(zeros, <[f32]>::to_vec);
                for token in tokens.skip(1) {
                    pooled
                        .iter_mut()
                        .zip(token)
                        .for_each(|(max, value)| *max = max.max(*value));
                }
                pooled
            }
            Self::Mean => weighted(tokens, |_| 1.0, count as f32, width),
            Self::MeanSqrtLength => weighted(tokens, |_| 1.0, (count as f32).sqrt(), width),
            Self::WeightedMean => {
                let weight = |token: usize| (skipped + token + 1) as f32;
                weighted(tokens, weight, (0..count).map(weight).sum(), width)
            }
        }
    }
}

/// Returns the sum of vectors with weights, divided by `divisor`.
fn weighted<'a>(
    tokens: impl Iterator<Item = &'a [f32]>,
    weight: impl Fn(usize) -> f32,
    divisor: f32,
    width: usize,
) -> Vec<f32> {
    let mut pooled = vec![0.0; width];
    for (index, token) in tokens.enumerate() {
        let weight = weight(index);
        pooled
            .iter_mut()
            .zip(token)
            .for_each(|(sum, value)| *sum += weight * value);
    }
    let divisor = divisor.max(1e-9);
    pooled.iter_mut().for_each(|sum| *sum /= divisor);
    pooled
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
        assert_eq!(Pooling::LastToken.pool(&STATES, 2), [-4.0, 1.0]);
        assert_eq!(Pooling::WeightedMean.pool(&STATES, 2), [-5.0 / 6.0, 1.5]);
        assert_eq!(
            Pooling::MeanSqrtLength.pool(&STATES[..4], 2),
            [4.0 / 2_f32.sqrt(), 2.0 / 2_f32.sqrt()]
        );
    }

    #[test]
    fn the_tokens_of_a_prompt_can_be_skipped() {
        assert_eq!(Pooling::Cls.pool_after(1, &STATES, 2), [3.0, 4.0]);
        assert_eq!(Pooling::Mean.pool_after(1, &STATES, 2), [-0.5, 2.5]);
        assert_eq!(
            Pooling::WeightedMean.pool_after(1, &STATES, 2),
            [-6.0 / 5.0, 11.0 / 5.0]
        );
        assert_eq!(Pooling::Mean.pool_after(9, &STATES, 2), [0.0, 0.0]);
    }
}
