//! Requests to the routes that run a task, by route.
//!
//! actix-web-prom defines the families and counts the requests to all other routes. It formats the labels of each
//! request, which takes about as long as routing it. Here, the labels of a route are known.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts};

use super::Metrics;
use crate::routes::{Route, TaskRoute};

/// The requests to the routes that run a task. The names, labels and buckets are those of actix-web-prom, so the
/// registry merges the series of both.
#[derive(Clone)]
pub struct TaskEndpoints {
    requests: IntCounterVec,
    seconds: HistogramVec,
    /// The series of answered predictions by route, which are looked up once.
    succeeded: Arc<[OnceLock<EndpointSeries>; TaskRoute::COUNT]>,
}

/// The series of one endpoint, method and status.
struct EndpointSeries {
    requests: IntCounter,
    seconds: Histogram,
}

impl TaskEndpoints {
    /// # Errors
    /// If the metrics are already registered.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let labels = ["endpoint", "method", "status"];
        let requests = Opts::new("http_requests_total", "Total number of HTTP requests");
        let seconds = HistogramOpts::new(
            "http_requests_duration_seconds",
            "HTTP request duration in seconds for all requests",
        );
        let endpoints = Self {
            requests: IntCounterVec::new(requests, &labels)?,
            seconds: HistogramVec::new(seconds.buckets(metrics.buckets().request_seconds()), &labels)?,
            succeeded: Arc::default(),
        };
        metrics.registry().register(Box::new(endpoints.clone()))?;
        Ok(endpoints)
    }

    /// Counts a request. The method must be one of a closed set.
    pub fn observe(&self, (route, task): (&Route, TaskRoute), method: &str, status: &str, took: Duration) {
        let lookup = || self.series([route.patterns[0], method, status]);
        if (method, status) == ("POST", "200") {
            self.succeeded[task as usize].get_or_init(lookup).observe(took);
        } else {
            lookup().observe(took);
        }
    }

    fn series(&self, labels: [&str; 3]) -> EndpointSeries {
        EndpointSeries {
            requests: self.requests.with_label_values(&labels),
            seconds: self.seconds.with_label_values(&labels),
        }
    }
}

impl EndpointSeries {
    fn observe(&self, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
        self.requests.inc();
    }
}

impl Collector for TaskEndpoints {
    /// None: the registry rejects two collectors with the same descriptions, although it merges their series.
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.requests.collect();
        families.extend(self.seconds.collect());
        families
    }
}
