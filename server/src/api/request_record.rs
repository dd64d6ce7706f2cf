//! The record of an inference request, shared by all protocols: for the metrics, the log of slow requests, and traces.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::access_log::CLIENT_CLOSED_REQUEST;
use super::call::Call;
use super::failure::{Code, Failure};
use super::live::{NotableKind, NotableRequest};
use super::slow_requests::SlowRequest;
use super::telemetry::Telemetry;
use super::traces::{Trace, TracedRequest};
use crate::batch_context::RequestTag;
use crate::clock;
use crate::engine::{Reply, RequestBatches, Timing, Tracking};
use crate::metrics::Protocol;
use crate::registry::{ModelEntry, Snapshot};

/// Measures a request from its arrival to its reply. It is recorded once, when the record is dropped: with the status
/// of the reply, or as a disconnect if there is none. Requests to unknown models are not counted, because clients
/// must not create label values.
pub struct RequestRecord {
    telemetry: Arc<Telemetry>,
    protocol: Protocol,
    received: Instant,
    trace: Trace,
    id: Arc<str>,
    address: Option<Address>,
    run: Option<Run>,
    /// When the writing of the reply started, and how long it took.
    encode: Option<(Instant, Duration)>,
    /// What failed, for operators. Never a message about the input.
    reason: Option<String>,
    status: u16,
    grpc_status: Option<i32>,
    is_discarded: bool,
}

/// The model, and the task if it is known.
enum Address {
    Task(Call),
    /// A model that is not ready, or that has no such task.
    Model(Arc<ModelEntry>),
}

/// How a request ran.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Number of its items.
    pub(super) items: usize,
    /// Their weight, as far as the model stated it.
    #[cfg_attr(
        not(feature = "traces"),
        allow(dead_code, reason = "only traces contain the weight")
    )]
    pub(super) weight: u64,
    /// Where its time went.
    pub(super) timing: Timing,
    /// Its batches.
    pub(super) batches: RequestBatches,
}

impl RequestRecord {
    /// Starts the record of a request that arrived at `received`.
    pub fn new(telemetry: &Arc<Telemetry>, protocol: Protocol, received: Instant, trace: Trace) -> Self {
        trace.start_request();
        Self {
            telemetry: telemetry.clone(),
            protocol,
            received,
            trace,
            id: Arc::default(),
            address: None,
            run: None,
            encode: None,
            reason: None,
            status: CLIENT_CLOSED_REQUEST,
            grpc_status: None,
            is_discarded: false,
        }
    }

    /// Sets the model and task. If the task is unknown or the model is not ready, the request is counted for the
    /// model that `name`, from the request, refers to.
    pub fn set_address(&mut self, snapshot: &Snapshot, name: &str, call: &Result<Call, Failure>) {
        self.address = match call {
            Ok(call) => Some(Address::Task(call.clone())),
            Err(_) => snapshot
                .named(name)
                .map(|(entry, _)| Address::Model(entry.clone())),
        };
    }

    /// Arrival time of the request.
    pub fn received(&self) -> Instant {
        self.received
    }

    /// Sets the id of the request, and returns how it is followed through the engine.
    pub(super) fn track(&mut self, id: Arc<str>) -> Tracking {
        self.id = id.clone();
        let trace = self.trace.span();
        Tracking {
            tag: RequestTag {
                id,
                trace: self.trace.id().map(|trace| trace.to_string().into()),
            },
            trace,
            lists_batches: trace.is_some() || self.telemetry.slow_requests.is_enabled(),
        }
    }

    /// Records why the request failed.
    pub fn failed(&mut self, failure: &Failure) {
        let name = failure.code.name();
        self.reason = Some(match failure.code {
            // The message can repeat a part of the input.
            Code::Malformed | Code::InvalidInput | Code::Unsupported | Code::UnsupportedMediaType => {
                name.to_owned()
            }
            _ => format!("{name}: {}", failure.message),
        });
    }

    /// Records how the request ran.
    pub(super) fn ran(&mut self, reply: &mut Reply) {
        let error = reply.outcomes.iter().find_map(|outcome| outcome.as_ref().err());
        if let Some(error) = error {
            self.reason = Some(match error.is_of_input() {
                true => Code::InvalidInput.name().to_owned(),
                false => error.to_string(),
            });
        }
        self.run = Some(Run {
            items: reply.outcomes.len(),
            weight: reply.weight,
            timing: reply.timing,
            batches: std::mem::take(&mut reply.batches),
        });
    }

    /// Records the time since `started` as the encoding time of the reply of `call`, and whether all items succeeded.
    /// Returns the time.
    pub fn encoded(&mut self, call: &Call, started: Instant, succeeded: bool) -> Duration {
        let took = call.observe_encode(started, succeeded);
        self.encode = Some((started, took));
        took
    }

    /// Sets the gRPC status of the reply.
    pub fn set_grpc_status(&mut self, status: i32) {
        self.grpc_status = Some(status);
    }

    /// Does not count the request: it became a job, whose run is recorded.
    pub(super) fn discard(&mut self) {
        self.is_discarded = true;
    }

    /// Finishes the record with the HTTP status of the reply.
    pub fn finish(mut self, status: u16) {
        self.status = status;
    }

    fn address(&self) -> Option<(&str, Option<&str>)> {
        Some(match self.address.as_ref()? {
            Address::Task(call) => (call.entry.name(), Some(call.manifest().name.as_str())),
            Address::Model(entry) => (entry.name(), None),
        })
    }

    /// Counts the request, and logs it if it was slow.
    fn count(&self, now: Instant, elapsed: Duration) {
        let Some((model, task)) = self.address() else {
            return;
        };
        let Telemetry {
            metrics,
            slow_requests,
            notable_requests,
            ..
        } = &*self.telemetry;
        let succeeded = (200..300).contains(&self.status);
        let mut exceeded = None;
        let mut is_slow = false;
        metrics.count_request(model, task, |requests| {
            requests.observe(self.protocol, self.status, elapsed);
            is_slow = requests.is_slow(elapsed);
            if task.is_some() {
                exceeded = slow_requests.exceeded(requests, now, elapsed, succeeded);
            }
            if let Some(span) = self.trace.span().filter(|_| succeeded) {
                let last = self.run.as_ref().and_then(|run| run.batches.first.last());
                requests.set_exemplars(span.trace, elapsed, last.map(|last| last.batch.took));
            }
        });
        let has_failed = self.reason.is_some() || !succeeded && self.status != CLIENT_CLOSED_REQUEST;
        let kind = match has_failed {
            true => Some(NotableKind::Failed),
            false => is_slow.then_some(NotableKind::Slow),
        };
        if let Some(kind) = kind {
            notable_requests.record(NotableRequest {
                number: 0,
                kind,
                unix_millis: clock::unix_millis(),
                model: model.to_owned(),
                task: task.map(str::to_owned),
                protocol: self.protocol.label(),
                id: self.id.clone(),
                status: self.status,
                total: elapsed,
                timing: self.run.as_ref().map(|run| run.timing),
                encode: self.encode.map(|(_, took)| took),
                items: self.run.as_ref().map(|run| run.items),
                reason: self.reason.as_deref().map(shortened),
            });
        }
        if let (Some(task), Some(limit)) = (task, exceeded)
            && let Some(suppressed) = slow_requests.admit(now)
        {
            SlowRequest {
                model,
                task,
                protocol: self.protocol.label(),
                id: &self.id,
                trace: self.trace.id(),
                status: self.status,
                total: elapsed,
                limit,
                run: self.run.as_ref(),
                encode: self.encode.map(|(_, took)| took),
                suppressed,
            }
            .log();
        }
    }

    /// Passes the request to the exporter of traces, if it is traced.
    fn finish_trace(&mut self, now: Instant) {
        let trace = std::mem::take(&mut self.trace);
        if trace.span().is_none() {
            return;
        }
        let run = self.run.take();
        let spans = TracedRequest::spans(run.as_ref(), self.encode.is_some());
        let address = self.address();
        self.telemetry
            .tracer
            .finish(trace, spans, |context, call| TracedRequest {
                context,
                call,
                protocol: self.protocol.label(),
                model: address.map(|(model, _)| model.to_owned()),
                task: address.and_then(|(_, task)| task).map(str::to_owned),
                request_id: self.id.clone(),
                status: self.status,
                grpc_status: self.grpc_status,
                started: self.received,
                ended: now,
                unix_time: clock::unix_time(),
                run,
                encode: self.encode,
            });
    }
}

/// Maximum length of a reason in the list of failed requests, in characters.
const MAX_REASON: usize = 300;

fn shortened(reason: &str) -> String {
    match reason.char_indices().nth(MAX_REASON) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if self.is_discarded {
            return;
        }
        let now = clock::now();
        self.count(now, now.saturating_duration_since(self.received));
        self.finish_trace(now);
    }
}
