//! `POST /rerank`, `/v1/rerank` and `/v2/rerank`: ranks documents by their relevance to a query, for tasks declared as rerankers.
//!
//! Two families of clients share these paths. Those of text-embeddings-inference send `texts` and get a bare array. Those of
//! Cohere, Jina and vLLM send `documents` and get an object, which has the members that each of them reads. All documents of
//! a request are one item of the task.

mod options;
mod ranking;
mod request;
pub(super) mod score;

use actix_web::HttpResponse;
use actix_web::dev::Payload;
use bytes::Bytes;
use serde_json::{Value as Json, json};

use super::error_format::ErrorFormat;
use super::exchange::{self, Plan, ReceivedBody};
use super::request_headers::RequestHead;
use super::server::Shared;
use super::task_routes::TaskPath;
use super::tei;
use crate::api::{Call, Failure, ModelName, TaskRole};
use crate::metrics::Protocol;
use crate::values::{ItemInput, Value};
use ranking::{Ranked, Ranking};
use request::{Family, RerankRequest};

/// `POST /rerank`, and with the name of the model in front of it.
pub(super) async fn rerank(
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    path: TaskPath,
) -> HttpResponse {
    let protocol = (Protocol::Rerank, ErrorFormat::Rerank);
    let is_v2 = request.path().ends_with("/v2/rerank");
    let read = move |received: &ReceivedBody| {
        let plan = plan(received, &path.model, is_v2);
        plan.map_err(|failure| match failure.param {
            // Only clients of text-embeddings-inference send this member.
            Some("texts") => tei::too_many(failure),
            _ => failure,
        })
    };
    exchange::answer(request, payload, shared, protocol, read).await
}

/// Reads a request. A model in the path replaces that in the body.
pub(super) fn plan(received: &ReceivedBody, model_in_path: &str, is_v2: bool) -> Result<Plan, Failure> {
    let body = &received.body;
    // The texts are copied for the reply, and the item has them again.
    let decoding = received.reserve(2 * body.len())?;
    let request = RerankRequest::read(body, is_v2, received.limits)?;
    let name = match model_in_path {
        "" => ModelName::InBody(request.model.as_deref()),
        model => ModelName::InPath(Some(model)),
    };
    let call = Call::to_role(&received.view, name, TaskRole::Reranker);
    let call = match request.family {
        Family::TextEmbeddingsInference => call.map_err(tei::unsuitable),
        Family::Cohere => call,
    };
    let parameters = call.as_ref().map_err(Failure::clone);
    let parameters = parameters.and_then(|call| request.parameters(call.manifest()));
    let items = parameters.map(|parameters| {
        let value = Value::Json(Bytes::from(request.question().to_string()));
        (vec![Ok(ItemInput { value, parameters })], decoding.keep_all())
    });
    let model = match model_in_path {
        "" => request.model.clone().unwrap_or_default(),
        model => model.to_owned(),
    };
    let (name, id) = (model.clone(), received.request_id.clone());
    Ok(Plan {
        model,
        call,
        items,
        write: Box::new(move |call, reply| {
            let ranking = Ranking::of(reply.outcomes.into_iter().next())?;
            let name = match name.is_empty() {
                true => call.entry.name(),
                false => &name,
            };
            Ok(write_reply(&request, ranking, name, id.as_deref(), reply.weight))
        }),
    })
}

fn write_reply(
    request: &RerankRequest,
    ranking: Ranking,
    model: &str,
    id: Option<&str>,
    tokens: u64,
) -> Vec<u8> {
    let mut results = ranking.results;
    results.sort_by(|one, other| other.score.total_cmp(&one.score));
    results.truncate(request.top_n.unwrap_or(usize::MAX));
    let text = |ranked: &Ranked| request.texts.get(ranked.index).filter(|_| request.returns_texts);
    let reply = match request.family {
        Family::TextEmbeddingsInference => results
            .iter()
            .map(|ranked| {
                let mut result = json!({"index": ranked.index, "score": ranked.score});
                if let Some(text) = text(ranked) {
                    result["text"] = text.as_str().into();
                }
                result
            })
            .collect::<Json>(),
        Family::Cohere => {
            let results = results.iter().map(|ranked| {
                let mut result = json!({"index": ranked.index, "relevance_score": ranked.score});
                if let Some(text) = text(ranked) {
                    result["document"] = json!({ "text": text });
                }
                result
            });
            json!({
                "id": id,
                "object": "list",
                "model": model,
                "results": results.collect::<Json>(),
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
                "meta": {
                    "api_version": {"version": if request.is_v2 { "2" } else { "1" }},
                    "billed_units": {"search_units": 1},
                },
            })
        }
    };
    reply.to_string().into_bytes()
}
