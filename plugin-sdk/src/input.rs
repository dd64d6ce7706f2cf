//! Input types of tasks, and the decoding of items.

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

/// Input type of a task. Use one of the marker types [`Text`], [`Bytes`], [`Json`], [`Tensor`], [`Tensors`] and [`Any`].
///
/// Implement it for your own type to decode items in a different way.
pub trait Input: 'static {
    /// Type of an item in `predict` and `prepare`.
    type Value<'a>;

    /// Describes the input for the server and its documentation.
    fn manifest() -> ValueManifest;

    /// Decodes one item.
    ///
    /// # Errors
    /// The item does not match the input type. Only this item fails.
    fn decode<'a>(value: Value<'a>) -> Result<Self::Value<'a>, ItemError>;
}

/// An item as the client sent it, borrowed for the duration of the call.
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

    fn unexpected(&self, expected: &str) -> ItemError {
        ItemError::invalid(format_args!("input is {}, expected {expected}", self.kind()))
    }
}

/// Bytes of one item, borrowed for the duration of the call.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct BytesItem<'a> {
    /// The bytes.
    pub data: &'a [u8],
    /// Their media type (`image/png`). Empty if the client did not specify it.
    pub media_type: &'a str,
}

impl fmt::Debug for BytesItem<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes of `{}`", self.data.len(), self.media_type)
    }
}

/// UTF-8 text. Input: `&str`. Output: `String`.
#[derive(Debug)]
pub struct Text;

/// Bytes with a media type. Input: [`BytesItem`]. Output: [`BytesOutput`](crate::BytesOutput).
#[derive(Debug)]
pub struct Bytes;

/// One JSON document. Input and output: `T`. A document that cannot be deserialized into `T` fails its item with a message that
/// names the field.
#[derive(Debug)]
pub struct Json<T>(PhantomData<fn() -> T>);

/// Exactly one tensor. Input: [`TensorView`]. Output: [`TensorOutput`](crate::TensorOutput).
#[derive(Debug)]
pub struct Tensor;

/// Named tensors. Input: [`TensorsView`]. Output: `Vec<TensorOutput>`.
#[derive(Debug)]
pub struct Tensors;

/// Any kind of value. Input: [`Value`]. Output: [`AnyOutput`](crate::AnyOutput). Tensors are accepted only if the task declares
/// them with [`TaskInfo::input_tensor`](crate::TaskInfo::input_tensor).
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
            (None, _) => Err(ItemError::invalid("got no tensor, expected one")),
            (Some(_), others) => Err(ItemError::invalid(format_args!(
                "got {} tensors, expected one",
                others + 1
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

/// Deserializes the request's parameters. A request without parameters counts as having an empty object.
pub(crate) fn parameters<T: DeserializeOwned>(item: &RawItem<'_>) -> Result<T, ItemError> {
    let document = match item.parameters.as_str() {
        "" => "{}",
        document => document,
    };
    from_json(document.as_bytes())
        .map_err(|error| ItemError::invalid(format_args!("parameters: {}", error.message())))
}

/// Deserializes a document. Only if that fails, it is deserialized again to find the path to the error, since tracking the path
/// costs an allocation for every key.
fn from_json<T: DeserializeOwned>(document: &[u8]) -> Result<T, ItemError> {
    serde_json::from_slice(document).map_err(|error| {
        let deserializer = &mut serde_json::Deserializer::from_slice(document);
        let path = match serde_path_to_error::deserialize::<_, T>(deserializer) {
            Err(located) => located.path().to_string(),
            Ok(_) => String::new(),
        };
        // The message has no position, because lines and columns would be relative to the item and not to the body.
        let message = json_error::message(&error);
        match path.as_str() {
            "" | "." => ItemError::Invalid(message),
            path => ItemError::invalid(format_args!("`{path}`: {message}")),
        }
    })
}
