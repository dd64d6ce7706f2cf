//! Metrics of requests by route pattern, method and status.
//!
//! The labels are patterns of routes, methods that some route has, and status codes, so that clients cannot add values.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpRequest};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};

use crate::clock;
use crate::metrics::Metrics;
use crate::routes;

/// The label of requests that no route answers, and of those to the operator's own routes.
const OTHER: &str = "other";

/// Requests and their durations. Probes are not counted.
#[derive(Clone)]
pub(super) struct EndpointMetrics {
    requests: IntCounterVec,
    durations: HistogramVec,
}

impl EndpointMetrics {
    /// Registers the metrics.
    pub(super) fn register(metrics: &Metrics) -> prometheus::Result<Self> {
        let labels = ["endpoint", "method", "status"];
        let requests = Opts::new("http_requests_total", "Total number of HTTP requests");
        let durations = HistogramOpts::new(
            "http_requests_duration_seconds",
            "HTTP request duration in seconds for all requests",
        )
        .buckets(metrics.buckets().request_seconds());
        let endpoints = Self {
            requests: IntCounterVec::new(requests, &labels)?,
            durations: HistogramVec::new(durations, &labels)?,
        };
        metrics
            .registry()
            .register(Box::new(endpoints.requests.clone()))?;
        metrics
            .registry()
            .register(Box::new(endpoints.durations.clone()))?;
        Ok(endpoints)
    }

    fn observe(&self, request: &HttpRequest, status: &str, seconds: f64) {
        let pattern = request.match_pattern();
        let endpoint = pattern.as_deref().unwrap_or(OTHER);
        if routes::probes().any(|probe| probe == endpoint) {
            return;
        }
        let labels = [endpoint, request.method().as_str(), status];
        self.durations.with_label_values(&labels).observe(seconds);
        self.requests.with_label_values(&labels).inc();
    }
}

/// Measures the time from here to the reply, without writing it to the client.
pub(super) async fn measure_requests(
    endpoints: Data<EndpointMetrics>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let started = clock::now();
    let response = next.call(request).await?;
    let took = clock::now().saturating_duration_since(started);
    endpoints.observe(response.request(), response.status().as_str(), took.as_secs_f64());
    Ok(response)
}
