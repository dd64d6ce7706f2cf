//! Settings of traces, and of the collector that they are sent to.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::secret::Secret;

/// Traces.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingSettings {
    /// The collector; none if requests are not traced.
    pub collector: Option<CollectorSettings>,
    /// Which requests are traced.
    pub sampling: SamplingSettings,
    /// Attributes of the service that traces name, by key.
    pub resource: BTreeMap<String, String>,
    /// How spans are sent.
    pub batches: SpanBatchSettings,
}

/// The collector of traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorSettings {
    /// Its URL, including the path.
    pub endpoint: String,
    /// Its protocol.
    pub protocol: OtlpProtocol,
    /// Headers that are sent to it.
    pub headers: Vec<(String, Secret)>,
    /// Timeout for sending spans to it.
    pub timeout: Duration,
    /// Whether what is sent is compressed.
    pub gzip: bool,
}

/// Protocol of a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, with bodies in protobuf.
    Http,
}

/// Which requests are traced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingSettings {
    /// Whether the decision of the client applies to requests that are part of a trace.
    pub follows_parent: bool,
    /// Share of the traces, for other requests.
    pub ratio: f64,
}

/// How spans are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanBatchSettings {
    /// Maximum number of spans that wait to be sent.
    pub max_queue_size: NonZeroUsize,
    /// Maximum number of spans that are sent at once.
    pub max_batch_size: NonZeroUsize,
    /// Maximum time that a span waits for more spans.
    pub delay: Duration,
    /// Maximum time for sending the last spans at shutdown.
    pub export_timeout: Duration,
}

impl SpanBatchSettings {
    /// The defaults of OpenTelemetry.
    pub(in crate::config) const DEFAULT: Self = Self {
        max_queue_size: NonZeroUsize::new(2048).expect("it is not zero"),
        max_batch_size: NonZeroUsize::new(512).expect("it is not zero"),
        delay: Duration::from_secs(5),
        export_timeout: Duration::from_secs(30),
    };
}
