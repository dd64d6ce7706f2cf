//! Registers the handler of each route with actix-web, for GET and HEAD or for POST. Those of routes that run a task are in
//! [`task_routes`], and those of the page for operators in `ui`.

use actix_web::dev::Handler;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{FromRequest, HttpRequest, Resource, Responder, guard};

#[cfg(feature = "docs")]
use super::documentation;
use super::native::task_handlers;
use super::server::Shared;
#[cfg(feature = "ui")]
use super::ui;
use super::{html_page, jobs, landing_page, monitoring, respond, task_routes, tei, v1, v2};
use crate::routes::{self, Route};

/// Registers all routes. Other paths are looked up in the configured short routes, and are a 404 if there is none.
pub(super) fn configure(config: &mut ServiceConfig, shared: Data<Shared>) {
    #[cfg(feature = "docs")]
    if shared.pages.docs {
        config
            .service(get(routes::OPENAPI, documentation::openapi))
            .service(get(routes::DOCS_ROOT, documentation::redirect))
            .service(get(routes::DOCS, documentation::page));
    }
    #[cfg(feature = "ui")]
    if shared.pages.ui {
        ui::configure(config);
    }
    config
        .app_data(shared)
        .app_data(web::PathConfig::default().error_handler(|_, request| {
            let response = respond::not_found(request);
            actix_web::error::InternalError::from_response("invalid path", response).into()
        }))
        .service(
            get(routes::ROOT, landing_page::root)
                .route(web::post().to(task_routes::root))
                .default_service(web::to(|request: HttpRequest, shared: Data<Shared>| async move {
                    respond::unhandled_method(&request, tei::methods_at_root(&request, &shared))
                })),
        )
        .service(get(routes::TEI_INFO, tei::info::root))
        .service(get(routes::FAVICON, html_page::favicon))
        .service(get(routes::HEALTH, monitoring::health))
        .service(get(routes::LIVEZ, monitoring::live))
        .service(get(routes::READYZ, monitoring::ready))
        .service(get(routes::METRICS, monitoring::metrics))
        .service(get(routes::MODELS, monitoring::models))
        .configure(task_routes::configure)
        .configure(configure_v1)
        .service(get(routes::MODEL, monitoring::model))
        .configure(configure_jobs)
        .configure(configure_v2)
        .default_service(web::to(task_handlers::short_route));
}

/// Registers the routes of KServe's V1 and TensorFlow Serving's protocol.
fn configure_v1(config: &mut ServiceConfig) {
    config
        .service(post(routes::V1_OTHER, v1::predict_handlers::unsupported))
        .service(get(routes::V1_METADATA, v1::model_status::metadata))
        .service(get(routes::V1_VERSION, v1::model_status::version))
        .service(label(web::resource(routes::V1_LABEL.patterns.to_vec())));
}

/// Handles GET, HEAD and POST on a path with a version label.
fn label(resource: Resource) -> Resource {
    let methods = guard::Any(guard::Get()).or(guard::Head()).or(guard::Post());
    resource
        .route(web::route().guard(methods).to(v1::model_status::label))
        .default_service(web::to(|request: HttpRequest| async move {
            respond::unhandled_method(&request, "GET, HEAD, POST")
        }))
}

/// Registers the routes of durable jobs.
fn configure_jobs(config: &mut ServiceConfig) {
    let methods = guard::Any(guard::Get()).or(guard::Head()).or(guard::Delete());
    let job = web::resource(routes::JOB.patterns.to_vec())
        .route(web::route().guard(methods).to(jobs::handlers::job))
        .default_service(web::to(|request: HttpRequest| async move {
            respond::unhandled_method(&request, "GET, HEAD, DELETE")
        }));
    config
        .service(get(routes::JOBS, jobs::handlers::list))
        .service(job)
        .service(get(routes::JOB_RESULT, jobs::handlers::result))
        .service(post(routes::JOB_RETRY, jobs::handlers::retry));
}

/// Registers the routes of the Open Inference Protocol.
fn configure_v2(config: &mut ServiceConfig) {
    config
        .service(get(routes::V2_SERVER, v2::metadata_handlers::server))
        .service(get(routes::V2_LIVE, v2::metadata_handlers::live))
        .service(get(routes::V2_READY, v2::metadata_handlers::ready))
        .service(get(
            routes::V2_ALL_STATISTICS,
            v2::metadata_handlers::all_statistics,
        ))
        .service(get(routes::V2_STATISTICS, v2::metadata_handlers::statistics))
        .service(get(routes::V2_CONFIG, v2::metadata_handlers::config))
        .service(get(routes::V2_MODEL_READY, v2::metadata_handlers::model_ready))
        .service(get(routes::V2_MODEL, v2::metadata_handlers::metadata))
        .service(post(routes::V2_INDEX, v2::repository_handlers::index))
        .service(post(routes::V2_LOAD, v2::repository_handlers::load))
        .service(post(routes::V2_UNLOAD, v2::repository_handlers::unload));
}

/// A route that `handler` answers for GET and HEAD. For HEAD, actix omits the body.
pub(super) fn get<F, Args>(route: Route, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let read = guard::Any(guard::Get()).or(guard::Head());
    web::resource(route.patterns.to_vec())
        .route(web::route().guard(read).to(handler))
        .default_service(web::to(|request: HttpRequest| async move {
            respond::unhandled_method(&request, "GET, HEAD")
        }))
}

/// A route that `handler` answers for POST.
pub(super) fn post<F, Args>(route: Route, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(route.patterns.to_vec())
        .route(web::post().to(handler))
        .default_service(web::to(|request: HttpRequest| async move {
            respond::unhandled_method(&request, "POST")
        }))
}
