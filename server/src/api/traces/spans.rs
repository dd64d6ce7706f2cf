//! Makes the spans of a request: the request itself, and its preparation, queue, batches and encoding.
//!
//! The durations are those of the header `server-timing`. Stages run in this order, so the start of each follows from the
//! start of the batch that the request waited for longest.

use std::borrow::Cow;
use std::str::FromStr as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{Scheme, TracedRequest};
use crate::api::access_log::CLIENT_CLOSED_REQUEST;
use crate::api::request_record::Run;
use crate::engine::RequestBatch;
use crate::trace_context::{self, TraceContext};

/// Appends the spans of a request, the one of the request itself first.
pub(super) fn append(request: TracedRequest, spans: &mut Vec<SpanData>) {
    let mut builder = Builder::new(request);
    spans.push(builder.request());
    if let Some(run) = &builder.request.run {
        builder.append_stages(run, spans);
    }
    if let Some((started, took)) = builder.request.encode {
        spans.push(builder.stage("encode", started, took, Vec::new()));
    }
}

/// Maximum number of attributes of a span.
const MAX_ATTRIBUTES: usize = 15;

struct Builder {
    request: TracedRequest,
    state: TraceState,
    scope: InstrumentationScope,
}

impl Builder {
    fn new(request: TracedRequest) -> Self {
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"));
        Self {
            // An invalid one is ignored, as the standard requires.
            state: TraceState::from_str(&request.call.state).unwrap_or_default(),
            request,
            scope: scope.with_version(env!("CARGO_PKG_VERSION")).build(),
        }
    }

    fn request(&mut self) -> SpanData {
        let attributes = self.take_attributes();
        let request = &self.request;
        let parent = request.call.parent;
        SpanData {
            span_context: self.context(request.context.span),
            parent_span_id: parent.map_or(SpanId::INVALID, |parent| SpanId::from(parent.get())),
            parent_span_is_remote: parent.is_some(),
            span_kind: SpanKind::Server,
            name: self.name(),
            start_time: self.time(request.started),
            end_time: self.time(request.ended),
            attributes,
            status: match request.status {
                500.. => Status::error(""),
                _ => Status::Unset,
            },
            ..self.empty()
        }
    }

    fn name(&self) -> Cow<'static, str> {
        let call = &self.request.call.call;
        match (&call.method, call.route) {
            (None, _) => call.path.trim_start_matches('/').to_owned().into(),
            (Some(method), Some(route)) => format!("{method} {route}").into(),
            (Some(method), None) => method.clone().into(),
        }
    }

    /// The attributes of the request. Takes the names of the model and of the task, which nothing else needs.
    fn take_attributes(&mut self) -> Vec<KeyValue> {
        let (model, task) = (self.request.model.take(), self.request.task.take());
        let request = &self.request;
        let call = &request.call.call;
        let mut attributes = Vec::with_capacity(MAX_ATTRIBUTES);
        match &call.method {
            Some(method) => {
                add(&mut attributes, "http.request.method", Some(method.clone()));
                add(&mut attributes, "url.path", Some(call.path.clone()));
                add(&mut attributes, "http.route", call.route);
            }
            None => {
                let path = call.path.trim_start_matches('/');
                let (service, method) = path.split_once('/').unwrap_or_default();
                add(&mut attributes, "rpc.system", Some("grpc"));
                add(&mut attributes, "rpc.service", Some(service.to_owned()));
                add(&mut attributes, "rpc.method", Some(method.to_owned()));
            }
        }
        add(&mut attributes, "url.scheme", call.scheme.map(Scheme::as_str));
        add(
            &mut attributes,
            "client.address",
            call.client.map(|client| client.to_string()),
        );
        add(&mut attributes, "user_agent.original", call.user_agent.clone());
        add(&mut attributes, "inference.model", model);
        add(&mut attributes, "inference.task", task);
        add(&mut attributes, "inference.protocol", Some(request.protocol));
        let id = Some(request.request_id.clone()).filter(|id| !id.is_empty());
        add(&mut attributes, "inference.request.id", id);
        add(&mut attributes, "error.type", self.error_type());
        if request.status == CLIENT_CLOSED_REQUEST {
            return attributes;
        }
        attributes.push(match request.grpc_status {
            Some(status) => KeyValue::new("rpc.grpc.status_code", i64::from(status)),
            None => KeyValue::new("http.response.status_code", i64::from(request.status)),
        });
        if let Some(run) = &request.run {
            attributes.extend([
                KeyValue::new("inference.items", number(run.items)),
                KeyValue::new("inference.weight", i64::try_from(run.weight).unwrap_or(i64::MAX)),
                KeyValue::new("inference.batches", number(run.batches.count)),
            ]);
        }
        attributes
    }

    fn error_type(&self) -> Option<Cow<'static, str>> {
        match self.request.status {
            CLIENT_CLOSED_REQUEST => Some("client_disconnected".into()),
            status @ 500.. => Some(status.to_string().into()),
            _ => None,
        }
    }

    fn append_stages(&self, run: &Run, spans: &mut Vec<SpanData>) {
        let timing = run.timing;
        let longest = run.batches.first.iter().max_by_key(|batch| batch.waited);
        let start = |end: Instant, took| end.checked_sub(took).unwrap_or(end);
        // When the items were prepared.
        let ready = match longest {
            Some(longest) => start(longest.batch.started, timing.queue),
            None => self.request.started + timing.prepare,
        };
        if !timing.prepare.is_zero() {
            let started = start(ready, timing.prepare);
            spans.push(self.stage("prepare", started, timing.prepare, Vec::new()));
        }
        if longest.is_some() {
            spans.push(self.stage("queue", ready, timing.queue, Vec::new()));
        }
        spans.extend(run.batches.first.iter().map(|batch| self.batch(batch)));
    }

    fn batch(&self, RequestBatch { batch, .. }: &RequestBatch) -> SpanData {
        let attributes = vec![
            KeyValue::new("inference.batch.size", number(batch.items)),
            KeyValue::new(
                "inference.batch.weight",
                i64::try_from(batch.weight).unwrap_or(i64::MAX),
            ),
            KeyValue::new("inference.batch.reason", batch.reason.as_str()),
            KeyValue::new("inference.batch.worker", number(batch.worker)),
        ];
        let mut links = SpanLinks::default();
        links.links.extend(batch.traced.iter().map(link));
        links.dropped_count = u32::try_from(batch.more_traced).unwrap_or(u32::MAX);
        SpanData {
            links,
            ..self.stage("batch", batch.started, batch.took, attributes)
        }
    }

    /// A stage of the request.
    fn stage(
        &self,
        name: &'static str,
        started: Instant,
        took: Duration,
        attributes: Vec<KeyValue>,
    ) -> SpanData {
        let start_time = self.time(started);
        SpanData {
            name: name.into(),
            start_time,
            end_time: start_time + took,
            attributes,
            ..self.empty()
        }
    }

    /// A span of this trace, with a new id, below that of the request.
    fn empty(&self) -> SpanData {
        SpanData {
            span_context: self.context(trace_context::SpanId::random()),
            parent_span_id: SpanId::from(self.request.context.span.get()),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "".into(),
            start_time: UNIX_EPOCH,
            end_time: UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }

    fn context(&self, span: trace_context::SpanId) -> SpanContext {
        let context = TraceContext {
            span,
            ..self.request.context
        };
        span_context(&context, self.state.clone())
    }

    fn time(&self, instant: Instant) -> SystemTime {
        let before_end = self.request.ended.saturating_duration_since(instant);
        UNIX_EPOCH + self.request.unix_time.saturating_sub(before_end)
    }
}

fn span_context(context: &TraceContext, state: TraceState) -> SpanContext {
    SpanContext::new(
        TraceId::from(context.trace.get()),
        SpanId::from(context.span.get()),
        TraceFlags::SAMPLED,
        false,
        state,
    )
}

fn link(context: &TraceContext) -> Link {
    Link::with_context(span_context(context, TraceState::NONE))
}

fn add(attributes: &mut Vec<KeyValue>, key: &'static str, value: Option<impl Into<Value>>) {
    attributes.extend(value.map(|value| KeyValue::new(key, value)));
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
