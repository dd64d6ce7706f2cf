//! Self-attention over packed sequences. Tokens attend only to tokens of their own sequence, so no padding is needed.

use std::ops::Range;

use rayon::prelude::*;
use rten_gemm::{GemmExecutor, GemmInputB, GemmOptions};
use rten_simd::SimdOp;
use rten_tensor::{Matrix, NdTensorView};
use rten_vecmath::Softmax;

use crate::linear::multiply;

/// Sizes of the attention of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub(crate) heads: usize,
    /// Vector length of a head.
    pub(crate) head_size: usize,
    /// Whether a token attends only to itself and preceding tokens.
    pub(crate) causal: bool,
}

impl Attention {
    fn width(self) -> usize {
        self.heads * self.head_size
    }

    /// Writes the attention output to `context`, one row per token. Each row of `projected` contains the query, key and value of
    /// a token. `sequences` are ranges of rows.
    pub(crate) fn apply(
        self,
        gemm: &GemmExecutor,
        projected: &[f32],
        sequences: &[Range<usize>],
        context: &mut [f32],
    ) {
        let width = self.width();
        for rows in sequences {
            let projected = &projected[rows.start * 3 * width..rows.end * 3 * width];
            let context = &mut context[rows.start * width..rows.end * width];
            let outputs: Vec<_> = (0..self.heads)
                .into_par_iter()
                .map(|head| self.attend(gemm, projected, rows.len(), head))
                .collect();
            for (head, outputs) in outputs.iter().enumerate() {
                let tokens = context
                    .chunks_exact_mut(width)
                    .zip(outputs.chunks_exact(self.head_size));
                for (row, outputs) in tokens {
                    row[head * self.head_size..(head + 1) * self.head_size].copy_from_slice(outputs);
                }
            }
        }
    }

    /// Returns the output of one head for each of the `count` tokens of a sequence.
    fn attend(self, gemm: &GemmExecutor, projected: &[f32], count: usize, head: usize) -> Vec<f32> {
        let part = |index: usize| self.part(projected, count, head, index);
        let mut scores = vec![0.0; count * count];
        let options = GemmOptions {
            alpha: (self.head_size as f32).sqrt().recip(),
            ..GemmOptions::default()
        };
        let keys = part(1);
        multiply(
            gemm,
            part(0),
            GemmInputB::Unpacked(keys.transposed()),
            &mut scores,
            options,
        );
        for (token, row) in scores.chunks_exact_mut(count).enumerate() {
            let visible = if self.causal { token + 1 } else { count };
            let (visible, masked) = row.split_at_mut(visible);
            Softmax::new_mut(visible).dispatch();
            masked.fill(0.0);
        }
        let mut outputs = vec![0.0; count * self.head_size];
        let scores = NdTensorView::from_data([count, count], &scores[..]);
        multiply(
            gemm,
            scores,
            GemmInputB::Unpacked(part(2)),
            &mut outputs,
            GemmOptions::default(),
        );
        outputs
    }

    /// Returns the queries (0), keys (1) or values (2) of one head.
    fn part(self, projected: &[f32], count: usize, head: usize, part: usize) -> Matrix<'_> {
        let from = part * self.width() + head * self.head_size;
        NdTensorView::from_slice_with_strides(
            [count, self.head_size],
            &projected[from..],
            [3 * self.width(), 1],
        )
        .expect("each row has the queries, keys and values of a token")
    }
}
