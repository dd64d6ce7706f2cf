//! The routes that run a task, in all protocols over HTTP.
//!
//! Most requests to them do not pass through actix-web; see [`super::service`]. The others are answered by the same
//! functions.

use actix_web::dev::Payload;
use actix_web::web::{self, Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;

use super::request_headers::RequestHead;
use super::server::Shared;
use super::{embeddings, jobs, native, rerank, respond, v1, v2};
use crate::routes::{self, Route, TaskRoute};

/// The values in the path of such a route.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct TaskPath {
    /// `model` or, in some protocols, `model.task`.
    pub(super) model: String,
    pub(super) task: String,
    pub(super) version: Option<String>,
}

impl TaskPath {
    /// Reads a path that matches the route and has no encoded characters.
    pub(super) fn read(route: &Route, path: &str) -> Self {
        let mut values = Self::default();
        for (name, value) in route.parameters(path) {
            match name {
                "model" => values.model = value.to_owned(),
                "task" => values.task = value.to_owned(),
                _ => values.version = Some(value.to_owned()),
            }
        }
        values
    }
}

/// Answers a request that is allowed to run its task: runs the task, or stores the request as a job.
pub(super) async fn answer(
    task: TaskRoute,
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    path: TaskPath,
) -> HttpResponse {
    if jobs::wants_job(request) {
        return jobs::submit(task, request, payload, shared, path).await;
    }
    match jobs::reject_job_headers(request) {
        Ok(()) => run(task, request, payload, shared, path).await,
        Err(failure) => respond::failure(request, &failure),
    }
}

/// Runs the task of a request.
pub(super) async fn run(
    task: TaskRoute,
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    path: TaskPath,
) -> HttpResponse {
    match task {
        TaskRoute::Task => native::task_handlers::task(request, payload, shared, path).await,
        TaskRoute::Default => native::task_handlers::default_task(request, payload, shared, path).await,
        TaskRoute::V1 => v1::predict_handlers::predict(request, payload, shared, path).await,
        TaskRoute::V2 => v2::infer_handler::infer(request, payload, shared, path).await,
        TaskRoute::Rerank => rerank::rerank(request, payload, shared).await,
        TaskRoute::Score => rerank::score::score(request, payload, shared).await,
        TaskRoute::Embeddings => embeddings::embeddings(request, payload, shared, path).await,
    }
}

/// Registers the routes, for requests that pass through actix-web.
pub(super) fn configure(config: &mut ServiceConfig) {
    for (route, task) in routes::tasks() {
        let run = move |request: HttpRequest,
                        payload: web::Payload,
                        shared: Data<Shared>,
                        path: Path<TaskPath>| async move {
            answer(task, &request, payload.into_inner(), &shared, path.into_inner()).await
        };
        let resource = web::resource(route.patterns.to_vec()).route(web::post().to(run));
        config.service(
            resource.default_service(web::to(|request: HttpRequest| async move {
                respond::unhandled_method(&request, "POST")
            })),
        );
    }
}
