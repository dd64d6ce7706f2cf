//! Decodes messages, after a look at how many elements they would make.
//!
//! An empty element of a list takes two bytes on the wire and up to a hundred in memory, so a message within the limit
//! of its size could take many times that. Lists are therefore counted before anything is made of them. The elements of
//! tensors are decoded later, when their number is known to be right: see [`super::infer`].

use std::any::TypeId;
use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

use super::proto::ModelInferRequest;

/// Maximum number of inputs, of outputs, and of parameters that one message names.
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

/// Decodes one type of message.
#[derive(Debug)]
pub(super) struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Default + 'static> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        if TypeId::of::<U>() == TypeId::of::<ModelInferRequest>() {
            // A message is in one piece. If it were not, it would be checked up to where the first piece ends.
            check_request(buffer.chunk()).map_err(Status::invalid_argument)?;
        }
        U::decode(buffer)
            .map(Some)
            .map_err(|error| Status::invalid_argument(format!("malformed message: {error}")))
    }
}

/// A field of a message on the wire.
enum Field<'a> {
    Number,
    Bytes(&'a [u8]),
}

/// Shows the fields of a message to `visit`, with their numbers. Stops where the message is malformed, which the
/// decoder then reports.
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

/// Counts an element of a list.
fn count(what: &str, so_far: &mut usize, elements: usize, max: usize) -> Result<(), String> {
    *so_far += elements;
    if *so_far > max {
        return Err(format!("the message has more than {max} {what}, the maximum"));
    }
    Ok(())
}

fn check_request(message: &[u8]) -> Result<(), String> {
    let (mut parameters, mut inputs, mut outputs, mut raw) = (0, 0, 0, 0);
    for_each_field(message, |number, field| match (number, field) {
        (4, _) => count("parameters", &mut parameters, 1, MAX_ELEMENTS),
        (5, field) => {
            count("inputs", &mut inputs, 1, MAX_ELEMENTS)?;
            check_tensor(field, &mut parameters)
        }
        (6, field) => {
            count("outputs", &mut outputs, 1, MAX_ELEMENTS)?;
            check_output(field, &mut parameters)
        }
        (7, _) => count("elements of `raw_input_contents`", &mut raw, 1, MAX_ELEMENTS),
        _ => Ok(()),
    })
}

fn check_tensor(field: Field<'_>, parameters: &mut usize) -> Result<(), String> {
    let Field::Bytes(tensor) = field else {
        return Ok(());
    };
    let mut dimensions = 0;
    for_each_field(tensor, |number, field| match (number, field) {
        (3, Field::Number) => count("dimensions of one tensor", &mut dimensions, 1, MAX_DIMENSIONS),
        (3, Field::Bytes(packed)) => count(
            "dimensions of one tensor",
            &mut dimensions,
            numbers_in(packed),
            MAX_DIMENSIONS,
        ),
        (4, _) => count("parameters", parameters, 1, MAX_ELEMENTS),
        _ => Ok(()),
    })
}

fn check_output(field: Field<'_>, parameters: &mut usize) -> Result<(), String> {
    let Field::Bytes(output) = field else {
        return Ok(());
    };
    for_each_field(output, |number, _| match number {
        2 => count("parameters", parameters, 1, MAX_ELEMENTS),
        _ => Ok(()),
    })
}

/// How many numbers of variable length are in a packed list: each ends in a byte without the highest bit.
fn numbers_in(packed: &[u8]) -> usize {
    packed.iter().filter(|byte| **byte < 0x80).count()
}

/// How many elements the contents of a tensor have, all of its lists together.
pub(super) fn elements_in(contents: &[u8]) -> usize {
    let mut elements = 0;
    let counted = for_each_field(contents, |number, field| {
        elements += match (number, field) {
            // Each is a separate element.
            (8, _) | (_, Field::Number) => 1,
            (6, Field::Bytes(packed)) => packed.len() / 4,
            (7, Field::Bytes(packed)) => packed.len() / 8,
            (_, Field::Bytes(packed)) => numbers_in(packed),
        };
        Ok(())
    });
    debug_assert!(counted.is_ok(), "nothing is rejected");
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
    fn lists_are_counted_before_they_are_decoded() {
        let output = InferRequestedOutputTensor::default();
        let outputs = |count| ModelInferRequest {
            outputs: vec![output.clone(); count],
            ..ModelInferRequest::default()
        };
        assert_eq!(check(&outputs(1024)), Ok(()));
        assert_eq!(
            check(&outputs(1025)),
            Err("the message has more than 1024 outputs, the maximum".to_owned())
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
            Err("the message has more than 64 dimensions of one tensor, the maximum".to_owned())
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
    fn what_is_malformed_is_left_to_the_decoder() {
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
        assert_eq!(elements_in(&contents.encode_to_vec()), 2 + 3 + 4 + 5 + 6 + 7);
    }
}
