//! Handlers that describe the server and its models.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use serde_json::json;

use super::ModelPath;
use crate::api::open_inference::{self, EXTENSIONS, SERVER_NAME, SERVER_VERSION};
use crate::api::{Call, is_ready};
use crate::http::monitoring::MAX_INLINE_MODELS;
use crate::http::offload::run_by_size;
use crate::http::respond;
use crate::http::server::Shared;
use crate::registry::Snapshot;

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
    name: Path<ModelPath>,
) -> HttpResponse {
    describe_model(&request, &shared, &name, |call| {
        open_inference::metadata(&name.model, call)
    })
}

/// `GET /v2/models/{model}/ready`
pub(in crate::http) async fn model_ready(
    request: HttpRequest,
    shared: Data<Shared>,
    name: Path<ModelPath>,
) -> HttpResponse {
    match is_ready(&shared.registry, &name.model, name.version.as_deref()) {
        Ok(()) => respond::json(200, json!({"name": name.model, "ready": true}).to_string()),
        Err(failure) => respond::failure(&request, &failure),
    }
}

/// `GET /v2/models/{model}/config`
pub(in crate::http) async fn config(
    request: HttpRequest,
    shared: Data<Shared>,
    name: Path<ModelPath>,
) -> HttpResponse {
    describe_model(&request, &shared, &name, |call| {
        open_inference::config(&name.model, call)
    })
}

/// `GET /v2/models/{model}/stats`
pub(in crate::http) async fn statistics(
    request: HttpRequest,
    shared: Data<Shared>,
    name: Path<ModelPath>,
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
    describe_all(&request, &shared, |snapshot| {
        json!({ "model_stats": open_inference::all_statistics(snapshot) }).to_string()
    })
    .await
}

/// Replies with data about all models.
pub(super) async fn describe_all(
    request: &HttpRequest,
    shared: &Shared,
    write: impl FnOnce(&Snapshot) -> String + Send + 'static,
) -> HttpResponse {
    let snapshot = shared.registry.snapshot();
    let models = snapshot.models().count();
    match run_by_size(models, MAX_INLINE_MODELS, move || write(&snapshot)).await {
        Ok(text) => respond::json(200, text),
        Err(failure) => respond::failure(request, &failure),
    }
}

fn describe_model<T: Serialize>(
    request: &HttpRequest,
    shared: &Shared,
    name: &ModelPath,
    describe: impl Fn(&Call) -> T,
) -> HttpResponse {
    let snapshot = shared.registry.snapshot();
    match Call::to_name(&snapshot, &name.model, name.version.as_deref()) {
        Ok(call) => respond::json(200, json!(describe(&call)).to_string()),
        Err(failure) => respond::failure(request, &failure),
    }
}
