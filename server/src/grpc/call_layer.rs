//! The outermost layer of every call: assigns a request id, checks the API key and that no metadata with one value is repeated
//! before the message is read, limits the time for reading it, counts the call, and writes the access log.
//!
//! Health checks and reflection require no key and are neither counted nor logged. All other calls are, including
//! those to unknown methods.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::{Either, ready};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response};
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::call_body::{self, ReceivedBytes};
use super::inference_service::status;
use crate::api::access_log::{AccessLog, GRPC, IncomingHead};
use crate::api::traces::RESPONSE_HEADER;
use crate::api::{ApiKeys, Client, Telemetry, reject_repeated_headers};
use crate::byte_budget::ByteBudget;
use crate::clock;
use crate::config::Settings;
use crate::metrics::CallMetrics;
use crate::routes::Access;

/// Path prefix of the inference service.
const SERVICE: &str = "/inference.GRPCInferenceService/";

/// Methods that are health checks.
const PROBES: [&str; 2] = ["ServerLive", "ServerReady"];

/// All other methods. They are label values in metrics, which clients must not be able to add.
const METHODS: [&str; 10] = [
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "ModelInfer",
    "ModelStreamInfer",
];

/// Methods that require the admin key.
const ADMIN_METHODS: [&str; 2] = ["RepositoryModelLoad", "RepositoryModelUnload"];

/// Path prefixes of the services that require no key.
const OPEN_SERVICES: [&str; 3] = [
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];

/// The layer, shared by all connections.
#[derive(Clone)]
pub(super) struct CallLayer(Arc<Shared>);

struct Shared {
    keys: ApiKeys,
    access: Arc<AccessLog>,
    metrics: CallMetrics,
    body_timeout: Duration,
    budget: Arc<ByteBudget>,
    /// Whether models are loaded through the management port only.
    management_only: bool,
}

impl Shared {
    /// Checks that the client may call a method.
    ///
    /// # Errors
    /// The status of the reply.
    fn check(&self, access: Access, client: &Client) -> Result<(), Status> {
        let is_hidden = self.management_only && access == Access::Admin;
        let access = if is_hidden { Access::Client } else { access };
        client.check(access).map_err(|failure| status(&failure))?;
        match is_hidden {
            true => Err(Status::unimplemented(
                "this server loads and unloads models only through its management port, which speaks HTTP",
            )),
            false => Ok(()),
        }
    }
}

impl CallLayer {
    /// # Errors
    /// If the metrics are already registered.
    pub(super) fn new(
        settings: &Settings,
        telemetry: &Arc<Telemetry>,
        keys: ApiKeys,
        budget: Arc<ByteBudget>,
    ) -> Result<Self, prometheus::Error> {
        let server = &settings.server;
        Ok(Self(Arc::new(Shared {
            keys,
            access: Arc::new(AccessLog::new(&settings.logging, telemetry)),
            metrics: CallMetrics::new(&telemetry.metrics, &METHODS)?,
            body_timeout: server.body_timeout,
            budget,
            management_only: server.management_only,
        })))
    }
}

impl<S> Layer<S> for CallLayer {
    type Service = CallService<S>;

    fn layer(&self, inner: S) -> CallService<S> {
        CallService {
            inner,
            shared: self.0.clone(),
        }
    }
}

/// A service wrapped in the layer.
#[derive(Clone)]
pub(super) struct CallService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> CallService<S> {
    /// Limits the time and the bytes that the body of a call takes.
    fn limit(&self, request: Request<Body>) -> (Request<Body>, ReceivedBytes) {
        call_body::limit(request, self.shared.body_timeout, &self.shared.budget)
    }
}

impl<S> Service<Request<Body>> for CallService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let with_message = describe_unimplemented(path);
        let Some((method, access)) = classify(path) else {
            let (request, _) = self.limit(request);
            let answer = self.inner.call(request);
            return Box::pin(async move { answer.await.map(with_message) });
        };
        let connection = request.extensions().get::<TcpConnectInfo>();
        let client = connection.and_then(TcpConnectInfo::remote_addr);
        let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
        let incoming = IncomingHead {
            method: GRPC,
            scheme: None,
            path,
            client,
        };
        let only = |name| {
            let mut values = request.headers().get_all(name).iter();
            let value = values.next().map(HeaderValue::as_bytes);
            value.filter(|_| values.next().is_none())
        };
        let mut record = self.shared.access.start(incoming, only);
        let call_record = CallRecord::start(&self.shared, method);
        let sender = self
            .shared
            .keys
            .identify(header("authorization"), header("api-key"));
        record.set_key(sender.key_name());
        let allowed = self.shared.check(access, &sender);
        let answer = match allowed.and_then(|()| reject_repeated(request.headers())) {
            Ok(()) => {
                let mut request = request;
                request.extensions_mut().insert(record.trace().clone());
                request.extensions_mut().insert(sender.clone());
                // Log lines about the request's items include the id.
                if let Ok(id) = HeaderValue::from_str(record.id()) {
                    request
                        .headers_mut()
                        .insert(HeaderName::from_static("x-request-id"), id);
                }
                let (request, received) = self.limit(request);
                let answer = self.inner.call(request);
                Either::Left(async move { answer.await.map(|response| received.keep(response)) })
            }
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        };
        Box::pin(async move {
            let mut response = with_message(answer.await?);
            // A successful call has its status in the trailers.
            let status = Status::from_header_map(response.headers());
            let code = status.map_or(Code::Ok, |status| status.code());
            call_record.finish(code);
            sender.finish(code == Code::Ok);
            add_rate_limits(&sender, response.headers_mut());
            record.set_status(code.into());
            if let Ok(id) = HeaderValue::from_str(record.id()) {
                response
                    .headers_mut()
                    .insert(HeaderName::from_static("x-request-id"), id);
            }
            let span = record.trace().response();
            if let Some(span) = span.and_then(|span| HeaderValue::try_from(span).ok()) {
                let name = HeaderName::from_static(RESPONSE_HEADER);
                response.headers_mut().insert(name, span);
            }
            Ok(response)
        })
    }
}

/// Rejects a call that repeats metadata which has one value.
fn reject_repeated(metadata: &HeaderMap) -> Result<(), Status> {
    let count = |name| metadata.get_all(name).iter().count();
    let result = reject_repeated_headers(metadata.len() > metadata.keys_len(), count);
    result.map_err(|failure| status(&failure))
}

/// Adds what is left of the limits of the client's key.
fn add_rate_limits(client: &Client, headers: &mut HeaderMap) {
    for (name, value) in client.rate_limit_fields() {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// Adds a message to the status for unknown methods: the generated services and the router send none.
fn describe_unimplemented(path: &str) -> impl FnOnce(Response<Body>) -> Response<Body> + Send + use<> {
    let path: String = path.chars().take(200).collect();
    move |response| {
        let headers = response.headers();
        let is_bare = Status::from_header_map(headers)
            .is_some_and(|status| status.code() == Code::Unimplemented && status.message().is_empty());
        if !is_bare {
            return response;
        }
        Status::unimplemented(format!(
            "unknown method `{path}`; available services: inference.GRPCInferenceService, grpc.health.v1.Health, \
            grpc.reflection.v1.ServerReflection"
        ))
        .into_http()
    }
}

/// Returns the metric label of a call and the access it requires; `None` for health checks and reflection. Unknown
/// methods require a client key.
fn classify(path: &str) -> Option<(&'static str, Access)> {
    let Some(method) = path.strip_prefix(SERVICE) else {
        let is_open = OPEN_SERVICES.iter().any(|service| path.starts_with(service));
        return (!is_open).then_some(("other", Access::Client));
    };
    if PROBES.contains(&method) {
        return None;
    }
    let label = METHODS
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other");
    let access = if ADMIN_METHODS.contains(&label) {
        Access::Admin
    } else {
        Access::Client
    };
    Some((label, access))
}

/// The metrics record of a call in progress. If it is dropped before `finish`, the client disconnected.
struct CallRecord {
    shared: Arc<Shared>,
    method: &'static str,
    started: Instant,
    code: Code,
}

impl CallRecord {
    fn start(shared: &Arc<Shared>, method: &'static str) -> Self {
        Self {
            shared: shared.clone(),
            method,
            started: clock::now(),
            code: Code::Cancelled,
        }
    }

    fn finish(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        let elapsed = clock::now().saturating_duration_since(self.started);
        self.shared
            .metrics
            .observe(self.method, code_name(self.code), elapsed);
    }
}

/// The name of a status code in the gRPC specification.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_health_checks_and_reflection_require_no_key() {
        for path in [
            "/inference.GRPCInferenceService/ServerLive",
            "/inference.GRPCInferenceService/ServerReady",
            "/grpc.health.v1.Health/Check",
            "/grpc.health.v1.Health/Watch",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ] {
            assert_eq!(classify(path), None, "{path}");
        }
        for (path, expected) in [
            (
                "/inference.GRPCInferenceService/ModelInfer",
                ("ModelInfer", Access::Client),
            ),
            (
                "/inference.GRPCInferenceService/RepositoryModelLoad",
                ("RepositoryModelLoad", Access::Admin),
            ),
            (
                "/inference.GRPCInferenceService/RepositoryModelUnload",
                ("RepositoryModelUnload", Access::Admin),
            ),
            (
                "/inference.GRPCInferenceService/ServerLive/x",
                ("other", Access::Client),
            ),
            ("/inference.GRPCInferenceService/", ("other", Access::Client)),
            (
                "//inference.GRPCInferenceService/ServerLive",
                ("other", Access::Client),
            ),
            ("/grpc.health.v1.HealthX/Check", ("other", Access::Client)),
            ("/x/y", ("other", Access::Client)),
        ] {
            assert_eq!(classify(path), Some(expected), "{path}");
        }
    }
}
