//! What the server and its models tell of themselves.

use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::Name;
use crate::api::model_control::{Order, check_repository};
use crate::api::open_inference::{self, EXTENSIONS, SERVER_NAME, SERVER_VERSION};
use crate::api::{Call, Code, Failure, is_ready};
use crate::clock;
use crate::http::monitoring::MAX_INLINE_MODELS;
use crate::http::native::task_handlers::run_sized;
use crate::http::request_body::receive;
use crate::http::respond;
use crate::http::server::Shared;
use crate::json::{self, Object};
use crate::registry::Snapshot;

/// `GET /v2`
pub(in crate::http) async fn server() -> HttpResponse {
    let body = json!({"name": SERVER_NAME, "version": SERVER_VERSION, "extensions": EXTENSIONS});
    respond::json(200, body.to_string())
}

/// `GET /v2/health/live`: never depends on models.
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
    name: Path<Name>,
) -> HttpResponse {
    of_model(&request, &shared, &name, |call| {
        open_inference::metadata(&name.model, call)
    })
}

/// `GET /v2/models/{model}/ready`
pub(in crate::http) async fn model_ready(
    request: HttpRequest,
    shared: Data<Shared>,
    name: Path<Name>,
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
    name: Path<Name>,
) -> HttpResponse {
    of_model(&request, &shared, &name, |call| {
        open_inference::config(&name.model, call)
    })
}

/// `GET /v2/models/{model}/stats`
pub(in crate::http) async fn statistics(
    request: HttpRequest,
    shared: Data<Shared>,
    name: Path<Name>,
) -> HttpResponse {
    of_model(
        &request,
        &shared,
        &name,
        |call| json!({"model_stats": [open_inference::statistics(&name.model, call)]}),
    )
}

/// `GET /v2/models/stats`
pub(in crate::http) async fn all_statistics(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    of_snapshot(&request, &shared, |snapshot| {
        json!({ "model_stats": open_inference::all_statistics(snapshot) }).to_string()
    })
    .await
}

/// What a client may ask of the list of models.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct IndexRequest {
    /// Only models that serve.
    ready: bool,
    repository_name: String,
}

/// The body of a request to load or unload a model.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OrderRequest {
    parameters: Option<Map<String, Json>>,
    repository_name: String,
}

/// `POST /v2/repository/index`, whose body is empty or a JSON object.
pub(in crate::http) async fn index(
    request: HttpRequest,
    payload: web::Payload,
    shared: Data<Shared>,
) -> HttpResponse {
    let asked = async {
        let asked: IndexRequest = receive_json(&request, payload, &shared).await?;
        check_repository(&asked.repository_name)?;
        Ok(asked)
    };
    match asked.await {
        Ok(asked) => {
            of_snapshot(&request, &shared, move |snapshot| {
                json!(open_inference::index(snapshot, asked.ready)).to_string()
            })
            .await
        }
        Err(failure) => respond::failure(&request, &failure),
    }
}

/// `POST /v2/repository/models/{model}/load`
pub(in crate::http) async fn load(
    request: HttpRequest,
    payload: web::Payload,
    shared: Data<Shared>,
    model: Path<String>,
) -> HttpResponse {
    order(&request, payload, &shared, &model, Order::Load).await
}

/// `POST /v2/repository/models/{model}/unload`
pub(in crate::http) async fn unload(
    request: HttpRequest,
    payload: web::Payload,
    shared: Data<Shared>,
    model: Path<String>,
) -> HttpResponse {
    order(&request, payload, &shared, &model, Order::Unload).await
}

/// The answer is empty JSON, as its clients expect.
async fn order(
    request: &HttpRequest,
    payload: web::Payload,
    shared: &Shared,
    model: &str,
    order: Order,
) -> HttpResponse {
    let carry_out = async {
        let asked: OrderRequest = receive_json(request, payload, shared).await?;
        check_repository(&asked.repository_name)?;
        order.check_parameters(&asked.parameters.unwrap_or_default())?;
        shared.control.give(order, model).await
    };
    match carry_out.await {
        Ok(()) => respond::json(200, "{}"),
        Err(failure) => respond::failure(request, &failure),
    }
}

/// Receives a body that may be empty.
async fn receive_json<T: DeserializeOwned + Default>(
    request: &HttpRequest,
    payload: web::Payload,
    shared: &Shared,
) -> Result<T, Failure> {
    let body = receive(request, payload, shared.receive, clock::now(), 0).await?;
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    json::from_slice::<Object<T>>(&body)
        .map(|Object(read)| read)
        .map_err(|error| Failure::new(Code::Malformed, format!("malformed request body: {error}")))
}

/// Answers about all models.
async fn of_snapshot(
    request: &HttpRequest,
    shared: &Shared,
    write: impl FnOnce(&Snapshot) -> String + Send + 'static,
) -> HttpResponse {
    let snapshot = shared.registry.snapshot();
    let models = snapshot.models().count();
    match run_sized(models, MAX_INLINE_MODELS, move || write(&snapshot)).await {
        Ok(text) => respond::json(200, text),
        Err(failure) => respond::failure(request, &failure),
    }
}

fn of_model<T: Serialize>(
    request: &HttpRequest,
    shared: &Shared,
    name: &Name,
    describe: impl Fn(&Call) -> T,
) -> HttpResponse {
    let snapshot = shared.registry.snapshot();
    match Call::to_name(&snapshot, &name.model, name.version.as_deref()) {
        Ok(call) => respond::json(200, json!(describe(&call)).to_string()),
        Err(failure) => respond::failure(request, &failure),
    }
}
