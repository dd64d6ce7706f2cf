//! What a task may take: markers for its `Input`, and how the server's bytes become values.

use std::fmt;
use std::marker::PhantomData;
use std::str;

use plugin_abi::codes::kind;
use plugin_abi::json_error;
use plugin_abi::manifest::{Kind, ValueManifest};
use plugin_abi::{RawItem, RawValue};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::error::ItemError;
use crate::schema;
use crate::tensor::{TensorView, TensorsView};

/// What a task takes. Use one of the markers: [`Text`], [`Bytes`], [`Json`], [`Tensor`], [`Tensors`], [`Any`].
///
/// A type of your own may implement it as well, to decode in its own way.
pub trait Input: 'static {
    /// What `predict` (or `prepare`) is given for each item.
    type Value<'a>;

    /// What the server and its documentation are told.
    fn manifest() -> ValueManifest;

    /// Decodes one item. An error fails this item alone.
    ///
    /// # Errors
    /// The item is not what the task takes.
    fn decode<'a>(value: Value<'a>) -> Result<Self::Value<'a>, ItemError>;
}

/// An item as the client sent it, lent for the duration of the call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Value<'a> {
    /// UTF-8 text.
    Text(&'a str),
    /// Bytes with their media type.
    Bytes(BytesItem<'a>),
    /// One JSON document.
    Json(&'a [u8]),
    /// Named tensors.
    Tensors(TensorsView<'a>),
}

impl<'a> Value<'a> {
    pub(crate) fn new(raw: &RawValue<'a>) -> Result<Self, ItemError> {
        let data = raw.data.as_slice();
        Ok(match raw.kind {
            kind::TEXT => Value::Text(str::from_utf8(data).map_err(|error| {
                ItemError::invalid(format_args!(
                    "text is not UTF-8: invalid byte at {}",
                    error.valid_up_to()
                ))
            })?),
            kind::BYTES => Value::Bytes(BytesItem {
                data,
                media_type: raw.media_type.as_str(),
            }),
            kind::JSON => Value::Json(data),
            kind::TENSORS => Value::Tensors(TensorsView::new(raw.tensors.as_slice())?),
            other => {
                return Err(ItemError::invalid(format_args!(
                    "unknown kind of input: code {other}"
                )));
            }
        })
    }

    fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "text",
            Value::Bytes(_) => "bytes",
            Value::Json(_) => "json",
            Value::Tensors(_) => "tensors",
        }
    }

    fn unexpected(&self, wanted: &str) -> ItemError {
        ItemError::invalid(format_args!("input is {}, expected {wanted}", self.kind()))
    }
}

/// Bytes of one item, lent for the duration of the call.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct BytesItem<'a> {
    /// The bytes.
    pub data: &'a [u8],
    /// Their media type (`image/png`), or empty if the client did not say.
    pub media_type: &'a str,
}

impl fmt::Debug for BytesItem<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes of `{}`", self.data.len(), self.media_type)
    }
}

/// UTF-8 text: `&str` in, `String` out.
#[derive(Debug)]
pub struct Text;

/// Bytes with a media type: [`BytesItem`] in, [`BytesOutput`](crate::BytesOutput) out.
#[derive(Debug)]
pub struct Bytes;

/// One JSON document: `T` in, `T` out. A document that does not fit `T` fails its item, naming the field.
#[derive(Debug)]
pub struct Json<T>(PhantomData<fn() -> T>);

/// Exactly one tensor: [`TensorView`] in, [`TensorOutput`](crate::TensorOutput) out.
#[derive(Debug)]
pub struct Tensor;

/// Named tensors: [`TensorsView`] in, `Vec<TensorOutput>` out.
#[derive(Debug)]
pub struct Tensors;

/// Any kind of value: [`Value`] in. Tensors only if the task declares them with
/// [`TaskInfo::input_tensor`](crate::TaskInfo::input_tensor).
#[derive(Debug)]
pub struct Any;

impl Input for Text {
    type Value<'a> = &'a str;

    fn manifest() -> ValueManifest {
        ValueManifest::of(Kind::Text)
    }

    fn decode<'a>(value: Value<'a>) -> Result<&'a str, ItemError> {
        match value {
            Value::Text(text) => Ok(text),
            other => Err(other.unexpected("text")),
        }
    }
}

impl Input for Bytes {
    type Value<'a> = BytesItem<'a>;

    fn manifest() -> ValueManifest {
        ValueManifest::of(Kind::Bytes)
    }

    fn decode<'a>(value: Value<'a>) -> Result<BytesItem<'a>, ItemError> {
        match value {
            Value::Bytes(item) => Ok(item),
            other => Err(other.unexpected("bytes")),
        }
    }
}

impl<T: DeserializeOwned + JsonSchema + 'static> Input for Json<T> {
    type Value<'a> = T;

    fn manifest() -> ValueManifest {
        ValueManifest {
            schema: schema::of_input::<T>(),
            ..ValueManifest::of(Kind::Json)
        }
    }

    fn decode(value: Value<'_>) -> Result<T, ItemError> {
        match value {
            Value::Json(document) => from_json(document),
            other => Err(other.unexpected("json")),
        }
    }
}

impl Input for Tensor {
    type Value<'a> = TensorView<'a>;

    fn manifest() -> ValueManifest {
        ValueManifest::of(Kind::Tensors)
    }

    fn decode<'a>(value: Value<'a>) -> Result<TensorView<'a>, ItemError> {
        let mut tensors = Tensors::decode(value)?.into_vec();
        match (tensors.pop(), tensors.len()) {
            (Some(tensor), 0) => Ok(tensor),
            (None, _) => Err(ItemError::invalid("no tensor, expected one")),
            (Some(_), more) => Err(ItemError::invalid(format_args!(
                "{} tensors, expected one",
                more + 1
            ))),
        }
    }
}

impl Input for Tensors {
    type Value<'a> = TensorsView<'a>;

    fn manifest() -> ValueManifest {
        ValueManifest::of(Kind::Tensors)
    }

    fn decode<'a>(value: Value<'a>) -> Result<TensorsView<'a>, ItemError> {
        match value {
            Value::Tensors(tensors) => Ok(tensors),
            other => Err(other.unexpected("tensors")),
        }
    }
}

impl Input for Any {
    type Value<'a> = Value<'a>;

    fn manifest() -> ValueManifest {
        ValueManifest {
            kinds: vec![Kind::Text, Kind::Bytes, Kind::Json, Kind::Tensors],
            ..ValueManifest::default()
        }
    }

    fn decode<'a>(value: Value<'a>) -> Result<Value<'a>, ItemError> {
        Ok(value)
    }
}

pub(crate) fn decode<'a, I: Input>(item: &RawItem<'a>) -> Result<I::Value<'a>, ItemError> {
    I::decode(Value::new(&item.value)?)
}

/// Reads the request's parameters; a request without any has an empty object.
pub(crate) fn parameters<T: DeserializeOwned>(item: &RawItem<'_>) -> Result<T, ItemError> {
    let document = match item.parameters.as_str() {
        "" => "{}",
        document => document,
    };
    from_json(document.as_bytes())
        .map_err(|error| ItemError::invalid(format_args!("parameters: {}", error.message())))
}

/// Following the path to an error costs an allocation for every key, so only a document that failed is read that way.
fn from_json<T: DeserializeOwned>(document: &[u8]) -> Result<T, ItemError> {
    serde_json::from_slice(document).map_err(|error| {
        let deserializer = &mut serde_json::Deserializer::from_slice(document);
        let path = match serde_path_to_error::deserialize::<_, T>(deserializer) {
            Err(located) => located.path().to_string(),
            Ok(_) => String::new(),
        };
        // Positions count from the start of the item, which tells the client nothing: the path does.
        let message = json_error::message(&error);
        match path.as_str() {
            "" | "." => ItemError::Invalid(message),
            path => ItemError::invalid(format_args!("`{path}`: {message}")),
        }
    })
}
