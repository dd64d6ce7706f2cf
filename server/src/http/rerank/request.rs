//! The requests of both families of clients.

use std::borrow::Cow;

use bytes::Bytes;
use plugin_abi::manifest::TaskManifest;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json, json};

use crate::api::{BodyLimits, Code, Failure};
use crate::codec::{JsonForm, bounded_json};
use crate::http::embeddings::inputs::written;
use crate::http::embeddings::options::{Direction, EmbeddingOptions, check_truncate_prompt_tokens, has};
use crate::http::exchange::parse;
use crate::http::native::request_items::RequestError;
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
    return_documents: Option<bool>,
    return_text: Option<bool>,
    raw_scores: Option<bool>,
    truncate: Option<bool>,
    truncation_direction: Option<String>,
    prompt_name: Option<String>,
    #[serde(borrow)]
    rank_fields: Option<&'a RawValue>,
    #[serde(borrow)]
    max_chunks_per_doc: Option<&'a RawValue>,
    #[serde(borrow)]
    max_tokens_per_doc: Option<&'a RawValue>,
    /// Maximum number of tokens in requests of vLLM.
    #[serde(borrow)]
    truncate_prompt_tokens: Option<&'a RawValue>,
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
        let returns_texts = match family {
            Family::TextEmbeddingsInference => body.return_text.unwrap_or(false),
            // Clients of Jina read the documents unless they exclude them; Cohere's second version has none.
            Family::Cohere => body.return_documents.unwrap_or(!is_v2),
        };
        // The documented defaults of text-embeddings-inference.
        let or_default = |option: Option<bool>| match family {
            Family::TextEmbeddingsInference => Some(option.unwrap_or(false)),
            Family::Cohere => option,
        };
        let (raw_scores, truncate) = (or_default(body.raw_scores), or_default(body.truncate));
        let direction = body.truncation_direction.as_deref().map(Direction::read);
        let direction = direction.transpose()?;
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
        let unsupported = |param: &'static str| {
            let message = format!("task `{}` does not support `{param}`", task.name);
            Failure::new(Code::Unsupported, message).with_param(param)
        };
        let mut parameters = Map::new();
        for (name, value) in [("raw_scores", self.raw_scores), ("truncate", self.truncate)] {
            match value {
                Some(value) if has(task, name) => drop(parameters.insert(name.to_owned(), value.into())),
                Some(true) => return Err(unsupported(name)),
                // Such a task decides by itself.
                Some(false) | None => {}
            }
        }
        let direction = EmbeddingOptions {
            direction: self.direction,
            ..EmbeddingOptions::default()
        };
        parameters.append(&mut direction.text_parameters(task)?);
        Ok(written(&parameters))
    }
}

impl Body<'_> {
    /// Rejects members that change the scores and are not supported.
    fn check_supported(&self) -> Result<(), Failure> {
        let present = [
            ("rank_fields", self.rank_fields),
            ("max_chunks_per_doc", self.max_chunks_per_doc),
            ("max_tokens_per_doc", self.max_tokens_per_doc),
        ];
        if let Some((param, _)) = present.into_iter().find(|(_, value)| value.is_some()) {
            let message = format!("`{param}` is not supported; remove it");
            return Err(Failure::new(Code::Unsupported, message).with_param(param));
        }
        check_truncate_prompt_tokens(self.truncate_prompt_tokens)?;
        if self.prompt_name.is_some() {
            let message = "`prompt_name` is not supported by rerankers; remove it";
            return Err(Failure::new(Code::Unsupported, message).with_param("prompt_name"));
        }
        Ok(())
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
mod tests {
    use super::*;

    const LIMITS: BodyLimits = BodyLimits { items: 4, depth: 8 };

    fn read(body: &Json) -> Result<RerankRequest, Failure> {
        RerankRequest::read(body.to_string().as_bytes(), false, LIMITS)
    }

    #[test]
    fn the_member_with_the_texts_tells_the_families_apart() {
        let tei = read(&json!({"query": "q", "texts": ["a", "b"], "return_text": true})).expect("valid");
        assert_eq!(
            (tei.family, tei.returns_texts, tei.truncate),
            (Family::TextEmbeddingsInference, true, Some(false))
        );
        let documents = json!(["a", {"text": "b\n", "title": "ignored"}]);
        let cohere =
            read(&json!({"model": "m", "query": "q", "documents": documents, "top_n": 1})).expect("valid");
        assert_eq!(
            (cohere.family, cohere.top_n, cohere.truncate),
            (Family::Cohere, Some(1), None)
        );
        assert_eq!(cohere.question(), json!({"query": "q", "passages": ["a", "b\n"]}));
    }

    #[test]
    fn documents_are_returned_by_default_only_at_the_paths_of_jina() {
        let body = json!({"query": "q", "documents": ["a"]}).to_string();
        let returns = |is_v2| {
            let request = RerankRequest::read(body.as_bytes(), is_v2, LIMITS).expect("valid");
            request.returns_texts
        };
        assert_eq!((returns(false), returns(true)), (true, false));
    }

    #[test]
    fn malformed_and_unsupported_requests_are_rejected_with_the_member() {
        let cases = [
            (
                json!({"documents": ["a"]}),
                400,
                "query",
                "missing member `query`",
            ),
            (
                json!({"query": "q"}),
                400,
                "documents",
                "missing member `documents` or `texts`",
            ),
            (
                json!({"query": "q", "documents": ["a"], "texts": ["a"]}),
                400,
                "documents",
                "both `texts` and `documents` are present; send one of them",
            ),
            (
                json!({"query": "q", "documents": []}),
                400,
                "documents",
                "`documents` has no items; expected at least one",
            ),
            (
                json!({"query": "q", "texts": ["a", "a", "a", "a", "a"]}),
                400,
                "texts",
                "`texts` has too many items: expected at most 4 per request",
            ),
            (
                json!({"query": "q", "documents": ["a", 3]}),
                400,
                "documents",
                "`documents[1]`: expected a string or an object with `text`, got a number",
            ),
            (
                json!({"query": "q", "documents": ["a"], "top_n": 0}),
                400,
                "top_n",
                "invalid value 0 for `top_n`: expected at least 1",
            ),
            (
                json!({"query": "q", "documents": ["a"], "max_tokens_per_doc": 100}),
                422,
                "max_tokens_per_doc",
                "`max_tokens_per_doc` is not supported; remove it",
            ),
            (
                json!({"query": "q", "texts": ["a"], "truncation_direction": "up"}),
                400,
                "truncation_direction",
                "invalid value `up` for `truncation_direction`: expected Left or Right",
            ),
            (
                json!({"query": "q", "texts": ["a"], "prompt_name": "query"}),
                422,
                "prompt_name",
                "`prompt_name` is not supported by rerankers; remove it",
            ),
        ];
        for (body, status, param, message) in cases {
            let failure = read(&body).expect_err("invalid");
            assert_eq!(
                (failure.code.status(), failure.param, failure.message.as_str()),
                (status, Some(param), message),
                "{body}"
            );
        }
    }

    #[test]
    fn parameters_that_the_task_does_not_have_are_rejected_unless_they_are_the_default() {
        let with = TaskManifest {
            parameters_schema: json!({"properties": {"raw_scores": {}, "truncate": {}, "truncation_direction": {}}}),
            ..TaskManifest::default()
        };
        let without = TaskManifest::default();
        let tei = read(&json!({"query": "q", "texts": ["a"]})).expect("valid");
        assert_eq!(
            tei.parameters(&with),
            Ok(Bytes::from_static(b"{\"raw_scores\":false,\"truncate\":false}"))
        );
        assert_eq!(tei.parameters(&without), Ok(Bytes::new()));
        let raw = read(&json!({"query": "q", "texts": ["a"], "raw_scores": true, "truncate": true}))
            .expect("valid");
        assert_eq!(
            raw.parameters(&with),
            Ok(Bytes::from_static(b"{\"raw_scores\":true,\"truncate\":true}"))
        );
        assert_eq!(
            raw.parameters(&without).map_err(|failure| failure.param),
            Err(Some("raw_scores"))
        );
        let left =
            read(&json!({"query": "q", "texts": ["a"], "truncation_direction": "Left"})).expect("valid");
        assert_eq!(
            left.parameters(&with),
            Ok(Bytes::from_static(
                b"{\"raw_scores\":false,\"truncate\":false,\"truncation_direction\":\"left\"}"
            ))
        );
        assert_eq!(
            left.parameters(&without).map_err(|failure| failure.param),
            Err(Some("truncation_direction"))
        );
    }
}
