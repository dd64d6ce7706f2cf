//! Self-attention over packed sequences. Tokens attend only to tokens of their own sequence, so no padding is needed.

use std::ops::Range;

use plugin_sdk::LoadError;
use rayon::prelude::*;
use rten_gemm::{GemmExecutor, GemmInputB, GemmOptions};
use rten_simd::SimdOp;
use rten_tensor::{Matrix, NdTensorView};
use rten_vecmath::Softmax;

use crate::linear::multiply;
use crate::rotary::RotaryTable;
use crate::weights::Weights;

/// Maximum number of queries whose scores are computed together, so that the memory for scores does not grow with the square of the
/// length of a text.
const QUERIES: usize = 512;

/// The same for layers in which a token attends only to tokens nearby.
const QUERIES_OF_WINDOW: usize = 128;

/// A sequence of tokens in a matrix with a row for each token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The rows of its tokens.
    pub rows: Range<usize>,
    /// Number of its first tokens, which the tokens attend to. They do not attend to the others.
    pub attended: usize,
}

impl From<Range<usize>> for Sequence {
    /// A sequence whose tokens attend to all of its tokens.
    fn from(rows: Range<usize>) -> Self {
        Self {
            attended: rows.len(),
            rows,
        }
    }
}

/// Sizes of the attention of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention<'a> {
    pub(crate) heads: usize,
    /// Number of heads of keys and values, each of which serves the same number of consecutive heads of queries.
    pub(crate) key_value_heads: usize,
    /// Vector length of a head.
    pub(crate) head_size: usize,
    /// Whether a token attends only to itself and preceding tokens.
    pub(crate) causal: bool,
    /// Maximum distance of the tokens that a token attends to.
    pub(crate) window: Option<usize>,
    pub(crate) rotary: Option<&'a RotaryTable>,
    pub(crate) relative: Option<&'a RelativeBias>,
}

impl Attention<'_> {
    /// Numbers that attention outputs for each token.
    fn width(self) -> usize {
        self.heads * self.head_size
    }

    /// Numbers that attention takes for each token: its queries, keys and values.
    pub(crate) fn projected_width(self) -> usize {
        (self.heads + 2 * self.key_value_heads) * self.head_size
    }

    /// Writes the attention output to `context`, one row per token. Each row of `projected` contains the queries, keys and values
    /// of a token. Rotates the queries and keys in place.
    pub(crate) fn apply(
        self,
        gemm: &GemmExecutor,
        projected: &mut [f32],
        sequences: &[Sequence],
        context: &mut [f32],
    ) {
        let (width, stride) = (self.width(), self.projected_width());
        for Sequence { rows, attended } in sequences {
            let projected = &mut projected[rows.start * stride..rows.end * stride];
            if let Some(rotary) = self.rotary {
                rotary.apply(
                    projected,
                    stride,
                    self.heads + self.key_value_heads,
                    self.head_size,
                );
            }
            let (projected, context) = (&*projected, &mut context[rows.start * width..rows.end * width]);
            let outputs: Vec<_> = (0..self.heads)
                .into_par_iter()
                .map(|head| self.attend(gemm, projected, rows.len(), *attended, head))
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

    /// Returns the output of one head for each of the `count` tokens of a sequence, of which the first are attended to.
    fn attend(
        self,
        gemm: &GemmExecutor,
        projected: &[f32],
        count: usize,
        attended: usize,
        head: usize,
    ) -> Vec<f32> {
        let mut outputs = vec![0.0; count * self.head_size];
        let queries = if self.window.is_some() {
            QUERIES_OF_WINDOW
        } else {
            QUERIES
        };
        let mut scores = Vec::new();
        for (block, outputs) in outputs.chunks_mut(queries * self.head_size).enumerate() {
            let start = block * queries;
            let rows = start..start + outputs.len() / self.head_size;
            self.attend_block(gemm, projected, attended, head, rows, &mut scores, outputs);
        }
        outputs
    }

    /// Writes the output of one head for the tokens `queries` of a sequence, whose first `attended` tokens are attended to.
    #[allow(
        clippy::too_many_arguments,
        reason = "what a head and a block of it consist of"
    )]
    fn attend_block(
        self,
        gemm: &GemmExecutor,
        projected: &[f32],
        attended: usize,
        head: usize,
        queries: Range<usize>,
        scores: &mut Vec<f32>,
        outputs: &mut [f32],
    ) {
        // The keys that any of the queries attends to.
        let first = self.visible(queries.start, attended).start;
        let keys = first..self.visible(queries.end - 1, attended).end;
        let key_head = head / (self.heads / self.key_value_heads);
        scores.clear();
        scores.resize(queries.len() * keys.len(), 0.0);
        let options = GemmOptions {
            alpha: (self.head_size as f32).sqrt().recip(),
            ..GemmOptions::default()
        };
        let key_rows = self.part(projected, keys.clone(), self.heads + key_head);
        multiply(
            gemm,
            self.part(projected, queries.clone(), head),
            GemmInputB::Unpacked(key_rows.transposed()),
            scores,
            options,
        );
        for (token, row) in queries.clone().zip(scores.chunks_exact_mut(keys.len())) {
            if let Some(relative) = self.relative {
                relative.add(head, token, keys.start, row);
            }
            let visible = self.visible(token, attended);
            row[..visible.start - first].fill(0.0);
            row[visible.end - first..].fill(0.0);
            Softmax::new_mut(&mut row[visible.start - first..visible.end - first]).dispatch();
        }
        let scores = NdTensorView::from_data([queries.len(), keys.len()], &scores[..]);
        let values = self.part(projected, keys, self.heads + self.key_value_heads + key_head);
        multiply(
            gemm,
            scores,
            GemmInputB::Unpacked(values),
            outputs,
            GemmOptions::default(),
        );
    }

    /// Returns the tokens that a token attends to, of the first `attended` tokens of a sequence.
    fn visible(self, token: usize, attended: usize) -> Range<usize> {
        let end = if self.causal {
            attended.min(token + 1)
        } else {
            attended
        };
        match self.window {
            None => 0..end,
            Some(window) => token.saturating_sub(window)..end.min(token + window + 1),
        }
    }

    /// Returns the vectors of one head of some tokens. Heads are counted from the queries over the keys to the values.
    fn part(self, projected: &[f32], tokens: Range<usize>, head: usize) -> Matrix<'_> {
        let stride = self.projected_width();
        NdTensorView::from_slice_with_strides(
            [tokens.len(), self.head_size],
            &projected[tokens.start * stride + head * self.head_size..],
            [stride, 1],
        )
        .expect("each row has the queries, keys and values of a token")
    }
}

/// Learned numbers that are added to scores, by head and by the distance between two tokens.
#[derive(Debug)]
pub(crate) struct RelativeBias {
    /// For each head, the numbers for all distances, from the largest distance to a preceding token to that to a following one.
    by_distance: Vec<f32>,
    /// Maximum number of tokens.
    positions: usize,
}

/// Description of learned numbers by distance. Distances are sorted into buckets, as in T5: half of the buckets for either
/// direction, and of these one for each small distance and the rest for ranges that grow logarithmically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelativePositions {
    /// Name of the tensor, with a row for each bucket and a column for each head.
    pub name: &'static str,
    /// Number of buckets.
    pub buckets: usize,
    /// Distance from which on all are in the last bucket.
    pub max_distance: usize,
    /// Maximum number of tokens.
    pub positions: usize,
}

impl RelativePositions {
    /// Returns the bucket of a token that follows at `distance`.
    fn bucket(self, distance: isize) -> usize {
        let half = self.buckets / 2;
        let direction = if distance > 0 { half } else { 0 };
        let (distance, exact) = (distance.unsigned_abs(), half / 2);
        if distance < exact {
            return direction + distance;
        }
        let growth = (distance as f32 / exact as f32).ln() / (self.max_distance as f32 / exact as f32).ln();
        direction + (exact + (growth * (half - exact) as f32) as usize).min(half - 1)
    }
}

impl RelativeBias {
    pub(crate) fn load(
        weights: &Weights<'_>,
        relative: RelativePositions,
        heads: usize,
    ) -> Result<Self, LoadError> {
        let table = weights.get(relative.name, &[relative.buckets, heads])?;
        let positions = relative.positions as isize;
        let distances = || 1 - positions..positions;
        let number = |head: usize, distance: isize| table[relative.bucket(distance) * heads + head];
        let by_distance = (0..heads).flat_map(|head| distances().map(move |distance| (head, distance)));
        Ok(Self {
            by_distance: by_distance
                .map(|(head, distance)| number(head, distance))
                .collect(),
            positions: relative.positions,
        })
    }

    /// Adds the numbers of a head to the scores of a token for the keys from `first` on.
    fn add(&self, head: usize, token: usize, first: usize, scores: &mut [f32]) {
        let of_head = head * (2 * self.positions - 1);
        let start = of_head + self.positions - 1 + first - token;
        scores
            .iter_mut()
            .zip(&self.by_distance[start..])
            .for_each(|(score, number)| *score += number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_sorted_into_buckets_as_in_t5() {
        let relative = RelativePositions {
            name: "",
            buckets: 32,
            max_distance: 128,
            positions: 512,
        };
        let buckets = [0, -1, -7, -8, -11, -12, -64, -127, -128, -400, 1, 8, 200];
        let buckets = buckets.map(|distance| relative.bucket(distance));
        assert_eq!(buckets, [0, 1, 7, 8, 8, 9, 14, 15, 15, 15, 17, 24, 31]);
    }

    #[test]
    fn a_window_and_causality_limit_what_a_token_attends_to() {
        let attention = Attention {
            heads: 1,
            key_value_heads: 1,
            head_size: 4,
            causal: false,
            window: Some(2),
            rotary: None,
            relative: None,
        };
        assert_eq!(attention.visible(0, 9), 0..3);
        assert_eq!(attention.visible(5, 9), 3..8);
        assert_eq!(attention.visible(8, 9), 6..9);
        let causal = Attention {
            causal: true,
            ..attention
        };
        assert_eq!(causal.visible(5, 9), 3..6);
        assert_eq!(
            Attention {
                window: None,
                ..causal
            }
            .visible(5, 9),
            0..6
        );
    }
}
