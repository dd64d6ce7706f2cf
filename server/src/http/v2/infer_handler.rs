//! Handler of `POST /v2/models/{model}/infer`.

use std::convert::Infallible;

use actix_web::HttpResponse;
use actix_web::body::SizedStream;
use actix_web::dev::Payload;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use futures_util::stream;

use super::infer_request::{HEADER_LENGTH, InferRequest, header_length, read_request};
use super::infer_response::{Encoded, ResponseHead, write_response};
use crate::api::tensors::{data_size, items_from_tensors, tensors_from_outcomes};
use crate::api::{Call, Decoding, Failure, RequestRecord};
use crate::clock;
use crate::codec::{Strings, max_decoded_size};
use crate::http::native::reply::max_size;
use crate::http::offload::{MAX_INLINE_BODY, MAX_INLINE_REPLY, run_by_size};
use crate::http::request_body::receive;
use crate::http::request_headers::{RequestHead, request_options};
use crate::http::respond::{self, add_server_timing};
use crate::http::server::Shared;
use crate::http::task_routes::TaskPath;
use crate::metrics::Protocol;

/// `POST /v2/models/{model}/infer`
pub(in crate::http) async fn infer(
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    name: TaskPath,
) -> HttpResponse {
    let view = shared.view(request);
    let call = Call::to_name(&view, &name.model, name.version.as_deref());
    let mut record = shared.record(request, Protocol::V2, &view, &name.model, &call);
    let result = run(request, payload, shared, &name, call, &mut record).await;
    respond::recorded(record, result, |failure| respond::failure(request, failure))
}

async fn run(
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    name: &TaskPath,
    call: Result<Call, Failure>,
    record: &mut RequestRecord,
) -> Result<HttpResponse, Failure> {
    let call = call?;
    request.client().admit_request()?;
    let mut options = request_options(request, &call)?;
    let json_length = header_length(request.header(HEADER_LENGTH))?;
    let body = receive(
        request,
        payload,
        &shared.receive,
        record.received(),
        json_length.unwrap_or(0),
    )
    .await?;
    let (owned_call, limits, size) = (call.clone(), shared.body, body.len());
    let budget = shared.receive.budget.clone();
    let read = move || {
        let task = owned_call.manifest();
        // Binary data stays in the body.
        let json = &body[..json_length.unwrap_or(body.len()).min(body.len())];
        let decoding = Decoding::reserve(&budget, max_decoded_size(json, &task.input, Strings::Copied))?;
        let InferRequest {
            inputs,
            parameters,
            requested,
            id,
        } = read_request(&body, json_length, task, limits)?;
        let items = items_from_tensors(task, inputs, &parameters.for_task, limits)?;
        let decoded = decoding.keep(&items, &body);
        Ok::<_, Failure>((items, decoded, parameters, requested, id))
    };
    let (items, decoded, parameters, requested, id) = run_by_size(size, MAX_INLINE_BODY, read).await??;
    options.override_with(parameters.timeout, parameters.priority);
    let reply = call.run(items, decoded, options, record).await?;

    let started = clock::now();
    let id_size = id.as_ref().map_or(0, String::len);
    let size = match requested.has_json() {
        true => max_size(&reply.outcomes),
        false => data_size(&reply.outcomes),
    };
    let (model, owned_call) = (name.model.clone(), call.clone());
    let encode = move || {
        let task = owned_call.manifest();
        let head = ResponseHead {
            model: &model,
            id: id.as_deref(),
            task,
        };
        write_response(&head, tensors_from_outcomes(task, reply.outcomes)?, &requested)
    };
    let encoded = run_by_size(size.saturating_add(id_size), MAX_INLINE_REPLY, encode).await??;
    let mut response = respond_with(encoded);
    let elapsed = record.encoded(&call, started, true);
    add_server_timing(&mut response, reply.timing, elapsed);
    Ok(response)
}

/// Builds the response: the JSON followed by the binary data. Large binary data is sent without copying.
fn respond_with(Encoded { json, binary }: Encoded) -> HttpResponse {
    if binary.is_empty() {
        return respond::json(200, json);
    }
    let length = json.len() + binary.iter().map(|part| part.len()).sum::<usize>();
    let mut response = respond::status(200);
    response
        .insert_header((CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")))
        .insert_header((
            HeaderName::from_static(HEADER_LENGTH),
            HeaderValue::from(json.len()),
        ));
    if length <= MAX_INLINE_REPLY {
        let mut body = json;
        body.reserve_exact(length - body.len());
        binary.iter().for_each(|part| body.extend_from_slice(part));
        return response.body(body);
    }
    let parts = [json.into()].into_iter().chain(binary).map(Ok::<_, Infallible>);
    response.body(SizedStream::new(length as u64, stream::iter(parts)))
}
