//! Decodes messages after checking the lengths of their lists.
//!
//! An empty list element takes two bytes on the wire and up to a hundred in memory, so a message within the size
//! limit could expand to many times its size. List elements are therefore counted before decoding.
//! [`super::infer_messages`] decodes the elements of tensors later, after comparing their number with the shape.

use std::any::TypeId;
use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

use super::proto::ModelInferRequest;

/// Maximum number of inputs, of outputs, and of parameters in one message.
const MAX_ELEMENTS: usize = 1024;

/// Maximum number of dimensions of a tensor.
const MAX_DIMENSIONS: usize = 64;

/// The codec of all methods.
#[derive(Debug)]
pub(super) struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// The decoder of one message type.
#[derive(Debug)]
pub(super) struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Default + 'static> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        if TypeId::of::<U>() == TypeId::of::<ModelInferRequest>() {
            // tonic passes a message as one contiguous chunk. If it did not, only the first chunk would be checked.
            check_request(buffer.chunk()).map_err(Status::invalid_argument)?;
        }
        U::decode(buffer)
            .map(Some)
            .map_err(|error| Status::invalid_argument(format!("malformed message: {error}")))
    }
}

/// An encoded field of a message.
enum Field<'a> {
    Number,
    Bytes(&'a [u8]),
}

/// Calls `visit` with the number and value of each field. Stops where the message is malformed, which the decoder
/// then reports.
fn for_each_field<'a>(
    mut message: &'a [u8],
    mut visit: impl FnMut(u32, Field<'a>) -> Result<(), String>,
) -> Result<(), String> {
    while let Some((number, field)) = next_field(&mut message) {
        visit(number, field)?;
    }
    Ok(())
}

fn next_field<'a>(message: &mut &'a [u8]) -> Option<(u32, Field<'a>)> {
    if message.is_empty() {
        return None;
    }
    let (number, wire_type) = decode_key(message).ok()?;
    let field = match wire_type {
        WireType::Varint => decode_varint(message).ok().map(|_| Field::Number),
        WireType::ThirtyTwoBit => split(message, 4).map(|_| Field::Number),
        WireType::SixtyFourBit => split(message, 8).map(|_| Field::Number),
        WireType::LengthDelimited => {
            let length = decode_varint(message).ok()?;
            split(message, usize::try_from(length).ok()?).map(Field::Bytes)
        }
        WireType::StartGroup | WireType::EndGroup => None,
    };
    Some((number, field?))
}

fn split<'a>(message: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(taken)
}

/// Adds to the number of elements of a list, up to `max`.
fn add_count(what: &str, so_far: &mut usize, elements: usize, max: usize) -> Result<(), String> {
    *so_far += elements;
    if *so_far > max {
        return Err(format!("the message has too many {what}: expected at most {max}"));
    }
    Ok(())
}

fn check_request(message: &[u8]) -> Result<(), String> {
    let (mut parameters, mut inputs, mut outputs, mut raw) = (0, 0, 0, 0);
    for_each_field(message, |number, field| match (number, field) {
        (4, _) => add_count("parameters", &mut parameters, 1, MAX_ELEMENTS),
        (5, field) => {
            add_count("inputs", &mut inputs, 1, MAX_ELEMENTS)?;
            check_tensor(field, &mut parameters)
        }
        (6, field) => {
            add_count("outputs", &mut outputs, 1, MAX_ELEMENTS)?;
            check_output(field, &mut parameters)
        }
        (7, _) => add_count("elements of `raw_input_contents`", &mut raw, 1, MAX_ELEMENTS),
        _ => Ok(()),
    })
}

fn check_tensor(field: Field<'_>, parameters: &mut usize) -> Result<(), String> {
    let Field::Bytes(tensor) = field else {
        return Ok(());
    };
    let mut dimensions = 0;
    for_each_field(tensor, |number, field| match (number, field) {
        (3, Field::Number) => add_count("dimensions in one tensor", &mut dimensions, 1, MAX_DIMENSIONS),
        (3, Field::Bytes(packed)) => add_count(
            "dimensions in one tensor",
            &mut dimensions,
            count_varints(packed),
            MAX_DIMENSIONS,
        ),
        (4, _) => add_count("parameters", parameters, 1, MAX_ELEMENTS),
        _ => Ok(()),
    })
}

fn check_output(field: Field<'_>, parameters: &mut usize) -> Result<(), String> {
    let Field::Bytes(output) = field else {
        return Ok(());
    };
    for_each_field(output, |number, _| match number {
        2 => add_count("parameters", parameters, 1, MAX_ELEMENTS),
        _ => Ok(()),
    })
}

/// Counts the varints in a packed list. The last byte of each does not have its highest bit set.
fn count_varints(packed: &[u8]) -> usize {
    packed.iter().filter(|byte| **byte < 0x80).count()
}

/// Counts the elements of all lists in the contents of a tensor.
pub(super) fn count_elements(contents: &[u8]) -> usize {
    let mut elements = 0;
    let counted = for_each_field(contents, |number, field| {
        elements += match (number, field) {
            // One element per field.
            (8, _) | (_, Field::Number) => 1,
            (6, Field::Bytes(packed)) => packed.len() / 4,
            (7, Field::Bytes(packed)) => packed.len() / 8,
            (_, Field::Bytes(packed)) => count_varints(packed),
        };
        Ok(())
    });
    debug_assert!(counted.is_ok(), "the visitor returned no error");
    elements
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::proto::InferTensorContents;
    use crate::grpc::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};

    fn check(request: &ModelInferRequest) -> Result<(), String> {
        check_request(&request.encode_to_vec())
    }

    fn with_inputs(input: InferInputTensor, count: usize) -> ModelInferRequest {
        ModelInferRequest {
            model_name: "m".to_owned(),
            inputs: vec![input; count],
            ..ModelInferRequest::default()
        }
    }

    #[test]
    fn list_elements_are_counted_before_decoding() {
        let output = InferRequestedOutputTensor::default();
        let outputs = |count| ModelInferRequest {
            outputs: vec![output.clone(); count],
            ..ModelInferRequest::default()
        };
        assert_eq!(check(&outputs(1024)), Ok(()));
        assert_eq!(
            check(&outputs(1025)),
            Err("the message has too many outputs: expected at most 1024".to_owned())
        );
        let inputs = |count| with_inputs(InferInputTensor::default(), count);
        assert_eq!(check(&inputs(1024)), Ok(()));
        assert!(check(&inputs(1025)).is_err());
        let shaped = |dimensions| {
            let shape = vec![300; dimensions];
            with_inputs(
                InferInputTensor {
                    shape,
                    ..InferInputTensor::default()
                },
                1,
            )
        };
        assert_eq!(check(&shaped(64)), Ok(()));
        assert_eq!(
            check(&shaped(65)),
            Err("the message has too many dimensions in one tensor: expected at most 64".to_owned())
        );
        let raw = ModelInferRequest {
            raw_input_contents: vec![Default::default(); 1025],
            ..ModelInferRequest::default()
        };
        assert!(check(&raw).is_err());
        let parameters = (0..1025)
            .map(|index| (index.to_string(), Default::default()))
            .collect();
        let parameters = ModelInferRequest {
            parameters,
            ..ModelInferRequest::default()
        };
        assert!(check(&parameters).is_err());
    }

    #[test]
    fn malformed_messages_are_left_to_the_decoder() {
        for message in [&b"\xff"[..], b"\x2a\xff", b"\x2a\x05a", b"\x0b", b"\x00"] {
            assert_eq!(check_request(message), Ok(()), "{message:?}");
        }
    }

    #[test]
    fn elements_of_every_type_are_counted() {
        let contents = InferTensorContents {
            bool_contents: vec![true; 2],
            int_contents: vec![-1, 300, 5],
            uint64_contents: vec![u64::MAX; 4],
            fp32_contents: vec![0.5; 5],
            fp64_contents: vec![0.5; 6],
            bytes_contents: vec![Default::default(); 7],
            ..InferTensorContents::default()
        };
        assert_eq!(count_elements(&contents.encode_to_vec()), 2 + 3 + 4 + 5 + 6 + 7);
    }
}
