//! Makes a value of one item of a JSON request, according to what its task takes.
//!
//! The item is known to be JSON; whatever else is wrong with it fails this item alone.

use std::borrow::Cow;

use bytes::Bytes;
use plugin_abi::manifest::{Kind, TaskManifest, TensorManifest, ValueManifest};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::data_uri;
use super::tensor_json::read_tensor;
use crate::api::media_types::check_media_type;
use crate::api::nearest;
use crate::error::ItemError;
use crate::json;
use crate::protocol::{ItemInput, Value};

/// Reads `text`, which is a slice of `body` and one JSON document, as an item of `task`.
pub(super) fn read_item(body: &Bytes, text: &str, task: &TaskManifest) -> Result<Value, ItemError> {
    let form = JsonForm::of(text);
    let Some(kind) = choose_kind(&task.input.kinds, form, text) else {
        return Err(unexpected(&task.input, form));
    };
    match kind {
        Kind::Text => read_text(body, text),
        Kind::Json => Ok(Value::Json(body.slice_ref(text.as_bytes()))),
        Kind::Bytes if form == JsonForm::String => read_data_uri(text, task),
        Kind::Bytes => read_bytes(text, task),
        Kind::Tensors => read_tensors(text, form, &task.input.tensors),
    }
}

/// Reads an example of a task's manifest as a client's item would be read.
pub fn decode_example(task: &TaskManifest, example: &serde_json::Value) -> Result<ItemInput, ItemError> {
    let body = Bytes::from(example.to_string());
    let text = std::str::from_utf8(&body).map_err(|error| ItemError::Invalid(error.to_string()))?;
    Ok(ItemInput {
        value: read_item(&body, text, task)?,
        parameters: Bytes::new(),
    })
}

/// What a JSON document is, by its first character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JsonForm {
    String,
    Number,
    Bool,
    Null,
    Array,
    Object,
}

impl JsonForm {
    pub(super) fn of(text: &str) -> Self {
        match text.as_bytes().first() {
            Some(b'"') => Self::String,
            Some(b'[') => Self::Array,
            Some(b'{') => Self::Object,
            Some(b't' | b'f') => Self::Bool,
            Some(b'n') => Self::Null,
            _ => Self::Number,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Number => "a number",
            Self::Bool => "true or false",
            Self::Null => "null",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

/// Which of the task's kinds an item of this form is; `None` if none can be.
fn choose_kind(kinds: &[Kind], form: JsonForm, text: &str) -> Option<Kind> {
    let preferred: &[Kind] = match form {
        JsonForm::String => &[Kind::Text, Kind::Json, Kind::Bytes, Kind::Tensors],
        JsonForm::Array => &[Kind::Tensors, Kind::Json],
        JsonForm::Object if kinds.len() > 1 && kinds.contains(&Kind::Bytes) && has_member(text, "b64") => {
            &[Kind::Bytes]
        }
        JsonForm::Object => &[Kind::Json, Kind::Tensors, Kind::Bytes],
        JsonForm::Number | JsonForm::Bool => &[Kind::Json, Kind::Tensors],
        JsonForm::Null => &[Kind::Json],
    };
    preferred.iter().copied().find(|kind| kinds.contains(kind))
}

fn has_member(text: &str, name: &str) -> bool {
    json::from_str::<Members<'_>>(text).is_ok_and(|members| members.0.iter().any(|(key, _)| key == name))
}

fn unexpected(input: &ValueManifest, got: JsonForm) -> ItemError {
    let forms: Vec<&str> = input
        .kinds
        .iter()
        .map(|kind| match kind {
            Kind::Text => "a string",
            Kind::Json => "JSON",
            Kind::Bytes => "an object {\"b64\": …, \"media_type\": …} or a data URI in base64",
            Kind::Tensors => "an object of tensors",
        })
        .collect();
    ItemError::Invalid(format!("expected {}, got {}", forms.join(" or "), got.name()))
}

fn read_text(body: &Bytes, text: &str) -> Result<Value, ItemError> {
    let inner = &text[1..text.len() - 1];
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Ok(Value::Text(body.slice_ref(inner.as_bytes())));
    }
    Ok(Value::Text(Bytes::from(read_string(text)?.into_owned())))
}

fn read_string(text: &str) -> Result<Cow<'_, str>, ItemError> {
    json::from_str::<Text<'_>>(text)
        .map(|text| text.0)
        .map_err(|error| ItemError::Invalid(format!("the text cannot be decoded: {}", error.message())))
}

/// A string that is borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn read_bytes(text: &str, task: &TaskManifest) -> Result<Value, ItemError> {
    let invalid = |message: String| Err(ItemError::Invalid(message));
    let mut data = None;
    let mut media_type = String::new();
    for (key, raw) in members(text)? {
        let string = || {
            json::from_str::<Cow<'_, str>>(raw.get()).map_err(|_| {
                let form = JsonForm::of(raw.get()).name();
                ItemError::Invalid(format!("`{key}`: expected a string, got {form}"))
            })
        };
        match &*key {
            "b64" => match data_uri::decode_base64(string()?.as_bytes()) {
                Ok(bytes) => data = Some(bytes),
                Err(problem) => return invalid(format!("`b64` is {problem}")),
            },
            "media_type" => media_type = string()?.into_owned(),
            _ => return invalid(format!("unknown member `{key}`; known: b64, media_type")),
        }
    }
    let Some(data) = data else {
        return invalid("missing member `b64`, the data in base64".to_owned());
    };
    typed_bytes(data, media_type, task)
}

/// A string where bytes are wanted: a data URI.
fn read_data_uri(text: &str, task: &TaskManifest) -> Result<Value, ItemError> {
    let text: Cow<'_, str> = read_string(text)?;
    if !data_uri::is_one(text.as_bytes()) {
        return Err(unexpected(&task.input, JsonForm::String));
    }
    let uri = data_uri::decode(text.as_bytes()).map_err(ItemError::Invalid)?;
    typed_bytes(uri.data, uri.media_type, task)
}

fn typed_bytes(data: Vec<u8>, media_type: String, task: &TaskManifest) -> Result<Value, ItemError> {
    check_media_type(task, &media_type)?;
    Ok(Value::Bytes {
        data: data.into(),
        media_type,
    })
}

fn read_tensors(text: &str, form: JsonForm, declared: &[TensorManifest]) -> Result<Value, ItemError> {
    if form != JsonForm::Object {
        let [only] = declared else {
            return Err(ItemError::Invalid(format!(
                "expected an object of the tensors {}, got {}",
                names(declared),
                form.name()
            )));
        };
        return Ok(Value::Tensors(vec![read_tensor(text, only)?]));
    }
    let mut found: Vec<Option<&RawValue>> = vec![None; declared.len()];
    for (key, raw) in members(text)? {
        let Some(index) = declared.iter().position(|tensor| tensor.name == key) else {
            let hint = nearest(&key, declared.iter().map(|tensor| tensor.name.as_str()))
                .map(|name| format!(", did you mean `{name}`?"));
            return Err(ItemError::Invalid(format!(
                "unknown tensor `{key}`{}; the task takes {}",
                hint.unwrap_or_default(),
                names(declared)
            )));
        };
        found[index] = Some(raw);
    }
    declared
        .iter()
        .zip(found)
        .map(|(tensor, raw)| match raw {
            Some(raw) => read_tensor(raw.get(), tensor),
            None => Err(ItemError::Invalid(format!(
                "missing tensor `{}`; the task takes {}",
                tensor.name,
                names(declared)
            ))),
        })
        .collect::<Result<Vec<_>, _>>()
        .map(Value::Tensors)
}

fn names(declared: &[TensorManifest]) -> String {
    let names: Vec<String> = declared
        .iter()
        .map(|tensor| format!("`{}`", tensor.name))
        .collect();
    names.join(", ")
}

/// The bytes of an object whose only member is `b64`; `None` for any other object.
///
/// # Errors
/// If the member is not base64.
pub(super) fn b64_object(text: &str) -> Option<Result<Vec<u8>, String>> {
    let members = members(text).ok()?;
    let [(name, data)] = members.as_slice() else {
        return None;
    };
    if name != "b64" {
        return None;
    }
    Some(match json::from_str::<Cow<'_, str>>(data.get()) {
        Ok(data) => data_uri::decode_base64(data.as_bytes()).map_err(|problem| format!("`b64` is {problem}")),
        Err(error) => Err(format!("`b64`: {}", error.message())),
    })
}

/// The members of an object, none of them twice.
pub(super) fn members(text: &str) -> Result<Vec<(Cow<'_, str>, &RawValue)>, ItemError> {
    // A position would count from the start of the item, which does not help the client.
    json::from_str::<Members<'_>>(text)
        .map(|members| members.0)
        .map_err(|error| ItemError::Invalid(error.message()))
}

struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(Cow<'de, str>, &RawValue)> = Vec::new();
        // The number of members is the client's to choose, so a search through all of them for each would be quadratic.
        let mut seen = std::collections::HashSet::new();
        while let Some((key, value)) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
            if !seen.insert(key.clone()) {
                return Err(serde::de::Error::custom(format!("member `{key}` is given twice")));
            }
            members.push((key, value));
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
#[path = "item_tests.rs"]
mod tests;
