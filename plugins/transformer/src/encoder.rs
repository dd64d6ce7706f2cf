//! The layers of an encoder. Sizes and tensor names are data, so that different kinds of encoders share the same code.

use std::ops::Range;

use plugin_sdk::LoadError;
use rten_gemm::GemmExecutor;

use crate::attention::Attention;
use crate::linear::{Activation, LayerNorm, Linear};
use crate::weights::Weights;

/// Sizes and variants of the layers of an encoder.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Number of layers.
    pub layers: usize,
    /// Vector length of a token.
    pub width: usize,
    /// Number of attention heads, which divide the vector evenly.
    pub heads: usize,
    /// Vector length of a token between the two linear layers of the feed-forward network.
    pub feed_forward_size: usize,
    /// Activation function of the feed-forward network.
    pub activation: Activation,
    /// Added to variances before the division.
    pub epsilon: f32,
    /// Position of the layer normalization.
    pub norms: Norms,
    /// Whether a token attends only to itself and preceding tokens.
    pub causal: bool,
}

/// Position of the layer normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// Before attention and before the feed-forward network, as in CLIP.
    Before,
    /// After each of them, as in BERT.
    After,
}

/// Names of the tensors of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Prefix before the index of a layer.
    pub layers: &'static str,
    /// Projections to queries, keys and values.
    pub project: [&'static str; 3],
    /// Output projection of attention.
    pub attention_output: &'static str,
    /// Normalization before or after attention.
    pub attention_norm: &'static str,
    /// First linear layer of the feed-forward network.
    pub feed_forward_in: &'static str,
    /// Second linear layer of the feed-forward network.
    pub feed_forward_out: &'static str,
    /// Normalization before or after the feed-forward network.
    pub feed_forward_norm: &'static str,
}

/// The layers of an encoder with their weights.
pub struct Encoder {
    shape: Shape,
    layers: Vec<Layer>,
}

struct Layer {
    /// Projection to queries, keys and values.
    project: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    feed_forward_in: Linear,
    feed_forward_out: Linear,
    feed_forward_norm: LayerNorm,
}

/// Buffers for intermediate results, reused by all layers.
struct Scratch {
    normed: Vec<f32>,
    projected: Vec<f32>,
    context: Vec<f32>,
    feed_forward_size: Vec<f32>,
}

impl Encoder {
    /// Loads the weights of the layers.
    ///
    /// # Errors
    /// A tensor is missing or has a different shape.
    pub fn load(weights: &Weights<'_>, shape: Shape, names: &Names) -> Result<Self, LoadError> {
        let gemm = GemmExecutor::new();
        let layers = (0..shape.layers)
            .map(|index| Layer::load(&gemm, weights, &shape, names, index))
            .collect::<Result<_, _>>()?;
        Ok(Self { shape, layers })
    }

    /// Returns the vector length of a token.
    pub fn width(&self) -> usize {
        self.shape.width
    }

    /// Applies all layers to `states`, which has one row per token. `sequences` are ranges of rows.
    pub fn apply(&self, gemm: &GemmExecutor, sequences: &[Range<usize>], states: &mut [f32]) {
        let (width, count) = (self.shape.width, states.len() / self.shape.width);
        let normed = match self.shape.norms {
            Norms::Before => count * width,
            Norms::After => 0,
        };
        let mut scratch = Scratch {
            normed: vec![0.0; normed],
            projected: vec![0.0; count * 3 * width],
            context: vec![0.0; count * width],
            feed_forward_size: vec![0.0; count * self.shape.feed_forward_size],
        };
        for layer in &self.layers {
            layer.apply(gemm, &self.shape, sequences, states, &mut scratch);
        }
    }
}

impl Layer {
    fn load(
        gemm: &GemmExecutor,
        weights: &Weights<'_>,
        shape: &Shape,
        names: &Names,
        index: usize,
    ) -> Result<Self, LoadError> {
        let (width, feed_forward_size) = (shape.width, shape.feed_forward_size);
        let name = |part: &str| format!("{}.{index}.{part}", names.layers);
        let linear = |part: &str, outputs: usize, inputs: usize| {
            Linear::load(gemm, weights, &name(part), outputs, inputs)
        };
        let norm = |part: &str| LayerNorm::load(weights, &name(part), width, shape.epsilon);
        let (mut matrix, mut bias) = (Vec::new(), Vec::new());
        for part in names.project.map(name) {
            matrix.extend(weights.get(&format!("{part}.weight"), &[width, width])?);
            bias.extend(weights.get(&format!("{part}.bias"), &[width])?);
        }
        Ok(Self {
            project: Linear::new(gemm, &matrix, bias, width),
            attention_output: linear(names.attention_output, width, width)?,
            attention_norm: norm(names.attention_norm)?,
            feed_forward_in: linear(names.feed_forward_in, feed_forward_size, width)?,
            feed_forward_out: linear(names.feed_forward_out, width, feed_forward_size)?,
            feed_forward_norm: norm(names.feed_forward_norm)?,
        })
    }

    fn apply(
        &self,
        gemm: &GemmExecutor,
        shape: &Shape,
        sequences: &[Range<usize>],
        states: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let Scratch {
            normed,
            projected,
            context,
            feed_forward_size,
        } = scratch;
        let input = shape.norms.before(&self.attention_norm, states, normed);
        self.project.apply(gemm, input, projected);
        shape.attention().apply(gemm, projected, sequences, context);
        self.attention_output.add(gemm, context, states);
        shape.norms.after(&self.attention_norm, states);
        let input = shape.norms.before(&self.feed_forward_norm, states, normed);
        self.feed_forward_in.apply(gemm, input, feed_forward_size);
        shape.activation.apply(feed_forward_size, shape.feed_forward_size);
        self.feed_forward_out.add(gemm, feed_forward_size, states);
        shape.norms.after(&self.feed_forward_norm, states);
    }
}

impl Norms {
    /// Returns the input of the next sublayer: `states`, or their normalization in `buffer`.
    fn before<'a>(self, norm: &LayerNorm, states: &'a [f32], buffer: &'a mut [f32]) -> &'a [f32] {
        match self {
            Self::After => states,
            Self::Before => {
                buffer.copy_from_slice(states);
                norm.apply(buffer);
                buffer
            }
        }
    }

    fn after(self, norm: &LayerNorm, states: &mut [f32]) {
        if self == Self::After {
            norm.apply(states);
        }
    }
}

impl Shape {
    fn attention(&self) -> Attention {
        Attention {
            heads: self.heads,
            head_size: self.width / self.heads,
            causal: self.causal,
        }
    }
}
