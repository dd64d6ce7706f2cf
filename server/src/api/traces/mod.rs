//! Traces: decides which requests are traced, and passes what is known about them to the thread that exports spans.
//!
//! A request is described once, when its reply is written, by the numbers that its reply and the metrics have. `spans` makes
//! spans of it and [`TraceExporter`] sends them, in the thread of the exporter. A build without the feature `traces` only
//! reads the trace ids of clients, for the log.

#[cfg(feature = "traces")]
mod exporter;
mod queue;
mod sampler;
#[cfg(feature = "traces")]
mod spans;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::request_record::Run;
use crate::trace_context::{SpanId, TraceContext, TraceId};
use queue::SpanQueue;
use sampler::Sampler;

#[cfg(feature = "traces")]
pub use exporter::{StartError, TraceExporter};

/// The exporter of a build without the feature `traces`: there is none.
#[cfg(not(feature = "traces"))]
pub enum TraceExporter {}

#[cfg(not(feature = "traces"))]
impl TraceExporter {
    /// Never called.
    pub async fn stop(self, _: Instant) -> bool {
        match self {}
    }
}

/// The header of replies that names the span of a traced request, as in the draft of Trace Context Level 2.
pub const RESPONSE_HEADER: &str = "traceresponse";

/// Decides which requests are traced.
#[derive(Default)]
pub struct Tracer(Option<Active>);

struct Active {
    sampler: Sampler,
    queue: SpanQueue,
}

/// The scheme of the URL that a client called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The scheme as URLs have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A call, as its head describes it.
#[derive(Clone, Debug)]
pub struct TracedCall {
    /// The HTTP method; none for gRPC.
    pub method: Option<String>,
    /// The scheme of the client's URL; none for gRPC.
    pub scheme: Option<Scheme>,
    /// The path.
    pub path: Arc<str>,
    /// The pattern of the route, if it is not configured.
    pub route: Option<&'static str>,
    /// The address of the client.
    pub client: Option<IpAddr>,
    /// The program of the client, as it names itself.
    pub user_agent: Option<Arc<str>>,
}

/// The span of a call that is traced.
#[derive(Debug)]
pub(super) struct CallSpan {
    call: TracedCall,
    parent: Option<SpanId>,
    /// The value of `tracestate`.
    state: String,
    /// Whether the call runs a task. Other calls are not exported.
    is_request: AtomicBool,
}

/// The trace of a request.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// The trace, if the client has sent one or the request is traced.
    id: Option<TraceId>,
    span: Option<(TraceContext, Arc<CallSpan>)>,
}

impl Trace {
    /// The id of the trace.
    pub(super) fn id(&self) -> Option<TraceId> {
        self.id
    }

    /// The id of the trace, unless it is a new one that has no spans because the call does not run a task.
    pub(super) fn logged_id(&self) -> Option<TraceId> {
        let is_logged = |(_, call): &(TraceContext, Arc<CallSpan>)| {
            call.parent.is_some() || call.is_request.load(Ordering::Acquire)
        };
        self.id.filter(|_| self.span.as_ref().is_none_or(is_logged))
    }

    /// Marks the call as one that runs a task.
    pub(super) fn start_request(&self) {
        if let Some((_, call)) = &self.span {
            call.is_request.store(true, Ordering::Release);
        }
    }

    /// The value of the header [`RESPONSE_HEADER`] of the reply; none if the request is not traced.
    pub fn response(&self) -> Option<String> {
        let span = self.span.as_ref();
        let traced = span.filter(|(_, call)| call.is_request.load(Ordering::Acquire));
        traced.map(|(context, _)| context.traceparent())
    }

    /// The span of the request, if it is traced.
    pub(super) fn span(&self) -> Option<TraceContext> {
        self.span.as_ref().map(|(context, _)| *context)
    }

    /// A trace of another request of the same call.
    pub fn another_request(&self) -> Self {
        let another = |(context, call): &(TraceContext, Arc<CallSpan>)| {
            let context = TraceContext {
                span: SpanId::random(),
                ..*context
            };
            (context, call.clone())
        };
        Self {
            id: self.id,
            span: self.span.as_ref().map(another),
        }
    }
}

/// A traced request that has been answered.
pub(super) struct TracedRequest {
    pub(super) context: TraceContext,
    pub(super) call: Arc<CallSpan>,
    pub(super) protocol: &'static str,
    pub(super) model: Option<String>,
    pub(super) task: Option<String>,
    pub(super) request_id: Arc<str>,
    /// The HTTP status, which gRPC statuses are mapped to.
    pub(super) status: u16,
    /// The gRPC status.
    pub(super) grpc_status: Option<i32>,
    pub(super) started: Instant,
    pub(super) ended: Instant,
    /// The time at `ended`.
    pub(super) unix_time: Duration,
    pub(super) run: Option<Run>,
    /// When the writing of the reply started, and how long it took.
    pub(super) encode: Option<(Instant, Duration)>,
}

impl TracedRequest {
    /// Number of the spans of a request that ran like this.
    pub(super) fn spans(run: Option<&Run>, encode: bool) -> usize {
        let run = run.map_or(0, |run| {
            let batches = run.batches.first.len();
            batches + usize::from(batches > 0) + usize::from(!run.timing.prepare.is_zero())
        });
        1 + run + usize::from(encode)
    }
}

impl Tracer {
    /// Starts the trace of a request. `header` returns the value of a request header.
    pub fn start<'a>(
        &self,
        header: impl Fn(&'static str) -> Option<&'a [u8]>,
        describe: impl FnOnce() -> TracedCall,
    ) -> Trace {
        let parent = header("traceparent").and_then(TraceContext::parse);
        let id = parent.map(|parent| parent.trace);
        let Some(Active { sampler, .. }) = &self.0 else {
            return Trace { id, span: None };
        };
        let trace = id.unwrap_or_else(TraceId::random);
        if !sampler.samples(trace, parent.as_ref()) {
            return Trace { id, span: None };
        }
        let context = TraceContext {
            trace,
            span: SpanId::random(),
            is_sampled: true,
        };
        let state = parent.and_then(|_| header("tracestate")).unwrap_or_default();
        let call = CallSpan {
            call: describe(),
            parent: parent.map(|parent| parent.span),
            state: String::from_utf8_lossy(state).into_owned(),
            is_request: AtomicBool::new(false),
        };
        Trace {
            id: Some(trace),
            span: Some((context, Arc::new(call))),
        }
    }

    /// Passes a request that has been answered to the exporter. It is described only if there is room for this number of spans.
    pub(super) fn finish(
        &self,
        trace: Trace,
        spans: usize,
        describe: impl FnOnce(TraceContext, Arc<CallSpan>) -> TracedRequest,
    ) {
        if let (Some(Active { queue, .. }), Some((context, call))) = (&self.0, trace.span) {
            queue.send(spans, || describe(context, call));
        }
    }
}
