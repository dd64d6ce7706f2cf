//! The protocol of text-embeddings-inference.
//!
//! Its server has one model. Here, the name of the model is in front of the path, as in `/BAAI/bge-small-en/embed`, or missing if
//! only one model can answer. `POST` to the name alone, or to `/`, does what the model can do. [`super::rerank`] ranks.

mod embed;
pub(super) mod info;
mod predict;
mod similarity;
mod tokens;

use actix_web::dev::Payload;
use actix_web::http::Method;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error_format::ErrorFormat;
use super::exchange::{self, Plan, ReceivedBody};
use super::request_headers::RequestHead;
use super::rerank;
use super::respond;
use super::server::Shared;
use super::task_routes::{self, TaskPath};
use crate::api::{Call, Client, Code, Failure, ItemCount, ModelName, ModelView, TaskRole, Unnamed};
use crate::metrics::Protocol;
use crate::routes::{self, Route, TaskRoute};

/// Answers a request to a route that runs a task.
pub(super) async fn answer(
    task: TaskRoute,
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    path: TaskPath,
) -> HttpResponse {
    let protocol = (Protocol::Tei, ErrorFormat::Rerank);
    let read = move |received: &ReceivedBody| {
        let mut plan = plan(task, received, &path.model).map_err(unsuitable)?;
        plan.call = plan.call.map_err(unsuitable);
        plan.items = plan.items.map_err(unsuitable);
        Ok(plan)
    };
    exchange::answer(request, payload, shared, protocol, read).await
}

fn plan(task: TaskRoute, received: &ReceivedBody, model: &str) -> Result<Plan, Failure> {
    match task {
        TaskRoute::TeiEmbedAll => embed::plan(received, model, TaskRole::TokenEmbeddings),
        TaskRoute::TeiEmbedSparse => embed::plan(received, model, TaskRole::SparseEmbedding),
        TaskRoute::TeiSimilarity => similarity::plan(received, model),
        TaskRoute::TeiPredict => predict::plan(received, model),
        TaskRoute::TeiTokenize => tokens::tokenize(received, model),
        TaskRoute::TeiDecode => tokens::decode(received, model),
        TaskRoute::TeiRoot => root(received, model),
        _ => embed::plan(received, model, TaskRole::Embedding),
    }
}

/// What a request to the model itself is about.
#[derive(Deserialize)]
struct RootRequest<'a> {
    #[serde(borrow)]
    inputs: Option<&'a RawValue>,
    #[serde(borrow)]
    query: Option<&'a RawValue>,
}

/// Does what the members of the request ask for: ranks, compares, or does what the model is for.
fn root(received: &ReceivedBody, model: &str) -> Result<Plan, Failure> {
    let request: RootRequest<'_> = received.parse()?;
    if request.query.is_some() && request.inputs.is_none() {
        return rerank::plan(received, model, false);
    }
    if request.inputs.is_some_and(|inputs| inputs.get().starts_with('{')) {
        return similarity::plan(received, model);
    }
    let name = ModelName::InPath(Some(model));
    let has = |role: &TaskRole| Call::has_role(&received.view, name, *role);
    match ROOT_ROLES.into_iter().find(has) {
        Some(TaskRole::Classifier) => predict::plan(received, model),
        Some(TaskRole::Reranker) => rerank::plan(received, model, false),
        // Without such a task, the error says what is missing.
        found => embed::plan(received, model, found.unwrap_or(TaskRole::Embedding)),
    }
}

/// The roles that a request without a route runs. A model has the first one of these.
pub(in crate::http) const ROOT_ROLES: [TaskRole; 5] = [
    TaskRole::Embedding,
    TaskRole::SparseEmbedding,
    TaskRole::Classifier,
    TaskRole::Reranker,
    TaskRole::TokenEmbeddings,
];

/// The error with its status in this protocol, in which a model that does not have a task for the route is a failed dependency, and
/// too many items are like a body that is too large.
pub(super) fn unsuitable(failure: Failure) -> Failure {
    let code = match failure.code {
        Code::Malformed if failure.param == Some("model") => Code::UnsuitableModel,
        _ => return too_many(failure),
    };
    Failure { code, ..failure }
}

/// The error with its status in this protocol, if it is about the number of items.
pub(super) fn too_many(failure: Failure) -> Failure {
    match failure.item_count {
        Some(ItemCount::TooMany) => Failure {
            code: Code::TooLarge,
            ..failure
        },
        _ => failure,
    }
}

/// Whether a request to `/` can run a model: a reranker, for requests with a query, or the first role that any model has.
pub(super) fn runs_at_root(view: &ModelView) -> bool {
    let has = |role: &TaskRole| Call::has_role(view, ModelName::InPath(None), *role);
    let first = ROOT_ROLES.into_iter().find(has);
    has(&TaskRole::Reranker) || first.is_some_and(|role| Call::unnamed(view, role) != Unnamed::Impossible)
}

/// The methods of `/`. The models that the client may use can run there, or those of any client, which the documentation
/// describes.
pub(super) fn methods_at_root(request: &dyn RequestHead, shared: &Shared) -> &'static str {
    let snapshot = shared.registry.snapshot();
    let all = ModelView::new(snapshot, Client::default());
    match runs_at_root(&shared.view(request)) || runs_at_root(&all) {
        true => "GET, HEAD, POST",
        false => "GET, HEAD",
    }
}

/// The error reply to `POST /`, if no model can run there.
pub(super) fn reject_at_root(request: &dyn RequestHead, shared: &Shared) -> Option<HttpResponse> {
    let allowed = methods_at_root(request, shared);
    if allowed.contains("POST") {
        return None;
    }
    let view = shared.view(request);
    let role = ROOT_ROLES
        .into_iter()
        .find(|role| Call::has_role(&view, ModelName::InPath(None), *role));
    let role = role.unwrap_or(TaskRole::Embedding);
    let reason = match Call::to_role(&view, ModelName::InPath(None), role) {
        Err(failure) => failure.message,
        Ok(_) => "no model can run at `/`".to_owned(),
    };
    let message = format!("method POST is not allowed; expected {allowed}: {reason}");
    let failure = Failure::new(Code::MethodNotAllowed, message);
    Some(respond::not_allowed(
        ErrorFormat::Native,
        request,
        allowed,
        &failure,
    ))
}

/// Whether a path consists of the name of a model that the client may use.
pub(super) fn names_model(path: &str, view: &ModelView) -> bool {
    let path = decoded_slashes(path);
    path.strip_prefix('/').is_some_and(|name| view.has_name(name))
}

/// The methods of a route whose path starts with the name of a model. `None` if no route matches.
pub(super) fn methods_below_model(request: &HttpRequest, shared: &Shared) -> Option<&'static str> {
    let path = path_with_slashes(request);
    let (_, route) = find_below_model(&path, &shared.view(request))?;
    Some(if route.task.is_some() { "POST" } else { "GET, HEAD" })
}

/// The name of the model and the route of a path that starts with a name.
fn find_below_model<'a>(path: &'a str, view: &ModelView) -> Option<(&'a str, &'static Route)> {
    routes::below_model(path).or_else(|| {
        let name = path.strip_prefix('/')?;
        view.named(name).ok()?;
        Some((name, &routes::TEI_ROOT))
    })
}

/// The path, in which the name of a model can have slashes.
fn path_with_slashes(request: &HttpRequest) -> String {
    decoded_slashes(request.match_info().as_str())
}

fn decoded_slashes(path: &str) -> String {
    path.replace("%2F", "/").replace("%2f", "/")
}

/// Answers a request whose path starts with the name of a model. `None` if no route matches.
pub(super) async fn below_model(
    request: &HttpRequest,
    payload: web::Payload,
    shared: &Data<Shared>,
) -> Option<HttpResponse> {
    let path = path_with_slashes(request);
    let (model, route) = find_below_model(&path, &shared.view(request))?;
    let Some(task) = route.task else {
        return Some(match *route == routes::TEI_INFO {
            true => info::below_model(request, shared, model),
            false => info::health(request, shared, model),
        });
    };
    if request.method() != Method::POST {
        return Some(respond::unhandled_method(request, "POST"));
    }
    let path = TaskPath::of_model(model);
    Some(task_routes::answer(task, request, payload.into_inner(), shared, path).await)
}
