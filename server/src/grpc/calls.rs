//! The outermost layer: gives every call an id, limits the time of its message, counts it, and writes the access log.
//!
//! What machines probe every second is neither counted nor logged.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response};
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::body_timeout;
use crate::api::access::AccessLog;
use crate::clock;
use crate::metrics::CallMetrics;

/// The service whose calls are counted and logged.
const SERVICE: &str = "/inference.GRPCInferenceService/";

/// Its methods, but for `ServerLive` and `ServerReady`. A closed set, since each is a label.
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

/// The layer, which all connections share.
#[derive(Clone)]
pub(super) struct CallLayer(Arc<Shared>);

struct Shared {
    access: Arc<AccessLog>,
    metrics: CallMetrics,
    body_timeout: Duration,
}

impl CallLayer {
    pub(super) fn new(access: AccessLog, metrics: CallMetrics, body_timeout: Duration) -> Self {
        Self(Arc::new(Shared {
            access: Arc::new(access),
            metrics,
            body_timeout,
        }))
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
        let method = path.strip_prefix(SERVICE).and_then(method_called);
        let visit = method.map(|method| {
            let connection = request.extensions().get::<TcpConnectInfo>();
            let client = connection.and_then(TcpConnectInfo::remote_addr);
            let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
            let visit = self.shared.access.visit("gRPC", path, client, header);
            (visit, Counted::begin(&self.shared, method))
        });
        let answer = self
            .inner
            .call(body_timeout::limit(request, self.shared.body_timeout));
        Box::pin(async move {
            let mut response = answer.await?;
            if let Some((mut visit, counted)) = visit {
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
            }
            Ok(response)
        })
    }
}

/// The method of this name, if it is one that is counted.
fn method_called(name: &str) -> Option<&'static str> {
    METHODS.into_iter().find(|method| *method == name)
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
