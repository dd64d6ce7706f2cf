//! Splits a JSON request into items without building a tree. An item remains a slice of the body, which
//! [`read_item`](crate::codec::read_item()) reads later.
//!
//! Splitting takes time linear in the body and does not recurse.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::request_items::RequestError;
use crate::api::BodyLimits;
use crate::json::{JsonError, too_deep};
use crate::suggest::nearest;

/// The member with a list of items.
const INPUTS: &str = "inputs";

/// The member with a single item.
const INPUT: &str = "input";

const PARAMETERS: &str = "parameters";

const MEMBERS: [&str; 3] = [INPUTS, INPUT, PARAMETERS];

/// The members of which one is required, for error messages.
const REQUIRED: &str = "`inputs` (an array) or `input`";

/// The form of a request, which determines the form of its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `inputs`; the reply has `outputs`.
    List,
    /// `input` or a raw body; the reply has `output`.
    Single,
}

/// The parts of a JSON request as slices of the body.
#[derive(Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// The form of the request.
    pub form: Form,
    /// The items, each one JSON document.
    pub items: Vec<&'a str>,
    /// The parameters, a JSON object.
    pub parameters: Option<&'a str>,
}

/// Splits a JSON request. The parts are valid JSON, and not nested deeper than the limit.
///
/// # Errors
/// If the body is not a request.
pub fn split(body: &[u8], limits: BodyLimits) -> Result<Split<'_>, RequestError> {
    let text = check_utf8(body)?;
    if text.trim_ascii().is_empty() {
        return Err(RequestError::Malformed {
            message: format!("the body is empty; expected an object with {REQUIRED}"),
        });
    }
    check_depth(body, limits.depth)?;
    let mut reader = EnvelopeReader {
        limit: limits.items,
        found: None,
        parameters: None,
        error: None,
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let result = EnvelopeSeed(&mut reader)
        .deserialize(&mut json)
        .and_then(|()| json.end());
    if let Some(error) = reader.error {
        return Err(error);
    }
    result.map_err(|error| RequestError::Malformed {
        message: JsonError::from(error).to_string(),
    })?;
    let Some((form, items)) = reader.found else {
        return Err(RequestError::Missing { expected: REQUIRED });
    };
    if items.is_empty() {
        return Err(RequestError::Empty { member: INPUTS });
    }
    Ok(Split {
        form,
        items,
        parameters: reader.parameters,
    })
}

/// Rejects a body that is nested deeper than `limit`.
pub(in crate::http) fn check_depth(body: &[u8], limit: usize) -> Result<(), RequestError> {
    match too_deep(body, limit) {
        None => Ok(()),
        Some(offset) => Err(RequestError::TooDeep { offset, limit }),
    }
}

struct EnvelopeReader<'a> {
    limit: usize,
    found: Option<(Form, Vec<&'a str>)>,
    parameters: Option<&'a str>,
    /// Set if it is more specific than the error that serde returns.
    error: Option<RequestError>,
}

impl EnvelopeReader<'_> {
    fn reject<E: serde::de::Error>(&mut self, error: RequestError) -> E {
        self.error = Some(error);
        E::custom("rejected")
    }
}

struct EnvelopeSeed<'r, 'a>(&'r mut EnvelopeReader<'a>);

impl<'de> DeserializeSeed<'de> for EnvelopeSeed<'_, 'de> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EnvelopeSeed<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an object with {REQUIRED}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let reader = self.0;
        let mut seen: Vec<&'static str> = Vec::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let Some(member) = MEMBERS.into_iter().find(|&member| member == key) else {
                let hint = nearest(&key, MEMBERS).map(|name| format!(", did you mean `{name}`?"));
                return Err(reader.reject(RequestError::UnknownMember {
                    hint: hint.unwrap_or_default(),
                    expected: MEMBERS.join(", "),
                    member: key.into_owned(),
                }));
            };
            if seen.contains(&member) {
                return Err(reader.reject(RequestError::Duplicate {
                    member: member.to_owned(),
                }));
            }
            seen.push(member);
            if reader.found.is_some() && member != PARAMETERS {
                return Err(reader.reject(RequestError::Both));
            }
            match member {
                INPUTS => map.next_value_seed(ItemsSeed(reader))?,
                INPUT => {
                    let item = map.next_value::<&'de RawValue>()?;
                    reader.found = Some((Form::Single, vec![item.get()]));
                }
                _ => reader.parameters = read_parameters(map.next_value()?)?,
            }
        }
        Ok(())
    }
}

fn read_parameters<E: serde::de::Error>(raw: &RawValue) -> Result<Option<&str>, E> {
    match raw.get() {
        "null" => Ok(None),
        text if text.starts_with('{') => Ok(Some(text)),
        _ => Err(E::custom("`parameters`: expected an object")),
    }
}

struct ItemsSeed<'r, 'a>(&'r mut EnvelopeReader<'a>);

impl<'de> DeserializeSeed<'de> for ItemsSeed<'_, 'de> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ItemsSeed<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an array of items for `{INPUTS}`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self(reader) = self;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<&'de RawValue>()? {
            if items.len() == reader.limit {
                return Err(reader.reject(RequestError::TooManyItems {
                    member: INPUTS,
                    limit: reader.limit,
                }));
            }
            items.push(item.get());
        }
        reader.found = Some((Form::List, items));
        Ok(())
    }
}

pub(in crate::http) fn check_utf8(body: &[u8]) -> Result<&str, RequestError> {
    std::str::from_utf8(body).map_err(|error| RequestError::NotUtf8 {
        offset: error.valid_up_to(),
    })
}

#[cfg(test)]
mod tests;
