//! Requests by model and task, for all protocols.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{Counter, CounterVec, Histogram, IntCounter, IntCounterVec};

use super::exemplars::{Exemplar, Exemplars};
use super::recent_latencies::RecentLatencies;
use super::series::{Buckets, Builder, seconds};
use crate::clock;
use crate::latency::LatencyCounts;
use crate::trace_context::TraceId;

/// The histogram of the latencies of requests.
const LATENCY: &str = "inference_latency_seconds";

/// The histogram of the times of batches.
pub(super) const INFERENCE: &str = "inference_seconds";

/// The protocol of a request, the label `protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The server's own routes.
    Native,
    /// KServe V1 and TensorFlow Serving.
    V1,
    /// The Open Inference Protocol over HTTP.
    V2,
    /// The Open Inference Protocol over gRPC.
    Grpc,
    /// `/v1/embeddings`.
    OpenAi,
    /// `/rerank` and its other paths.
    Rerank,
    /// Embeddings of Cohere.
    Cohere,
    /// text-embeddings-inference, except for `/rerank`.
    Tei,
}

impl Protocol {
    const COUNT: usize = 8;

    /// Its name in metrics, traces and the log.
    pub fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Grpc => "grpc",
            Self::OpenAi => "openai",
            Self::Rerank => "rerank",
            Self::Cohere => "cohere",
            Self::Tei => "tei",
        }
    }
}

/// The requests of one task, or the requests to a model that do not name a task.
///
/// A histogram by protocol and status would have a dozen series per pair. Instead, each pair has a count and a sum, and one
/// histogram covers all successful requests.
pub struct RequestMetrics {
    requests: IntCounterVec,
    seconds: CounterVec,
    latency: Option<Histogram>,
    /// The same latencies, for percentiles.
    pub latencies: LatencyCounts,
    latency_exemplars: Exemplars,
    inference_exemplars: Exemplars,
    /// Microseconds above which a request is listed as slow; `u64::MAX` if none is.
    slow_above: AtomicU64,
    /// Created when a percentile of them is first needed.
    recent: OnceLock<Box<RecentLatencies>>,
    /// The series of status 200 by protocol, which are looked up once.
    succeeded: [OnceLock<RequestSeries>; Protocol::COUNT],
}

/// The series of one protocol and status.
struct RequestSeries {
    requests: IntCounter,
    seconds: Counter,
}

impl RequestMetrics {
    pub(super) fn new(
        builder: &mut Builder<'_>,
        latency_buckets: Option<&Buckets>,
    ) -> Result<Self, prometheus::Error> {
        let labels = ["protocol", "status"];
        let latency = latency_buckets.map(|buckets| {
            builder.histogram(
                LATENCY,
                "Time from the head of a request to its reply, for requests that succeeded.",
                seconds(&buckets.requests),
            )
        });
        Ok(Self {
            requests: builder.int_counter_vec(
                "inference_requests_total",
                "Requests answered, by protocol and HTTP status. gRPC statuses are mapped to HTTP statuses.",
                &labels,
            )?,
            seconds: builder.counter_vec(
                "inference_requests_seconds_total",
                "Total time from the heads of requests to their replies, by protocol and HTTP status.",
                &labels,
            )?,
            latency: latency.transpose()?,
            latencies: LatencyCounts::default(),
            latency_exemplars: Exemplars::new(latency_buckets.map_or(&[], |buckets| &buckets.requests)),
            inference_exemplars: Exemplars::new(latency_buckets.map_or(&[], |buckets| &buckets.inference)),
            slow_above: AtomicU64::new(u64::MAX),
            recent: OnceLock::new(),
            succeeded: Default::default(),
        })
    }

    /// Counts a request that was answered with this HTTP status. `took` is the time from its head to its reply.
    pub fn observe(&self, protocol: Protocol, status: u16, took: Duration) {
        if status == 200 {
            self.succeeded[protocol as usize]
                .get_or_init(|| self.series(protocol, status))
                .observe(took);
        } else {
            self.series(protocol, status).observe(took);
        }
        if let (Some(latency), 200..=299) = (&self.latency, status) {
            latency.observe(took.as_secs_f64());
            self.latencies.observe(took);
        }
    }

    /// Makes a traced request that succeeded the exemplar of its latency, and of the time of the last of its batches.
    pub fn set_exemplars(&self, trace: TraceId, took: Duration, batch: Option<Duration>) {
        let exemplar = |time: Duration| Exemplar {
            trace,
            seconds: time.as_secs_f64(),
            unix_time: clock::unix_time(),
        };
        self.latency_exemplars.set(exemplar(took));
        if let Some(batch) = batch {
            self.inference_exemplars.set(exemplar(batch));
        }
    }

    /// The exemplars of each histogram, by its name.
    pub(super) fn exemplars(&self) -> [(&'static str, Vec<Option<Exemplar>>); 2] {
        [
            (LATENCY, self.latency_exemplars.get()),
            (INFERENCE, self.inference_exemplars.get()),
        ]
    }

    /// The latencies of the last minute, which the caller records.
    pub fn recent_latencies(&self) -> &RecentLatencies {
        let create = || Box::new(RecentLatencies::new(clock::now()));
        self.recent.get_or_init(create)
    }

    /// Sets the time above which a request is listed as slow. `None` lists none.
    pub fn set_slow_limit(&self, limit: Option<Duration>) {
        let micros = limit.map_or(u64::MAX, |limit| {
            u64::try_from(limit.as_micros()).unwrap_or(u64::MAX)
        });
        self.slow_above.store(micros, Ordering::Relaxed);
    }

    /// Whether a request that took this long is listed as slow.
    pub fn is_slow(&self, took: Duration) -> bool {
        took.as_micros() > u128::from(self.slow_above.load(Ordering::Relaxed))
    }

    fn series(&self, protocol: Protocol, status: u16) -> RequestSeries {
        let status = status.to_string();
        let labels = [protocol.label(), status.as_str()];
        RequestSeries {
            requests: self.requests.with_label_values(&labels),
            seconds: self.seconds.with_label_values(&labels),
        }
    }
}

impl RequestSeries {
    fn observe(&self, took: Duration) {
        self.requests.inc();
        self.seconds.inc_by(took.as_secs_f64());
    }
}
