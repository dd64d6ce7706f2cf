//! Output types of tasks, and the encoding of outputs.

use std::borrow::Cow;

use abi_stable::std_types::{RSlice, RStr};
use plugin_abi::codes::{kind, sink};
use plugin_abi::manifest::{Kind, ValueManifest};
use plugin_abi::{OutputSink, RawTensor, RawValue};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::ItemError;
use crate::input::{Any, Bytes, Json, Tensor, Tensors, Text};
use crate::schema;
use crate::tensor::{self, TensorOutput};

/// Output type of a task. Use one of the marker types [`Text`], [`Bytes`], [`Json`], [`Tensor`], [`Tensors`] and [`Any`].
///
/// Implement it for your own type to encode outputs in a different way.
pub trait Output: 'static {
    /// Type of the output of one item.
    type Item;

    /// Describes the output for the server and its documentation.
    fn manifest() -> ValueManifest;

    /// Sends the output of one item to the server.
    ///
    /// # Errors
    /// The output cannot be sent. Only this item fails.
    fn encode(item: Self::Item, encoder: Encoder<'_, '_>) -> Result<(), ItemError>;
}

/// Output of kind bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BytesOutput {
    /// The bytes.
    pub data: Vec<u8>,
    /// Their media type.
    pub media_type: Cow<'static, str>,
}

impl BytesOutput {
    /// Creates an output with this media type, such as `image/png`.
    pub fn new(data: Vec<u8>, media_type: impl Into<Cow<'static, str>>) -> Self {
        Self {
            data,
            media_type: media_type.into(),
        }
    }
}

/// Output of a task whose kind of output depends on its settings. The task declares the kind with
/// [`TaskInfo::output`](crate::TaskInfo::output).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AnyOutput {
    /// Text.
    Text(String),
    /// Bytes with a media type.
    Bytes(BytesOutput),
    /// One serialized JSON document.
    Json(String),
    /// Named tensors.
    Tensors(Vec<TensorOutput>),
}

impl Output for Any {
    type Item = AnyOutput;

    /// Declares no kind, because the task has to declare it.
    fn manifest() -> ValueManifest {
        ValueManifest::default()
    }

    fn encode(item: AnyOutput, encoder: Encoder<'_, '_>) -> Result<(), ItemError> {
        match item {
            AnyOutput::Text(text) => encoder.text(&text),
            AnyOutput::Bytes(bytes) => encoder.bytes(&bytes.data, &bytes.media_type),
            AnyOutput::Json(document) => encoder.json_text(&document),
            AnyOutput::Tensors(tensors) => encoder.tensors(&tensors),
        }
    }
}

impl Output for Text {
    type Item = String;

    fn manifest() -> ValueManifest {
        ValueManifest::of(Kind::Text)
    }

    fn encode(item: String, encoder: Encoder<'_, '_>) -> Result<(), ItemError> {
        encoder.text(&item)
    }
}

impl Output for Bytes {
    type Item = BytesOutput;

    fn manifest() -> ValueManifest {
        ValueManifest::of(Kind::Bytes)
    }

    fn encode(item: BytesOutput, encoder: Encoder<'_, '_>) -> Result<(), ItemError> {
        encoder.bytes(&item.data, &item.media_type)
    }
}

impl<T: Serialize + JsonSchema + 'static> Output for Json<T> {
    type Item = T;

    fn manifest() -> ValueManifest {
        ValueManifest {
            schema: schema::of_output::<T>(),
            ..ValueManifest::of(Kind::Json)
        }
    }

    fn encode(item: T, encoder: Encoder<'_, '_>) -> Result<(), ItemError> {
        encoder.json(&item)
    }
}

impl Output for Tensor {
    type Item = TensorOutput;

    fn manifest() -> ValueManifest {
        ValueManifest::of(Kind::Tensors)
    }

    fn encode(item: TensorOutput, encoder: Encoder<'_, '_>) -> Result<(), ItemError> {
        encoder.tensors(&[item])
    }
}

impl Output for Tensors {
    type Item = Vec<TensorOutput>;

    fn manifest() -> ValueManifest {
        ValueManifest::of(Kind::Tensors)
    }

    fn encode(item: Vec<TensorOutput>, encoder: Encoder<'_, '_>) -> Result<(), ItemError> {
        encoder.tensors(&item)
    }
}

/// Sends the output of one item.
pub struct Encoder<'e, 'a> {
    index: u32,
    emitter: &'e mut Emitter<'a>,
}

impl Encoder<'_, '_> {
    /// Sends text.
    ///
    /// # Errors
    /// The server rejected it.
    pub fn text(self, text: &str) -> Result<(), ItemError> {
        self.emitter
            .emit(self.index, value(kind::TEXT, text.as_bytes(), ""))
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The server rejected it.
    pub fn bytes(self, data: &[u8], media_type: &str) -> Result<(), ItemError> {
        self.emitter
            .emit(self.index, value(kind::BYTES, data, media_type))
    }

    /// Serializes and sends a JSON document.
    ///
    /// # Errors
    /// The document cannot be serialized, or the server rejected it.
    pub fn json<T: Serialize + ?Sized>(self, document: &T) -> Result<(), ItemError> {
        let mut scratch = std::mem::take(&mut self.emitter.scratch);
        scratch.clear();
        let outcome = serde_json::to_writer(&mut scratch, document)
            .map_err(|error| ItemError::fault(format_args!("cannot serialize the output as JSON: {error}")))
            .and_then(|()| self.emitter.emit(self.index, value(kind::JSON, &scratch, "")));
        self.emitter.scratch = scratch;
        outcome
    }

    /// Sends a serialized JSON document.
    ///
    /// # Errors
    /// The server rejected it, for example because it is not valid JSON.
    pub fn json_text(self, document: &str) -> Result<(), ItemError> {
        self.emitter
            .emit(self.index, value(kind::JSON, document.as_bytes(), ""))
    }

    /// Sends tensors.
    ///
    /// # Errors
    /// The data of a tensor does not match its shape, or the server rejected them.
    pub fn tensors(self, tensors: &[TensorOutput]) -> Result<(), ItemError> {
        tensors
            .iter()
            .try_for_each(TensorOutput::check)
            .map_err(ItemError::Fault)?;
        // A single tensor is the most frequent case and needs no allocation.
        match tensors {
            [one] => self.emitter.emit(self.index, tensors_value(&[one.raw()])),
            many => {
                let raw: Vec<_> = many.iter().map(TensorOutput::raw).collect();
                self.emitter.emit(self.index, tensors_value(&raw))
            }
        }
    }
}

/// The server's sink, and a buffer that all encoders share.
pub(crate) struct Emitter<'a> {
    sink: OutputSink<'a>,
    scratch: Vec<u8>,
}

impl<'a> Emitter<'a> {
    pub(crate) fn new(sink: OutputSink<'a>) -> Self {
        Self {
            sink,
            scratch: Vec::new(),
        }
    }

    /// Completes item `index` with its outcome.
    pub(crate) fn complete<O: Output>(&mut self, index: u32, outcome: Result<O::Item, ItemError>) {
        let emitted = outcome.and_then(|item| O::encode(item, Encoder { index, emitter: self }));
        if let Err(error) = emitted {
            self.fail(index, &error);
        }
    }

    pub(crate) fn fail(&mut self, index: u32, error: &ItemError) {
        if self.sink.fail(index, error.code(), RStr::from(error.message())) == sink::REFUSED {
            log::error!("the server rejected the error of item {index}: {error}");
        }
    }

    /// Reports the weight of item `index`. The server may ignore it.
    pub(crate) fn weigh(&mut self, index: u32, weight: u64) {
        let _code = self.sink.weigh(index, weight);
    }

    /// Completes the items in `positions`, or all items if it is `None`, with the rows of `tensors`. The caller has checked that
    /// the first dimension of every tensor is the number of these items.
    pub(crate) fn complete_rows(
        &mut self,
        tensors: &[TensorOutput],
        positions: Option<&[u32]>,
    ) -> Result<(), String> {
        let Some(positions) = positions else {
            let raw: Vec<_> = tensors.iter().map(TensorOutput::raw).collect();
            return match self.sink.emit_batch(RSlice::from(&raw[..])) {
                sink::REFUSED => Err("the server rejected the tensors of the batch".to_owned()),
                _ => Ok(()),
            };
        };
        let rows: Vec<_> = tensors.iter().map(TensorOutput::rows).collect();
        for (row, &index) in positions.iter().enumerate() {
            let raw: Vec<_> = tensors
                .iter()
                .zip(&rows)
                .map(|(tensor, rows)| {
                    let data = &tensor.bytes()[rows[row].clone()];
                    tensor::raw(tensor.name(), tensor.dtype(), &tensor.shape()[1..], data)
                })
                .collect();
            if let Err(error) = self.emit(index, tensors_value(&raw)) {
                self.fail(index, &error);
            }
        }
        Ok(())
    }

    fn emit(&mut self, index: u32, value: RawValue<'_>) -> Result<(), ItemError> {
        match self.sink.emit(index, value, 0) {
            sink::OK | sink::CANCELLED => Ok(()),
            code => {
                log::error!("the server rejected the output of item {index}: code {code}");
                Err(ItemError::fault("the server rejected the output"))
            }
        }
    }
}

fn value<'a>(kind: u32, data: &'a [u8], media_type: &'a str) -> RawValue<'a> {
    RawValue {
        kind,
        reserved: 0,
        data: RSlice::from(data),
        media_type: RStr::from(media_type),
        tensors: RSlice::EMPTY,
        reserved_word: 0,
    }
}

fn tensors_value<'a>(tensors: &'a [RawTensor<'a>]) -> RawValue<'a> {
    RawValue {
        tensors: RSlice::from(tensors),
        ..value(kind::TENSORS, &[], "")
    }
}
