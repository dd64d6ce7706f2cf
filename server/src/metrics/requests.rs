//! Requests by model, whatever protocol they come in.

use std::time::Duration;

use prometheus::{CounterVec, Histogram, IntCounterVec};

use super::buckets::{Buckets, seconds};
use super::series::Builder;

/// How a request came in, the label `protocol`.
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
}

impl Protocol {
    fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Grpc => "grpc",
            Self::OpenAi => "openai",
        }
    }
}

/// The requests of one task, or those of a model that named no task of it.
///
/// A histogram by protocol and status would have a dozen series for each pair. There are a count and a sum for each pair, and
/// one histogram for all requests that succeed.
pub struct RequestMetrics {
    requests: IntCounterVec,
    seconds: CounterVec,
    latency: Option<Histogram>,
}

impl RequestMetrics {
    pub(super) fn new(
        builder: &mut Builder<'_>,
        latency_buckets: Option<&Buckets>,
    ) -> Result<Self, prometheus::Error> {
        let labels = ["protocol", "status"];
        let latency = latency_buckets.map(|buckets| {
            builder.histogram(
                "inference_latency_seconds",
                "Time from the head of a request to its answer, of requests that succeeded.",
                seconds(&buckets.requests),
            )
        });
        Ok(Self {
            requests: builder.int_counter_vec(
                "inference_requests_total",
                "Requests answered, by protocol and HTTP status; for gRPC, the HTTP status that its status stands for.",
                &labels,
            )?,
            seconds: builder.counter_vec(
                "inference_requests_seconds_total",
                "Total time from the heads of requests to their answers, by protocol and HTTP status.",
                &labels,
            )?,
            latency: latency.transpose()?,
        })
    }

    /// Counts a request that was answered with this HTTP status, `took` after its head had arrived.
    pub fn observe(&self, protocol: Protocol, status: u16, took: Duration) {
        let status_label = status.to_string();
        let labels = [protocol.label(), status_label.as_str()];
        self.requests.with_label_values(&labels).inc();
        self.seconds.with_label_values(&labels).inc_by(took.as_secs_f64());
        if let (Some(latency), 200..=299) = (&self.latency, status) {
            latency.observe(took.as_secs_f64());
        }
    }
}
