//! `POST /rerank`, `/v1/rerank` and `/v2/rerank`: ranks documents by their relevance to a query, for tasks declared as rerankers.
//!
//! Two families of clients share these paths. Those of text-embeddings-inference send `texts` and get a bare array. Those of
//! Cohere, Jina and vLLM send `documents` and get an object, which has the members that each of them reads. All documents of
//! a request are one item of the task.

mod ranking;
mod request;
pub(super) mod score;

use actix_web::HttpResponse;
use actix_web::dev::Payload;
use bytes::Bytes;
use serde_json::{Value as Json, json};

use super::native::reply::max_size;
use super::offload::{MAX_INLINE_BODY, MAX_INLINE_REPLY, run_by_size};
use super::request_body::receive;
use super::request_headers::{RequestHead, request_options};
use super::respond::{self, add_server_timing};
use super::server::Shared;
use crate::api::{Call, Decoding, Failure, RequestRecord};
use crate::clock;
use crate::metrics::Protocol;
use crate::values::{ItemInput, Value};
use ranking::{Ranked, Ranking};
use request::{Family, RerankRequest};

/// `POST /rerank`
pub(super) async fn rerank(request: &dyn RequestHead, payload: Payload, shared: &Shared) -> HttpResponse {
    let mut record = RequestRecord::new(&shared.telemetry, Protocol::Rerank, clock::now(), request.trace());
    let result = run(request, payload, shared, &mut record).await;
    let response = result.unwrap_or_else(|failure| respond::failure(request, &failure));
    record.finish(response.status().as_u16());
    response
}

async fn run(
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    record: &mut RequestRecord,
) -> Result<HttpResponse, Failure> {
    let received = record.received();
    let view = shared.view(request);
    view.client().admit_request()?;
    let body = receive(request, payload, &shared.receive, received, 0).await?;
    let (limits, size) = (shared.body, body.len());
    let (request_view, budget) = (view.clone(), shared.receive.budget.clone());
    let is_v2 = request.path() == "/v2/rerank";
    let read = move || {
        // The texts are copied for the reply, and the item has them again.
        let decoding = Decoding::reserve(&budget, 2 * body.len())?;
        let request = RerankRequest::read(&body, is_v2, limits)?;
        let call = Call::to_reranker(&request_view, request.model.as_deref());
        let item = match &call {
            Ok(call) => request.parameters(call.manifest()).map(|parameters| ItemInput {
                value: Value::Json(Bytes::from(request.question().to_string())),
                parameters,
            }),
            Err(failure) => Err(failure.clone()),
        };
        Ok::<_, Failure>((request, call, item, decoding))
    };
    let (request_body, call, item, decoding) = run_by_size(size, MAX_INLINE_BODY, read).await??;
    let model = request_body.model.clone().unwrap_or_default();
    record.set_address(view.snapshot(), &model, &call);
    let (call, items) = (call?, vec![Ok(item?)]);
    let options = request_options(request, &call)?;
    let reply = call.run(items, decoding.keep_all(), options, record).await?;

    let started = clock::now();
    let (weight, timing) = (reply.weight, reply.timing);
    let size = max_size(&reply.outcomes).saturating_add(size);
    let (owned_call, id) = (call.clone(), request.request_id());
    let write = move || {
        let ranking = Ranking::of(reply.outcomes.into_iter().next())?;
        let model = match model.is_empty() {
            true => owned_call.entry.name(),
            false => &model,
        };
        Ok::<_, Failure>(write_reply(&request_body, ranking, model, id.as_deref(), weight))
    };
    let reply = run_by_size(size, MAX_INLINE_REPLY, write).await??;
    let mut response = respond::json(200, reply);
    let elapsed = record.encoded(&call, started, true);
    add_server_timing(&mut response, timing, elapsed);
    Ok(response)
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
