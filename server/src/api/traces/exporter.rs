//! The thread that sends spans to the collector.
//!
//! It sends as many spans at once as are configured, or what there is after a delay: each call of the collector costs far more
//! than a span in it. While the collector does not accept them, it tries again with growing delays, and the queue drops what does
//! not fit. A failure is logged once, and so is the end of it.

use std::collections::BTreeMap;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    Compression, ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
    WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::runtime;
use tokio::sync::{oneshot, watch};
use tonic::metadata::MetadataMap;

use super::queue::{QueuedRequests, queue};
use super::sampler::Sampler;
use super::{Active, Tracer, spans};
use crate::config::{CollectorSettings, OtlpProtocol, TracingSettings};
use crate::metrics::TraceMetrics;

/// Delay after the first failure, which doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// Maximum delay after a failure.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// Why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The collector cannot be used with these settings.
    #[error("cannot export traces to {endpoint}")]
    Exporter {
        /// Its URL.
        endpoint: String,
        /// The reason.
        source: ExporterBuildError,
    },
    /// A header cannot be sent.
    #[error(
        "cannot send the header `{0}` to the collector of traces: expected a name in lower case, and printable ASCII characters"
    )]
    Header(String),
    /// A thread is not available.
    #[error("cannot start the exporter of traces")]
    System(#[from] io::Error),
}

/// The thread that exports traces.
pub struct TraceExporter {
    stop: watch::Sender<bool>,
    exited: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
    max_flush: Duration,
}

impl TraceExporter {
    /// Starts the exporter, and returns it with the tracer that decides what it exports. `None` if requests are not traced.
    ///
    /// # Errors
    /// If the settings cannot be used, or the thread cannot be started.
    pub fn start(
        settings: &TracingSettings,
        metrics: TraceMetrics,
    ) -> Result<Option<(Tracer, Self)>, StartError> {
        let Some(collector) = &settings.collector else {
            return Ok(None);
        };
        let batches = settings.batches;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let exporter = {
            // The connection to the collector belongs to this runtime.
            let _entered = runtime.enter();
            let mut exporter = build(collector)?;
            exporter.set_resource(&resource(&settings.resource));
            exporter
        };
        let max_batch = batches.max_batch_size.get();
        let (queue, queued) = queue(batches.max_queue_size.get(), max_batch, metrics);
        let (stop, stopping) = watch::channel(false);
        let (alive, exited) = oneshot::channel();
        let export = Export {
            exporter,
            endpoint: collector.endpoint.clone(),
            queued,
            max_batch,
            delay: batches.delay,
            stopping,
            failures: 0,
            lost: 0,
        };
        let thread = thread::Builder::new().name("traces".to_owned()).spawn(move || {
            // Dropped when the thread exits.
            let _alive = alive;
            runtime.block_on(export.run());
        })?;
        let tracer = Tracer(Some(Active {
            sampler: Sampler::new(settings.sampling),
            queue,
        }));
        let exporter = Self {
            stop,
            exited,
            thread,
            max_flush: batches.export_timeout,
        };
        Ok(Some((tracer, exporter)))
    }

    /// Sends what is queued, until `deadline` or for the configured time, and stops. Returns whether that sufficed.
    pub async fn stop(self, deadline: Instant) -> bool {
        let limit = crate::clock::now() + self.max_flush;
        // Fails if the thread has exited.
        let _ = self.stop.send(true);
        // The channel carries no values: it is closed when the thread exits.
        let exited = tokio::time::timeout_at(deadline.min(limit).into(), self.exited).await;
        if exited.is_ok() {
            // The thread exits immediately after the signal.
            let _ = self.thread.join();
        }
        exited.is_ok()
    }
}

fn build(collector: &CollectorSettings) -> Result<SpanExporter, StartError> {
    let CollectorSettings {
        endpoint, timeout, ..
    } = collector;
    let compression = collector.gzip.then_some(Compression::Gzip);
    let built = match collector.protocol {
        OtlpProtocol::Grpc => {
            let builder = SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .with_timeout(*timeout)
                .with_metadata(MetadataMap::from_headers(headers(collector)?));
            match compression {
                Some(compression) => builder.with_compression(compression),
                None => builder,
            }
            .build()
        }
        OtlpProtocol::Http => {
            let headers = collector.headers.iter();
            let headers = headers.map(|(name, value)| (name.clone(), value.expose().to_owned()));
            let builder = SpanExporter::builder()
                .with_http()
                .with_endpoint(endpoint)
                .with_timeout(*timeout)
                .with_headers(headers.collect());
            match compression {
                Some(compression) => builder.with_compression(compression),
                None => builder,
            }
            .build()
        }
    };
    built.map_err(|source| StartError::Exporter {
        endpoint: endpoint.clone(),
        source,
    })
}

fn headers(collector: &CollectorSettings) -> Result<HeaderMap, StartError> {
    let pair = |(name, value): &(String, crate::secret::Secret)| {
        let parsed = HeaderName::try_from(name.as_str()).ok();
        let parsed = parsed.zip(HeaderValue::try_from(value.expose()).ok());
        parsed.ok_or_else(|| StartError::Header(name.clone()))
    };
    collector.headers.iter().map(pair).collect()
}

fn resource(attributes: &BTreeMap<String, String>) -> Resource {
    let attributes = attributes.iter();
    let attributes = attributes.map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attributes(attributes)
        .build()
}

/// The work of the thread.
struct Export {
    exporter: SpanExporter,
    endpoint: String,
    queued: QueuedRequests,
    max_batch: usize,
    delay: Duration,
    stopping: watch::Receiver<bool>,
    /// Number of failures since the last success.
    failures: u32,
    /// Number of spans that were lost with them.
    lost: usize,
}

impl Export {
    async fn run(mut self) {
        let mut delay = self.delay;
        // The sender is dropped only when the process exits.
        while !*self.stopping.borrow() {
            let filled = async {
                match self.failures {
                    0 => self.queued.filled().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(delay) => self.export_all().await,
                () = filled => self.export_while(|queued| queued.has_batch()).await,
                changed = self.stopping.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
            }
            delay = match self.failures {
                0 => self.delay,
                failures => retry_delay(failures),
            };
        }
        self.export_all().await;
        let mut rest = 0;
        while let Some(spans) = self.next_batch() {
            rest += spans.len();
        }
        if rest > 0 {
            self.queued.dropped(rest);
            log::warn!("{rest} spans of traces were not exported before the shutdown");
        }
    }

    /// Sends what is queued, until a batch fails.
    async fn export_all(&mut self) {
        self.export_while(|_| true).await;
    }

    /// Sends what is queued while the condition is true, until a batch fails.
    async fn export_while(&mut self, condition: impl Fn(&QueuedRequests) -> bool) {
        while condition(&self.queued)
            && let Some(batch) = self.next_batch()
        {
            let spans = batch.len();
            match self.exporter.export(batch).await {
                Ok(()) => self.succeeded(),
                Err(error) => {
                    self.failed(&error, spans);
                    return;
                }
            }
        }
    }

    /// The spans of the next requests. `None` if there are none.
    fn next_batch(&self) -> Option<Vec<SpanData>> {
        // The setting alone would be too much: it can be a million.
        let mut batch = Vec::with_capacity(self.queued.len().min(self.max_batch));
        while batch.len() < self.max_batch
            && let Some(request) = self.queued.take()
        {
            let before = batch.len();
            spans::append(*request, &mut batch);
            self.queued.taken(batch.len() - before);
        }
        (!batch.is_empty()).then_some(batch)
    }

    fn succeeded(&mut self) {
        if self.failures > 0 {
            log::info!(
                "traces are exported to {} again; {} spans were lost in {} attempts",
                self.endpoint,
                self.lost,
                self.failures
            );
        }
        self.failures = 0;
        self.lost = 0;
    }

    fn failed(&mut self, error: &OTelSdkError, spans: usize) {
        if self.failures == 0 {
            log::warn!(
                "cannot export traces to {}: {error}; spans are dropped until it succeeds",
                self.endpoint
            );
        }
        self.failures = self.failures.saturating_add(1);
        self.lost += spans;
        self.queued.dropped(spans);
    }
}

/// The delay after this number of failures.
fn retry_delay(failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    FIRST_DELAY.saturating_mul(doubled).min(MAX_DELAY)
}
