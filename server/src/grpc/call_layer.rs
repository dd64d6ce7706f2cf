//! The outermost layer: gives every call an id, checks the client's key before its message is read, limits the time for
//! reading it, counts the call, and writes the access log.
//!
//! Health checks and reflection need no key, and are neither counted nor logged. Every other call is, whatever its path.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::{Either, ready};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response};
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::body_timeout;
use super::inference_service::status;
use crate::api::Keys;
use crate::api::access_log::AccessLog;
use crate::clock;
use crate::config::Settings;
use crate::metrics::{CallMetrics, Metrics};
use crate::routes::Access;

/// The inference service.
const SERVICE: &str = "/inference.GRPCInferenceService/";

/// Its methods that are health checks.
const PROBES: [&str; 2] = ["ServerLive", "ServerReady"];

/// Its other methods. Each is the value of a label, which clients must not be able to invent.
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

/// Those of them that need the admin key.
const ADMIN_METHODS: [&str; 2] = ["RepositoryModelLoad", "RepositoryModelUnload"];

/// The services that need no key.
const OPEN_SERVICES: [&str; 3] = [
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];

/// The layer, which all connections share.
#[derive(Clone)]
pub(super) struct CallLayer(Arc<Shared>);

struct Shared {
    keys: Keys,
    access: Arc<AccessLog>,
    metrics: CallMetrics,
    body_timeout: Duration,
}

impl CallLayer {
    /// # Errors
    /// The metrics are registered already.
    pub(super) fn new(settings: &Settings, metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let server = &settings.server;
        Ok(Self(Arc::new(Shared {
            keys: Keys::new(server.api_keys.clone(), server.admin_key.clone()),
            access: Arc::new(AccessLog::new(&settings.logging)),
            metrics: CallMetrics::new(metrics, &METHODS)?,
            body_timeout: server.body_timeout,
        })))
    }
}

impl<S> Layer<S> for CallLayer {
    type Service = Calls<S>;

    fn layer(&self, inner: S) -> Calls<S> {
        Calls {
            inner,
            shared: self.0.clone(),
        }
    }
}

/// A service under the layer.
#[derive(Clone)]
pub(super) struct Calls<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Request<Body>> for Calls<S>
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
        let explained = explain_unimplemented(path);
        let Some((method, access)) = classify(path) else {
            let request = body_timeout::limit(request, self.shared.body_timeout);
            let answer = self.inner.call(request);
            return Box::pin(async move { answer.await.map(explained) });
        };
        let connection = request.extensions().get::<TcpConnectInfo>();
        let client = connection.and_then(TcpConnectInfo::remote_addr);
        let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
        let mut visit = self.shared.access.visit("gRPC", path, client, header);
        let counted = Counted::begin(&self.shared, method);
        let answer = match self.shared.keys.check(access, header("authorization")) {
            Ok(()) => {
                let mut request = request;
                // For the log of whatever becomes of the request.
                if let Ok(id) = HeaderValue::from_str(visit.id()) {
                    request
                        .headers_mut()
                        .insert(HeaderName::from_static("x-request-id"), id);
                }
                let request = body_timeout::limit(request, self.shared.body_timeout);
                Either::Left(self.inner.call(request))
            }
            Err(failure) => Either::Right(ready(Ok(status(&failure).into_http()))),
        };
        Box::pin(async move {
            let mut response = explained(answer.await?);
            // What went well has its status behind the message.
            let status = Status::from_header_map(response.headers());
            let code = status.map_or(Code::Ok, |status| status.code());
            counted.end(code);
            visit.set_status(code.into());
            if let Ok(id) = HeaderValue::from_str(visit.id()) {
                response
                    .headers_mut()
                    .insert(HeaderName::from_static("x-request-id"), id);
            }
            Ok(response)
        })
    }
}

/// Adds a message to the answer of a path that has no method: the generated services and the router send only a status.
fn explain_unimplemented(path: &str) -> impl FnOnce(Response<Body>) -> Response<Body> + Send + use<> {
    let path: String = path.chars().take(200).collect();
    move |response| {
        let headers = response.headers();
        let is_bare = Status::from_header_map(headers)
            .is_some_and(|status| status.code() == Code::Unimplemented && status.message().is_empty());
        if !is_bare {
            return response;
        }
        Status::unimplemented(format!(
            "unknown method `{path}`; this server has the methods of inference.GRPCInferenceService, \
             grpc.health.v1.Health and server reflection"
        ))
        .into_http()
    }
}

/// The label of a call, and which key it needs; `None` for calls that need no key. A path that is not known needs a key.
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

/// A call on its way, for the metrics. Dropped unfinished, its client went away.
struct Counted {
    shared: Arc<Shared>,
    method: &'static str,
    started: Instant,
    code: Code,
}

impl Counted {
    fn begin(shared: &Arc<Shared>, method: &'static str) -> Self {
        Self {
            shared: shared.clone(),
            method,
            started: clock::now(),
            code: Code::Cancelled,
        }
    }

    fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let took = clock::now().saturating_duration_since(self.started);
        self.shared.metrics.observe(self.method, name_of(self.code), took);
    }
}

/// The name of a status in the specification of gRPC.
fn name_of(code: Code) -> &'static str {
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
    fn only_health_checks_and_reflection_need_no_key() {
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
