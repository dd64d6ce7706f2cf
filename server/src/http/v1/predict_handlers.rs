//! Handlers of `POST /v1/models/{model}:predict` and of unsupported methods.

use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::web::{self, Path};
use actix_web::{HttpRequest, HttpResponse};

use super::predict_reply::write_reply;
use super::predict_request::{Form, Items, read_request};
use crate::api::{BodyLimits, Call, Code, Decoding, Failure, ModelView, RequestRecord};
use crate::byte_budget::{ByteBudget, Reservation};
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

/// `POST /v1/models/{model}:predict`
pub(in crate::http) async fn predict(
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    name: TaskPath,
) -> HttpResponse {
    let view = shared.view(request);
    // The body can name another task as its signature.
    let default = Call::to_name(&view, &name.model, name.version.as_deref());
    let mut record = shared.record(request, Protocol::V1, &view, &name.model, &default);
    let result = run(request, payload, shared, view, name, &mut record).await;
    respond::recorded(record, result, |failure| respond::failure(request, failure))
}

/// Methods of TensorFlow Serving and KServe that are not supported, such as `:classify` and `:explain`.
pub(in crate::http) async fn unsupported(request: HttpRequest, path: Path<Unsupported>) -> HttpResponse {
    let method: String = path.method.chars().take(40).collect();
    let message = format!("method `:{method}` is not supported; expected `:predict`");
    respond::failure(&request, &Failure::new(Code::NotFound, message))
}

/// The method in a path.
#[derive(serde::Deserialize)]
pub(in crate::http) struct Unsupported {
    method: String,
}

async fn run(
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    view: ModelView,
    name: TaskPath,
    record: &mut RequestRecord,
) -> Result<HttpResponse, Failure> {
    let received = record.received();
    Call::check_serves(&view, &name.model, name.version.as_deref())?;
    view.client().admit_request()?;
    let body = receive(request, payload, &shared.receive, received, 0).await?;
    let (limits, budget, size) = (shared.body, shared.receive.budget.clone(), body.len());
    let (request_view, model) = (view.clone(), name.model.clone());
    let read = move || read(&request_view, &name, &body, limits, &budget);
    let Read {
        call,
        form,
        items,
        decoded,
    } = run_by_size(size, MAX_INLINE_BODY, read).await??;
    record.set_address(view.snapshot(), &model, &Ok(call.clone()));
    let options = request_options(request, &call)?;
    let reply = call.run(items, decoded, options, record).await?;

    let started = clock::now();
    let (timing, outcomes) = (reply.timing, reply.outcomes);
    let succeeded = outcomes.iter().all(Result::is_ok);
    let size = max_size(&outcomes);
    let owned_call = call.clone();
    let write = move || write_reply(form, owned_call.manifest(), &outcomes);
    let json = run_by_size(size, MAX_INLINE_REPLY, write).await?;
    let elapsed = record.encoded(&call, started, succeeded);
    let mut response = respond::json(200, json?);
    add_server_timing(&mut response, timing, elapsed);
    Ok(response)
}

struct Read {
    call: Call,
    form: Form,
    items: Items,
    decoded: Option<Reservation>,
}

fn read(
    view: &ModelView,
    name: &TaskPath,
    body: &web::Bytes,
    limits: BodyLimits,
    budget: &Arc<ByteBudget>,
) -> Result<Read, Failure> {
    let request = read_request(body, limits)?;
    let version = name.version.as_deref();
    let call = Call::to_signature(view, &name.model, version, request.signature.as_deref())?;
    let strings = match request.form {
        Form::Rows => Strings::Shared,
        Form::Columns => Strings::Copied,
    };
    let decoding = Decoding::reserve(budget, max_decoded_size(body, &call.manifest().input, strings))?;
    let items = request.items(body, call.manifest(), limits)?;
    Ok(Read {
        form: request.form,
        decoded: decoding.keep(&items, body),
        items,
        call,
    })
}
