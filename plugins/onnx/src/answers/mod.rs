//! Structured answers that tasks can return instead of tensors: detections (`detection`, with the geometry in `boxes`), text
//! (`ctc`) and embeddings (`embedding`). These modules process the outputs for a single item; they do not deal with batches or
//! runtimes. `settings` defines the configuration; `declare` and `declare_detection` validate it against the outputs of the
//! model.

pub(crate) mod boxes;
pub(crate) mod ctc;
pub(crate) mod declare;
pub(crate) mod declare_detection;
pub(crate) mod detection;
pub(crate) mod embedding;
pub(crate) mod settings;

/// One output for one item: its values and their shape, without the batch dimension.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    pub(crate) shape: &'a [usize],
    pub(crate) values: &'a [f32],
}

impl Rows<'_> {
    /// The numbers of rows and columns of a matrix. Leading dimensions of size 1 are ignored.
    fn matrix(&self) -> Result<[usize; 2], String> {
        let shape = without_leading_ones(self.shape, 2);
        shape
            .try_into()
            .map_err(|_| format!("the model computed the shape {:?}, expected a matrix", self.shape))
    }

    /// The number of elements if the trailing dimensions hold elements of `size` values each, otherwise `None`.
    fn count_of(&self, size: usize) -> Option<usize> {
        (0..=self.shape.len()).find_map(|split| {
            let (count, element) = self.shape.split_at(split);
            let is_element = element.iter().product::<usize>() == size;
            is_element.then(|| count.iter().product())
        })
    }
}

/// Checks that a score is a valid probability, with a tolerance for rounding errors.
///
/// # Errors
/// The score is not within 0 to 1.
pub(crate) fn check_probability(score: f32) -> Result<(), String> {
    if (-0.01..=1.01).contains(&score) {
        return Ok(());
    }
    Err(format!(
        "the model computed the score {score}, expected a number from 0 to 1; the operator can set `activation` to \"softmax\" or \
         \"sigmoid\" for a model that computes logits"
    ))
}

/// Removes leading dimensions of size 1 from a shape, but keeps at least `rank` dimensions.
fn without_leading_ones(mut shape: &[usize], rank: usize) -> &[usize] {
    while let [1, rest @ ..] = shape
        && rest.len() >= rank
    {
        shape = rest;
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows<'a>(shape: &'a [usize]) -> Rows<'a> {
        Rows { shape, values: &[] }
    }

    #[test]
    fn leading_ones_are_no_part_of_a_matrix() {
        assert_eq!(rows(&[1, 1, 5, 6]).matrix(), Ok([5, 6]));
        assert_eq!(rows(&[1, 6]).matrix(), Ok([1, 6]));
        assert!(rows(&[2, 5, 6]).matrix().is_err());
        assert!(rows(&[6]).matrix().is_err());
    }

    #[test]
    fn elements_are_counted_by_the_dimensions_before_them() {
        assert_eq!(rows(&[5, 4]).count_of(4), Some(5));
        assert_eq!(rows(&[1, 5, 1, 4]).count_of(4), Some(5));
        assert_eq!(rows(&[0, 4]).count_of(4), Some(0));
        assert_eq!(rows(&[5]).count_of(1), Some(5));
        // Scores grouped by class instead of by box.
        assert_eq!(rows(&[3, 5]).count_of(3), None);
    }
}
