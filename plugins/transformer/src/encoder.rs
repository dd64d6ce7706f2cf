//! The layers of an encoder, whose sizes and names are data, so that encoders of different kinds are the same code.

use std::ops::Range;

use plugin_sdk::LoadError;
use rten_gemm::GemmExecutor;

use crate::attention::Attention;
use crate::linear::{Activation, LayerNorm, Linear};
use crate::weights::Weights;

/// Sizes of an encoder, and what its layers do.
#[derive(Clone, Debug)]
pub struct Shape {
    /// How many layers there are.
    pub layers: usize,
    /// Numbers of a token.
    pub width: usize,
    /// Heads of attention, which share these numbers evenly.
    pub heads: usize,
    /// Numbers of a token between the two linear layers that follow attention.
    pub wide: usize,
    /// What is applied to these.
    pub activation: Activation,
    /// Added to variances before they are divided by.
    pub epsilon: f32,
    /// Where layers normalise.
    pub norms: Norms,
    /// Whether a token attends to itself and those before it alone.
    pub causal: bool,
}

/// Where layers normalise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// Before attention and before the linear layers, as CLIP does.
    Before,
    /// After each of them, as BERT does.
    After,
}

/// What the tensors of a layer are called.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// What precedes the number of a layer.
    pub layers: &'static str,
    /// Linear layers to the queries, keys and values of attention.
    pub project: [&'static str; 3],
    /// The linear layer after attention.
    pub gather: &'static str,
    /// The normalisation before or after attention.
    pub gather_norm: &'static str,
    /// The first of the two linear layers.
    pub widen: &'static str,
    /// The second.
    pub narrow: &'static str,
    /// The normalisation before or after them.
    pub narrow_norm: &'static str,
}

/// The layers of an encoder with their weights.
pub struct Encoder {
    shape: Shape,
    layers: Vec<Layer>,
}

struct Layer {
    /// Query, key and value of a token at once.
    project: Linear,
    gather: Linear,
    gather_norm: LayerNorm,
    widen: Linear,
    narrow: Linear,
    narrow_norm: LayerNorm,
}

/// Room for what is computed within a layer; the same for all layers.
struct Scratch {
    normed: Vec<f32>,
    projected: Vec<f32>,
    context: Vec<f32>,
    wide: Vec<f32>,
}

impl Encoder {
    /// Takes the weights of the layers.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(weights: &Weights<'_>, shape: Shape, names: &Names) -> Result<Self, LoadError> {
        let gemm = GemmExecutor::new();
        let layers = (0..shape.layers)
            .map(|index| Layer::load(&gemm, weights, &shape, names, index))
            .collect::<Result<_, _>>()?;
        Ok(Self { shape, layers })
    }

    /// Numbers of a token.
    pub fn width(&self) -> usize {
        self.shape.width
    }

    /// Takes the tokens of sequences, which are ranges of the rows of `states`, through all layers.
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
            wide: vec![0.0; count * self.shape.wide],
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
        let (width, wide) = (shape.width, shape.wide);
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
            gather: linear(names.gather, width, width)?,
            gather_norm: norm(names.gather_norm)?,
            widen: linear(names.widen, wide, width)?,
            narrow: linear(names.narrow, width, wide)?,
            narrow_norm: norm(names.narrow_norm)?,
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
            wide,
        } = scratch;
        let input = shape.norms.before(&self.gather_norm, states, normed);
        self.project.apply(gemm, input, projected);
        shape.attention().apply(gemm, projected, sequences, context);
        self.gather.add(gemm, context, states);
        shape.norms.after(&self.gather_norm, states);
        let input = shape.norms.before(&self.narrow_norm, states, normed);
        self.widen.apply(gemm, input, wide);
        shape.activation.apply(wide, shape.wide);
        self.narrow.add(gemm, wide, states);
        shape.norms.after(&self.narrow_norm, states);
    }
}

impl Norms {
    /// What follows reads: the states, or what `norm` makes of them in `room`.
    fn before<'a>(self, norm: &LayerNorm, states: &'a [f32], room: &'a mut [f32]) -> &'a [f32] {
        match self {
            Self::After => states,
            Self::Before => {
                room.copy_from_slice(states);
                norm.apply(room);
                room
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
            depth: self.width / self.heads,
            causal: self.causal,
        }
    }
}
