//! `POST /score` and `/v1/score`, as in vLLM: the scores of pairs of texts, in their order.
//!
//! One text is compared with several, which are one item of the reranker; or the texts of two lists are compared one by one.

use actix_web::HttpResponse;
use actix_web::dev::Payload;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::options::{direction, parameters, raw_scores};
use super::ranking::Ranking;
use super::request::{malformed, read_texts};
use crate::api::{BodyLimits, Call, Code, Failure, ModelName, TaskRole};
use crate::clock;
use crate::codec::JsonForm;
use crate::engine::Reply;
use crate::http::embeddings::options::Direction;
use crate::http::error_format::ErrorFormat;
use crate::http::exchange::{self, Items, Plan, ReceivedBody, parse};
use crate::http::request_headers::RequestHead;
use crate::http::server::Shared;
use crate::http::unsupported::{Unsupported, reject_unsupported};
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
    let parameters = call.as_ref().map_err(Failure::clone).and_then(|call| {
        let task = call.manifest();
        parameters(task, request.raw_scores, request.truncate, request.direction)
    });
    Ok(Plan {
        model,
        call,
        items: parameters.map(|parameters| (items(request.questions, &parameters), decoding.keep_all())),
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
    /// Whether scores are those of the network; `None` for what the model's directory says.
    raw_scores: Option<bool>,
    /// Whether texts that are too long are truncated; `None` for the default of the task.
    truncate: Option<bool>,
    /// Where they are truncated; `None` for the default of the task.
    direction: Option<Direction>,
}

/// The body. Members that change nothing, such as `user`, are accepted and ignored.
#[derive(Deserialize)]
struct Body<'a> {
    model: Option<String>,
    #[serde(borrow)]
    text_1: Option<&'a RawValue>,
    #[serde(borrow)]
    queries: Option<&'a RawValue>,
    #[serde(borrow)]
    data_1: Option<&'a RawValue>,
    #[serde(borrow)]
    text_2: Option<&'a RawValue>,
    #[serde(borrow)]
    documents: Option<&'a RawValue>,
    #[serde(borrow)]
    items: Option<&'a RawValue>,
    #[serde(borrow)]
    data_2: Option<&'a RawValue>,
    raw_scores: Option<bool>,
    /// Whether scores are not raw.
    #[serde(alias = "activation")]
    use_activation: Option<bool>,
    truncate: Option<bool>,
    truncation_direction: Option<String>,
    truncation_side: Option<String>,
    #[serde(borrow)]
    truncate_prompt_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    priority: Option<&'a RawValue>,
}

/// The only one of several members with the same meaning, and its name. The first one is the usual one.
fn one_of<'a, const N: usize>(
    members: [(&'static str, Option<&'a RawValue>); N],
) -> Result<(&'static str, &'a str), Failure> {
    let usual = members[0].0;
    let mut present = members
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?.get())));
    let Some(member) = present.next() else {
        return Err(malformed(usual, format!("missing member `{usual}`")));
    };
    match present.next() {
        None => Ok(member),
        Some((other, _)) => {
            let message = format!("both `{}` and `{other}` are present; send one of them", member.0);
            Err(malformed(other, message))
        }
    }
}

impl ScoreRequest {
    fn read(body: &[u8], limits: BodyLimits) -> Result<Self, Failure> {
        let body: Body<'_> = parse(body, limits)?;
        reject_unsupported([
            Unsupported::truncate_prompt_tokens(body.truncate_prompt_tokens),
            Unsupported::priority(body.priority),
        ])?;
        let first = [
            ("text_1", body.text_1),
            ("queries", body.queries),
            ("data_1", body.data_1),
        ];
        let second = [
            ("text_2", body.text_2),
            ("documents", body.documents),
            ("items", body.items),
            ("data_2", body.data_2),
        ];
        Ok(Self {
            questions: questions(one_of(first)?, one_of(second)?, limits.items)?,
            model: body.model.filter(|model| !model.is_empty()),
            raw_scores: raw_scores(body.raw_scores, body.use_activation)?,
            truncate: body.truncate,
            direction: direction(
                body.truncation_direction.as_deref(),
                body.truncation_side.as_deref(),
            )?,
        })
    }
}

/// The items of the reranker: one text with all others, or pairs of texts.
fn questions(
    (first_name, first): (&'static str, &str),
    (second_name, second): (&'static str, &str),
    limit: usize,
) -> Result<Vec<Json>, Failure> {
    let first = read_one_or_more(first_name, first, limit)?;
    let second = read_one_or_more(second_name, second, limit)?;
    let question = |query: &str, passages: &[String]| json!({"query": query, "passages": passages});
    if let [query] = first.as_slice() {
        return Ok(vec![question(query, &second)]);
    }
    if first.len() != second.len() {
        let message = format!(
            "`{first_name}` has {} texts and `{second_name}` {}: expected one text in `{first_name}`, or the same number",
            first.len(),
            second.len()
        );
        return Err(Failure::new(Code::InvalidInput, message).with_param(first_name));
    }
    let pairs = first.iter().zip(&second);
    Ok(pairs
        .map(|(query, passage)| question(query, std::slice::from_ref(passage)))
        .collect())
}

/// Reads a text, or an array of texts.
fn read_one_or_more(member: &'static str, texts: &str, limit: usize) -> Result<Vec<String>, Failure> {
    if JsonForm::of(texts) != JsonForm::String {
        return read_texts(member, texts, limit);
    }
    let text = json::from_str(texts);
    text.map(|text| vec![text])
        .map_err(|error| malformed(member, format!("`{member}`: {}", error.message())))
}

fn items(questions: Vec<Json>, parameters: &Bytes) -> Items {
    let item = |question: Json| {
        Ok(ItemInput {
            value: Value::Json(Bytes::from(question.to_string())),
            parameters: parameters.clone(),
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
        // The names of newer clients.
        let pairs = vec![question("q", &["a"]), question("r", &["b"])];
        for (first, second) in [
            ("queries", "documents"),
            ("queries", "items"),
            ("data_1", "data_2"),
        ] {
            assert_eq!(
                read(&json!({first: ["q", "r"], second: ["a", "b"]})),
                Ok(pairs.clone())
            );
            assert_eq!(
                read(&json!({first: ["q"], second: ["a", "b"]})),
                Ok(vec![question("q", &["a", "b"])])
            );
        }
        assert_eq!(
            read(&json!({"text_1": "q", "documents": "a", "text_2": "b"})),
            Err("both `text_2` and `documents` are present; send one of them".to_owned())
        );
        assert_eq!(
            read(&json!({"queries": ["q", "r"], "items": "a"})),
            Err(
                "`queries` has 2 texts and `items` 1: expected one text in `queries`, or the same number"
                    .to_owned()
            )
        );
    }

    #[test]
    fn the_activation_of_scores_and_the_side_of_truncation_are_options() {
        let limits = BodyLimits { items: 4, depth: 8 };
        let read = |name: &str, value: Json| {
            let mut body = json!({"text_1": "q", "text_2": "a"});
            body[name] = value;
            ScoreRequest::read(body.to_string().as_bytes(), limits)
        };
        let raw = |name, value| read(name, value).expect("valid").raw_scores;
        assert_eq!(raw("use_activation", json!(false)), Some(true));
        assert_eq!(raw("activation", json!(true)), Some(false));
        assert_eq!(raw("user", json!("u")), None);
        let left = read("truncation_side", json!("left")).expect("valid");
        assert_eq!(left.direction, Some(Direction::Left));
        for (name, value) in [("truncate_prompt_tokens", json!(5)), ("priority", json!(1))] {
            let failure = read(name, value).expect_err("it is not supported");
            assert_eq!((failure.code.status(), failure.param), (422, Some(name)));
        }
    }
}
