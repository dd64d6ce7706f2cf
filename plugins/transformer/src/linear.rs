//! The arithmetic that networks are made of, on rows of floats: matrix products with packed weights, normalisation,
//! activations. All of it computes on the rayon pool that it is called in.

use rayon::prelude::*;
use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_simd::{SimdOp, SimdUnaryOp};
use rten_tensor::{Matrix, NdTensorView};
use rten_vecmath::{ApproxGelu, Gelu, Normalize, NormalizeOptions, Sum, SumSquareSub, Swish};

use plugin_sdk::LoadError;

use crate::weights::Weights;

/// Rows that one thread takes at a time, where several work on the same rows.
const ROWS: usize = 16;

/// `y = x W + b`, the weights packed for the processor's matrix kernel.
pub struct Linear {
    weight: PackedBMatrix<f32>,
    bias: Vec<f32>,
    inputs: usize,
}

impl Linear {
    /// `weight` has a row of `inputs` numbers for each output, as PyTorch saves it.
    pub fn new(gemm: &GemmExecutor, weight: &[f32], bias: Vec<f32>, inputs: usize) -> Self {
        let columns = NdTensorView::from_data([bias.len(), inputs], weight);
        Self {
            weight: gemm.prepack_b(columns.transposed()),
            bias,
            inputs,
        }
    }

    /// Takes the tensors `name.weight` and `name.bias`.
    ///
    /// # Errors
    /// One is missing or of another shape.
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

    /// Takes the tensor `name.weight` of a layer that adds nothing.
    ///
    /// # Errors
    /// It is missing or of another shape.
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

    /// Numbers of a row that goes in.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Numbers of a row that comes out.
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
/// The sizes do not fit, which is a mistake in this crate.
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

/// Scales rows to mean 0 and variance 1, and then by learned numbers.
pub struct LayerNorm {
    scale: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

impl LayerNorm {
    /// Takes the tensors `name.weight` and `name.bias`; `epsilon` is added to variances.
    ///
    /// # Errors
    /// One is missing or of another shape.
    pub fn load(weights: &Weights<'_>, name: &str, width: usize, epsilon: f32) -> Result<Self, LoadError> {
        Ok(Self {
            scale: weights.get(&format!("{name}.weight"), &[width])?,
            bias: weights.get(&format!("{name}.bias"), &[width])?,
            epsilon,
        })
    }

    /// Normalises each of these rows.
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

/// What is applied to each number between two linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// By the error function.
    Gelu,
    /// By the hyperbolic tangent.
    ApproximateGelu,
    /// By the logistic function.
    QuickGelu,
    /// What is negative becomes 0.
    Relu,
}

impl Activation {
    /// By its name in `config.json`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "gelu" => Self::Gelu,
            "quick_gelu" => Self::QuickGelu,
            "gelu_new" | "gelu_pytorch_tanh" => Self::ApproximateGelu,
            "relu" => Self::Relu,
            _ => return None,
        })
    }

    /// Applies it to rows of `width` numbers.
    pub fn apply(self, rows: &mut [f32], width: usize) {
        rows.par_chunks_mut(width * ROWS).for_each(|values| match self {
            Self::Gelu => Gelu {}.map_mut(values),
            Self::ApproximateGelu => ApproxGelu {}.map_mut(values),
            Self::QuickGelu => Swish { alpha: 1.702 }.map_mut(values),
            Self::Relu => values.iter_mut().for_each(|value| *value = value.max(0.0)),
        });
    }
}
