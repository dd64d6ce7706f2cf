//! A collector of traces: receives spans over OTLP, with gRPC or HTTP.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flate2::read::GzDecoder;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;

use super::eventually::eventually;

/// The protocol of a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Otlp {
    Grpc,
    Http,
}

impl Otlp {
    /// Returns the name in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
        }
    }
}

/// What was received.
#[derive(Default)]
struct Received {
    spans: Vec<Exported>,
    /// The resource of the last export.
    resource: BTreeMap<String, String>,
    /// The headers of the last export.
    headers: BTreeMap<String, String>,
}

/// A span that was received.
#[derive(Clone, Debug)]
pub(crate) struct Exported(Span);

impl Exported {
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the span's ids of the trace, the span and its parent. That of the parent is empty if there is none.
    pub(crate) fn ids(&self) -> [String; 3] {
        [&self.0.trace_id, &self.0.span_id, &self.0.parent_span_id].map(|id| hexadecimal(id))
    }

    pub(crate) fn trace(&self) -> String {
        hexadecimal(&self.0.trace_id)
    }

    pub(crate) fn trace_state(&self) -> &str {
        &self.0.trace_state
    }

    pub(crate) fn is_server(&self) -> bool {
        self.0.kind == 2
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.0.status.as_ref().is_some_and(|status| status.code == 2)
    }

    pub(crate) fn took(&self) -> Duration {
        Duration::from_nanos(self.0.end_time_unix_nano - self.0.start_time_unix_nano)
    }

    /// Returns the start and the end in nanoseconds since 1970.
    pub(crate) fn times(&self) -> (u64, u64) {
        (self.0.start_time_unix_nano, self.0.end_time_unix_nano)
    }

    /// Returns an attribute as text.
    pub(crate) fn attribute(&self, key: &str) -> Option<String> {
        texts(&self.0.attributes).remove(key)
    }

    /// Returns the ids of the spans that it links to.
    pub(crate) fn links(&self) -> Vec<String> {
        self.0
            .links
            .iter()
            .map(|link| hexadecimal(&link.span_id))
            .collect()
    }
}

fn hexadecimal(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| {
        let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
        let text = match value {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        };
        (pair.key.clone(), text)
    };
    attributes.iter().map(text).collect()
}

/// A running collector. It stops when it is dropped.
pub(crate) struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
    _runtime: Runtime,
}

impl Collector {
    /// Starts a collector at a free port.
    pub(crate) fn start(protocol: Otlp) -> Self {
        Self::start_at(protocol, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts a collector at this address.
    pub(crate) fn start_at(protocol: Otlp, address: SocketAddr) -> Self {
        let runtime = Runtime::new().expect("start a runtime");
        let listener = runtime
            .block_on(TcpListener::bind(address))
            .expect("the port is free");
        let address = listener.local_addr().expect("it listens");
        let received = Arc::new(Mutex::new(Received::default()));
        let service = Service(received.clone());
        match protocol {
            Otlp::Grpc => runtime.spawn(serve_grpc(listener, service)),
            Otlp::Http => runtime.spawn(serve_http(listener, service)),
        };
        Self {
            address,
            received,
            _runtime: runtime,
        }
    }

    /// Returns the endpoint.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn lock(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns all spans so far.
    pub(crate) fn spans(&self) -> Vec<Exported> {
        self.lock().spans.clone()
    }

    /// Returns the resource of the last export.
    pub(crate) fn resource(&self) -> BTreeMap<String, String> {
        self.lock().resource.clone()
    }

    /// Returns a header of the last export.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.lock().headers.get(name).cloned()
    }

    /// Waits for the spans of a trace: those of as many requests, which are exported together with their stages.
    #[track_caller]
    pub(crate) fn wait_for_trace(&self, trace: &str, requests: usize) -> Vec<Exported> {
        eventually(&format!("the trace {trace}"), || {
            let spans = self.spans().into_iter();
            let spans: Vec<Exported> = spans.filter(|span| span.trace() == trace).collect();
            match spans.iter().filter(|span| span.is_server()).count() {
                count if count == requests => Ok(spans),
                count => Err(count),
            }
        })
    }
}

#[derive(Clone)]
struct Service(Arc<Mutex<Received>>);

impl Service {
    fn receive<'a>(
        &self,
        request: ExportTraceServiceRequest,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) {
        let mut received = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text =
            |(name, value): (&str, &[u8])| (name.to_owned(), String::from_utf8_lossy(value).into_owned());
        received.headers = headers.map(text).collect();
        for resource in request.resource_spans {
            let attributes = resource.resource.map(|resource| texts(&resource.attributes));
            received.resource = attributes.unwrap_or_default();
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            received.spans.extend(spans.map(Exported));
        }
    }
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let (metadata, _, request) = request.into_parts();
        let headers = metadata.into_headers();
        self.receive(
            request,
            headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes())),
        );
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn serve_grpc(listener: TcpListener, service: Service) {
    let service = TraceServiceServer::new(service).accept_compressed(CompressionEncoding::Gzip);
    let server = tonic::transport::Server::builder().add_service(service);
    let served = server.serve_with_incoming(TcpIncoming::from(listener)).await;
    served.expect("the collector serves");
}

async fn serve_http(listener: TcpListener, service: Service) {
    while let Ok((socket, _)) = listener.accept().await {
        let service = service.clone();
        let answer = service_fn(move |request| answer_http(service.clone(), request));
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), answer);
        tokio::spawn(connection);
    }
}

async fn answer_http(
    service: Service,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    assert_eq!(head.uri.path(), "/v1/traces");
    let mut body = body.collect().await.expect("a body").to_bytes();
    if head
        .headers
        .get("content-encoding")
        .is_some_and(|encoding| encoding == "gzip")
    {
        let mut plain = Vec::new();
        GzDecoder::new(&body[..])
            .read_to_end(&mut plain)
            .expect("valid gzip");
        body = plain.into();
    }
    let request = ExportTraceServiceRequest::decode(body).expect("a valid message");
    service.receive(
        request,
        head.headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes())),
    );
    let reply = ExportTraceServiceResponse::default().encode_to_vec();
    let response = Response::builder().header("content-type", "application/x-protobuf");
    Ok(response.body(Full::from(reply)).expect("a valid response"))
}
