//! How values are written for the other process, and read back.
//!
//! An encoded message is a *head* of small fields and, behind it, the payloads that the head mentions by their length
//! alone, in the order in which it does. So a payload is never copied on its way into a message, and comes out of one as
//! a slice of it, aligned for every datatype where the message is.
//!
//! Reading believes nothing: every length is checked against what is there, text and JSON are checked again, and tensors
//! must agree with their shapes. What a process sends whose memory is damaged is an error here and harms nobody.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::error::ItemError;
use crate::json;
use crate::model::BatchError;
use crate::values::{DType, ItemInput, Tensor, Value};

/// Why bytes are no message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// Something that should follow is not there.
    #[error("the message ends in the middle of {0}")]
    Cut(&'static str),
    /// There is more than there should be.
    #[error("the message is {0} bytes too long")]
    TooLong(usize),
    /// A code that means nothing.
    #[error("{what} has the unknown code {code}")]
    Code {
        /// What should have one.
        what: &'static str,
        /// What it has.
        code: u8,
    },
    /// A value that contradicts itself.
    #[error("{0}")]
    Value(String),
}

/// A message on its way out: the head, and the payloads behind it.
#[derive(Debug, Default)]
pub(super) struct Encoder<'a> {
    head: Vec<u8>,
    payloads: Vec<&'a [u8]>,
    payload_bytes: usize,
}

/// Bytes of the field that says how long the head is.
const HEAD_LENGTH: usize = 4;

/// The head and each payload are followed by zeros up to a multiple of this, which the largest number needs.
const ALIGNMENT: usize = 8;

impl<'a> Encoder<'a> {
    /// A message that begins with its code.
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

    /// The parts of the message, to be laid end to end.
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

    /// How many of something follow. More than fit would be cut off by the reader as a breach; nothing comes near.
    pub(super) fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// A short text, within the head.
    pub(super) fn text(&mut self, text: &str) {
        self.count(text.len());
        self.head.extend_from_slice(text.as_bytes());
    }

    /// A payload, behind the head.
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

    /// Only what a model says of an item is told; what the server itself says of one does not come from a model.
    pub(super) fn item_error(&mut self, error: &ItemError) {
        let (code, message) = match error {
            ItemError::Invalid(message) => (error_code::INVALID, message),
            ItemError::Fault(message) => (error_code::FAULT, message),
            ItemError::OutOfMemory(message) => (error_code::OUT_OF_MEMORY, message),
            ItemError::Unsupported(message) => (error_code::UNSUPPORTED, message),
            ItemError::Expired { .. }
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

/// A message that came in.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    head: &'a [u8],
    message: &'a Bytes,
    /// Where the next payload starts.
    payload: usize,
    /// Name and shape of the last tensor, which those of the next item are as a rule.
    last_tensor: Option<(Arc<str>, Arc<[u64]>)>,
}

impl<'a> Decoder<'a> {
    /// Takes a message apart; its code comes first.
    pub(super) fn new(message: &'a Bytes) -> Result<(u8, Self), WireError> {
        let (length, rest) = message
            .split_first_chunk::<HEAD_LENGTH>()
            .ok_or(WireError::Cut("the length of its head"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let head = rest.get(..length).ok_or(WireError::Cut("its head"))?;
        let mut decoder = Self {
            head,
            message,
            payload: (HEAD_LENGTH + length).next_multiple_of(ALIGNMENT),
            last_tensor: None,
        };
        Ok((decoder.u8("its code")?, decoder))
    }

    /// Everything has been read.
    pub(super) fn end(self) -> Result<(), WireError> {
        let behind = self.message.len().checked_sub(self.payload);
        match behind.ok_or(WireError::Cut("its last bytes"))? + self.head.len() {
            0 => Ok(()),
            left => Err(WireError::TooLong(left)),
        }
    }

    fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.head.split_at_checked(length).ok_or(WireError::Cut(what))?;
        self.head = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.head.split_first_chunk().ok_or(WireError::Cut(what))?;
        self.head = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, WireError> {
        self.array::<1>(what).map(|[value]| value)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, WireError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, WireError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// How many of something follow. Each takes a byte of the head at least, so that a list that could not be there is not
    /// made room for.
    pub(super) fn count(&mut self, what: &'static str) -> Result<usize, WireError> {
        let count = self.u32(what)? as usize;
        if count > self.head.len() {
            return Err(WireError::Cut(what));
        }
        Ok(count)
    }

    pub(super) fn list<T>(
        &mut self,
        what: &'static str,
        mut element: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let count = self.count(what)?;
        (0..count).map(|_| element(self)).collect()
    }

    pub(super) fn text(&mut self, what: &'static str) -> Result<&'a str, WireError> {
        let length = self.u32(what)? as usize;
        std::str::from_utf8(self.take(length, what)?)
            .map_err(|error| WireError::Value(format!("{what} is not UTF-8: {error}")))
    }

    pub(super) fn payload(&mut self, what: &'static str) -> Result<Bytes, WireError> {
        let length = usize::try_from(self.u64(what)?).map_err(|_| WireError::Cut(what))?;
        let end = self
            .payload
            .checked_add(length)
            .filter(|&end| end <= self.message.len())
            .ok_or(WireError::Cut(what))?;
        let payload = self.message.slice(self.payload..end);
        self.payload = end.next_multiple_of(ALIGNMENT);
        Ok(payload)
    }

    pub(super) fn item(&mut self) -> Result<ItemInput, WireError> {
        Ok(ItemInput {
            value: self.value()?,
            parameters: self.payload("the parameters of an item")?,
        })
    }

    pub(super) fn value(&mut self) -> Result<Value, WireError> {
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
                    .map_err(|error| WireError::Value(format!("a JSON document is not valid: {error}")))?;
                Ok(Value::Json(json))
            }
            value_code::TENSORS => Ok(Value::Tensors(self.tensors()?)),
            code => Err(WireError::Code {
                what: "a value",
                code,
            }),
        }
    }

    pub(super) fn tensors(&mut self) -> Result<Vec<Tensor>, WireError> {
        self.list("tensors", |this| {
            let name = this.text("the name of a tensor")?;
            let code = this.u32("the datatype of a tensor")?;
            let dtype = DType::from_code(code).ok_or_else(|| {
                WireError::Value(format!("tensor `{name}` has the unknown datatype {code}"))
            })?;
            let dimensions = this.count("the shape of a tensor")?;
            let shape = this.take(dimensions.saturating_mul(8), "the shape of a tensor")?;
            let (name, shape) = this.shared(name, shape);
            let data = this.payload("the data of a tensor")?;
            Tensor::new(name, dtype, shape, data).map_err(|error| WireError::Value(error.to_string()))
        })
    }

    /// A name and a shape, those of the tensor before if they are the same.
    fn shared(&mut self, name: &str, shape: &[u8]) -> (Arc<str>, Arc<[u64]>) {
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

    pub(super) fn item_error(&mut self) -> Result<ItemError, WireError> {
        let code = self.u8("an error")?;
        let message = self.text("the message of an error")?.to_owned();
        match code {
            error_code::INVALID => Ok(ItemError::Invalid(message)),
            error_code::FAULT => Ok(ItemError::Fault(message)),
            error_code::OUT_OF_MEMORY => Ok(ItemError::OutOfMemory(message)),
            error_code::UNSUPPORTED => Ok(ItemError::Unsupported(message)),
            code => Err(WireError::Code {
                what: "an error",
                code,
            }),
        }
    }

    pub(super) fn batch_error(&mut self) -> Result<BatchError, WireError> {
        match self.u8("the error of a batch")? {
            batch_code::OUT_OF_MEMORY => Ok(BatchError::OutOfMemory(self.text("its message")?.to_owned())),
            batch_code::FAILED => self.item_error().map(BatchError::Failed),
            batch_code::TOO_LARGE => self.item_error().map(BatchError::TooLarge),
            batch_code::PANICKED => Ok(BatchError::Panicked(self.text("its message")?.to_owned())),
            code => Err(WireError::Code {
                what: "the error of a batch",
                code,
            }),
        }
    }
}

fn utf8<'a>(bytes: &'a Bytes, what: &'static str) -> Result<&'a str, WireError> {
    std::str::from_utf8(bytes).map_err(|error| WireError::Value(format!("{what} is not UTF-8: {error}")))
}
