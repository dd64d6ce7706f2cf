//! The inputs of a request for embeddings: texts, or the ids of their tokens.

use bytes::Bytes;
use plugin_abi::manifest::TaskManifest;
use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};

use crate::api::{Code, Failure};
use crate::byte_budget::Reservation;
use crate::cl100k_base;
use crate::codec::{JsonForm, Strings, bounded_json, max_decoded_size, read_item};
use crate::config::TokenIds;
use crate::http::exchange::{Items, ReceivedBody};
use crate::http::native::request_items::RequestError;
use crate::json;
use crate::values::{ItemInput, Value};

/// One input, as a slice of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Input<'a> {
    /// A JSON string.
    Text(&'a str),
    /// A JSON array of token ids.
    Ids(&'a str),
}

/// The value of a member that must be present.
pub(in crate::http) fn required<'a>(
    param: &'static str,
    member: Option<&'a RawValue>,
) -> Result<&'a RawValue, Failure> {
    member.ok_or_else(|| Failure::new(Code::Malformed, format!("missing member `{param}`")).with_param(param))
}

/// Reads a text, an array of texts, the token ids of one text, or an array of any of these.
///
/// # Errors
/// If there are no inputs, too many, or others.
pub(in crate::http) fn read_inputs<'a>(
    member: &'static str,
    json: &'a str,
    limit: usize,
) -> Result<Vec<Input<'a>>, Failure> {
    match JsonForm::of(json) {
        JsonForm::String => return Ok(vec![Input::Text(json)]),
        JsonForm::Array if starts_with_number(json) => return Ok(vec![Input::Ids(json)]),
        JsonForm::Array => {}
        other => {
            let message = format!("`{member}`: expected a string or an array, got {}", other.name());
            return Err(malformed(member, message));
        }
    }
    let elements = bounded_json::elements(json, limit)
        .ok_or_else(|| Failure::from(RequestError::TooManyItems { member, limit }).with_param(member))?;
    if elements.is_empty() {
        return Err(Failure::from(RequestError::Empty { member }).with_param(member));
    }
    let input = |text: &'a str| match JsonForm::of(text) {
        JsonForm::String => Ok(Input::Text(text)),
        JsonForm::Array => Ok(Input::Ids(text)),
        other => {
            let message = format!("`{member}`: expected strings or token ids, got {}", other.name());
            Err(malformed(member, message))
        }
    };
    elements.into_iter().map(input).collect()
}

/// How items are created from inputs.
pub(in crate::http) struct ItemForm<'a> {
    /// The member with the inputs.
    pub(in crate::http) member: &'static str,
    pub(in crate::http) task: &'a TaskManifest,
    pub(in crate::http) parameters: Map<String, Json>,
    pub(in crate::http) token_ids: TokenIds,
}

impl ItemForm<'_> {
    /// Creates the items, and reserves the memory that they take beyond the body.
    ///
    /// # Errors
    /// If token ids are not allowed, or unknown, or there is no memory for their texts.
    pub(in crate::http) fn items(
        &self,
        received: &ReceivedBody,
        inputs: &[Input<'_>],
    ) -> Result<(Items, Option<Reservation>), Failure> {
        let body = &received.body;
        let has_ids = inputs.iter().any(|input| matches!(input, Input::Ids(_)));
        // Ids take four bytes each, and at least two in the body.
        let scratch = received.reserve(if has_ids { 2 * body.len() } else { 0 })?;
        let ids = |(index, input): (usize, &Input<'_>)| match input {
            Input::Text(_) => Ok(None),
            Input::Ids(text) => self.read_ids(index, text).map(Some),
        };
        let ids: Vec<Option<Vec<u32>>> = inputs.iter().enumerate().map(ids).collect::<Result<_, _>>()?;
        let decoded_size = ids.iter().flatten().map(|ids| cl100k_base::max_decoded_size(ids));
        let size = max_decoded_size(body, &self.task.input, Strings::Shared);
        let decoding = received.reserve(decoded_size.fold(size, usize::saturating_add))?;
        let parameters = written(&self.parameters);
        let item = |(index, (input, ids)): (usize, (&Input<'_>, Option<Vec<u32>>))| {
            let (value, parameters) = match (input, ids) {
                (Input::Text(text), _) => (read_item(body, text, self.task), parameters.clone()),
                (Input::Ids(_), None) => (Ok(Value::Text(Bytes::new())), parameters.clone()),
                (Input::Ids(_), Some(ids)) if self.token_ids == TokenIds::Model => {
                    let mut parameters = self.parameters.clone();
                    parameters.insert("token_ids".to_owned(), ids.into());
                    (Ok(Value::Text(Bytes::new())), written(&parameters))
                }
                (Input::Ids(_), Some(ids)) => {
                    let text = cl100k_base::decode(&ids).map_err(|id| self.unknown_id(index, id))?;
                    (Ok(Value::Text(Bytes::from(text))), parameters.clone())
                }
            };
            Ok(value.map(|value| ItemInput { value, parameters }))
        };
        let items = inputs.iter().zip(ids).enumerate().map(item);
        let items = items.collect::<Result<Items, Failure>>()?;
        drop(scratch);
        let decoded = decoding.keep(&items, body);
        Ok((items, decoded))
    }

    /// Reads the ids of an input, if the task accepts them.
    fn read_ids(&self, index: usize, text: &str) -> Result<Vec<u32>, Failure> {
        let member = self.member;
        let can_take = !self.task.parameters_schema["properties"]["token_ids"].is_null();
        let refused = match self.token_ids {
            TokenIds::Reject => Some((
                Code::Malformed,
                "this model rejects token ids (`token_ids` in [models.embeddings])",
            )),
            TokenIds::Model if !can_take => Some((
                Code::Unsupported,
                "the task of this model does not accept token ids",
            )),
            TokenIds::Model | TokenIds::Cl100kBase => None,
        };
        if let Some((code, refused)) = refused {
            let message = format!("`{member}[{index}]`: {refused}; send texts ({SWITCH})");
            return Err(Failure::new(code, message).with_param(member));
        }
        let ids = json::from_str::<Vec<TokenId>>(text).map_err(|error| {
            let message = format!("`{member}[{index}]`: expected token ids: {}", error.message());
            malformed(member, message)
        })?;
        match ids.is_empty() {
            true => Err(malformed(member, format!("`{member}[{index}]` has no token ids"))),
            false => Ok(ids.into_iter().map(|TokenId(id)| id).collect()),
        }
    }

    fn unknown_id(&self, index: usize, id: u32) -> Failure {
        let member = self.member;
        let message = format!(
            "`{member}[{index}]`: token id {id} is not in the vocabulary cl100k_base; send texts ({SWITCH}), or set \
             `token_ids = \"model\"` in [models.embeddings] if the ids are those of the model"
        );
        malformed(member, message)
    }
}

/// The id of a token. JSON does not distinguish `2.0` from `2`.
struct TokenId(u32);

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = json::whole_number(deserializer)?;
        let id = id.ok_or_else(|| D::Error::invalid_type(Unexpected::Unit, &"a non-negative integer"))?;
        let small = u32::try_from(id).map(Self);
        small.map_err(|_| D::Error::invalid_value(Unexpected::Unsigned(id), &"an integer below 2^32"))
    }
}

/// How clients are told to send texts.
const SWITCH: &str = "in LangChain, `check_embedding_ctx_length=False`";

fn malformed(member: &'static str, message: String) -> Failure {
    Failure::new(Code::Malformed, message).with_param(member)
}

fn starts_with_number(array: &str) -> bool {
    let first = array.strip_prefix('[').map(str::trim_start);
    first.is_some_and(|first| first.starts_with(|c: char| c.is_ascii_digit() || c == '-'))
}

/// The parameters as the task receives them.
pub(in crate::http) fn written(parameters: &Map<String, Json>) -> Bytes {
    match parameters.is_empty() {
        true => Bytes::new(),
        false => Bytes::from(serde_json::to_string(parameters).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_texts_or_token_ids() {
        use Input::{Ids, Text};
        let read = |json| read_inputs("input", json, 2).map_err(|failure| failure.message);
        assert_eq!(read("\"a\""), Ok(vec![Text("\"a\"")]));
        assert_eq!(read("[\"a\", \"b\"]"), Ok(vec![Text("\"a\""), Text("\"b\"")]));
        assert_eq!(read("[ 1, 2, 3]"), Ok(vec![Ids("[ 1, 2, 3]")]));
        assert_eq!(read("[[1],[2]]"), Ok(vec![Ids("[1]"), Ids("[2]")]));
        assert_eq!(read("[\"a\",[2]]"), Ok(vec![Text("\"a\""), Ids("[2]")]));
        for (json, message) in [
            ("[]", "`input` has no items; expected at least one"),
            ("{}", "`input`: expected a string or an array, got an object"),
            (
                "[true]",
                "`input`: expected strings or token ids, got true or false",
            ),
            (
                "[\"a\",\"b\",\"c\"]",
                "`input` has too many items: expected at most 2 per request",
            ),
        ] {
            assert_eq!(read(json), Err(message.to_owned()), "{json}");
        }
    }

    #[test]
    fn token_ids_are_read_only_if_the_model_accepts_them() {
        let with = TaskManifest {
            parameters_schema: serde_json::json!({"properties": {"token_ids": {}}}),
            ..TaskManifest::default()
        };
        let without = TaskManifest::default();
        let read = |task, token_ids, text| {
            let form = ItemForm {
                member: "input",
                task,
                parameters: Map::new(),
                token_ids,
            };
            form.read_ids(1, text).map_err(|failure| failure.message)
        };
        assert_eq!(read(&with, TokenIds::Model, "[7,8]"), Ok(vec![7, 8]));
        assert_eq!(read(&without, TokenIds::Cl100kBase, "[7]"), Ok(vec![7]));
        for (task, token_ids, text, message) in [
            (
                &with,
                TokenIds::Reject,
                "[7]",
                "`input[1]`: this model rejects token ids (`token_ids` in [models.embeddings]); send texts \
                 (in LangChain, `check_embedding_ctx_length=False`)",
            ),
            (
                &without,
                TokenIds::Model,
                "[7]",
                "`input[1]`: the task of this model does not accept token ids; send texts \
                 (in LangChain, `check_embedding_ctx_length=False`)",
            ),
            (&with, TokenIds::Model, "[]", "`input[1]` has no token ids"),
        ] {
            assert_eq!(
                read(task, token_ids, text),
                Err(message.to_owned()),
                "{token_ids:?} {text}"
            );
        }
        assert_eq!(
            read(&with, TokenIds::Model, "[7.0, 8]"),
            read(&with, TokenIds::Model, "[7, 8]")
        );
        for invalid in ["[1.5]", "[-1]", "[\"a\"]", "[null]", "[4294967296]"] {
            let message = read(&with, TokenIds::Model, invalid).expect_err("it is invalid");
            assert!(
                message.starts_with("`input[1]`: expected token ids: "),
                "{message}"
            );
        }
    }
}
