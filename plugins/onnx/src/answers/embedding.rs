//! Computes the embedding of a text from the output of a text encoder: pooling and normalization. Does not deal with tokenizers
//! or runtimes.

use transformer::{Pooling, normalize};

use super::Rows;

/// Computes the embedding of a text.
#[derive(Debug)]
pub(crate) struct Embedder {
    /// `None` if the model computes one vector per text.
    pub(crate) pooling: Option<Pooling>,
    pub(crate) normalize: bool,
    /// Dimension of the vectors.
    pub(crate) width: usize,
}

impl Embedder {
    /// Computes the embedding of a text of `tokens` tokens. Their vectors come first in `output`; padding may follow.
    ///
    /// # Errors
    /// The output has an unexpected shape, or the embedding contains NaN or infinity.
    pub(crate) fn embed(&self, output: &Rows<'_>, tokens: usize) -> Result<Vec<f32>, String> {
        let count = output.count_of(self.width);
        let mut vector = match (self.pooling, count) {
            (None, Some(1)) => output.values.to_vec(),
            (Some(pooling), Some(count)) if count >= tokens && tokens > 0 => {
                pooling.pool(&output.values[..tokens * self.width], self.width)
            }
            _ => {
                let expected = if self.pooling.is_some() { tokens } else { 1 };
                return Err(format!(
                    "the model computed the shape {:?}, expected {expected} vectors of {} numbers",
                    output.shape, self.width
                ));
            }
        };
        if self.normalize {
            normalize(&mut vector);
        }
        if let Some(odd) = vector.iter().find(|number| !number.is_finite()) {
            return Err(format!("the model computed a vector with {odd}"));
        }
        Ok(vector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embed(
        embedder: &Embedder,
        shape: &[usize],
        values: &[f32],
        tokens: usize,
    ) -> Result<Vec<f32>, String> {
        embedder.embed(&Rows { shape, values }, tokens)
    }

    #[test]
    fn padding_has_no_part_in_a_vector() {
        let padded = [1.0, 2.0, 3.0, 6.0, 100.0, 100.0];
        for (pooling, expected) in [
            (Pooling::Mean, [2.0, 4.0]),
            (Pooling::Max, [3.0, 6.0]),
            (Pooling::Cls, [1.0, 2.0]),
        ] {
            let embedder = Embedder {
                pooling: Some(pooling),
                normalize: false,
                width: 2,
            };
            assert_eq!(
                embed(&embedder, &[3, 2], &padded, 2),
                Ok(expected.to_vec()),
                "{pooling:?}"
            );
            assert_eq!(
                embed(&embedder, &[1, 3, 2], &padded, 2),
                Ok(expected.to_vec()),
                "{pooling:?}"
            );
        }
    }

    #[test]
    fn a_vector_of_the_whole_text_is_taken_as_it_is_and_scaled_to_length_1() {
        let mut embedder = Embedder {
            pooling: None,
            normalize: false,
            width: 2,
        };
        assert_eq!(embed(&embedder, &[2], &[3.0, 4.0], 7), Ok(vec![3.0, 4.0]));
        embedder.normalize = true;
        assert_eq!(embed(&embedder, &[1, 2], &[3.0, 4.0], 7), Ok(vec![0.6, 0.8]));
    }

    #[test]
    fn another_shape_and_numbers_that_are_none_are_errors() {
        let embedder = Embedder {
            pooling: Some(Pooling::Mean),
            normalize: true,
            width: 2,
        };
        assert_eq!(
            embed(&embedder, &[1, 2], &[0.0; 2], 3),
            Err("the model computed the shape [1, 2], expected 3 vectors of 2 numbers".to_owned())
        );
        assert!(embed(&embedder, &[2, 3], &[0.0; 6], 2).is_err());
        assert_eq!(
            embed(&embedder, &[1, 2], &[f32::NAN, 0.0], 1),
            Err("the model computed a vector with NaN".to_owned())
        );
    }
}
