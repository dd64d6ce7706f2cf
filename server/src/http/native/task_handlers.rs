//! The predict routes: from a request's body to its reply.
//!
//! If the client leaves, its connection drops the handler's future (see [`crate::http::transport`]), and with it the engine's
//! `Pending`, which removes the request's items from the queue.

use std::time::{Duration, Instant};

use actix_web::http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Bytes, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use plugin_abi::manifest::TaskManifest;

use super::reply::{EncodedReply, ReplyHead, encode_reply, max_size, raw_output};
use super::request_items::{Body, Form, read_body};
use crate::api::{Call, Code, Failure, Hints, RequestRecord};
use crate::clock;
use crate::engine::{Reply, Timing};
use crate::http::request_body::receive;
use crate::http::respond;
use crate::http::server::Shared;
use crate::metrics::Protocol;

/// Bodies above this are split on a blocking thread: it is about a tenth of a millisecond of work.
pub(in crate::http) const INLINE_BODY: usize = 128 * 1024;

/// Replies that may be larger than this are written on a blocking thread.
pub(in crate::http) const INLINE_REPLY: usize = 64 * 1024;

/// `POST /v1/models/{model}/tasks/{task}/predict`
pub(in crate::http) async fn task(
    request: HttpRequest,
    payload: web::Payload,
    shared: Data<Shared>,
    path: Path<(String, String)>,
) -> HttpResponse {
    let (model, task) = path.into_inner();
    let snapshot = shared.registry.snapshot();
    let call = Call::to_task(&snapshot, &model, &task);
    let record = shared.record(Protocol::Native, &snapshot, &model, &call);
    answer(&request, payload, &shared, call, record).await
}

/// `POST /v1/models/{model}/predict`
pub(in crate::http) async fn default_task(
    request: HttpRequest,
    payload: web::Payload,
    shared: Data<Shared>,
    model: Path<String>,
) -> HttpResponse {
    let snapshot = shared.registry.snapshot();
    let call = Call::to_default_task(&snapshot, &model);
    let record = shared.record(Protocol::Native, &snapshot, &model, &call);
    answer(&request, payload, &shared, call, record).await
}

/// The operator's own routes, which come and go with reloads; and whatever no other route answers.
pub(in crate::http) async fn short_route(
    request: HttpRequest,
    payload: web::Payload,
    shared: Data<Shared>,
) -> HttpResponse {
    let snapshot = shared.registry.snapshot();
    let Some((entry, task)) = snapshot.route(request.match_info().as_str()) else {
        return match *request.method() {
            Method::OPTIONS => respond::options("GET, HEAD, POST"),
            _ => respond::not_found(&request),
        };
    };
    if request.method() != Method::POST {
        return respond::other_method(&request, "POST");
    }
    let call = Call::ready(entry, task);
    let record = shared.record(Protocol::Native, &snapshot, entry.name(), &call);
    answer(&request, payload, &shared, call, record).await
}

async fn answer(
    request: &HttpRequest,
    payload: web::Payload,
    shared: &Shared,
    call: Result<Call, Failure>,
    record: RequestRecord,
) -> HttpResponse {
    let received = record.received();
    let result = match call {
        Ok(call) => predict(request, payload, shared, call, received).await,
        Err(failure) => Err(failure),
    };
    let response = result.unwrap_or_else(|failure| respond::failure(request, &failure));
    record.answered(response.status().as_u16());
    response
}

async fn predict(
    request: &HttpRequest,
    payload: web::Payload,
    shared: &Shared,
    call: Call,
    received: Instant,
) -> Result<HttpResponse, Failure> {
    let hints = hints(request, &call)?;
    let body = receive(request, payload, shared.receive, received, 0).await?;
    let content_type = request
        .headers()
        .get(CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let body = split(body, content_type, &call, shared).await?;
    let form = body.form;
    let reply = call.run(body.items, received, hints).await?;
    write(request, call, form, reply).await
}

/// What the headers say about how the request is to be treated.
pub(in crate::http) fn hints(request: &HttpRequest, call: &Call) -> Result<Hints, Failure> {
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    let mut hints = Hints::read(header, call.entry.settings.request_timeout)?;
    // The client's own, or the one that the access log has given to it.
    if let Some(id) = respond::id_of(request) {
        hints.request_id = id.into();
    }
    Ok(hints)
}

async fn split(
    body: Bytes,
    content_type: Option<String>,
    call: &Call,
    shared: &Shared,
) -> Result<Body, Failure> {
    let limits = shared.body;
    let split =
        move |body: &Bytes, task: &TaskManifest| read_body(body, content_type.as_deref(), task, limits);
    let (call, size) = (call.clone(), body.len());
    run_sized(size, INLINE_BODY, move || split(&body, call.manifest()))
        .await?
        .map_err(Failure::from)
}

async fn write(request: &HttpRequest, call: Call, form: Form, reply: Reply) -> Result<HttpResponse, Failure> {
    let started = clock::now();
    let timing = reply.timing;
    let succeeded = reply.outcomes.iter().all(Result::is_ok);
    let accept = request
        .headers()
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    let mut response = if let Some((data, media_type)) = raw_output(accept, &reply.outcomes) {
        respond::status(200).content_type(media_type).body(data.clone())
    } else {
        let (of, id) = (call.clone(), respond::id_of(request));
        let size = max_size(&reply.outcomes);
        let encode = move || encode(&of, form, &reply, id.as_deref());
        let encoded = run_sized(size, INLINE_REPLY, encode).await?;
        respond::json(encoded.status, encoded.body)
    };
    let took = call.observe_encode(started, succeeded);
    add_timing(&mut response, timing, took);
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(response)
}

fn encode(call: &Call, form: Form, reply: &Reply, request_id: Option<&str>) -> EncodedReply {
    let head = ReplyHead {
        model: call.entry.name(),
        task: &call.manifest().name,
        form,
        inference: reply.timing.inference,
        request_id,
    };
    encode_reply(&head, &reply.outcomes)
}

/// `Server-Timing`, which browsers and humans read; in milliseconds.
pub(in crate::http) fn add_timing(response: &mut HttpResponse, timing: Timing, encode: Duration) {
    let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
    let value = format!(
        "prepare;dur={:.3}, queue;dur={:.3}, inference;dur={:.3}, encode;dur={:.3}",
        millis(timing.prepare),
        millis(timing.queue),
        millis(timing.inference),
        millis(encode)
    );
    if let Ok(value) = HeaderValue::from_str(&value) {
        response
            .headers_mut()
            .insert(HeaderName::from_static("server-timing"), value);
    }
}

/// Runs `work` here if what it reads or writes is at most `max_inline` bytes, and else on a blocking thread.
pub(in crate::http) async fn run_sized<R: Send + 'static>(
    size: usize,
    max_inline: usize,
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, Failure> {
    if size <= max_inline {
        Ok(work())
    } else {
        off_the_loop(work).await
    }
}

/// Runs what takes long on a blocking thread, so that the other connections of this event loop go on.
pub(in crate::http) async fn off_the_loop<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, Failure> {
    web::block(work)
        .await
        .map_err(|_| Failure::new(Code::Internal, "the server is out of threads"))
}
