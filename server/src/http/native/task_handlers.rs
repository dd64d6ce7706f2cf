//! Handlers of the native routes, which run a task.
//!
//! When a client disconnects, the connection drops the handler's future (see [`crate::http::transport`]), which
//! removes the request's items from the queue.

use actix_web::dev::Payload;
use actix_web::http::header::{HeaderValue, RETRY_AFTER};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};

use super::reply::{EncodedReply, ReplyHead, encode_reply, max_size, raw_output};
use super::request_items::{Body, Form, read_body};
use crate::api::{Call, Decoding, Failure, ModelView, RequestRecord};
use crate::byte_budget::Reservation;
use crate::clock;
use crate::codec::{Strings, max_decoded_size};
use crate::engine::Reply;
use crate::http::jobs;
use crate::http::offload::{MAX_INLINE_BODY, MAX_INLINE_REPLY, run_by_size};
use crate::http::request_body::receive;
use crate::http::request_headers::{RequestHead, request_options};
use crate::http::respond::{self, add_server_timing};
use crate::http::server::Shared;
use crate::http::task_routes::TaskPath;
use crate::http::tei;
use crate::metrics::Protocol;
use crate::routes::TaskRoute;

/// `POST /v1/models/{model}/tasks/{task}/predict`
pub(in crate::http) async fn task(
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    path: TaskPath,
) -> HttpResponse {
    let find = |view: &ModelView| Call::to_task(view, &path.model, &path.task);
    answer(request, payload, shared, &path.model, find).await
}

/// `POST /v1/models/{model}/predict`
pub(in crate::http) async fn default_task(
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    path: TaskPath,
) -> HttpResponse {
    let find = |view: &ModelView| Call::to_default_task(view, &path.model);
    answer(request, payload, shared, &path.model, find).await
}

async fn answer(
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    model: &str,
    find: impl FnOnce(&ModelView) -> Result<Call, Failure>,
) -> HttpResponse {
    let (call, mut record) = {
        let view = shared.view(request);
        let call = find(&view);
        let record = shared.record(request, Protocol::Native, &view, model, &call);
        (call, record)
    };
    let result = predict(request, payload, shared, call, &mut record).await;
    respond::recorded(record, result, |failure| respond::failure(request, failure))
}

/// The configured short routes, which can change with a reload, and then the routes below the name of a model. All other unknown
/// paths are a 404.
pub(in crate::http) async fn short_route(
    request: HttpRequest,
    payload: web::Payload,
    shared: Data<Shared>,
) -> HttpResponse {
    let view = shared.view(&request);
    let Some((entry, task)) = view.snapshot().route(request.match_info().as_str()) else {
        return match *request.method() {
            Method::OPTIONS => {
                let methods = tei::methods_below_model(&request, &shared);
                respond::options(methods.unwrap_or("GET, HEAD, POST"))
            }
            _ => match tei::below_model(&request, payload, &shared).await {
                Some(response) => response,
                None => respond::not_found(&request),
            },
        };
    };
    if request.method() != Method::POST {
        return respond::unhandled_method(&request, "POST");
    }
    let call = Call::ready(view.client(), entry, task);
    if jobs::wants_job(&request) {
        // The job runs the task, even if the route is removed meanwhile.
        return match call {
            Ok(call) => {
                let path = TaskPath {
                    model: entry.name().to_owned(),
                    task: call.manifest().name.clone(),
                    version: None,
                };
                let payload = payload.into_inner();
                jobs::submit(TaskRoute::Task, &request, payload, &shared, path).await
            }
            Err(failure) => respond::failure(&request, &failure),
        };
    }
    if let Err(failure) = jobs::reject_job_headers(&request) {
        return respond::failure(&request, &failure);
    }
    let mut record = shared.record(&request, Protocol::Native, &view, entry.name(), &call);
    let result = predict(&request, payload.into_inner(), &shared, call, &mut record).await;
    respond::recorded(record, result, |failure| respond::failure(&request, failure))
}

async fn predict(
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    call: Result<Call, Failure>,
    record: &mut RequestRecord,
) -> Result<HttpResponse, Failure> {
    let call = call?;
    request.client().admit_request()?;
    let options = request_options(request, &call)?;
    let body = receive(request, payload, &shared.receive, record.received(), 0).await?;
    let content_type = request
        .header("content-type")
        .map(|value| String::from_utf8_lossy(value).into_owned());
    let size = body.len();
    let (body, decoded) = split(body, content_type, &call, shared).await?;
    let form = body.form;
    let reply = call.run(body.items, decoded, options, record).await?;
    write(request, call, form, size, reply, record).await
}

async fn split(
    body: Bytes,
    content_type: Option<String>,
    call: &Call,
    shared: &Shared,
) -> Result<(Body, Option<Reservation>), Failure> {
    let (limits, budget) = (shared.body, shared.receive.budget.clone());
    let (call, size) = (call.clone(), body.len());
    let split = move || {
        let task = call.manifest();
        let max_size = max_decoded_size(&body, &task.input, Strings::Shared);
        let decoding = Decoding::reserve(&budget, max_size)?;
        let read = read_body(&body, content_type.as_deref(), task, limits)?;
        let decoded = decoding.keep(&read.items, &body);
        Ok((read, decoded))
    };
    run_by_size(size, MAX_INLINE_BODY, split).await?
}

async fn write(
    request: &dyn RequestHead,
    call: Call,
    form: Form,
    request_size: usize,
    reply: Reply,
    record: &mut RequestRecord,
) -> Result<HttpResponse, Failure> {
    let started = clock::now();
    let timing = reply.timing;
    let succeeded = reply.outcomes.iter().all(Result::is_ok);
    let accept = request
        .header("accept")
        .and_then(|accept| std::str::from_utf8(accept).ok());
    let mut response = if let Some((data, media_type)) = raw_output(accept, &reply.outcomes) {
        respond::status(200).content_type(media_type).body(data.clone())
    } else {
        let (owned_call, id) = (call.clone(), request.request_id());
        let size = max_size(&reply.outcomes);
        let encode = move || encode(&owned_call, form, request_size, &reply, id.as_deref());
        let encoded = run_by_size(size, MAX_INLINE_REPLY, encode).await?;
        respond::json(encoded.status, encoded.body)
    };
    let elapsed = record.encoded(&call, started, succeeded);
    add_server_timing(&mut response, timing, elapsed);
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(response)
}

fn encode(
    call: &Call,
    form: Form,
    request_size: usize,
    reply: &Reply,
    request_id: Option<&str>,
) -> EncodedReply {
    let head = ReplyHead {
        model: call.entry.name(),
        task: &call.manifest().name,
        form,
        request_size,
        inference: reply.timing.inference,
        request_id,
    };
    encode_reply(&head, &reply.outcomes)
}
