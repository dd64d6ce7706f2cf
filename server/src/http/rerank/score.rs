//! `POST /score` and `/v1/score`, as in vLLM: the scores of pairs of texts, in their order.
//!
//! One text is compared with several, which are one item of the reranker; or the texts of two lists are compared one by one.

use actix_web::HttpResponse;
use actix_web::dev::Payload;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::ranking::Ranking;
use super::request::{malformed, read_texts};
use crate::api::{BodyLimits, Call, Code, Failure, ModelName, TaskRole};
use crate::clock;
use crate::codec::JsonForm;
use crate::engine::Reply;
use crate::http::embeddings::options::check_truncate_prompt_tokens;
use crate::http::error_format::ErrorFormat;
use crate::http::exchange::{self, Items, Plan, ReceivedBody, parse};
use crate::http::request_headers::RequestHead;
use crate::http::server::Shared;
use crate::json;
use crate::metrics::Protocol;
use crate::values::{ItemInput, Value};

/// `POST /v1/score`
pub(in crate::http) async fn score(
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
) -> HttpResponse {
    let protocol = (Protocol::Rerank, ErrorFormat::Rerank);
    exchange::answer(request, payload, shared, protocol, plan).await
}

fn plan(received: &ReceivedBody) -> Result<Plan, Failure> {
    // The texts are copied into the items. A single text of one list is copied once.
    let decoding = received.reserve(received.body.len())?;
    let request = ScoreRequest::read(&received.body, received.limits)?;
    let name = ModelName::InBody(request.model.as_deref());
    let call = Call::to_role(&received.view, name, TaskRole::Reranker);
    let model = request.model.clone().unwrap_or_default();
    let (name, id) = (model.clone(), received.request_id.clone());
    Ok(Plan {
        model,
        call,
        items: Ok((items(request.questions), decoding.keep_all())),
        write: Box::new(move |call, reply| {
            let name = match name.is_empty() {
                true => call.entry.name(),
                false => &name,
            };
            write_reply(reply, name, id.as_deref())
        }),
    })
}

/// A request.
#[derive(Debug, PartialEq)]
struct ScoreRequest {
    model: Option<String>,
    /// The items of the reranker.
    questions: Vec<Json>,
}

#[derive(Deserialize)]
struct Body<'a> {
    model: Option<String>,
    #[serde(borrow)]
    text_1: Option<&'a RawValue>,
    #[serde(borrow)]
    text_2: Option<&'a RawValue>,
    /// Maximum number of tokens; -1 for that of the model.
    #[serde(borrow)]
    truncate_prompt_tokens: Option<&'a RawValue>,
}

impl ScoreRequest {
    fn read(body: &[u8], limits: BodyLimits) -> Result<Self, Failure> {
        let body: Body<'_> = parse(body, limits)?;
        check_truncate_prompt_tokens(body.truncate_prompt_tokens)?;
        let missing = |param: &'static str| malformed(param, format!("missing member `{param}`"));
        let first = body.text_1.ok_or_else(|| missing("text_1"))?.get();
        let second = body.text_2.ok_or_else(|| missing("text_2"))?.get();
        let second = match JsonForm::of(second) {
            JsonForm::String => vec![read_text("text_2", second)?],
            _ => read_texts("text_2", second, limits.items)?,
        };
        let question = |query: &str, passages: &[String]| json!({"query": query, "passages": passages});
        let questions = if JsonForm::of(first) == JsonForm::String {
            vec![question(&read_text("text_1", first)?, &second)]
        } else {
            let first = read_texts("text_1", first, limits.items)?;
            if first.len() != second.len() {
                let message = format!(
                    "`text_1` has {} texts and `text_2` {}: expected one text in `text_1`, or the same number",
                    first.len(),
                    second.len()
                );
                return Err(Failure::new(Code::InvalidInput, message).with_param("text_1"));
            }
            let pairs = first.iter().zip(&second);
            pairs
                .map(|(query, passage)| question(query, std::slice::from_ref(passage)))
                .collect()
        };
        Ok(Self {
            model: body.model.filter(|model| !model.is_empty()),
            questions,
        })
    }
}

fn read_text(member: &'static str, text: &str) -> Result<String, Failure> {
    json::from_str(text).map_err(|error| malformed(member, format!("`{member}`: {}", error.message())))
}

fn items(questions: Vec<Json>) -> Items {
    let item = |question: Json| {
        Ok(ItemInput {
            value: Value::Json(Bytes::from(question.to_string())),
            parameters: Bytes::new(),
        })
    };
    questions.into_iter().map(item).collect()
}

fn write_reply(reply: Reply, model: &str, id: Option<&str>) -> Result<Vec<u8>, Failure> {
    let mut scores: Vec<f64> = Vec::new();
    for outcome in reply.outcomes {
        let mut results = Ranking::of(Some(outcome))?.results;
        results.sort_by_key(|ranked| ranked.index);
        scores.extend(results.iter().map(|ranked| ranked.score));
    }
    let data = scores
        .iter()
        .enumerate()
        .map(|(index, score)| json!({"index": index, "object": "score", "score": score}));
    let reply = json!({
        "id": id,
        "object": "list",
        "created": clock::unix_seconds(),
        "model": model,
        "data": data.collect::<Json>(),
        "usage": {"prompt_tokens": reply.weight, "total_tokens": reply.weight},
    });
    Ok(reply.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_is_compared_with_several_or_lists_one_by_one() {
        let limits = BodyLimits { items: 4, depth: 8 };
        let read = |body: &Json| {
            let request = ScoreRequest::read(body.to_string().as_bytes(), limits);
            request
                .map(|request| request.questions)
                .map_err(|failure| failure.message)
        };
        let question = |query: &str, passages: &[&str]| json!({"query": query, "passages": passages});
        assert_eq!(
            read(&json!({"text_1": "q", "text_2": ["a", "b"]})),
            Ok(vec![question("q", &["a", "b"])])
        );
        assert_eq!(
            read(&json!({"model": "m", "text_1": "q", "text_2": "a\n"})),
            Ok(vec![question("q", &["a\n"])])
        );
        assert_eq!(
            read(&json!({"text_1": ["q", "r"], "text_2": ["a", "b"]})),
            Ok(vec![question("q", &["a"]), question("r", &["b"])])
        );
        assert_eq!(
            read(&json!({"text_1": ["q", "r"], "text_2": ["a"]})),
            Err(
                "`text_1` has 2 texts and `text_2` 1: expected one text in `text_1`, or the same number"
                    .to_owned()
            )
        );
        assert_eq!(
            read(&json!({"text_1": "q"})),
            Err("missing member `text_2`".to_owned())
        );
    }
}
