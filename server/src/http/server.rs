//! Builds the application (routes and layers) and serves it.
//!
//! [`transport`](super::transport) owns connections and threads. The layers, from the outside in: access log and request
//! id; CORS; keys and methods; metrics; compression.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use actix_cors::Cors;
use actix_web::dev::Handler;
use actix_web::middleware::{Condition, from_fn};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App, FromRequest, HttpRequest, Resource, Responder, guard};
use actix_web_prom::{PrometheusMetrics, PrometheusMetricsBuilder};
use arc_swap::ArcSwapOption;

use super::native::request_items::BodyLimits;
use super::native::task_handlers;
use super::request_body::ReceiveLimits;
use super::transport::{Limits, Transport};
use super::{compression, documentation, embeddings, landing_page, middleware, monitoring, respond, v1, v2};
use crate::api::access_log::AccessLog;
use crate::api::model_control::Control;
use crate::api::{Call, Failure, Keys, RequestRecord};
use crate::clock;
use crate::config::{ServerSettings, Settings};
use crate::metrics::{Metrics, Protocol};
use crate::registry::{Registry, Snapshot};
use crate::routes::{self, Route};

/// What all handlers share.
pub(crate) struct Shared {
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) receive: ReceiveLimits,
    pub(crate) body: BodyLimits,
    pub(super) keys: Keys,
    pub(super) control: Control,
    pub(super) access: Arc<AccessLog>,
    /// Whether the documentation is served.
    pub(super) docs: bool,
    pub(super) swagger: Arc<utoipa_swagger_ui::Config<'static>>,
    /// The OpenAPI document but for its servers, with the version of the snapshot that it describes.
    pub(super) openapi: ArcSwapOption<(u64, String)>,
}

impl Shared {
    fn new(settings: &Settings, registry: Arc<Registry>, metrics: Arc<Metrics>, control: Control) -> Self {
        let server = &settings.server;
        Self {
            registry,
            metrics,
            receive: ReceiveLimits {
                size: server.max_body_size,
                timeout: server.body_timeout,
            },
            body: BodyLimits {
                items: server.max_items_per_request.get(),
                depth: server.max_json_depth.get(),
            },
            keys: Keys::new(server.api_keys.clone(), server.admin_key.clone()),
            control,
            access: Arc::new(AccessLog::new(&settings.logging)),
            docs: server.docs,
            swagger: Arc::default(),
            openapi: ArcSwapOption::empty(),
        }
    }
}

impl Shared {
    /// Begins the record of a request that arrives now and is addressed to `call`; `name` is what the client called it.
    pub(super) fn record(
        &self,
        protocol: Protocol,
        snapshot: &Snapshot,
        name: &str,
        call: &Result<Call, Failure>,
    ) -> RequestRecord {
        let mut record = RequestRecord::new(&self.metrics, protocol, clock::now());
        record.addressed(snapshot, name, call);
        record
    }
}

/// The HTTP server, which listens and serves.
pub struct Server {
    transport: Transport,
}

impl Server {
    /// Listens and serves from now on. Must be called within a tokio runtime, which then accepts the connections.
    ///
    /// # Errors
    /// The address cannot be listened on, or the system refuses a thread.
    pub fn bind(
        settings: &Settings,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        control: Control,
    ) -> io::Result<Self> {
        let endpoints = endpoint_metrics(&metrics)?;
        let shared = Data::new(Shared::new(settings, registry, metrics, control));
        let server = &settings.server;
        let (compression, origins) = (server.compression, server.cors_allowed_origins.clone());
        let limits = Limits {
            max_connections: server.max_connections,
            keep_alive: server.keep_alive,
            header_timeout: server.header_timeout,
            any_origin: origins.iter().any(|origin| origin == "*"),
        };
        let application = move || {
            let shared = shared.clone();
            App::new()
                .wrap(Condition::new(compression, from_fn(compression::layer)))
                .wrap(endpoints.clone())
                .wrap(from_fn(middleware::gate))
                .wrap(Condition::new(!origins.is_empty(), cors(&origins)))
                .wrap(from_fn(middleware::layer))
                .configure(move |config| configure(config, shared))
        };
        let transport = Transport::start(address(server), limits, server.http_workers, application)?;
        Ok(Self { transport })
    }

    /// The addresses it listens on; for port 0, with the port that the system chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.transport.addresses()
    }

    /// Asks clients to reconnect: every reply from now on carries `connection: close`. Connections are still accepted.
    pub fn start_draining(&self) {
        self.transport.start_draining();
    }

    /// Waits until a part of the server has ended although nobody asked it to. Cancel-safe.
    pub async fn failed(&mut self) {
        self.transport.failed().await;
    }

    /// Stops accepting, and waits until every accepted request is answered or `deadline` has passed. Returns whether all
    /// were answered.
    pub async fn drain(self, deadline: Instant) -> bool {
        self.transport.stop(deadline).await
    }
}

fn address(server: &ServerSettings) -> (&str, u16) {
    (&server.host, server.port)
}

/// Requests and their durations by route pattern, in the process's registry. Probes are not counted.
fn endpoint_metrics(metrics: &Metrics) -> io::Result<PrometheusMetrics> {
    let builder = PrometheusMetricsBuilder::new("")
        .registry(metrics.registry().clone())
        .buckets(&metrics.buckets().request_seconds())
        .mask_unmatched_patterns("other");
    routes::probes()
        .fold(builder, |builder, path| builder.exclude(path))
        .build()
        .map_err(|error| io::Error::other(error.to_string()))
}

fn cors(origins: &[String]) -> Cors {
    let cors = Cors::default()
        .allowed_methods(["GET", "HEAD", "POST", "OPTIONS"])
        .allow_any_header()
        .expose_headers([
            "x-request-id",
            "server-timing",
            "retry-after",
            "inference-header-content-length",
        ])
        .max_age(3600);
    if origins.iter().any(|origin| origin == "*") {
        return cors.allow_any_origin();
    }
    origins
        .iter()
        .fold(cors, |cors, origin| cors.allowed_origin(origin))
}

/// All routes. What none of them matches goes to the operator's own routes, and from there to a 404.
fn configure(config: &mut ServiceConfig, shared: Data<Shared>) {
    // Routes are tried in this order: the one that is asked most comes first.
    config.service(post(routes::PREDICT_TASK, task_handlers::task));
    if shared.docs {
        config
            .service(get(routes::OPENAPI, documentation::openapi))
            .service(get(routes::DOCS_ROOT, documentation::redirect))
            .service(get(routes::DOCS, documentation::page));
    }
    config
        .app_data(shared)
        .app_data(web::PathConfig::default().error_handler(|_, request| {
            let response = respond::not_found(request);
            actix_web::error::InternalError::from_response("a name that is no text", response).into()
        }))
        .service(get(routes::ROOT, landing_page::root))
        .service(get(routes::FAVICON, documentation::favicon))
        .service(get(routes::HEALTH, monitoring::health))
        .service(get(routes::LIVEZ, monitoring::live))
        .service(get(routes::READYZ, monitoring::ready))
        .service(get(routes::METRICS, monitoring::metrics))
        .service(get(routes::MODELS, monitoring::models))
        .service(post(routes::EMBEDDINGS, embeddings::embeddings))
        .configure(configure_v1)
        .service(post(routes::PREDICT_DEFAULT, task_handlers::default_task))
        .service(get(routes::MODEL, monitoring::model))
        .configure(configure_v2)
        .default_service(web::to(task_handlers::short_route));
}

/// The routes of KServe's V1 protocol and of TensorFlow Serving.
fn configure_v1(config: &mut ServiceConfig) {
    config
        .service(post(routes::V1_PREDICT, v1::predict_handlers::predict))
        .service(post(routes::V1_OTHER, v1::predict_handlers::unsupported))
        .service(get(routes::V1_METADATA, v1::model_status::metadata))
        .service(get(routes::V1_VERSION, v1::model_status::version))
        .service(label(web::resource(routes::V1_LABEL.patterns.to_vec())));
}

/// Answers GET, HEAD and POST of a path with a version label.
fn label(resource: Resource) -> Resource {
    let methods = guard::Any(guard::Get()).or(guard::Head()).or(guard::Post());
    resource
        .route(web::route().guard(methods).to(v1::model_status::label))
        .default_service(web::to(|request: HttpRequest| async move {
            respond::other_method(&request, "GET, HEAD, POST")
        }))
}

/// The routes of the Open Inference Protocol.
fn configure_v2(config: &mut ServiceConfig) {
    config
        .service(post(routes::V2_INFER, v2::infer_handler::infer))
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
        .service(post(routes::V2_INDEX, v2::metadata_handlers::index))
        .service(post(routes::V2_LOAD, v2::metadata_handlers::load))
        .service(post(routes::V2_UNLOAD, v2::metadata_handlers::unload));
}

/// A route that `handler` answers for GET, and so for HEAD: actix leaves the body out.
fn get<F, Args>(route: Route, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let read = guard::Any(guard::Get()).or(guard::Head());
    web::resource(route.patterns.to_vec())
        .route(web::route().guard(read).to(handler))
        .default_service(web::to(|request: HttpRequest| async move {
            respond::other_method(&request, "GET, HEAD")
        }))
}

/// A route that `handler` answers for POST.
fn post<F, Args>(route: Route, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(route.patterns.to_vec())
        .route(web::post().to(handler))
        .default_service(web::to(|request: HttpRequest| async move {
            respond::other_method(&request, "POST")
        }))
}

#[cfg(test)]
mod tests;
