//! Splits a JSON request into its items without building a tree: an item is a slice of the body until [`super::item`]
//! makes a value of it.
//!
//! Everything here takes time linear in the body and no stack that the body could exhaust.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::body::RequestError;
use crate::api::{BodyLimits, nearest};
use crate::json::{JsonError, too_deep};

/// Which members a JSON request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// `inputs` or `input`, and `parameters`.
    Native,
    /// `instances`, as KServe's and TensorFlow Serving's V1 protocol has it.
    KserveV1,
}

/// How items were sent, and so how they are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `inputs`, answered by `outputs`.
    List,
    /// `input` or a raw body, answered by `output`.
    Single,
    /// `instances`, answered by `predictions`.
    Predictions,
}

/// The parts of a JSON request, as slices of its body.
#[derive(Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// How the items were sent.
    pub form: Form,
    /// Each one JSON document.
    pub items: Vec<&'a str>,
    /// A JSON object, if there was one.
    pub parameters: Option<&'a str>,
}

/// Splits a JSON request. What comes out is known to be JSON, and to be no deeper than the limit.
pub fn split(body: &[u8], envelope: Envelope, limits: BodyLimits) -> Result<Split<'_>, RequestError> {
    let text = check_utf8(body)?;
    if text.trim_ascii().is_empty() {
        return Err(RequestError::Malformed {
            message: format!("it is empty; expected a JSON object with {}", envelope.wanted()),
        });
    }
    check_depth(body, limits.depth)?;
    let mut reader = EnvelopeReader {
        envelope,
        limit: limits.items,
        found: None,
        parameters: None,
        refusal: None,
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let result = EnvelopeSeed(&mut reader)
        .deserialize(&mut json)
        .and_then(|()| json.end());
    if let Some(refusal) = reader.refusal {
        return Err(refusal);
    }
    result.map_err(|error| RequestError::Malformed {
        message: JsonError::from(error).to_string(),
    })?;
    let Some((form, items)) = reader.found else {
        return Err(RequestError::Missing {
            expected: envelope.wanted(),
        });
    };
    if items.is_empty() {
        return Err(RequestError::Empty {
            member: form.member(),
        });
    }
    Ok(Split {
        form,
        items,
        parameters: reader.parameters,
    })
}

impl Envelope {
    fn known(self) -> &'static [&'static str] {
        match self {
            Self::Native => &["inputs", "input", "parameters"],
            Self::KserveV1 => &["instances", "parameters", "signature_name"],
        }
    }

    fn wanted(self) -> &'static str {
        match self {
            Self::Native => "`inputs` (a list) or `input`",
            Self::KserveV1 => "`instances` (a list)",
        }
    }
}

impl Form {
    /// The member of a request that has the items.
    fn member(self) -> &'static str {
        match self {
            Self::List => "inputs",
            Self::Single => "input",
            Self::Predictions => "instances",
        }
    }
}

/// Refuses a body that is nested deeper than `limit`.
pub(super) fn check_depth(body: &[u8], limit: usize) -> Result<(), RequestError> {
    match too_deep(body, limit) {
        None => Ok(()),
        Some(offset) => Err(RequestError::TooDeep { offset, limit }),
    }
}

struct EnvelopeReader<'a> {
    envelope: Envelope,
    limit: usize,
    found: Option<(Form, Vec<&'a str>)>,
    parameters: Option<&'a str>,
    /// Set where serde's own error would say less.
    refusal: Option<RequestError>,
}

impl EnvelopeReader<'_> {
    fn refuse<E: serde::de::Error>(&mut self, refusal: RequestError) -> E {
        self.refusal = Some(refusal);
        E::custom("refused")
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
        write!(f, "an object with {}", self.0.envelope.wanted())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let reader = self.0;
        let mut seen: Vec<&'static str> = Vec::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let known = reader.envelope.known();
            let Some(&member) = known.iter().find(|&&known| known == key) else {
                let hint =
                    nearest(&key, known.iter().copied()).map(|name| format!(", did you mean `{name}`?"));
                return Err(reader.refuse(RequestError::UnknownMember {
                    hint: hint.unwrap_or_default(),
                    known: known.join(", "),
                    member: key.into_owned(),
                }));
            };
            if seen.contains(&member) {
                return Err(reader.refuse(RequestError::Duplicate {
                    member: member.to_owned(),
                }));
            }
            seen.push(member);
            if reader.found.is_some() && (member == "inputs" || member == "input") {
                return Err(reader.refuse(RequestError::Both));
            }
            match member {
                "inputs" => map.next_value_seed(ItemsSeed(reader, Form::List))?,
                "instances" => map.next_value_seed(ItemsSeed(reader, Form::Predictions))?,
                "input" => {
                    let item = map.next_value::<&'de RawValue>()?;
                    reader.found = Some((Form::Single, vec![item.get()]));
                }
                "parameters" => reader.parameters = read_parameters(map.next_value()?)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

fn read_parameters<E: serde::de::Error>(raw: &RawValue) -> Result<Option<&str>, E> {
    match raw.get() {
        "null" => Ok(None),
        text if text.starts_with('{') => Ok(Some(text)),
        _ => Err(E::custom("`parameters` must be an object")),
    }
}

struct ItemsSeed<'r, 'a>(&'r mut EnvelopeReader<'a>, Form);

impl<'de> DeserializeSeed<'de> for ItemsSeed<'_, 'de> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ItemsSeed<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an array of items for `{}`", self.1.member())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self(reader, form) = self;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<&'de RawValue>()? {
            if items.len() == reader.limit {
                return Err(reader.refuse(RequestError::TooManyItems {
                    member: form.member(),
                    limit: reader.limit,
                }));
            }
            items.push(item.get());
        }
        reader.found = Some((form, items));
        Ok(())
    }
}

/// Splits an array that is known to be JSON into its elements, at least one and at most `limit`.
pub(super) fn split_array<'a>(
    text: &'a str,
    member: &'static str,
    limit: usize,
) -> Result<Vec<&'a str>, RequestError> {
    let mut too_many = false;
    let seed = ArraySeed {
        member,
        limit,
        too_many: &mut too_many,
    };
    let result = seed.deserialize(&mut serde_json::Deserializer::from_str(text));
    if too_many {
        return Err(RequestError::TooManyItems { member, limit });
    }
    let elements = result.map_err(|error| RequestError::Malformed {
        message: JsonError::from(error).message(),
    })?;
    if elements.is_empty() {
        return Err(RequestError::Empty { member });
    }
    Ok(elements)
}

struct ArraySeed<'r> {
    member: &'static str,
    limit: usize,
    too_many: &'r mut bool,
}

impl<'de> DeserializeSeed<'de> for ArraySeed<'_> {
    type Value = Vec<&'de str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ArraySeed<'_> {
    type Value = Vec<&'de str>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an array of items for `{}`", self.member)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element::<&'de RawValue>()? {
            if elements.len() == self.limit {
                *self.too_many = true;
                return Err(serde::de::Error::custom("too many elements"));
            }
            elements.push(element.get());
        }
        Ok(elements)
    }
}

pub(super) fn check_utf8(body: &[u8]) -> Result<&str, RequestError> {
    std::str::from_utf8(body).map_err(|error| RequestError::NotUtf8 {
        offset: error.valid_up_to(),
    })
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
