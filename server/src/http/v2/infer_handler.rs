//! `POST /v2/models/{model}/infer`: from a request's body to its reply.

use std::convert::Infallible;
use std::time::Instant;

use actix_web::body::SizedStream;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream;

use super::Name;
use super::infer_request::{HEADER_LENGTH, InferRequest, header_length, read_request};
use super::infer_response::{Encoded, Reply as Head, write_response};
use crate::api::tensors::{data_size, read_items, write_outputs};
use crate::api::{Call, Failure};
use crate::clock;
use crate::http::native::reply::max_size;
use crate::http::native::task_handlers::{INLINE_BODY, INLINE_REPLY, add_timing, hints, run_sized};
use crate::http::request_body::receive;
use crate::http::respond;
use crate::http::server::Shared;
use crate::metrics::Protocol;

/// `POST /v2/models/{model}/infer`
pub(in crate::http) async fn infer(
    request: HttpRequest,
    payload: web::Payload,
    shared: Data<Shared>,
    name: Path<Name>,
) -> HttpResponse {
    let snapshot = shared.registry.snapshot();
    let call = Call::to_name(&snapshot, &name.model, name.version.as_deref());
    let record = shared.record(Protocol::V2, &snapshot, &name.model, &call);
    let result = match call {
        Ok(call) => run(&request, payload, &shared, &name, call, record.received()).await,
        Err(failure) => Err(failure),
    };
    let response = result.unwrap_or_else(|failure| respond::failure(&request, &failure));
    record.answered(response.status().as_u16());
    response
}

async fn run(
    request: &HttpRequest,
    payload: web::Payload,
    shared: &Shared,
    name: &Name,
    call: Call,
    received: Instant,
) -> Result<HttpResponse, Failure> {
    let mut hints = hints(request, &call)?;
    let json_length = header_length(request.headers().get(HEADER_LENGTH).map(HeaderValue::as_bytes))?;
    let body = receive(
        request,
        payload,
        shared.receive,
        received,
        json_length.unwrap_or(0),
    )
    .await?;
    let (of, limits, size) = (call.clone(), shared.body, body.len());
    let read = move || {
        let task = of.manifest();
        let InferRequest {
            inputs,
            parameters,
            wanted,
            id,
        } = read_request(&body, json_length, task, limits)?;
        let items = read_items(task, inputs, &parameters.for_task, limits)?;
        Ok::<_, Failure>((items, parameters, wanted, id))
    };
    let (items, parameters, wanted, id) = run_sized(size, INLINE_BODY, read).await??;
    hints.override_with(parameters.timeout, parameters.priority);
    let reply = call.run(items, received, hints).await?;

    let started = clock::now();
    let id_size = id.as_ref().map_or(0, String::len);
    let size = match wanted.has_json() {
        true => max_size(&reply.outcomes),
        false => data_size(&reply.outcomes),
    };
    let (model, of) = (name.model.clone(), call.clone());
    let encode = move || {
        let task = of.manifest();
        let head = Head {
            model: &model,
            id: id.as_deref(),
            task,
        };
        write_response(&head, write_outputs(task, reply.outcomes)?, &wanted)
    };
    let encoded = run_sized(size.saturating_add(id_size), INLINE_REPLY, encode).await??;
    let mut response = respond_with(encoded);
    let took = call.observe_encode(started, true);
    add_timing(&mut response, reply.timing, took);
    Ok(response)
}

/// Sends the JSON and behind it the binary parts. Large parts go out as they are, one by one.
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
    if length <= INLINE_REPLY {
        let mut body = json;
        body.reserve_exact(length - body.len());
        binary.iter().for_each(|part| body.extend_from_slice(part));
        return response.body(body);
    }
    let parts = [json.into()].into_iter().chain(binary).map(Ok::<_, Infallible>);
    response.body(SizedStream::new(length as u64, stream::iter(parts)))
}
