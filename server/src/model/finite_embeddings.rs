//! Rejects embeddings that contain NaN or infinity.
//!
//! Not every encoding of a reply can express such numbers, and those that can would pass them on to an index of vectors, in
//! which one of them makes every distance meaningless. They are therefore an error of the item in all protocols, and of the
//! model if an example produces them.

use super::{OutputSink, SinkStatus};
use crate::error::ItemError;
use crate::values::{Tensor, Value};

/// Passes outcomes on. An embedding that is not finite fails its item instead.
pub struct FiniteEmbeddings<'a>(pub &'a mut dyn OutputSink);

impl FiniteEmbeddings<'_> {
    fn not_finite(&mut self, index: usize) -> SinkStatus {
        let message = "the embedding contains NaN or infinity".to_owned();
        self.0.fail(index, ItemError::Fault(message))
    }
}

impl OutputSink for FiniteEmbeddings<'_> {
    fn emit(&mut self, index: usize, value: Value, more: bool) -> SinkStatus {
        match &value {
            Value::Tensors(tensors) if !tensors.iter().all(is_finite) => self.not_finite(index),
            _ => self.0.emit(index, value, more),
        }
    }

    fn emit_batch(&mut self, tensors: Vec<Tensor>) -> SinkStatus {
        let [embeddings] = tensors.as_slice() else {
            return self.0.emit_batch(tensors);
        };
        let items = embeddings.shape().first().map(|items| *items as usize);
        let (false, Some(items)) = (is_finite(embeddings), items) else {
            return self.0.emit_batch(tensors);
        };
        let rows = embeddings.clone().into_rows(items).unwrap_or_default();
        for (index, row) in rows.into_iter().enumerate() {
            let status = match is_finite(&row) {
                true => self.0.emit(index, Value::Tensors(vec![row]), false),
                false => self.not_finite(index),
            };
            if status == SinkStatus::Rejected {
                return status;
            }
        }
        SinkStatus::Accepted
    }

    fn fail(&mut self, index: usize, error: ItemError) -> SinkStatus {
        self.0.fail(index, error)
    }

    fn weigh(&mut self, index: usize, weight: u64) {
        self.0.weigh(index, weight);
    }
}

/// Whether all elements of an FP32 tensor are finite. The manifest of an embedding task declares this datatype.
fn is_finite(tensor: &Tensor) -> bool {
    let (elements, _) = tensor.data().as_chunks::<4>();
    elements
        .iter()
        .all(|element| f32::from_le_bytes(*element).is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::DType;

    /// Records outcomes: the first element of each embedding, or the error.
    #[derive(Default)]
    struct Outcomes(Vec<(usize, Result<f32, String>)>);

    impl OutputSink for Outcomes {
        fn emit(&mut self, index: usize, value: Value, _more: bool) -> SinkStatus {
            let Value::Tensors(tensors) = value else {
                panic!("an embedding is a tensor")
            };
            self.0.push((index, Ok(first(&tensors[0]))));
            SinkStatus::Accepted
        }

        fn emit_batch(&mut self, tensors: Vec<Tensor>) -> SinkStatus {
            let items = tensors[0].shape()[0] as usize;
            for (index, row) in tensors[0]
                .clone()
                .into_rows(items)
                .expect("rows")
                .iter()
                .enumerate()
            {
                self.0.push((index, Ok(first(row))));
            }
            SinkStatus::Accepted
        }

        fn fail(&mut self, index: usize, error: ItemError) -> SinkStatus {
            self.0.push((index, Err(error.to_string())));
            SinkStatus::Accepted
        }
    }

    fn first(tensor: &Tensor) -> f32 {
        f32::from_le_bytes(tensor.data()[..4].try_into().expect("four bytes"))
    }

    fn embeddings(shape: &[u64], elements: &[f32]) -> Tensor {
        let data: Vec<u8> = elements
            .iter()
            .flat_map(|element| element.to_le_bytes())
            .collect();
        Tensor::new("embedding", DType::Fp32, shape, data.into()).expect("the data matches the shape")
    }

    #[test]
    fn an_embedding_that_is_not_finite_fails_alone() {
        let mut outcomes = Outcomes::default();
        let mut sink = FiniteEmbeddings(&mut outcomes);
        let elements = [1.0, 2.0, 3.0, f32::NAN, f32::NEG_INFINITY, 6.0, 7.0, f32::MAX];
        assert_eq!(
            sink.emit_batch(vec![embeddings(&[4, 2], &elements)]),
            SinkStatus::Accepted
        );
        for (index, elements) in [(4, [1.5, f32::INFINITY]), (5, [2.5, 0.0])] {
            sink.emit(index, Value::Tensors(vec![embeddings(&[2], &elements)]), false);
        }
        let error = || Err("the embedding contains NaN or infinity".to_owned());
        assert_eq!(
            outcomes.0,
            [
                (0, Ok(1.0)),
                (1, error()),
                (2, error()),
                (3, Ok(7.0)),
                (4, error()),
                (5, Ok(2.5))
            ]
        );
    }

    #[test]
    fn finite_embeddings_are_passed_on_together() {
        let mut outcomes = Outcomes::default();
        FiniteEmbeddings(&mut outcomes).emit_batch(vec![embeddings(&[2, 1], &[1.0, 2.0])]);
        assert_eq!(outcomes.0, [(0, Ok(1.0)), (1, Ok(2.0))]);
    }
}
