//! Linear layers, normalization and activation functions on rows of floats. They use the rayon pool from which they are called.

use rayon::prelude::*;
use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_simd::{SimdOp, SimdUnaryOp};
use rten_tensor::{Matrix, NdTensorView};
use rten_vecmath::{
    ApproxGelu, Gelu, Normalize, NormalizeOptions, Silu, Sum, SumSquare, SumSquareSub, Swish, Tanh,
};

use plugin_sdk::LoadError;

use crate::weights::Weights;

/// Number of rows in the chunks that threads process.
const ROWS: usize = 16;

/// A linear layer `y = x W + b`, in which `b` is optional. The weights are packed for the processor's matrix kernel.
pub struct Linear {
    weight: PackedBMatrix<f32>,
    bias: Option<Vec<f32>>,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    /// Creates a layer. `weight` has one row of `inputs` numbers for each output, as in PyTorch.
    pub fn new(gemm: &GemmExecutor, weight: &[f32], bias: Option<Vec<f32>>, inputs: usize) -> Self {
        let outputs = weight.len() / inputs;
        let columns = NdTensorView::from_data([outputs, inputs], weight);
        Self {
            weight: gemm.prepack_b(columns.transposed()),
            bias,
            inputs,
            outputs,
        }
    }

    /// Loads the tensors `name.weight` and `name.bias`.
    ///
    /// # Errors
    /// A tensor is missing or has a different shape.
    pub fn load(
        gemm: &GemmExecutor,
        weights: &Weights<'_>,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<Self, LoadError> {
        Self::load_parts(gemm, weights, &[(name.to_owned(), outputs)], inputs, true)
    }

    /// Loads the tensor `name.weight` of a layer without bias.
    ///
    /// # Errors
    /// The tensor is missing or has a different shape.
    pub fn load_unbiased(
        gemm: &GemmExecutor,
        weights: &Weights<'_>,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<Self, LoadError> {
        Self::load_parts(gemm, weights, &[(name.to_owned(), outputs)], inputs, false)
    }

    /// Loads several layers with the same input as one. `parts` are their names and numbers of outputs, in the order of the
    /// outputs.
    ///
    /// # Errors
    /// A tensor is missing or has a different shape.
    pub fn load_parts(
        gemm: &GemmExecutor,
        weights: &Weights<'_>,
        parts: &[(String, usize)],
        inputs: usize,
        biased: bool,
    ) -> Result<Self, LoadError> {
        let (mut matrix, mut bias) = (Vec::new(), Vec::new());
        for (name, outputs) in parts {
            matrix.extend(weights.get(&format!("{name}.weight"), &[*outputs, inputs])?);
            if biased {
                bias.extend(weights.get(&format!("{name}.bias"), &[*outputs])?);
            }
        }
        Ok(Self::new(gemm, &matrix, biased.then_some(bias), inputs))
    }

    /// Returns the length of an input row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Returns the length of an output row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Writes `x W + b` to `out`.
    pub fn apply(&self, gemm: &GemmExecutor, rows: &[f32], out: &mut [f32]) {
        self.compute(gemm, rows, self.inputs, out, 0.0);
    }

    /// Adds `x W + b` to `out`.
    pub fn add(&self, gemm: &GemmExecutor, rows: &[f32], out: &mut [f32]) {
        self.compute(gemm, rows, self.inputs, out, 1.0);
    }

    /// Adds `x W + b` to `out`. Each `x` is the beginning of a row of `stride` numbers.
    pub(crate) fn add_strided(&self, gemm: &GemmExecutor, rows: &[f32], stride: usize, out: &mut [f32]) {
        self.compute(gemm, rows, stride, out, 1.0);
    }

    fn compute(&self, gemm: &GemmExecutor, rows: &[f32], stride: usize, out: &mut [f32], beta: f32) {
        let shape = [rows.len() / stride, self.inputs];
        let rows = NdTensorView::from_slice_with_strides(shape, rows, [stride, 1])
            .expect("a row has at least as many numbers as the layer has inputs");
        let options = GemmOptions {
            beta,
            bias: self.bias.as_deref().map(BiasVector::Row),
            ..GemmOptions::default()
        };
        multiply(gemm, rows, GemmInputB::Packed(&self.weight), out, options);
    }
}

/// Writes a matrix product to `out`.
///
/// # Panics
/// The sizes do not match, which is a bug in this crate.
pub(crate) fn multiply(
    gemm: &GemmExecutor,
    a: Matrix<'_>,
    b: GemmInputB<'_, f32>,
    out: &mut [f32],
    options: GemmOptions<'_, f32, f32, f32>,
) {
    gemm.gemm(out, GemmInputA::Unpacked(a), b, options)
        .expect("the sizes of the matrices were checked when the model was loaded");
}

/// Kind of a normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Scales to mean 0 and variance 1, then applies a learned scale and bias.
    Layer,
    /// The same without bias.
    LayerWithoutBias,
    /// Divides by the root of the mean of the squares, then applies a learned scale.
    RootMeanSquare,
}

/// Normalization of rows.
pub struct Norm {
    kind: NormKind,
    scale: Vec<f32>,
    bias: Option<Vec<f32>>,
    epsilon: f32,
}

impl Norm {
    /// Loads the tensors `name.weight` and, depending on `kind`, `name.bias`. `epsilon` is added to variances.
    ///
    /// # Errors
    /// A tensor is missing or has a different shape.
    pub fn load(
        weights: &Weights<'_>,
        name: &str,
        width: usize,
        kind: NormKind,
        epsilon: f32,
    ) -> Result<Self, LoadError> {
        let bias = match kind {
            NormKind::Layer => Some(weights.get(&format!("{name}.bias"), &[width])?),
            NormKind::LayerWithoutBias | NormKind::RootMeanSquare => None,
        };
        Ok(Self {
            kind,
            scale: weights.get(&format!("{name}.weight"), &[width])?,
            bias,
            epsilon,
        })
    }

    /// Creates a normalization. `bias` is `None` unless the kind is [`NormKind::Layer`].
    pub fn new(kind: NormKind, scale: Vec<f32>, bias: Option<Vec<f32>>, epsilon: f32) -> Self {
        Self {
            kind,
            scale,
            bias,
            epsilon,
        }
    }

    /// Returns the length of a row.
    pub fn width(&self) -> usize {
        self.scale.len()
    }

    /// Normalizes each row.
    pub fn apply(&self, rows: &mut [f32]) {
        let width = self.scale.len();
        rows.par_chunks_mut(width * ROWS)
            .for_each(|rows| rows.chunks_exact_mut(width).for_each(|row| self.apply_row(row)));
    }

    /// Normalizes one row.
    pub(crate) fn apply_row(&self, row: &mut [f32]) {
        let width = row.len() as f32;
        let (mean, variance) = match self.kind {
            NormKind::Layer | NormKind::LayerWithoutBias => {
                let mean = Sum::new(row).dispatch() / width;
                (mean, SumSquareSub::new(row, mean).dispatch() / width)
            }
            NormKind::RootMeanSquare => (0.0, SumSquare::new(row).dispatch() / width),
        };
        let options = NormalizeOptions {
            pre_scale_bias: mean,
            scale: (variance + self.epsilon).sqrt().recip(),
            element_scale: Some(&self.scale),
            element_bias: self.bias.as_deref(),
            ..NormalizeOptions::default()
        };
        Normalize::new_mut(row, options).dispatch();
    }
}

/// Activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// None: the value itself.
    Identity,
    /// GELU with the error function.
    Gelu,
    /// GELU, approximated with the hyperbolic tangent.
    ApproximateGelu,
    /// GELU, approximated with the logistic function.
    QuickGelu,
    /// ReLU.
    Relu,
    /// SiLU, also called Swish.
    Silu,
    /// Hyperbolic tangent.
    Tanh,
}

impl Activation {
    /// The names that [`named`](Self::named) knows.
    pub const NAMES: &'static str =
        "gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, quick_gelu, relu, silu, swish or tanh";

    /// Returns the function with this name in `config.json`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "gelu" | "gelu_python" => Self::Gelu,
            "quick_gelu" => Self::QuickGelu,
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Self::ApproximateGelu,
            "relu" => Self::Relu,
            "silu" | "swish" => Self::Silu,
            "tanh" => Self::Tanh,
            "linear" | "identity" => Self::Identity,
            _ => return None,
        })
    }

    /// Applies the function to rows of `width` numbers.
    pub fn apply(self, rows: &mut [f32], width: usize) {
        rows.par_chunks_mut(width * ROWS)
            .for_each(|values| self.apply_to(values));
    }

    /// Multiplies the first half of each row of `width` numbers, after applying the function to it, by the second half. The result
    /// is in the first half.
    pub(crate) fn apply_gated(self, rows: &mut [f32], width: usize) {
        rows.par_chunks_mut(width * ROWS).for_each(|rows| {
            for row in rows.chunks_exact_mut(width) {
                let (activated, factors) = row.split_at_mut(width / 2);
                self.apply_to(activated);
                activated
                    .iter_mut()
                    .zip(factors)
                    .for_each(|(value, factor)| *value *= *factor);
            }
        });
    }

    fn apply_to(self, values: &mut [f32]) {
        match self {
            Self::Identity => {}
            Self::Gelu => Gelu {}.map_mut(values),
            Self::ApproximateGelu => ApproxGelu {}.map_mut(values),
            Self::QuickGelu => Swish { alpha: 1.702 }.map_mut(values),
            Self::Relu => values.iter_mut().for_each(|value| *value = value.max(0.0)),
            Self::Silu => Silu {}.map_mut(values),
            Self::Tanh => Tanh {}.map_mut(values),
        }
    }
}
