//! What networks compute after their layers: the numbers of labels, and the numbers of words.

use plugin_sdk::LoadError;
use transformer::{Activation, GemmExecutor, Linear, Norm, NormKind, Pooling, Tokens, Weights};

use crate::architectures::{Architecture, ClassifierPooling, DenseShape, TensorName};

/// Number of tokens whose numbers of words are computed together: a row is as long as the vocabulary.
const ROWS: usize = 32;

/// Computes the numbers of labels from pooled vectors of tokens.
pub(crate) struct Classifier {
    pooling: ClassifierPooling,
    dense: Option<Dense>,
    output: Linear,
}

/// A linear layer with an activation function and possibly a normalization.
struct Dense {
    linear: Linear,
    activation: Activation,
    norm: Option<Norm>,
}

/// Computes the numbers of words for each token.
pub(crate) struct MaskedLm {
    dense: Dense,
    decoder: Linear,
}

impl Classifier {
    pub(crate) fn load(
        gemm: &GemmExecutor,
        weights: &Weights<'_>,
        architecture: &Architecture,
        labels: usize,
    ) -> Result<Self, LoadError> {
        let (shape, width) = (&architecture.classifier, architecture.layers.width);
        let dense = shape.dense.as_ref();
        let dense =
            dense.map(|dense| Dense::load(gemm, weights, dense, width, width, architecture.layers.epsilon));
        Ok(Self {
            pooling: shape.pooling,
            dense: dense.transpose()?,
            output: outer(gemm, weights, shape.output, labels, width, shape.biased)?,
        })
    }

    pub(crate) fn logits(&self, gemm: &GemmExecutor, states: &[f32], sequences: &[&Tokens]) -> Vec<Vec<f32>> {
        let width = self.output.inputs();
        let mut pooled = Vec::with_capacity(sequences.len() * width);
        let mut rest = states;
        for tokens in sequences {
            let (states, others) = rest.split_at(tokens.len() * width);
            rest = others;
            match self.pooling {
                ClassifierPooling::First => pooled.extend_from_slice(&states[..width]),
                ClassifierPooling::Mean => pooled.extend(Pooling::Mean.pool(states, width)),
                ClassifierPooling::Last(padding) => {
                    let last = tokens
                        .ids
                        .iter()
                        .rposition(|id| Some(*id) != padding)
                        .unwrap_or(0);
                    pooled.extend_from_slice(&states[last * width..(last + 1) * width]);
                }
            }
        }
        if let Some(dense) = &self.dense {
            pooled = dense.apply(gemm, &pooled);
        }
        let mut logits = vec![0.0; sequences.len() * self.output.outputs()];
        self.output.apply(gemm, &pooled, &mut logits);
        logits
            .chunks_exact(self.output.outputs())
            .map(<[f32]>::to_vec)
            .collect()
    }
}

impl Dense {
    fn load(
        gemm: &GemmExecutor,
        weights: &Weights<'_>,
        shape: &DenseShape,
        outputs: usize,
        inputs: usize,
        epsilon: f32,
    ) -> Result<Self, LoadError> {
        let linear = match shape.name {
            TensorName::Inner(name) => {
                Linear::load_parts(gemm, weights, &[(name.to_owned(), outputs)], inputs, shape.biased)?
            }
            TensorName::Outer(name) => outer(gemm, weights, name, outputs, inputs, shape.biased)?,
        };
        let norm = shape.norm.map(|(name, kind)| -> Result<Norm, LoadError> {
            let scale = weights.get_outer(&format!("{name}.weight"), &[outputs])?;
            let bias = match kind {
                NormKind::Layer => Some(weights.get_outer(&format!("{name}.bias"), &[outputs])?),
                NormKind::LayerWithoutBias | NormKind::RootMeanSquare => None,
            };
            Ok(Norm::new(kind, scale, bias, epsilon))
        });
        Ok(Self {
            linear,
            activation: shape.activation,
            norm: norm.transpose()?,
        })
    }

    fn apply(&self, gemm: &GemmExecutor, rows: &[f32]) -> Vec<f32> {
        let width = self.linear.outputs();
        let mut out = vec![0.0; rows.len() / self.linear.inputs() * width];
        self.linear.apply(gemm, rows, &mut out);
        self.activation.apply(&mut out, width);
        if let Some(norm) = &self.norm {
            norm.apply(&mut out);
        }
        out
    }
}

impl MaskedLm {
    pub(crate) fn load(
        gemm: &GemmExecutor,
        weights: &Weights<'_>,
        architecture: &Architecture,
    ) -> Result<Self, LoadError> {
        let shape = architecture.masked_lm.as_ref().ok_or_else(|| {
            LoadError::new("the head of a masked language model is not supported for this type of network")
        })?;
        let embeddings = &architecture.embeddings;
        let (width, vocabulary) = (embeddings.width, embeddings.vocabulary);
        // All networks but ModernBERT have this epsilon in their heads, or that of their layers, which is the same.
        let epsilon = architecture.layers.epsilon;
        let table = match shape.decoder {
            Some(name) => weights.get_outer(name, &[vocabulary, width])?,
            None => weights.get(embeddings.words, &[vocabulary, width])?,
        };
        let bias = shape.bias.map(|names| {
            let name = names
                .into_iter()
                .find(|name| weights.has_outer(name))
                .unwrap_or(names[0]);
            weights.get_outer(name, &[vocabulary])
        });
        Ok(Self {
            dense: Dense::load(
                gemm,
                weights,
                &shape.dense,
                width,
                architecture.layers.width,
                epsilon,
            )?,
            decoder: Linear::new(gemm, &table, bias.transpose()?, width),
        })
    }

    /// Passes the numbers of all words for each token to `each`, which receives some rows at a time.
    pub(crate) fn logits(&self, gemm: &GemmExecutor, states: &[f32], mut each: impl FnMut(&[f32])) {
        let width = self.dense.linear.inputs();
        let mut logits = Vec::new();
        for rows in states.chunks(ROWS * width) {
            let transformed = self.dense.apply(gemm, rows);
            logits.clear();
            logits.resize(rows.len() / width * self.decoder.outputs(), 0.0);
            self.decoder.apply(gemm, &transformed, &mut logits);
            each(&logits);
        }
    }
}

/// Loads a linear layer outside the encoder.
fn outer(
    gemm: &GemmExecutor,
    weights: &Weights<'_>,
    name: &str,
    outputs: usize,
    inputs: usize,
    biased: bool,
) -> Result<Linear, LoadError> {
    let weight = weights.get_outer(&format!("{name}.weight"), &[outputs, inputs])?;
    let bias = biased.then(|| weights.get_outer(&format!("{name}.bias"), &[outputs]));
    Ok(Linear::new(gemm, &weight, bias.transpose()?, inputs))
}
