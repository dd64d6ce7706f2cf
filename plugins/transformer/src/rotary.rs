//! Rotary position embeddings: queries and keys are rotated by angles that are proportional to the position of their token.

use rayon::prelude::*;

/// Number of rows in the chunks that threads process.
const ROWS: usize = 16;

/// Description of rotary positions. The dimension `i` of a head is rotated together with the dimension `i + head_size / 2`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotary {
    /// Base of the wavelengths, usually called `rope_theta`.
    pub base: f32,
    /// Change of the frequencies for longer texts than those of the training.
    pub scaling: RotaryScaling,
    /// Maximum number of tokens.
    pub positions: usize,
}

/// Change of the frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RotaryScaling {
    /// None.
    None,
    /// All frequencies are divided by this factor.
    Linear(f32),
    /// The base is multiplied by this factor, and the frequencies are divided by a power of it, so that the lowest is divided by
    /// the whole factor and more.
    Ntk(f32),
}

/// The sines and cosines of all positions.
#[derive(Debug)]
pub(crate) struct RotaryTable {
    /// Cosines and then sines, for each position.
    angles: Vec<f32>,
}

impl RotaryTable {
    pub(crate) fn new(rotary: Rotary, head_size: usize) -> Self {
        let half = head_size / 2;
        // The reference implementation rounds to 32 bits in the same places, which matters for large positions.
        let frequencies: Vec<_> = (0..half)
            .map(|index| rotary.frequency(index, head_size))
            .collect();
        let mut angles = Vec::with_capacity(rotary.positions * head_size);
        for position in 0..rotary.positions {
            let of_position = || {
                frequencies
                    .iter()
                    .map(|frequency| f64::from(position as f32 * frequency))
            };
            angles.extend(of_position().map(|angle| angle.cos() as f32));
            angles.extend(of_position().map(|angle| angle.sin() as f32));
        }
        Self { angles }
    }

    /// Rotates the first `heads` heads of each row of a sequence.
    pub(crate) fn apply(&self, rows: &mut [f32], stride: usize, heads: usize, head_size: usize) {
        let chunks = rows
            .par_chunks_mut(stride * ROWS)
            .zip(self.angles.par_chunks(head_size * ROWS));
        chunks.for_each(|(rows, angles)| {
            for (row, angles) in rows.chunks_exact_mut(stride).zip(angles.chunks_exact(head_size)) {
                let (cosines, sines) = angles.split_at(head_size / 2);
                for head in row[..heads * head_size].chunks_exact_mut(head_size) {
                    let (first, second) = head.split_at_mut(head_size / 2);
                    let pairs = first.iter_mut().zip(second);
                    for ((one, other), (cosine, sine)) in pairs.zip(cosines.iter().zip(sines)) {
                        (*one, *other) = (*one * cosine - *other * sine, *other * cosine + *one * sine);
                    }
                }
            }
        });
    }
}

impl Rotary {
    fn frequency(self, index: usize, head_size: usize) -> f32 {
        let exponent = (2 * index) as f32 / head_size as f32;
        let of_base = |base: f32| f64::from(base).powf(f64::from(exponent)) as f32;
        match self.scaling {
            RotaryScaling::None => 1.0 / of_base(self.base),
            RotaryScaling::Linear(factor) => 1.0 / of_base(self.base) / factor,
            RotaryScaling::Ntk(factor) => {
                1.0 / of_base(self.base * factor) / factor.powf(2.0 / head_size as f32)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_dimensions_are_rotated_by_the_position() {
        let rotary = Rotary {
            base: 100.0,
            scaling: RotaryScaling::None,
            positions: 2,
        };
        // Two tokens with a head that is rotated and one that is not.
        let mut rows = [1.0, 1.0, 0.0, 0.0, 9.0, 9.0, 9.0, 9.0].repeat(2);
        RotaryTable::new(rotary, 4).apply(&mut rows, 8, 1, 4);
        let (one, tenth) = (1.0_f32, 0.1_f32);
        assert_eq!(rows[..8], [1.0, 1.0, 0.0, 0.0, 9.0, 9.0, 9.0, 9.0]);
        let expected = [one.cos(), tenth.cos(), one.sin(), tenth.sin(), 9.0, 9.0, 9.0, 9.0];
        for (got, expected) in rows[8..].iter().zip(expected) {
            assert!((got - expected).abs() < 1e-7, "{got} {expected}");
        }
    }
}
