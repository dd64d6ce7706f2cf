//! Builds the application, that is routes and middleware, and serves it.
//!
//! [`transport`](super::transport) owns connections and threads, and [`service`](super::service) is what it calls for each
//! request. The middleware of the actix application, outermost first: CORS, methods, metrics, API keys, compression.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use actix_cors::Cors;
use actix_web::App;
use actix_web::http::StatusCode;
use actix_web::middleware::{Condition, from_fn};
use actix_web::web::Data;
use actix_web_prom::{PrometheusMetrics, PrometheusMetricsBuilder};
#[cfg(feature = "docs")]
use arc_swap::ArcSwapOption;
use hyper::http::request::Parts;

#[cfg(feature = "docs")]
use super::documentation;
use super::jobs::JobExecutor;
use super::native::request_items::BodyLimits;
use super::request_body::ReceiveLimits;
use super::request_headers::{RequestHead, first_value};
use super::route_handlers::configure;
use super::service::HttpService;
use super::transport::{Heartbeats, Limits, Sockets, Transport};
#[cfg(feature = "ui")]
use super::ui::Ui;
use super::{compression, middleware, transport};
use crate::api::access_log::AccessLog;
use crate::api::live::LiveFeed;
use crate::api::model_control::ModelControl;
use crate::api::{ApiKeys, Call, Client, Failure, ModelView, RequestRecord, Telemetry};
use crate::byte_budget::ByteBudget;
use crate::clock;
use crate::config::Settings;
use crate::jobs::Jobs;
use crate::metrics::{Metrics, Protocol, TaskEndpoints};
use crate::registry::Registry;
use crate::routes::{self, Pages, Route, TaskRoute};
use crate::tls::Certificates;

/// State shared by all handlers.
pub(crate) struct Shared {
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(crate) receive: ReceiveLimits,
    pub(crate) body: BodyLimits,
    pub(super) keys: ApiKeys,
    pub(super) control: ModelControl,
    pub(super) access: Arc<AccessLog>,
    pub(super) jobs: Arc<Jobs>,
    pub(super) endpoints: TaskEndpoints,
    /// Whether replies are compressed for clients that accept it.
    pub(super) compression: bool,
    /// Whether web pages of other origins may call the server.
    pub(super) cors: bool,
    /// Maximum number of threads of each model that prepare items.
    pub(super) prepare_threads: usize,
    /// Whether connections to the main port use TLS. Those to the management port do not.
    pub(super) has_tls: bool,
    /// The pages that are served.
    pub(super) pages: Pages,
    /// The page for operators, if it is served.
    #[cfg(feature = "ui")]
    pub(super) ui: Option<Ui>,
    /// Whether metrics, the loading of models and the page for operators are served by the management port only.
    pub(super) management_only: bool,
    #[cfg(feature = "docs")]
    pub(super) swagger: Arc<utoipa_swagger_ui::Config<'static>>,
    /// The cached OpenAPI document.
    #[cfg(feature = "docs")]
    pub(super) openapi: ArcSwapOption<documentation::WrittenDocument>,
}

impl Shared {
    fn new(
        settings: &Settings,
        registry: Arc<Registry>,
        telemetry: Arc<Telemetry>,
        (control, keys): (ModelControl, ApiKeys),
        (budget, jobs): (Arc<ByteBudget>, Arc<Jobs>),
        #[cfg_attr(not(feature = "ui"), allow(unused_variables, reason = "it is for the page"))] feed: Option<
            Arc<LiveFeed>,
        >,
    ) -> io::Result<Self> {
        let server = &settings.server;
        let metrics = telemetry.metrics.clone();
        #[cfg(feature = "ui")]
        let ui = feed.map(|feed| Ui::new(feed, keys.clone(), server.tls.is_some()));
        Ok(Self {
            endpoints: TaskEndpoints::new(&metrics).map_err(io::Error::other)?,
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
            keys,
            control,
            jobs,
            access: Arc::new(AccessLog::new(&settings.logging, &telemetry)),
            telemetry,
            compression: server.compression,
            cors: !server.cors_allowed_origins.is_empty(),
            prepare_threads: server.prepare_threads.get(),
            has_tls: server.tls.is_some(),
            pages: Pages {
                docs: server.docs,
                ui: server.ui,
            },
            #[cfg(feature = "ui")]
            ui,
            management_only: server.management_only,
            #[cfg(feature = "docs")]
            swagger: Arc::default(),
            #[cfg(feature = "docs")]
            openapi: ArcSwapOption::empty(),
        })
    }
}

impl Shared {
    /// Starts the metrics record of a request that arrives now. `name` is the model name in the request.
    pub(super) fn record(
        &self,
        request: &dyn RequestHead,
        protocol: Protocol,
        view: &ModelView,
        name: &str,
        call: &Result<Call, Failure>,
    ) -> RequestRecord {
        let mut record = RequestRecord::new(&self.telemetry, protocol, clock::now(), request.trace());
        record.set_address(view.snapshot(), name, call);
        record
    }

    /// Identifies the client of a request by its key, or else by the session of a browser.
    pub(super) fn identify(
        &self,
        head: &Parts,
        #[cfg_attr(not(feature = "ui"), allow(unused_variables, reason = "it is for the page"))]
        is_management: bool,
    ) -> Client {
        let (authorization, api_key) = (first_value(head, "authorization"), first_value(head, "api-key"));
        #[cfg(feature = "ui")]
        if authorization.is_none()
            && api_key.is_none()
            && let Some(client) = self.ui.as_ref().and_then(|ui| ui.client(head, is_management))
        {
            return client;
        }
        self.keys.identify(authorization, api_key)
    }

    /// The models that the client of a request may use.
    pub(super) fn view(&self, request: &dyn RequestHead) -> ModelView {
        ModelView::new(self.registry.snapshot(), request.client())
    }

    /// Counts a request to a route that runs a task.
    pub(super) fn count(
        &self,
        route: (&Route, TaskRoute),
        method: &str,
        status: StatusCode,
        received: Instant,
    ) {
        let took = clock::now().saturating_duration_since(received);
        self.endpoints.observe(route, method, status.as_str(), took);
    }
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot listen on an address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Host and port.
        address: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A thread or another resource of the operating system is not available.
    #[error("operating system error")]
    System(#[from] io::Error),
}

/// A running HTTP server.
pub struct Server {
    transport: Transport,
    shared: Data<Shared>,
    feed: Option<Arc<LiveFeed>>,
}

impl Server {
    /// Starts serving connections to the sockets that were `passed`, or else to the configured port, which it binds, and
    /// to the management port. All of them except the management port require TLS if there are `certificates`.
    ///
    /// # Errors
    /// If an address cannot be bound or a thread cannot be started.
    pub fn bind(
        settings: &Settings,
        passed: Vec<TcpListener>,
        certificates: Option<Arc<Certificates>>,
        registry: Arc<Registry>,
        telemetry: Arc<Telemetry>,
        (control, keys): (ModelControl, ApiKeys),
        (budget, jobs): (Arc<ByteBudget>, Arc<Jobs>),
    ) -> Result<Self, StartError> {
        let feed = settings
            .server
            .ui
            .then(|| LiveFeed::new(registry.clone(), telemetry.clone()));
        let endpoints = endpoint_metrics(&telemetry.metrics)?;
        let shared = Data::new(Shared::new(
            settings,
            registry,
            telemetry,
            (control, keys),
            (budget, jobs),
            feed.clone(),
        )?);
        let server = &settings.server;
        let origins = server.cors_allowed_origins.clone();
        let limits = Limits {
            max_connections: server.max_connections,
            keep_alive: server.keep_alive,
            header_timeout: server.header_timeout,
            any_origin: origins.iter().any(|origin| origin == "*"),
        };
        let of_service = shared.clone();
        let service = async move || {
            let shared = of_service.clone();
            let routes = shared.clone();
            let application = App::new()
                .wrap(Condition::new(
                    shared.compression,
                    from_fn(compression::compress_replies),
                ))
                .wrap(from_fn(middleware::check_key))
                .wrap(endpoints.clone())
                .wrap(from_fn(middleware::count_task_requests))
                .wrap(from_fn(middleware::check_method))
                .wrap(Condition::new(shared.cors, cors(&origins)))
                .configure(move |config| configure(config, routes));
            HttpService::new(shared, application).await
        };
        let sockets = Sockets {
            main: if passed.is_empty() {
                bind(&server.host, server.port)?
            } else {
                passed
            },
            management: match server.management_port {
                Some(port) => bind(&server.management_host, port)?,
                None => Vec::new(),
            },
            tls: certificates,
        };
        let transport = Transport::start(sockets, limits, server.http_workers, is_probe, service)?;
        Ok(Self {
            transport,
            shared,
            feed,
        })
    }

    /// What runs the requests of jobs, with the handlers of this server.
    pub fn job_executor(&self) -> JobExecutor {
        JobExecutor(self.shared.clone())
    }

    /// The addresses that the server listens on. If port 0 was configured, they contain the assigned port.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.transport.addresses()
    }

    /// The live state for the page for operators, if it is served. The application samples it.
    pub fn live_feed(&self) -> Option<Arc<LiveFeed>> {
        self.feed.clone()
    }

    /// Signs of life of the threads that serve connections.
    pub fn heartbeats(&self) -> Heartbeats {
        self.transport.heartbeats()
    }

    /// The addresses of the management port, if there is one.
    pub fn management_addresses(&self) -> &[SocketAddr] {
        self.transport.management_addresses()
    }

    /// Closes each connection after its reply from now on, which makes clients reconnect. Connections are still
    /// accepted. Ends the streams of open pages.
    pub fn start_draining(&self) {
        if let Some(feed) = &self.feed {
            feed.close();
        }
        self.transport.start_draining();
    }

    /// Waits until a thread or task of the server exits unexpectedly. Cancel-safe.
    pub async fn failed(&mut self) {
        self.transport.failed().await;
    }

    /// Stops accepting connections, and waits until every accepted request is answered or `deadline` passes. Returns
    /// whether all requests were answered.
    pub async fn drain(self, deadline: Instant) -> bool {
        if let Some(feed) = &self.feed {
            feed.close();
        }
        self.transport.stop(deadline).await
    }
}

fn bind(host: &str, port: u16) -> Result<Vec<TcpListener>, StartError> {
    transport::bind((host, port)).map_err(|source| StartError::Listen {
        address: format!("{host}:{port}"),
        source,
    })
}

/// Whether a request that starts with these bytes is a probe. It is if they contain its path.
fn is_probe(start: &[u8]) -> bool {
    let Some(path) = [b"GET ".as_slice(), b"HEAD "]
        .into_iter()
        .find_map(|method| start.strip_prefix(method))
    else {
        return false;
    };
    let end = path.iter().position(|byte| matches!(byte, b' ' | b'?'));
    end.and_then(|end| std::str::from_utf8(&path[..end]).ok())
        .and_then(routes::find)
        .is_some_and(|route| route.is_probe)
}

/// Registers the metrics of requests by route pattern. Probes are not counted, routes that run a task are counted by
/// [`TaskEndpoints`], and the time of a stream of events says nothing about the server.
fn endpoint_metrics(metrics: &Metrics) -> io::Result<PrometheusMetrics> {
    let builder = PrometheusMetricsBuilder::new("")
        .registry(metrics.registry().clone())
        .buckets(&metrics.buckets().request_seconds())
        .mask_unmatched_patterns("other");
    let tasks = routes::tasks().filter(|(route, _)| **route != routes::TEI_ROOT);
    let tasks = tasks.map(|(route, _)| route.patterns[0]);
    routes::probes()
        .chain(tasks)
        .chain(routes::UI_EVENTS.patterns.iter().copied())
        .fold(builder, |builder, path| builder.exclude(path))
        .build()
        .map_err(|error| io::Error::other(error.to_string()))
}

fn cors(origins: &[String]) -> Cors {
    let cors = Cors::default()
        .allowed_methods(["GET", "HEAD", "POST", "DELETE", "OPTIONS"])
        .allow_any_header()
        .expose_headers([
            "x-request-id",
            "server-timing",
            "traceresponse",
            "retry-after",
            "location",
            "preference-applied",
            "inference-header-content-length",
            "ratelimit",
            "ratelimit-policy",
        ])
        .max_age(3600);
    if origins.iter().any(|origin| origin == "*") {
        return cors.allow_any_origin();
    }
    origins
        .iter()
        .fold(cors, |cors, origin| cors.allowed_origin(origin))
}

#[cfg(test)]
mod tests;
