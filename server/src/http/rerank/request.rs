//! The requests of both families of clients.

use std::borrow::Cow;

use bytes::Bytes;
use plugin_abi::manifest::TaskManifest;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::options::{direction, parameters, raw_scores};
use crate::api::{BodyLimits, Code, Failure};
use crate::codec::{JsonForm, bounded_json};
use crate::http::embeddings::options::Direction;
use crate::http::exchange::parse;
use crate::http::native::request_items::RequestError;
use crate::http::unsupported::{Unsupported, reject_unsupported};
use crate::json::{self, Object};

/// The clients that sent a request, which determine the form of the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// `texts`; the reply is an array of indices and scores.
    TextEmbeddingsInference,
    /// `documents`, of Cohere, Jina and vLLM; the reply is an object.
    Cohere,
}

/// A request.
#[derive(Debug, PartialEq)]
pub(super) struct RerankRequest {
    pub(super) family: Family,
    /// Whether the path is that of Cohere's second version.
    pub(super) is_v2: bool,
    pub(super) model: Option<String>,
    query: String,
    pub(super) texts: Vec<String>,
    /// Maximum number of results.
    pub(super) top_n: Option<usize>,
    /// Whether the results contain the texts.
    pub(super) returns_texts: bool,
    /// Whether scores are those of the network, or the sigmoid function of them; `None` for what the model's directory says.
    raw_scores: Option<bool>,
    /// Whether texts that are too long are truncated; `None` for the default of the task.
    truncate: Option<bool>,
    /// Where they are truncated; `None` for the default of the task.
    direction: Option<Direction>,
}

/// The body. Members that no client requires, such as `user`, are accepted and ignored.
#[derive(Deserialize)]
struct Body<'a> {
    model: Option<String>,
    query: Option<String>,
    #[serde(borrow)]
    texts: Option<&'a RawValue>,
    #[serde(borrow)]
    documents: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "json::whole_number")]
    top_n: Option<u64>,
    #[serde(alias = "return_text")]
    return_documents: Option<bool>,
    raw_scores: Option<bool>,
    /// Whether scores are not raw, in requests of vLLM.
    #[serde(alias = "activation")]
    use_activation: Option<bool>,
    truncate: Option<bool>,
    truncation_direction: Option<String>,
    /// The same in requests of vLLM.
    truncation_side: Option<String>,
    #[serde(borrow)]
    prompt_name: Option<&'a RawValue>,
    rank_fields: Option<Vec<String>>,
    #[serde(borrow)]
    max_chunks_per_doc: Option<&'a RawValue>,
    #[serde(borrow)]
    max_tokens_per_doc: Option<&'a RawValue>,
    #[serde(borrow)]
    truncate_prompt_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    return_embeddings: Option<&'a RawValue>,
    #[serde(borrow)]
    priority: Option<&'a RawValue>,
}

pub(super) fn malformed(param: &'static str, message: impl Into<String>) -> Failure {
    Failure::new(Code::Malformed, message).with_param(param)
}

impl RerankRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// If it is malformed, or contains a member that is not supported.
    pub(super) fn read(body: &[u8], is_v2: bool, limits: BodyLimits) -> Result<Self, Failure> {
        let body: Body<'_> = parse(body, limits)?;
        body.check_supported()?;
        let query = body
            .query
            .ok_or_else(|| malformed("query", "missing member `query`"))?;
        let (family, texts) = match (body.texts, body.documents) {
            (Some(texts), None) => (
                Family::TextEmbeddingsInference,
                read_texts("texts", texts.get(), limits.items)?,
            ),
            (None, Some(documents)) => (
                Family::Cohere,
                read_texts("documents", documents.get(), limits.items)?,
            ),
            (Some(_), Some(_)) => {
                return Err(malformed(
                    "documents",
                    "both `texts` and `documents` are present; send one of them",
                ));
            }
            (None, None) => {
                return Err(malformed("documents", "missing member `documents` or `texts`"));
            }
        };
        let top_n = match body.top_n {
            Some(0) => {
                return Err(malformed(
                    "top_n",
                    "invalid value 0 for `top_n`: expected at least 1",
                ));
            }
            top_n => top_n.map(|top_n| usize::try_from(top_n).unwrap_or(usize::MAX)),
        };
        // Clients of Jina read the documents unless they exclude them; Cohere's second version has none.
        let returns_texts = body
            .return_documents
            .unwrap_or(family == Family::Cohere && !is_v2);
        // The documented defaults of text-embeddings-inference.
        let or_default = |option: Option<bool>| match family {
            Family::TextEmbeddingsInference => Some(option.unwrap_or(false)),
            Family::Cohere => option,
        };
        let raw_scores = raw_scores(body.raw_scores, body.use_activation)?;
        let (raw_scores, truncate) = (or_default(raw_scores), or_default(body.truncate));
        let direction = direction(
            body.truncation_direction.as_deref(),
            body.truncation_side.as_deref(),
        )?;
        Ok(Self {
            family,
            is_v2,
            model: body.model.filter(|model| !model.is_empty()),
            query,
            texts,
            top_n,
            returns_texts,
            raw_scores,
            truncate,
            direction,
        })
    }

    /// The item of a reranker.
    pub(super) fn question(&self) -> Json {
        json!({"query": self.query, "passages": self.texts})
    }

    /// The parameters for a task.
    ///
    /// # Errors
    /// If the task does not have a parameter that the request needs.
    pub(super) fn parameters(&self, task: &TaskManifest) -> Result<Bytes, Failure> {
        parameters(task, self.raw_scores, self.truncate, self.direction)
    }
}

impl Body<'_> {
    /// Rejects members that change the scores or the reply and are not supported.
    fn check_supported(&self) -> Result<(), Failure> {
        // The text of a document is the only field that is ranked.
        if self
            .rank_fields
            .as_ref()
            .is_some_and(|fields| fields != &["text"])
        {
            let message = "`rank_fields` is not supported, except for [\"text\"]; remove it";
            return Err(Failure::new(Code::Unsupported, message).with_param("rank_fields"));
        }
        reject_unsupported([
            Unsupported::new("max_chunks_per_doc", self.max_chunks_per_doc),
            Unsupported::new("max_tokens_per_doc", self.max_tokens_per_doc),
            Unsupported::new("prompt_name", self.prompt_name),
            Unsupported::new("return_embeddings", self.return_embeddings).unless(&["false"]),
            Unsupported::truncate_prompt_tokens(self.truncate_prompt_tokens),
            Unsupported::priority(self.priority),
        ])
    }
}

/// Reads an array of texts: strings, or objects with a `text`.
pub(super) fn read_texts(member: &'static str, array: &str, limit: usize) -> Result<Vec<String>, Failure> {
    let form = JsonForm::of(array);
    if form != JsonForm::Array {
        let message = format!("`{member}`: expected an array, got {}", form.name());
        return Err(malformed(member, message));
    }
    let texts = bounded_json::elements(array, limit)
        .ok_or_else(|| Failure::from(RequestError::TooManyItems { member, limit }).with_param(member))?;
    if texts.is_empty() {
        return Err(Failure::from(RequestError::Empty { member }).with_param(member));
    }
    let read = |(index, text): (usize, &str)| {
        let text = match JsonForm::of(text) {
            JsonForm::String => json::from_str::<Cow<'_, str>>(text),
            JsonForm::Object => json::from_str::<Object<Document<'_>>>(text).map(|document| document.0.text),
            other => {
                return Err(malformed(
                    member,
                    format!(
                        "`{member}[{index}]`: expected a string or an object with `text`, got {}",
                        other.name()
                    ),
                ));
            }
        };
        text.map(Cow::into_owned)
            .map_err(|error| malformed(member, format!("`{member}[{index}]`: {}", error.message())))
    };
    texts.into_iter().enumerate().map(read).collect()
}

/// A document that is not a string.
#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
}

#[cfg(test)]
mod tests;
