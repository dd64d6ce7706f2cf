//! The text network, on packed tokens.

use plugin_sdk::LoadError;
use transformer::{Encoder, GemmExecutor, Linear, Names, Norm, NormKind, Sequence, Tokens, Weights};

use crate::model_spec::{PooledToken, TextSpec};

/// Name of the tensor of token embeddings, which every CLIP model has.
pub(crate) const WORDS: &str = "text_model.embeddings.token_embedding.weight";

/// A network that computes vectors of texts.
pub(crate) struct TextNetwork {
    words: Vec<f32>,
    positions: Vec<f32>,
    layers: Encoder,
    norm: Norm,
    project: Linear,
    pooled_token: PooledToken,
}

impl TextNetwork {
    /// Loads the weights of a network with vectors of length `width`.
    pub(crate) fn load(weights: &Weights<'_>, spec: TextSpec, width: usize) -> Result<Self, LoadError> {
        let (inner, epsilon) = (spec.layers.width, spec.layers.epsilon);
        let positions = "text_model.embeddings.position_embedding.weight";
        let projection = "text_projection";
        Ok(Self {
            words: weights.get(WORDS, &[weights.rows(WORDS)?, inner])?,
            positions: weights.get(positions, &[spec.positions, inner])?,
            layers: Encoder::load(weights, spec.layers, &NAMES)?,
            norm: Norm::load(
                weights,
                "text_model.final_layer_norm",
                inner,
                NormKind::Layer,
                epsilon,
            )?,
            project: Linear::load_unbiased(&GemmExecutor::new(), weights, projection, width, inner)?,
            pooled_token: spec.pooled_token,
        })
    }

    /// Returns the size of the vocabulary.
    pub(crate) fn vocabulary(&self) -> usize {
        self.words.len() / self.layers.width()
    }

    /// Computes a vector for each text. All IDs must be in the vocabulary, and no text may be longer than the number of positions.
    pub(crate) fn vectors(&self, texts: &[&Tokens]) -> Vec<Vec<f32>> {
        let (gemm, inner) = (GemmExecutor::new(), self.layers.width());
        let mut sequences = Vec::with_capacity(texts.len());
        let mut states = Vec::new();
        for tokens in texts {
            let start = states.len() / inner;
            sequences.push(Sequence::from(start..start + tokens.len()));
            for (id, position) in tokens.ids.iter().zip(self.positions.chunks_exact(inner)) {
                let word = &self.words[*id as usize * inner..][..inner];
                states.extend(word.iter().zip(position).map(|(word, position)| word + position));
            }
        }
        self.layers.apply(&gemm, &sequences, &mut states);
        let lasts = sequences.iter().zip(texts).flat_map(|(sequence, tokens)| {
            let token = sequence.rows.start + self.pooled_token.index_in(&tokens.ids);
            &states[token * inner..(token + 1) * inner]
        });
        let mut lasts: Vec<_> = lasts.copied().collect();
        self.norm.apply(&mut lasts);
        project(&gemm, &self.project, &lasts)
    }
}

impl PooledToken {
    /// Returns the index of the token whose vector is used for the text.
    fn index_in(self, ids: &[u32]) -> usize {
        let target = match self {
            Self::Largest => ids.iter().copied().max().unwrap_or(0),
            Self::Id(id) => id,
        };
        ids.iter().position(|id| *id == target).unwrap_or(0)
    }
}

/// The names of the tensors of a layer, for both networks.
pub(crate) const NAMES: Names = Names {
    project: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    query_key_norms: None,
    attention_output: "self_attn.out_proj",
    attention_norm: "layer_norm1",
    feed_forward_in: &["mlp.fc1"],
    feed_forward_out: "mlp.fc2",
    feed_forward_norm: "layer_norm2",
};

/// Projects rows into the common vector space of texts and images.
pub(crate) fn project(gemm: &GemmExecutor, layer: &Linear, rows: &[f32]) -> Vec<Vec<f32>> {
    let mut vectors = vec![0.0; rows.len() / layer.inputs() * layer.outputs()];
    layer.apply(gemm, rows, &mut vectors);
    vectors
        .chunks_exact(layer.outputs())
        .map(<[f32]>::to_vec)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_token_is_pooled() {
        assert_eq!(PooledToken::Largest.index_in(&[7, 3, 9, 4, 9]), 2);
        assert_eq!(PooledToken::Id(4).index_in(&[7, 3, 9, 4, 9, 4]), 3);
        assert_eq!(PooledToken::Id(5).index_in(&[7, 3, 9]), 0);
    }
}
