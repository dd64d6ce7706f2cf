//! Reads one item from JSON as an input value of its task.
//!
//! The text is known to be valid JSON. Any other error fails only this item.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use plugin_abi::manifest::{Kind, TaskManifest, TensorManifest, ValueManifest};
use serde::Deserialize;

use super::bounded_json::visit_members;
use super::data_uri;
use super::media_types::check_media_type;
use super::read_tensor::read_tensor;
use crate::error::ItemError;
use crate::json;
use crate::suggest::nearest;
use crate::values::{ItemInput, Value};

/// Reads an item of `task` from `text`, a JSON document that is a slice of `body`. The value shares memory with
/// `body` if possible.
///
/// # Errors
/// If the task does not accept the item.
pub fn read_item(body: &Bytes, text: &str, task: &TaskManifest) -> Result<Value, ItemError> {
    let form = JsonForm::of(text);
    let Some(kind) = choose_kind(&task.input.kinds, form, text) else {
        return Err(unexpected(&task.input, form));
    };
    match kind {
        Kind::Text => read_text(body, text),
        Kind::Json => Ok(Value::Json(body.slice_ref(text.as_bytes()))),
        Kind::Bytes if form == JsonForm::String => read_data_uri(text, task),
        Kind::Bytes => read_bytes(text, task),
        Kind::Tensors => read_tensors(text, form, &task.input),
    }
}

/// Reads an example from a manifest as if a client had sent it.
///
/// # Errors
/// If the task does not accept the example.
pub fn decode_example(task: &TaskManifest, example: &serde_json::Value) -> Result<ItemInput, ItemError> {
    let body = Bytes::from(example.to_string());
    let text = std::str::from_utf8(&body).map_err(|error| ItemError::Invalid(error.to_string()))?;
    Ok(ItemInput {
        value: read_item(&body, text, task)?,
        parameters: Bytes::new(),
    })
}

/// The type of a JSON document, determined by its first character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonForm {
    String,
    Number,
    Bool,
    Null,
    Array,
    Object,
}

impl JsonForm {
    pub fn of(text: &str) -> Self {
        match text.as_bytes().first() {
            Some(b'"') => Self::String,
            Some(b'[') => Self::Array,
            Some(b'{') => Self::Object,
            Some(b't' | b'f') => Self::Bool,
            Some(b'n') => Self::Null,
            _ => Self::Number,
        }
    }

    pub fn name(self) -> &'static str {
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

/// Returns the input kind of an item of this form; `None` if none matches.
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
    let found = visit_members(text, &mut |key, _| if key == name { Err(()) } else { Ok(()) });
    matches!(found, Ok(Err(())))
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
        .map_err(|error| ItemError::Invalid(format!("invalid string: {}", error.message())))
}

/// A string that is borrowed if it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn read_bytes(text: &str, task: &TaskManifest) -> Result<Value, ItemError> {
    let invalid = |message: String| Err(ItemError::Invalid(message));
    let (mut data, mut media_type) = (None, None);
    for_each_member(text, |key, raw| {
        let string = || {
            json::from_str::<Cow<'_, str>>(raw).map_err(|_| {
                let form = JsonForm::of(raw).name();
                ItemError::Invalid(format!("`{key}`: expected a string, got {form}"))
            })
        };
        match &*key {
            "b64" if data.is_none() => match data_uri::decode_base64(string()?.as_bytes()) {
                Ok(bytes) => data = Some(bytes),
                Err(problem) => return invalid(format!("`b64`: {problem}")),
            },
            "media_type" if media_type.is_none() => media_type = Some(string()?.into_owned()),
            "b64" | "media_type" => return Err(duplicate_member(&key)),
            _ => return invalid(format!("unknown member `{key}`; expected b64 or media_type")),
        }
        Ok(())
    })?;
    match data {
        Some(data) => typed_bytes(data, media_type.unwrap_or_default(), task),
        None => Err(ItemError::Invalid(
            "missing member `b64`: expected base64 data".to_owned(),
        )),
    }
}

/// Reads a string as bytes: it must be a data URI.
fn read_data_uri(text: &str, task: &TaskManifest) -> Result<Value, ItemError> {
    let text: Cow<'_, str> = read_string(text)?;
    if !data_uri::is_data_uri(text.as_bytes()) {
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

fn read_tensors(text: &str, form: JsonForm, input: &ValueManifest) -> Result<Value, ItemError> {
    let declared = input.tensors.as_slice();
    if form != JsonForm::Object {
        return match declared {
            [only] if !only.sequence => Ok(Value::Tensors(vec![read_tensor(text, &only.name, only)?])),
            _ => Err(ItemError::Invalid(format!(
                "expected an object with the tensors {}, got {}",
                names(declared),
                form.name()
            ))),
        };
    }
    let mut found: Vec<Option<&str>> = vec![None; declared.len()];
    let mut sequences: Vec<BTreeMap<usize, &str>> = vec![BTreeMap::new(); declared.len()];
    for_each_member(text, |key, raw| {
        let Some((index, position)) = input.find_tensor(&key) else {
            let hint = nearest(&key, declared.iter().map(|tensor| tensor.name.as_str()))
                .map(|name| format!(", did you mean `{name}`?"));
            return Err(ItemError::Invalid(format!(
                "unknown tensor `{key}`{}; expected {}",
                hint.unwrap_or_default(),
                names(declared)
            )));
        };
        let replaced = match declared[index].sequence {
            true => sequences[index].insert(position, raw),
            false => found[index].replace(raw),
        };
        match replaced {
            None => Ok(()),
            Some(_) => Err(duplicate_member(&key)),
        }
    })?;
    let missing = |name: &str| {
        let names = names(declared);
        ItemError::Invalid(format!("missing tensor `{name}`; expected {names}"))
    };
    let mut tensors = Vec::with_capacity(declared.len());
    for ((tensor, raw), sequence) in declared.iter().zip(found).zip(sequences) {
        match raw {
            Some(raw) => tensors.push(read_tensor(raw, &tensor.name, tensor)?),
            None if !tensor.sequence => return Err(missing(&tensor.name)),
            None => {}
        }
        for (expected, (position, raw)) in sequence.into_iter().enumerate() {
            let name = format!("{}.{expected}", tensor.name);
            if position != expected {
                return Err(missing(&name));
            }
            tensors.push(read_tensor(raw, &name, tensor)?);
        }
    }
    Ok(Value::Tensors(tensors))
}

fn names(declared: &[TensorManifest]) -> String {
    let name = |tensor: &TensorManifest| match tensor.sequence {
        true => format!("`{0}.0`, `{0}.1`, …", tensor.name),
        false => format!("`{}`", tensor.name),
    };
    declared.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Returns the bytes of an object whose only member is `b64`; `None` for any other object.
///
/// # Errors
/// If the member is not base64.
pub fn b64_object(text: &str) -> Option<Result<Vec<u8>, String>> {
    let members = members(text).ok()?;
    let [(name, data)] = members.as_slice() else {
        return None;
    };
    if name != "b64" {
        return None;
    }
    Some(match json::from_str::<Cow<'_, str>>(data) {
        Ok(data) => data_uri::decode_base64(data.as_bytes()).map_err(|problem| format!("`b64`: {problem}")),
        Err(error) => Err(format!("`b64`: {}", error.message())),
    })
}

fn duplicate_member(member: &str) -> ItemError {
    ItemError::Invalid(format!("duplicate member `{member}`"))
}

/// Calls `visit` for each member of an object, until it returns an error.
fn for_each_member<'a>(
    text: &'a str,
    mut visit: impl FnMut(Cow<'a, str>, &'a str) -> Result<(), ItemError>,
) -> Result<(), ItemError> {
    visit_members(text, &mut visit).map_err(|error| ItemError::Invalid(error.message()))?
}

/// Maximum number of members of an object that [`members`] reads.
const MAX_MEMBERS: usize = 1024;

/// Returns the members of an object, which must have different names.
///
/// # Errors
/// If the text is not an object, a member is repeated, or there are too many.
pub fn members(text: &str) -> Result<Vec<(Cow<'_, str>, &str)>, ItemError> {
    let mut seen = HashSet::new();
    let mut members = Vec::new();
    for_each_member(text, |name, value| {
        if members.len() == MAX_MEMBERS {
            let message = format!("the object has too many members: expected at most {MAX_MEMBERS}");
            return Err(ItemError::Invalid(message));
        }
        if !seen.insert(name.clone()) {
            return Err(duplicate_member(&name));
        }
        members.push((name, value));
        Ok(())
    })?;
    Ok(members)
}

#[cfg(test)]
mod tests;
