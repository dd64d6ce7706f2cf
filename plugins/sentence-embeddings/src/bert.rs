//! BERT and RoBERTa encoders on packed tokens: the sequences of a batch are concatenated without padding.

use plugin_sdk::LoadError;
use transformer::{Encoder, GemmExecutor, LayerNorm, Linear, Names, Tokens, Weights};

use crate::model_spec::Architecture;

/// Name of the tensor of word embeddings, which every BERT-like encoder has.
pub(crate) const WORDS: &str = "embeddings.word_embeddings.weight";

const NAMES: Names = Names {
    layers: "encoder.layer",
    project: [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
    ],
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    feed_forward_in: "intermediate.dense",
    feed_forward_out: "output.dense",
    feed_forward_norm: "output.LayerNorm",
};

/// An encoder with its weights.
pub(crate) struct Bert {
    architecture: Architecture,
    words: Vec<f32>,
    positions: Vec<f32>,
    types: Vec<f32>,
    norm: LayerNorm,
    layers: Encoder,
    head: Option<Head>,
}

/// The classification head, which computes a score from the vector of the first token.
struct Head {
    dense: Linear,
    score: Linear,
}

impl Bert {
    /// Loads the weights of an encoder, and of its classification head if `scores` is true.
    pub(crate) fn load(
        weights: &Weights<'_>,
        architecture: Architecture,
        scores: bool,
    ) -> Result<Self, LoadError> {
        let gemm = GemmExecutor::new();
        let width = architecture.layers.width;
        let table = |name: &str, rows: usize| {
            weights.get(&format!("embeddings.{name}_embeddings.weight"), &[rows, width])
        };
        let head = scores.then(|| Head::load(&gemm, weights, width)).transpose()?;
        Ok(Self {
            words: table("word", weights.rows(WORDS)?)?,
            positions: table("position", architecture.max_position_embeddings)?,
            types: table("token_type", architecture.type_vocab_size)?,
            norm: LayerNorm::load(
                weights,
                "embeddings.LayerNorm",
                width,
                architecture.layers.epsilon,
            )?,
            layers: Encoder::load(weights, architecture.layers.clone(), &NAMES)?,
            head,
            architecture,
        })
    }

    /// Returns the length of the vectors.
    pub(crate) fn width(&self) -> usize {
        self.layers.width()
    }

    /// Returns the size of the vocabulary.
    pub(crate) fn vocabulary(&self) -> usize {
        self.words.len() / self.width()
    }

    /// Computes the vectors of all tokens of all sequences, concatenated. All IDs must be in the vocabulary, and no sequence may be
    /// longer than the number of positions.
    pub(crate) fn states(&self, sequences: &[&Tokens]) -> Vec<f32> {
        let mut ranges = Vec::with_capacity(sequences.len());
        let mut count = 0;
        for tokens in sequences {
            ranges.push(count..count + tokens.len());
            count += tokens.len();
        }
        let gemm = GemmExecutor::new();
        let mut states = self.embed(sequences, count);
        self.layers.apply(&gemm, &ranges, &mut states);
        states
    }

    /// Computes the score of each sequence.
    ///
    /// # Panics
    /// The model was loaded without its classification head.
    pub(crate) fn scores(&self, sequences: &[&Tokens]) -> Vec<f32> {
        let head = self.head.as_ref().expect("loaded with its classification head");
        let gemm = GemmExecutor::new();
        let states = self.states(sequences);
        let mut start = 0;
        let score = |tokens: &&Tokens| {
            let first = row(&states, start, self.width());
            start += tokens.len();
            head.apply(&gemm, first)
        };
        sequences.iter().map(score).collect()
    }

    fn embed(&self, sequences: &[&Tokens], count: usize) -> Vec<f32> {
        let width = self.width();
        let last_type = self.architecture.type_vocab_size - 1;
        let mut states = Vec::with_capacity(count * width);
        for tokens in sequences {
            for (position, (id, kind)) in tokens.ids.iter().zip(&tokens.types).enumerate() {
                let word = row(&self.words, *id as usize, width);
                let position = row(
                    &self.positions,
                    position + self.architecture.first_position,
                    width,
                );
                // A model with a single type uses it for both texts of a pair.
                let kind = row(&self.types, last_type.min(*kind as usize), width);
                let sum = word.iter().zip(position).zip(kind);
                states.extend(sum.map(|((word, position), kind)| word + position + kind));
            }
        }
        self.norm.apply(&mut states);
        states
    }
}

fn row(table: &[f32], index: usize, width: usize) -> &[f32] {
    &table[index * width..(index + 1) * width]
}

impl Head {
    /// Loads the head. In BERT, it consists of a pooler and a classifier. In RoBERTa, the classifier contains both layers.
    fn load(gemm: &GemmExecutor, weights: &Weights<'_>, width: usize) -> Result<Self, LoadError> {
        let outer = |name: &str, outputs: usize| -> Result<Linear, LoadError> {
            let weight = weights.get_outer(&format!("{name}.weight"), &[outputs, width])?;
            let bias = weights.get_outer(&format!("{name}.bias"), &[outputs])?;
            Ok(Linear::new(gemm, &weight, bias, width))
        };
        if weights.has_outer("classifier.out_proj.weight") {
            return Ok(Self {
                dense: outer("classifier.dense", width)?,
                score: outer("classifier.out_proj", 1)?,
            });
        }
        Ok(Self {
            dense: Linear::load(gemm, weights, "pooler.dense", width, width)?,
            score: outer("classifier", 1)?,
        })
    }

    fn apply(&self, gemm: &GemmExecutor, first: &[f32]) -> f32 {
        let mut pooled = vec![0.0; first.len()];
        self.dense.apply(gemm, first, &mut pooled);
        pooled.iter_mut().for_each(|value| *value = value.tanh());
        let mut score = [0.0];
        self.score.apply(gemm, &pooled, &mut score);
        score[0]
    }
}
