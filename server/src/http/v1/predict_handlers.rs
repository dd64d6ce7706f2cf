//! `POST /v1/models/{model}:predict`: from a request's body to its reply.

use std::sync::Arc;

use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse};

use super::Name;
use super::predict_reply::write_reply;
use super::predict_request::{Form, Items, read_request};
use crate::api::{BodyLimits, Call, Code, Failure, RequestRecord};
use crate::clock;
use crate::http::native::reply::max_size;
use crate::http::native::task_handlers::{INLINE_BODY, INLINE_REPLY, add_timing, hints, run_sized};
use crate::http::request_body::receive;
use crate::http::respond;
use crate::http::server::Shared;
use crate::metrics::Protocol;
use crate::registry::Snapshot;

/// `POST /v1/models/{model}:predict`
pub(in crate::http) async fn predict(
    request: HttpRequest,
    payload: web::Payload,
    shared: Data<Shared>,
    name: Path<Name>,
) -> HttpResponse {
    let (name, snapshot) = (name.into_inner(), shared.registry.snapshot());
    // A signature in the body may name another task.
    let default = Call::to_name(&snapshot, &name.model, name.version.as_deref());
    let mut record = shared.record(Protocol::V1, &snapshot, &name.model, &default);
    let result = run(&request, payload, &shared, snapshot, name, &mut record).await;
    let response = result.unwrap_or_else(|failure| respond::failure(&request, &failure));
    record.answered(response.status().as_u16());
    response
}

/// Methods of TensorFlow Serving and KServe that are not supported, such as `:classify` and `:explain`.
pub(in crate::http) async fn unsupported(request: HttpRequest, path: Path<Unsupported>) -> HttpResponse {
    let method: String = path.method.chars().take(40).collect();
    let message = format!("method `:{method}` is not supported; use `:predict`");
    respond::failure(&request, &Failure::new(Code::NotFound, message))
}

/// The part of a path that names a method.
#[derive(serde::Deserialize)]
pub(in crate::http) struct Unsupported {
    method: String,
}

async fn run(
    request: &HttpRequest,
    payload: web::Payload,
    shared: &Shared,
    snapshot: Arc<Snapshot>,
    name: Name,
    record: &mut RequestRecord,
) -> Result<HttpResponse, Failure> {
    let received = record.received();
    Call::check_serves(&snapshot, &name.model, name.version.as_deref())?;
    let body = receive(request, payload, shared.receive, received, 0).await?;
    let (limits, size) = (shared.body, body.len());
    let (of_request, model) = (snapshot.clone(), name.model.clone());
    let read = move || read(&of_request, &name, &body, limits);
    let Read { call, form, items } = run_sized(size, INLINE_BODY, read).await??;
    record.addressed(&snapshot, &model, &Ok(call.clone()));
    let hints = hints(request, &call)?;
    let reply = call.run(items, received, hints).await?;

    let started = clock::now();
    let (timing, outcomes) = (reply.timing, reply.outcomes);
    let succeeded = outcomes.iter().all(Result::is_ok);
    let size = max_size(&outcomes);
    let of = call.clone();
    let write = move || write_reply(form, of.manifest(), &outcomes);
    let json = run_sized(size, INLINE_REPLY, write).await?;
    let took = call.observe_encode(started, succeeded);
    let mut response = respond::json(200, json?);
    add_timing(&mut response, timing, took);
    Ok(response)
}

struct Read {
    call: Call,
    form: Form,
    items: Items,
}

fn read(
    snapshot: &Arc<Snapshot>,
    name: &Name,
    body: &web::Bytes,
    limits: BodyLimits,
) -> Result<Read, Failure> {
    let request = read_request(body, limits)?;
    let version = name.version.as_deref();
    let call = Call::to_signature(snapshot, &name.model, version, request.signature.as_deref())?;
    let items = request.items(body, call.manifest(), limits)?;
    Ok(Read {
        form: request.form,
        items,
        call,
    })
}
