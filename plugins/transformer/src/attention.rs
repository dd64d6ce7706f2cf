//! Self-attention over packed sequences: each attends to itself alone, so nothing is padded.

use std::ops::Range;

use rayon::prelude::*;
use rten_gemm::{GemmExecutor, GemmInputB, GemmOptions};
use rten_simd::SimdOp;
use rten_tensor::{Matrix, NdTensorView};
use rten_vecmath::Softmax;

use crate::linear::multiply;

/// The heads of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub(crate) heads: usize,
    /// Numbers that a head takes of each token.
    pub(crate) depth: usize,
    /// Whether a token attends to itself and those before it alone.
    pub(crate) causal: bool,
}

impl Attention {
    fn width(self) -> usize {
        self.heads * self.depth
    }

    /// Writes what each token gathers from its sequence to `context`, a row a token. A row of `projected` has the query, the
    /// key and the value of a token side by side; `sequences` are ranges of rows.
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
            let gathered: Vec<_> = (0..self.heads)
                .into_par_iter()
                .map(|head| self.attend(gemm, projected, rows.len(), head))
                .collect();
            for (head, gathered) in gathered.iter().enumerate() {
                let tokens = context
                    .chunks_exact_mut(width)
                    .zip(gathered.chunks_exact(self.depth));
                for (row, gathered) in tokens {
                    row[head * self.depth..(head + 1) * self.depth].copy_from_slice(gathered);
                }
            }
        }
    }

    /// What one head gathers, for each of the `count` tokens of one sequence.
    fn attend(self, gemm: &GemmExecutor, projected: &[f32], count: usize, head: usize) -> Vec<f32> {
        let part = |index: usize| self.part(projected, count, head, index);
        let mut scores = vec![0.0; count * count];
        let options = GemmOptions {
            alpha: (self.depth as f32).sqrt().recip(),
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
            let seen = if self.causal { token + 1 } else { count };
            let (seen, unseen) = row.split_at_mut(seen);
            Softmax::new_mut(seen).dispatch();
            unseen.fill(0.0);
        }
        let mut gathered = vec![0.0; count * self.depth];
        let scores = NdTensorView::from_data([count, count], &scores[..]);
        multiply(
            gemm,
            scores,
            GemmInputB::Unpacked(part(2)),
            &mut gathered,
            GemmOptions::default(),
        );
        gathered
    }

    /// The queries (0), keys (1) or values (2) of one head.
    fn part(self, projected: &[f32], count: usize, head: usize, part: usize) -> Matrix<'_> {
        let from = part * self.width() + head * self.depth;
        NdTensorView::from_slice_with_strides([count, self.depth], &projected[from..], [3 * self.width(), 1])
            .expect("every token has a row of queries, keys and values")
    }
}
