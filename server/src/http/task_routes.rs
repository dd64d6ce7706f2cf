//! The routes that run a task, in all protocols over HTTP.
//!
//! Most requests to them do not pass through actix-web; see [`super::service`]. The others are answered by the same
//! functions.

use actix_web::dev::Payload;
use actix_web::web::{self, Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;

use super::error_format::ErrorFormat;
use super::request_headers::RequestHead;
use super::server::Shared;
use super::{embeddings, jobs, native, rerank, respond, tei, v1, v2};
use crate::routes::{self, Route, TaskRoute};

/// The values in the path of a route.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(from = "Placeholders")]
pub(super) struct TaskPath {
    /// `model` or, in some protocols, `model.task`.
    pub(super) model: String,
    pub(super) task: String,
    pub(super) version: Option<String>,
}

/// The placeholders in the patterns of routes.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Placeholders {
    namespace: Option<String>,
    model: String,
    task: String,
    version: Option<String>,
}

impl From<Placeholders> for TaskPath {
    fn from(placeholders: Placeholders) -> Self {
        let Placeholders {
            namespace,
            model,
            task,
            version,
        } = placeholders;
        Self {
            model: match namespace {
                Some(namespace) => format!("{namespace}/{model}"),
                None => model,
            },
            task,
            version,
        }
    }
}

impl TaskPath {
    /// Reads a path that matches the route and has no encoded characters.
    pub(super) fn read(route: &Route, path: &str) -> Self {
        let mut values = Placeholders::default();
        for (name, value) in route.parameters(path) {
            match name {
                "namespace" => values.namespace = Some(value.to_owned()),
                "model" => values.model = value.to_owned(),
                "task" => values.task = value.to_owned(),
                _ => values.version = Some(value.to_owned()),
            }
        }
        values.into()
    }

    /// The path of a route that names only the model.
    pub(super) fn of_model(model: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            ..Self::default()
        }
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
    if task == TaskRoute::TeiRoot
        && path.model.is_empty()
        && let Some(response) = tei::reject_at_root(request, shared)
    {
        return response;
    }
    if jobs::wants_job(request) {
        // Boxed, because most requests never need this future, which is the largest.
        return Box::pin(jobs::submit(task, request, payload, shared, path)).await;
    }
    match jobs::reject_job_headers(request) {
        Ok(()) => run(task, request, payload, shared, path).await,
        Err(failure) => respond::failure_in(ErrorFormat::of_task(task), request, &failure),
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
        TaskRoute::Rerank => rerank::rerank(request, payload, shared, path).await,
        TaskRoute::Score => rerank::score::score(request, payload, shared).await,
        TaskRoute::Embeddings => embeddings::openai::embeddings(request, payload, shared, path).await,
        TaskRoute::CohereEmbed => embeddings::cohere::embed(request, payload, shared).await,
        TaskRoute::TeiEmbed
        | TaskRoute::TeiEmbedAll
        | TaskRoute::TeiEmbedSparse
        | TaskRoute::TeiSimilarity
        | TaskRoute::TeiPredict
        | TaskRoute::TeiTokenize
        | TaskRoute::TeiDecode
        | TaskRoute::TeiRoot => tei::answer(task, request, payload, shared, path).await,
    }
}

/// Registers the routes, for requests that pass through actix-web.
pub(super) fn configure(config: &mut ServiceConfig) {
    for (route, task) in routes::tasks().filter(|(route, _)| **route != routes::TEI_ROOT) {
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

/// `POST /`, for requests that pass through actix-web.
pub(super) async fn root(request: HttpRequest, payload: web::Payload, shared: Data<Shared>) -> HttpResponse {
    let (payload, path) = (payload.into_inner(), TaskPath::default());
    answer(TaskRoute::TeiRoot, &request, payload, &shared, path).await
}
