//! Handlers that describe the server and its models.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use serde_json::json;

use crate::api::open_inference::{self, EXTENSIONS, SERVER_NAME, SERVER_VERSION};
use crate::api::{Call, ModelView, is_ready};
use crate::http::monitoring::MAX_INLINE_MODELS;
use crate::http::offload::run_by_size;
use crate::http::request_headers::RequestHead;
use crate::http::respond;
use crate::http::server::Shared;
use crate::http::task_routes::TaskPath;

/// `GET /v2`
pub(in crate::http) async fn server() -> HttpResponse {
    let body = json!({"name": SERVER_NAME, "version": SERVER_VERSION, "extensions": EXTENSIONS});
    respond::json(200, body.to_string())
}

/// `GET /v2/health/live`: does not depend on models.
pub(in crate::http) async fn live() -> HttpResponse {
    respond::json(200, "{\"live\":true}")
}

/// `GET /v2/health/ready`
pub(in crate::http) async fn ready(shared: Data<Shared>) -> HttpResponse {
    let ready = shared.registry.is_ready();
    let body = json!({"live": true, "ready": ready});
    respond::json(if ready { 200 } else { 503 }, body.to_string())
}

/// `GET /v2/models/{model}`
pub(in crate::http) async fn metadata(
    request: HttpRequest,
    shared: Data<Shared>,
    name: Path<TaskPath>,
) -> HttpResponse {
    describe_model(&request, &shared, &name, |call| {
        open_inference::metadata(&name.model, call)
    })
}

/// `GET /v2/models/{model}/ready`
pub(in crate::http) async fn model_ready(
    request: HttpRequest,
    shared: Data<Shared>,
    name: Path<TaskPath>,
) -> HttpResponse {
    match is_ready(
        &shared.registry,
        &request.client(),
        &name.model,
        name.version.as_deref(),
    ) {
        Ok(()) => respond::json(200, json!({"name": name.model, "ready": true}).to_string()),
        Err(failure) => respond::failure(&request, &failure),
    }
}

/// `GET /v2/models/{model}/config`
pub(in crate::http) async fn config(
    request: HttpRequest,
    shared: Data<Shared>,
    name: Path<TaskPath>,
) -> HttpResponse {
    describe_model(&request, &shared, &name, |call| {
        open_inference::config(&name.model, call)
    })
}

/// `GET /v2/models/{model}/stats`
pub(in crate::http) async fn statistics(
    request: HttpRequest,
    shared: Data<Shared>,
    name: Path<TaskPath>,
) -> HttpResponse {
    describe_model(
        &request,
        &shared,
        &name,
        |call| json!({"model_stats": [open_inference::statistics(&name.model, call)]}),
    )
}

/// `GET /v2/models/stats`
pub(in crate::http) async fn all_statistics(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    describe_all(&request, &shared, |view| {
        json!({ "model_stats": open_inference::all_statistics(view) }).to_string()
    })
    .await
}

/// Replies with data about all models that the client may use.
pub(super) async fn describe_all(
    request: &HttpRequest,
    shared: &Shared,
    write: impl FnOnce(&ModelView) -> String + Send + 'static,
) -> HttpResponse {
    let view = shared.view(request);
    let models = view.models().count();
    match run_by_size(models, MAX_INLINE_MODELS, move || write(&view)).await {
        Ok(text) => respond::json(200, text),
        Err(failure) => respond::failure(request, &failure),
    }
}

fn describe_model<T: Serialize>(
    request: &HttpRequest,
    shared: &Shared,
    name: &TaskPath,
    describe: impl Fn(&Call) -> T,
) -> HttpResponse {
    let view = shared.view(request);
    match Call::to_name(&view, &name.model, name.version.as_deref()) {
        Ok(call) => respond::json(200, json!(describe(&call)).to_string()),
        Err(failure) => respond::failure(request, &failure),
    }
}
