//! Builds the application, that is routes and middleware, and serves it.
//!
//! [`transport`](super::transport) owns connections and threads. The middleware, outermost first: request id and
//! access log; CORS; API keys and methods; metrics; compression.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use actix_cors::Cors;
use actix_web::dev::Handler;
use actix_web::middleware::{Condition, from_fn};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App, FromRequest, HttpRequest, Resource, Responder, guard};
use actix_web_prom::{PrometheusMetrics, PrometheusMetricsBuilder};
#[cfg(feature = "docs")]
use arc_swap::ArcSwapOption;

#[cfg(feature = "docs")]
use super::documentation;
use super::native::request_items::BodyLimits;
use super::native::task_handlers;
use super::request_body::ReceiveLimits;
use super::transport::{Heartbeats, Limits, Transport};
use super::{
    compression, embeddings, html_page, landing_page, middleware, monitoring, respond, transport, v1, v2,
};
use crate::api::access_log::AccessLog;
use crate::api::model_control::ModelControl;
use crate::api::{ApiKeys, Call, Failure, RequestRecord};
use crate::byte_budget::ByteBudget;
use crate::clock;
use crate::config::{ServerSettings, Settings};
use crate::metrics::{Metrics, Protocol};
use crate::registry::{Registry, Snapshot};
use crate::routes::{self, Route};

/// State shared by all handlers.
pub(crate) struct Shared {
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) receive: ReceiveLimits,
    pub(crate) body: BodyLimits,
    pub(super) keys: ApiKeys,
    pub(super) control: ModelControl,
    pub(super) access: Arc<AccessLog>,
    /// Whether the documentation is served.
    pub(super) docs: bool,
    #[cfg(feature = "docs")]
    pub(super) swagger: Arc<utoipa_swagger_ui::Config<'static>>,
    /// The cached OpenAPI document without its servers, and the version of the snapshot that it describes.
    #[cfg(feature = "docs")]
    pub(super) openapi: ArcSwapOption<(u64, String)>,
}

impl Shared {
    fn new(
        settings: &Settings,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        control: ModelControl,
        budget: Arc<ByteBudget>,
    ) -> Self {
        let server = &settings.server;
        Self {
            registry,
            metrics,
            receive: ReceiveLimits {
                size: server.max_body_size,
                timeout: server.body_timeout,
                budget,
            },
            body: BodyLimits {
                items: server.max_items_per_request.get(),
                depth: server.max_json_depth.get(),
            },
            keys: ApiKeys::new(server.api_keys.clone(), server.admin_key.clone()),
            control,
            access: Arc::new(AccessLog::new(&settings.logging)),
            docs: server.docs,
            #[cfg(feature = "docs")]
            swagger: Arc::default(),
            #[cfg(feature = "docs")]
            openapi: ArcSwapOption::empty(),
        }
    }
}

impl Shared {
    /// Starts the metrics record of a request that arrives now. `name` is the model name in the request.
    pub(super) fn record(
        &self,
        protocol: Protocol,
        snapshot: &Snapshot,
        name: &str,
        call: &Result<Call, Failure>,
    ) -> RequestRecord {
        let mut record = RequestRecord::new(&self.metrics, protocol, clock::now());
        record.set_address(snapshot, name, call);
        record
    }
}

/// A running HTTP server.
pub struct Server {
    transport: Transport,
}

impl Server {
    /// Starts serving connections to the sockets that were `passed`, or else to the configured port, which it binds. Must be
    /// called in a Tokio runtime, which accepts the connections.
    ///
    /// # Errors
    /// If the address cannot be bound or a thread cannot be started.
    pub fn bind(
        settings: &Settings,
        passed: Vec<TcpListener>,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        control: ModelControl,
        budget: Arc<ByteBudget>,
    ) -> io::Result<Self> {
        let endpoints = endpoint_metrics(&metrics)?;
        let shared = Data::new(Shared::new(settings, registry, metrics, control, budget));
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
                .wrap(Condition::new(
                    compression,
                    from_fn(compression::compress_replies),
                ))
                .wrap(endpoints.clone())
                .wrap(from_fn(middleware::check_access))
                .wrap(Condition::new(!origins.is_empty(), cors(&origins)))
                .wrap(from_fn(middleware::log_access))
                .configure(move |config| configure(config, shared))
        };
        let listeners = if passed.is_empty() {
            transport::bind(address(server))?
        } else {
            passed
        };
        let transport = Transport::start(listeners, limits, server.http_workers, application)?;
        Ok(Self { transport })
    }

    /// The addresses that the server listens on. If port 0 was configured, they contain the assigned port.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.transport.addresses()
    }

    /// Signs of life of the threads that serve connections.
    pub fn heartbeats(&self) -> Heartbeats {
        self.transport.heartbeats()
    }

    /// Adds `connection: close` to every reply from now on, which makes clients reconnect. Connections are still
    /// accepted.
    pub fn start_draining(&self) {
        self.transport.start_draining();
    }

    /// Waits until a thread or task of the server exits unexpectedly. Cancel-safe.
    pub async fn failed(&mut self) {
        self.transport.failed().await;
    }

    /// Stops accepting connections, and waits until every accepted request is answered or `deadline` passes. Returns
    /// whether all requests were answered.
    pub async fn drain(self, deadline: Instant) -> bool {
        self.transport.stop(deadline).await
    }
}

fn address(server: &ServerSettings) -> (&str, u16) {
    (&server.host, server.port)
}

/// Registers the metrics of requests by route pattern. Probes are not counted.
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

/// Registers all routes. Other paths are looked up in the configured short routes, and are a 404 if there is none.
fn configure(config: &mut ServiceConfig, shared: Data<Shared>) {
    // Routes are matched in this order, so the most frequent one is first.
    config.service(post(routes::PREDICT_TASK, task_handlers::task));
    #[cfg(feature = "docs")]
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
            actix_web::error::InternalError::from_response("invalid path", response).into()
        }))
        .service(get(routes::ROOT, landing_page::root))
        .service(get(routes::FAVICON, html_page::favicon))
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

/// Registers the routes of KServe's V1 and TensorFlow Serving's protocol.
fn configure_v1(config: &mut ServiceConfig) {
    config
        .service(post(routes::V1_PREDICT, v1::predict_handlers::predict))
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

/// Registers the routes of the Open Inference Protocol.
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
        .service(post(routes::V2_INDEX, v2::repository_handlers::index))
        .service(post(routes::V2_LOAD, v2::repository_handlers::load))
        .service(post(routes::V2_UNLOAD, v2::repository_handlers::unload));
}

/// A route that `handler` answers for GET and HEAD. For HEAD, actix omits the body.
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
            respond::unhandled_method(&request, "GET, HEAD")
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
            respond::unhandled_method(&request, "POST")
        }))
}

#[cfg(test)]
mod tests;
