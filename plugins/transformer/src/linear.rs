//! Linear layers, normalization and activation functions on rows of floats. They use the rayon pool from which they are called.

use rayon::prelude::*;
use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_simd::{SimdOp, SimdUnaryOp};
use rten_tensor::{Matrix, NdTensorView};
use rten_vecmath::{ApproxGelu, Gelu, Normalize, NormalizeOptions, Sum, SumSquareSub, Swish};

use plugin_sdk::LoadError;

use crate::weights::Weights;

/// Number of rows in the chunks that threads process.
const ROWS: usize = 16;

/// A linear layer `y = x W + b`. The weights are packed for the processor's matrix kernel.
pub struct Linear {
    weight: PackedBMatrix<f32>,
    bias: Vec<f32>,
    inputs: usize,
}

impl Linear {
    /// Creates a layer. `weight` has one row of `inputs` numbers for each output, as in PyTorch.
    pub fn new(gemm: &GemmExecutor, weight: &[f32], bias: Vec<f32>, inputs: usize) -> Self {
        let columns = NdTensorView::from_data([bias.len(), inputs], weight);
        Self {
            weight: gemm.prepack_b(columns.transposed()),
            bias,
            inputs,
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
        let weight = weights.get(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = weights.get(&format!("{name}.bias"), &[outputs])?;
        Ok(Self::new(gemm, &weight, bias, inputs))
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
        let weight = weights.get(&format!("{name}.weight"), &[outputs, inputs])?;
        Ok(Self::new(gemm, &weight, vec![0.0; outputs], inputs))
    }

    /// Returns the length of an input row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Returns the length of an output row.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Writes `x W + b` to `out`.
    pub fn apply(&self, gemm: &GemmExecutor, rows: &[f32], out: &mut [f32]) {
        self.compute(gemm, rows, out, 0.0);
    }

    /// Adds `x W + b` to `out`.
    pub fn add(&self, gemm: &GemmExecutor, rows: &[f32], out: &mut [f32]) {
        self.compute(gemm, rows, out, 1.0);
    }

    fn compute(&self, gemm: &GemmExecutor, rows: &[f32], out: &mut [f32], beta: f32) {
        let rows = NdTensorView::from_data([rows.len() / self.inputs, self.inputs], rows);
        let options = GemmOptions {
            beta,
            bias: Some(BiasVector::Row(&self.bias)),
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

/// Layer normalization: scales rows to mean 0 and variance 1, then applies a learned scale and bias.
pub struct LayerNorm {
    scale: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

impl LayerNorm {
    /// Loads the tensors `name.weight` and `name.bias`. `epsilon` is added to variances.
    ///
    /// # Errors
    /// A tensor is missing or has a different shape.
    pub fn load(weights: &Weights<'_>, name: &str, width: usize, epsilon: f32) -> Result<Self, LoadError> {
        Ok(Self {
            scale: weights.get(&format!("{name}.weight"), &[width])?,
            bias: weights.get(&format!("{name}.bias"), &[width])?,
            epsilon,
        })
    }

    /// Normalizes each row.
    pub fn apply(&self, rows: &mut [f32]) {
        let width = self.scale.len();
        rows.par_chunks_mut(width * ROWS)
            .for_each(|rows| rows.chunks_exact_mut(width).for_each(|row| self.apply_row(row)));
    }

    fn apply_row(&self, row: &mut [f32]) {
        let width = row.len() as f32;
        let mean = Sum::new(row).dispatch() / width;
        let variance = SumSquareSub::new(row, mean).dispatch() / width;
        let options = NormalizeOptions {
            pre_scale_bias: mean,
            scale: (variance + self.epsilon).sqrt().recip(),
            element_scale: Some(&self.scale),
            element_bias: Some(&self.bias),
            ..NormalizeOptions::default()
        };
        Normalize::new_mut(row, options).dispatch();
    }
}

/// Activation function of the feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// GELU with the error function.
    Gelu,
    /// GELU, approximated with the hyperbolic tangent.
    ApproximateGelu,
    /// GELU, approximated with the logistic function.
    QuickGelu,
    /// ReLU.
    Relu,
}

impl Activation {
    /// Returns the function with this name in `config.json`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "gelu" => Self::Gelu,
            "quick_gelu" => Self::QuickGelu,
            "gelu_new" | "gelu_pytorch_tanh" => Self::ApproximateGelu,
            "relu" => Self::Relu,
            _ => return None,
        })
    }

    /// Applies the function to rows of `width` numbers.
    pub fn apply(self, rows: &mut [f32], width: usize) {
        rows.par_chunks_mut(width * ROWS).for_each(|values| match self {
            Self::Gelu => Gelu {}.map_mut(values),
            Self::ApproximateGelu => ApproxGelu {}.map_mut(values),
            Self::QuickGelu => Swish { alpha: 1.702 }.map_mut(values),
            Self::Relu => values.iter_mut().for_each(|value| *value = value.max(0.0)),
        });
    }
}
