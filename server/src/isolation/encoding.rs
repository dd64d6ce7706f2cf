//! Encodes values for the other process, and decodes them.
//!
//! A message consists of a *head* with small fields, followed by payloads. The head contains only the lengths of the payloads,
//! in the same order. A payload is therefore not copied into a message, and is decoded as a slice of it. If the message is
//! aligned, so is each payload, for every datatype.
//!
//! Decoding trusts nothing: every length is compared with the remaining bytes, text and JSON are validated again, and tensors
//! must match their shapes. A message from a process with corrupted memory results in an error.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::error::ItemError;
use crate::json;
use crate::model::BatchError;
use crate::values::{DType, ItemInput, Tensor, Value};

/// Why a message cannot be decoded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeError {
    /// The message ends too early.
    #[error("it ends within {0}")]
    Truncated(&'static str),
    /// The message is too long.
    #[error("it has {0} trailing bytes")]
    TrailingBytes(usize),
    /// A code is unknown.
    #[error("{what} has unknown code {code}")]
    UnknownCode {
        /// The value with the code.
        what: &'static str,
        /// The code.
        code: u8,
    },
    /// A value is inconsistent.
    #[error("{0}")]
    Invalid(String),
}

/// A message to be sent: the head and the payloads.
#[derive(Debug, Default)]
pub(super) struct Encoder<'a> {
    head: Vec<u8>,
    payloads: Vec<&'a [u8]>,
    payload_bytes: usize,
}

/// Length of the field that contains the length of the head.
const HEAD_LENGTH: usize = 4;

/// The head and each payload are padded with zeros to a multiple of this, which is the alignment of the largest datatype.
const ALIGNMENT: usize = 8;

impl<'a> Encoder<'a> {
    /// Starts a message with its code.
    pub(super) fn new(code: u8) -> Self {
        let mut head = Vec::with_capacity(256);
        head.extend_from_slice(&[0; HEAD_LENGTH]);
        head.push(code);
        Self {
            head,
            payloads: Vec::new(),
            payload_bytes: 0,
        }
    }

    /// Length of the whole message.
    pub(super) fn len(&self) -> usize {
        self.head.len().next_multiple_of(ALIGNMENT) + self.payload_bytes
    }

    /// The parts that the message consists of, in order.
    pub(super) fn parts(&mut self) -> impl Iterator<Item = &[u8]> {
        let length = u32::try_from(self.head.len() - HEAD_LENGTH).unwrap_or(u32::MAX);
        self.head[..HEAD_LENGTH].copy_from_slice(&length.to_le_bytes());
        let parts = std::iter::once(self.head.as_slice()).chain(self.payloads.iter().copied());
        parts.flat_map(|part| {
            [
                part,
                &[0; ALIGNMENT][..part.len().next_multiple_of(ALIGNMENT) - part.len()],
            ]
        })
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.head.push(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.head.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.head.extend_from_slice(&value.to_le_bytes());
    }

    /// The number of elements that follow. The decoder rejects counts that do not fit, which do not occur in practice.
    pub(super) fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// A short text, stored in the head.
    pub(super) fn text(&mut self, text: &str) {
        self.count(text.len());
        self.head.extend_from_slice(text.as_bytes());
    }

    /// A payload, stored after the head.
    pub(super) fn payload(&mut self, payload: &'a [u8]) {
        self.u64(payload.len() as u64);
        if !payload.is_empty() {
            self.payload_bytes += payload.len().next_multiple_of(ALIGNMENT);
            self.payloads.push(payload);
        }
    }

    pub(super) fn item(&mut self, item: &'a ItemInput) {
        self.value(&item.value);
        self.payload(&item.parameters);
    }

    pub(super) fn value(&mut self, value: &'a Value) {
        match value {
            Value::Text(text) => {
                self.u8(value_code::TEXT);
                self.payload(text);
            }
            Value::Bytes { data, media_type } => {
                self.u8(value_code::BYTES);
                self.text(media_type);
                self.payload(data);
            }
            Value::Json(json) => {
                self.u8(value_code::JSON);
                self.payload(json);
            }
            Value::Tensors(tensors) => {
                self.u8(value_code::TENSORS);
                self.tensors(tensors);
            }
        }
    }

    pub(super) fn tensors(&mut self, tensors: &'a [Tensor]) {
        self.count(tensors.len());
        for tensor in tensors {
            self.text(tensor.name());
            self.u32(tensor.dtype().code());
            self.count(tensor.shape().len());
            for &dimension in tensor.shape() {
                self.u64(dimension);
            }
            self.payload(tensor.data());
        }
    }

    /// Errors that only the server creates do not come from a model. They are encoded as faults.
    pub(super) fn item_error(&mut self, error: &ItemError) {
        let (code, message) = match error {
            ItemError::Invalid(message) => (error_code::INVALID, message),
            ItemError::Fault(message) => (error_code::FAULT, message),
            ItemError::OutOfMemory(message) => (error_code::OUT_OF_MEMORY, message),
            ItemError::Unsupported(message) => (error_code::UNSUPPORTED, message),
            ItemError::Expired { .. }
            | ItemError::Infeasible { .. }
            | ItemError::TooHeavy { .. }
            | ItemError::Lost
            | ItemError::ShuttingDown
            | ItemError::Unavailable(_) => (error_code::FAULT, &error.to_string()),
        };
        self.u8(code);
        self.text(message);
    }

    pub(super) fn batch_error(&mut self, error: &BatchError) {
        match error {
            BatchError::OutOfMemory(message) => {
                self.u8(batch_code::OUT_OF_MEMORY);
                self.text(message);
            }
            BatchError::Failed(error) => {
                self.u8(batch_code::FAILED);
                self.item_error(error);
            }
            BatchError::Panicked(message) => {
                self.u8(batch_code::PANICKED);
                self.text(message);
            }
            BatchError::TooLarge(error) => {
                self.u8(batch_code::TOO_LARGE);
                self.item_error(error);
            }
            BatchError::WorkerLost(_) | BatchError::NoWorker => {
                self.u8(batch_code::FAILED);
                self.item_error(&ItemError::Fault(error.to_string()));
            }
        }
    }
}

mod value_code {
    pub(super) const TEXT: u8 = 1;
    pub(super) const BYTES: u8 = 2;
    pub(super) const JSON: u8 = 3;
    pub(super) const TENSORS: u8 = 4;
}

mod error_code {
    pub(super) const INVALID: u8 = 1;
    pub(super) const FAULT: u8 = 2;
    pub(super) const OUT_OF_MEMORY: u8 = 3;
    pub(super) const UNSUPPORTED: u8 = 4;
}

mod batch_code {
    pub(super) const OUT_OF_MEMORY: u8 = 1;
    pub(super) const FAILED: u8 = 2;
    pub(super) const PANICKED: u8 = 3;
    pub(super) const TOO_LARGE: u8 = 4;
}

/// A received message.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    head: &'a [u8],
    message: &'a Bytes,
    /// Position of the next payload.
    payload: usize,
    /// Name and shape of the last tensor. Those of the next item are usually the same.
    last_tensor: Option<(Arc<str>, Arc<[u64]>)>,
}

impl<'a> Decoder<'a> {
    /// Starts decoding a message, and returns its code.
    pub(super) fn new(message: &'a Bytes) -> Result<(u8, Self), DecodeError> {
        let (length, rest) = message
            .split_first_chunk::<HEAD_LENGTH>()
            .ok_or(DecodeError::Truncated("the length of its head"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let head = rest.get(..length).ok_or(DecodeError::Truncated("its head"))?;
        let mut decoder = Self {
            head,
            message,
            payload: (HEAD_LENGTH + length).next_multiple_of(ALIGNMENT),
            last_tensor: None,
        };
        Ok((decoder.u8("its code")?, decoder))
    }

    /// Checks that the whole message has been decoded.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        let payload_bytes = self.message.len().checked_sub(self.payload);
        match payload_bytes.ok_or(DecodeError::Truncated("its last bytes"))? + self.head.len() {
            0 => Ok(()),
            left => Err(DecodeError::TrailingBytes(left)),
        }
    }

    fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .head
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated(what))?;
        self.head = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self
            .head
            .split_first_chunk()
            .ok_or(DecodeError::Truncated(what))?;
        self.head = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(what).map(|[value]| value)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// The number of elements that follow. Each of them takes at least one byte of the head, so a larger count is rejected before
    /// memory is allocated for it.
    pub(super) fn count(&mut self, what: &'static str) -> Result<usize, DecodeError> {
        let count = self.u32(what)? as usize;
        if count > self.head.len() {
            return Err(DecodeError::Truncated(what));
        }
        Ok(count)
    }

    pub(super) fn list<T>(
        &mut self,
        what: &'static str,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count(what)?;
        (0..count).map(|_| element(self)).collect()
    }

    pub(super) fn text(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let length = self.u32(what)? as usize;
        std::str::from_utf8(self.take(length, what)?)
            .map_err(|error| DecodeError::Invalid(format!("{what} is not UTF-8: {error}")))
    }

    pub(super) fn payload(&mut self, what: &'static str) -> Result<Bytes, DecodeError> {
        let length = usize::try_from(self.u64(what)?).map_err(|_| DecodeError::Truncated(what))?;
        let end = self
            .payload
            .checked_add(length)
            .filter(|&end| end <= self.message.len())
            .ok_or(DecodeError::Truncated(what))?;
        let payload = self.message.slice(self.payload..end);
        self.payload = end.next_multiple_of(ALIGNMENT);
        Ok(payload)
    }

    pub(super) fn item(&mut self) -> Result<ItemInput, DecodeError> {
        Ok(ItemInput {
            value: self.value()?,
            parameters: self.payload("the parameters of an item")?,
        })
    }

    pub(super) fn value(&mut self) -> Result<Value, DecodeError> {
        match self.u8("a value")? {
            value_code::TEXT => {
                let text = self.payload("a text")?;
                utf8(&text, "a text")?;
                Ok(Value::Text(text))
            }
            value_code::BYTES => {
                let media_type = self.text("a media type")?.to_owned();
                let data = self.payload("bytes")?;
                Ok(Value::Bytes { data, media_type })
            }
            value_code::JSON => {
                let json = self.payload("a JSON document")?;
                json::from_str::<IgnoredAny>(utf8(&json, "a JSON document")?)
                    .map_err(|error| DecodeError::Invalid(format!("a JSON document is invalid: {error}")))?;
                Ok(Value::Json(json))
            }
            value_code::TENSORS => Ok(Value::Tensors(self.tensors()?)),
            code => Err(DecodeError::UnknownCode {
                what: "a value",
                code,
            }),
        }
    }

    pub(super) fn tensors(&mut self) -> Result<Vec<Tensor>, DecodeError> {
        self.list("tensors", |this| {
            let name = this.text("the name of a tensor")?;
            let code = this.u32("the datatype of a tensor")?;
            let dtype = DType::from_code(code).ok_or_else(|| {
                DecodeError::Invalid(format!("tensor `{name}` has unknown datatype {code}"))
            })?;
            let dimensions = this.count("the shape of a tensor")?;
            let shape = this.take(dimensions.saturating_mul(8), "the shape of a tensor")?;
            let (name, shape) = this.reuse_last(name, shape);
            let data = this.payload("the data of a tensor")?;
            Tensor::new(name, dtype, shape, data).map_err(|error| DecodeError::Invalid(error.to_string()))
        })
    }

    /// The name and shape, shared with the last tensor if they are the same.
    fn reuse_last(&mut self, name: &str, shape: &[u8]) -> (Arc<str>, Arc<[u64]>) {
        let (dimensions, _) = shape.as_chunks::<8>();
        let dimensions = dimensions.iter().map(|bytes| u64::from_le_bytes(*bytes));
        match &self.last_tensor {
            Some((last_name, last_shape))
                if **last_name == *name && last_shape.iter().copied().eq(dimensions.clone()) =>
            {
                (last_name.clone(), last_shape.clone())
            }
            _ => {
                let (name, shape) = (Arc::from(name), dimensions.collect());
                self.last_tensor.insert((name, shape)).clone()
            }
        }
    }

    pub(super) fn item_error(&mut self) -> Result<ItemError, DecodeError> {
        let code = self.u8("an error")?;
        let message = self.text("the message of an error")?.to_owned();
        match code {
            error_code::INVALID => Ok(ItemError::Invalid(message)),
            error_code::FAULT => Ok(ItemError::Fault(message)),
            error_code::OUT_OF_MEMORY => Ok(ItemError::OutOfMemory(message)),
            error_code::UNSUPPORTED => Ok(ItemError::Unsupported(message)),
            code => Err(DecodeError::UnknownCode {
                what: "an error",
                code,
            }),
        }
    }

    pub(super) fn batch_error(&mut self) -> Result<BatchError, DecodeError> {
        match self.u8("the error of a batch")? {
            batch_code::OUT_OF_MEMORY => Ok(BatchError::OutOfMemory(self.text("its message")?.to_owned())),
            batch_code::FAILED => self.item_error().map(BatchError::Failed),
            batch_code::TOO_LARGE => self.item_error().map(BatchError::TooLarge),
            batch_code::PANICKED => Ok(BatchError::Panicked(self.text("its message")?.to_owned())),
            code => Err(DecodeError::UnknownCode {
                what: "the error of a batch",
                code,
            }),
        }
    }
}

fn utf8<'a>(bytes: &'a Bytes, what: &'static str) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|error| DecodeError::Invalid(format!("{what} is not UTF-8: {error}")))
}
