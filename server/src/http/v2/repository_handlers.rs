//! Handlers of the model repository: the index, and loading and unloading models.

use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};

use super::metadata_handlers::describe_all;
use crate::api::model_control::{ModelCommand, check_repository};
use crate::api::{Code, Failure, open_inference};
use crate::clock;
use crate::http::request_body::receive;
use crate::http::request_headers::RequestHead;
use crate::http::respond;
use crate::http::server::Shared;
use crate::http::task_routes::TaskPath;
use crate::json::{self, Object};

/// The body of a request for the repository index.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct IndexRequest {
    /// Whether to list only ready models.
    ready: bool,
    repository_name: String,
}

/// The body of a request to load or unload a model.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ControlRequest {
    parameters: Option<Map<String, Json>>,
    repository_name: String,
}

/// `POST /v2/repository/index`, whose body is empty or a JSON object.
pub(in crate::http) async fn index(
    request: HttpRequest,
    payload: web::Payload,
    shared: Data<Shared>,
) -> HttpResponse {
    let body = async {
        let body: IndexRequest = receive_json(&request, payload, &shared).await?;
        check_repository(&body.repository_name)?;
        Ok(body)
    };
    match body.await {
        Ok(body) => {
            describe_all(&request, &shared, move |view| {
                json!(open_inference::index(view, body.ready)).to_string()
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
    path: Path<TaskPath>,
) -> HttpResponse {
    execute(&request, payload, &shared, &path.model, ModelCommand::Load).await
}

/// `POST /v2/repository/models/{model}/unload`
pub(in crate::http) async fn unload(
    request: HttpRequest,
    payload: web::Payload,
    shared: Data<Shared>,
    path: Path<TaskPath>,
) -> HttpResponse {
    execute(&request, payload, &shared, &path.model, ModelCommand::Unload).await
}

/// Executes a command. The reply is an empty JSON object, as clients expect.
async fn execute(
    request: &HttpRequest,
    payload: web::Payload,
    shared: &Shared,
    model: &str,
    command: ModelCommand,
) -> HttpResponse {
    let execution = async {
        let body: ControlRequest = receive_json(request, payload, shared).await?;
        check_repository(&body.repository_name)?;
        command.check_parameters(&body.parameters.unwrap_or_default())?;
        request.client().check_model(model)?;
        shared.control.execute(command, model).await
    };
    match execution.await {
        Ok(()) => respond::json(200, "{}"),
        Err(failure) => respond::failure(request, &failure),
    }
}

/// Receives a JSON body, which can be empty.
async fn receive_json<T: DeserializeOwned + Default>(
    request: &HttpRequest,
    payload: web::Payload,
    shared: &Shared,
) -> Result<T, Failure> {
    let body = receive(request, payload.into_inner(), &shared.receive, clock::now(), 0).await?;
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    json::from_slice::<Object<T>>(&body)
        .map(|Object(read)| read)
        .map_err(|error| Failure::new(Code::Malformed, format!("malformed request body: {error}")))
}
