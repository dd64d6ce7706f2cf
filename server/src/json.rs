//! Parses JSON, and scans JSON text without parsing it.
//!
//! Errors use the terms of JSON, since the messages of serde name Rust types. The caller adds what was parsed, and where it is
//! from.

use std::fmt;
use std::marker::PhantomData;

use plugin_abi::json_error;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Unexpected, Visitor};

/// An error in JSON, in the terms of JSON.
#[derive(Debug)]
pub struct JsonError(serde_json::Error);

impl JsonError {
    /// The message without line and column, for a part of a larger document.
    pub fn message(&self) -> String {
        json_error::message(&self.0)
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&json_error::message_with_position(&self.0))
    }
}

impl std::error::Error for JsonError {}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Self(error)
    }
}

/// Reads an optional whole number, for members of a request. JSON does not distinguish `2.0` from `2`.
pub fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    struct WholeNumber;

    impl<'de> Visitor<'de> for WholeNumber {
        type Value = Option<u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a non-negative integer")
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
            Ok(Some(number))
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
            // Casts saturate.
            if number.fract() == 0.0 && number >= 0.0 {
                return Ok(Some(number as u64));
            }
            Err(E::invalid_type(Unexpected::Float(number), &self))
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }

    deserializer.deserialize_any(WholeNumber)
}

/// Parses a JSON document.
///
/// # Errors
/// The text is not valid JSON, or not what `T` expects.
pub fn from_str<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, JsonError> {
    Ok(serde_json::from_str(text)?)
}

/// Parses a JSON document.
///
/// # Errors
/// The bytes are not valid JSON, or not what `T` expects.
pub fn from_slice<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, JsonError> {
    Ok(serde_json::from_slice(bytes)?)
}

/// A struct that can only be parsed from a JSON object. The derive macro of serde also accepts an array of values in the order
/// of the fields, which no protocol allows.
#[derive(Clone, Debug, Default)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// The offset at which arrays and objects are nested deeper than `limit`, if they are. Accepts invalid JSON, which the parser
/// rejects later.
pub fn too_deep(text: &[u8], limit: usize) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => at = string_end(text, at),
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return Some(at);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Offset of the brace that closes the object at `start`. The last byte of the text if there is none.
pub fn object_end(text: &[u8], start: usize) -> usize {
    let mut depth = 0usize;
    let mut at = start;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => at = string_end(text, at),
            b'{' => depth += 1,
            b'}' if depth == 1 => return at,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    text.len() - 1
}

/// Offset of the quote that closes the string at `start`. The end of the text if there is none.
pub fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(step) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += step;
        if text[at] == b'"' {
            return at;
        }
        at += 2;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Pair {
        left: u8,
        right: u8,
    }

    #[test]
    fn an_array_is_not_accepted_as_an_object() {
        let error = from_str::<Object<Pair>>("[1, 2]").expect_err("an array is not an object");
        assert_eq!(error.message(), "got an array, expected an object");
        let Object(pair) = from_str::<Object<Pair>>(r#"{"left": 1, "right": 2}"#).expect("it is an object");
        assert_eq!((pair.left, pair.right), (1, 2));
        let error = from_str::<Vec<Object<Pair>>>("[\n [1, 2]]").expect_err("nor inside an array");
        assert_eq!(
            error.to_string(),
            "got an array, expected an object at line 2 column 1"
        );
    }
}
