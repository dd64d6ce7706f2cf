//! Truncates, normalizes and writes embeddings.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::api::tensors::tensors_from_outcomes;
use crate::api::{Call, Code, Failure};
use crate::codec::write_tensor;
use crate::engine::Outcome;
use crate::values::{DType, Tensor};

/// Size of an element in bytes.
const ELEMENT: usize = 4;

/// What happens to the embeddings of a request.
#[derive(Clone, Debug)]
pub(in crate::http) struct Finish {
    /// The model, for errors.
    pub(in crate::http) model: String,
    /// Their requested size.
    pub(in crate::http) dimensions: Option<u64>,
    /// The member with the requested size.
    pub(in crate::http) dimensions_member: &'static str,
    /// Whether larger embeddings are truncated.
    pub(in crate::http) may_truncate: bool,
    /// Whether they are scaled to length 1. By default, only truncated ones are.
    pub(in crate::http) normalize: Option<bool>,
}

impl Finish {
    /// Checks that embeddings of `size` can have the requested size.
    ///
    /// # Errors
    /// If they cannot.
    pub(in crate::http) fn check(&self, size: u64) -> Result<(), Failure> {
        let Some(wanted) = self.dimensions.filter(|wanted| *wanted != size) else {
            return Ok(());
        };
        let expected = match self.may_truncate {
            true if (1..size).contains(&wanted) => return Ok(()),
            true => format!(
                "the embeddings of `{}` have {size} dimensions; expected 1 to {size}",
                self.model
            ),
            false => format!(
                "the embeddings of `{}` always have {size} dimensions; `dimensions = \"truncate\"` in [models.embeddings] \
                 permits fewer",
                self.model
            ),
        };
        let member = self.dimensions_member;
        let message = format!("invalid value {wanted} for `{member}`: {expected}");
        Err(Failure::new(Code::Malformed, message).with_param(member))
    }

    /// Returns the embeddings of a request, each as little-endian 32-bit floats.
    ///
    /// # Errors
    /// The most severe error of the items, or that the embeddings do not have the requested size.
    pub(in crate::http) fn embeddings(
        &self,
        call: &Call,
        outcomes: Vec<Outcome>,
    ) -> Result<Vec<Bytes>, Failure> {
        let output = tensors_from_outcomes(call.manifest(), outcomes)?
            .into_iter()
            .next();
        let fault = || Failure::new(Code::ModelFault, "the model did not return an embedding");
        let output = output.ok_or_else(fault)?;
        let size = output.shape.get(1).copied().ok_or_else(fault)?;
        self.check(size)?;
        let kept = usize::try_from(self.dimensions.unwrap_or(size)).unwrap_or(usize::MAX);
        let is_truncated = self.dimensions.is_some_and(|dimensions| dimensions < size);
        let finish = |row: Bytes| {
            let row = row.slice(..row.len().min(kept.saturating_mul(ELEMENT)));
            match self.normalize.unwrap_or(is_truncated) {
                true => normalized(&row),
                false => row,
            }
        };
        Ok(output.rows.into_iter().map(finish).collect())
    }
}

/// The elements of an embedding.
pub(in crate::http) fn elements(embedding: &[u8]) -> impl Iterator<Item = f32> {
    let (chunks, _) = embedding.as_chunks::<ELEMENT>();
    chunks.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

/// Scales an embedding to length 1. One that consists of zeros stays as it is.
fn normalized(embedding: &[u8]) -> Bytes {
    let length = dot(embedding, embedding).sqrt();
    if length == 0.0 {
        return Bytes::copy_from_slice(embedding);
    }
    let scaled = elements(embedding).flat_map(|element| ((f64::from(element) / length) as f32).to_le_bytes());
    scaled.collect()
}

/// The dot product of two embeddings.
pub(in crate::http) fn dot(one: &[u8], other: &[u8]) -> f64 {
    let products = elements(one).zip(elements(other));
    products
        .map(|(one, other)| f64::from(one) * f64::from(other))
        .sum()
}

/// Writes an embedding as a list of numbers.
pub(in crate::http) fn write_numbers(json: &mut Vec<u8>, embedding: Bytes) -> Result<(), Failure> {
    let shape = [(embedding.len() / ELEMENT) as u64];
    let vector = Tensor::new("embedding", DType::Fp32, &shape[..], embedding)
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    write_tensor(json, &vector).map_err(|error| Failure::new(Code::ModelFault, error.to_string()))
}

/// Writes an embedding as little-endian 32-bit floats in base64.
pub(in crate::http) fn write_base64(json: &mut Vec<u8>, embedding: &[u8]) {
    json.push(b'"');
    json.extend_from_slice(STANDARD.encode(embedding).as_bytes());
    json.push(b'"');
}

/// Writes a list, whose elements `write` writes.
pub(in crate::http) fn write_list<T>(
    json: &mut Vec<u8>,
    elements: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    json.push(b'[');
    for (index, element) in elements.into_iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write(json, element)?;
    }
    json.push(b']');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedding(elements: &[f32]) -> Bytes {
        elements
            .iter()
            .flat_map(|element| element.to_le_bytes())
            .collect()
    }

    #[test]
    fn an_embedding_is_scaled_to_length_1() {
        assert_eq!(normalized(&embedding(&[3.0, -4.0])), embedding(&[0.6, -0.8]));
        assert_eq!(normalized(&embedding(&[0.0, 0.0])), embedding(&[0.0, 0.0]));
        // The sum of the squares is not finite in single precision.
        let scale = 2f32.powi(100);
        assert_eq!(
            normalized(&embedding(&[3.0 * scale, 4.0 * scale])),
            embedding(&[0.6, 0.8])
        );
    }

    #[test]
    fn only_models_that_allow_it_have_fewer_dimensions() {
        let check = |dimensions, may_truncate| {
            let finish = Finish {
                model: "m".to_owned(),
                dimensions,
                dimensions_member: "dimensions",
                may_truncate,
                normalize: None,
            };
            finish.check(3).map_err(|failure| failure.message)
        };
        assert_eq!(check(None, false), Ok(()));
        assert_eq!(check(Some(3), false), Ok(()));
        assert_eq!(check(Some(2), true), Ok(()));
        let fixed = "invalid value 2 for `dimensions`: the embeddings of `m` always have 3 dimensions; `dimensions = \
                     \"truncate\"` in [models.embeddings] permits fewer";
        assert_eq!(check(Some(2), false), Err(fixed.to_owned()));
        for wrong in [0, 4] {
            let message = format!(
                "invalid value {wrong} for `dimensions`: the embeddings of `m` have 3 dimensions; expected 1 to 3"
            );
            assert_eq!(check(Some(wrong), true), Err(message));
        }
    }
}
