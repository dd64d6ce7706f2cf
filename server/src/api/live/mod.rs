//! The live state of the server for the page that operators watch: the last ten minutes of each model, the recent slow and failed
//! requests, and a frame per second for the open pages.
//!
//! The application calls [`LiveFeed::sample`] once per second. Figures are differences between counters that exist anyway. How
//! they are shown is unknown here.

mod history;
mod notable_requests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::model_explanation::{ModelExplanation, explain_model};
use super::telemetry::Telemetry;
use crate::clock;
use crate::metrics::WorkerCounts;
use crate::model::WorkerProcess;
use crate::registry::{ModelEntry, Registry};
use history::Histories;

pub use history::{MAX_WORKERS, ModelPoint, SECONDS, TaskPoint, WorkerPoint};
pub use notable_requests::{NotableKind, NotableRequest, NotableRequests};

/// Maximum number of pages that are open at the same time.
pub const MAX_PAGES: usize = 64;

/// Minimum number of requests in the last minute for one of them to be slow.
const MIN_REQUESTS: u64 = 20;

/// The quantile above which a request is listed as slow.
const SLOW_QUANTILE: f64 = 0.99;

/// The live state of the server.
pub struct LiveFeed {
    registry: Arc<Registry>,
    telemetry: Arc<Telemetry>,
    /// Locked by the thread that samples and by threads that serve pages, which all have the same scheduling priority.
    histories: Mutex<Histories>,
    frames: watch::Sender<Option<Arc<Frame>>>,
    pages: Arc<Semaphore>,
    closed: AtomicBool,
}

/// The state of all models at one moment.
pub struct Frame {
    /// Unix time in seconds.
    pub unix_seconds: u64,
    /// Version of the snapshot of the models.
    pub version: u64,
    /// The models, in the order of their names.
    pub models: Vec<ModelFrame>,
}

/// The state of a model at one moment.
pub struct ModelFrame {
    /// The model.
    pub entry: Arc<ModelEntry>,
    /// What limits it, for clients.
    pub for_clients: ModelExplanation,
    /// The same for operators, with full reasons.
    pub for_operators: ModelExplanation,
    /// Its worker processes; `None` if it runs in threads.
    pub processes: Option<WorkerCounts>,
    /// The same one by one.
    pub worker_processes: Vec<WorkerProcess>,
    /// The latest second, unless it was not sampled.
    pub latest: Option<Arc<ModelPoint>>,
    /// Requests per second in the last ten minutes, oldest first: means of ten seconds. `None` while it was not sampled.
    pub requests: Vec<Option<f32>>,
}

impl ModelFrame {
    /// What limits the model, with full reasons for operators.
    pub fn explanation(&self, operator: bool) -> &ModelExplanation {
        match operator {
            true => &self.for_operators,
            false => &self.for_clients,
        }
    }
}

impl LiveFeed {
    /// A feed without samples.
    pub fn new(registry: Arc<Registry>, telemetry: Arc<Telemetry>) -> Arc<Self> {
        Arc::new(Self {
            registry,
            telemetry,
            histories: Mutex::default(),
            frames: watch::Sender::new(None),
            pages: Arc::new(Semaphore::new(MAX_PAGES)),
            closed: AtomicBool::new(false),
        })
    }

    /// Adds a sample of every model, and sends a frame to the open pages. Is called once per second, after the engines have
    /// measured their load.
    pub fn sample(&self) {
        let snapshot = self.registry.snapshot();
        let metrics = &self.telemetry.metrics;
        self.lock()
            .sample(&snapshot, metrics, clock::now(), clock::unix_seconds());
        for entry in snapshot.models() {
            let Some(generation) = entry.generation() else {
                continue;
            };
            let recent = generation.engine.recent();
            for (task, totals) in generation.manifest.tasks.iter().zip(&recent.explained.tasks) {
                let limit = Some(&totals.latencies)
                    .filter(|_| totals.requests.count >= MIN_REQUESTS)
                    .and_then(|latencies| latencies.quantile(SLOW_QUANTILE));
                metrics.count_request(entry.name(), Some(&task.name), |requests| {
                    requests.set_slow_limit(limit);
                });
            }
        }
        if self.frames.receiver_count() > 0 {
            self.frames.send_replace(Some(Arc::new(self.frame())));
        }
    }

    /// The present state of all models.
    pub fn frame(&self) -> Frame {
        let snapshot = self.registry.snapshot();
        let is_draining = self.registry.is_draining();
        let unix_seconds = clock::unix_seconds();
        let histories = self.lock();
        let models = snapshot.models().map(|entry| {
            let history = histories.model(entry.name());
            ModelFrame {
                for_clients: explain_model(entry, is_draining, false),
                for_operators: explain_model(entry, is_draining, true),
                processes: self.telemetry.metrics.worker_counts(entry.name()),
                worker_processes: entry
                    .generation()
                    .map_or_else(Vec::new, |generation| generation.engine.worker_processes()),
                latest: history
                    .and_then(|history| history.latest())
                    .filter(|point| point.unix_seconds + 2 >= unix_seconds)
                    .cloned(),
                requests: history.map_or_else(Vec::new, |history| history.requests(unix_seconds)),
                entry: entry.clone(),
            }
        });
        Frame {
            unix_seconds,
            version: snapshot.version,
            models: models.collect(),
        }
    }

    /// The history of a model, oldest first.
    pub fn history(&self, model: &str) -> Vec<Arc<ModelPoint>> {
        let histories = self.lock();
        let history = histories.model(model);
        history.map_or_else(Vec::new, |history| history.points().cloned().collect())
    }

    /// The recent slow and failed requests.
    pub fn notable_requests(&self) -> &NotableRequests {
        &self.telemetry.notable_requests
    }

    /// Opens a page. `None` if as many pages as possible are open, or the server is shutting down.
    pub fn open_page(&self) -> Option<OpenPage> {
        let permit = self.pages.clone().try_acquire_owned().ok()?;
        let frames = self.frames();
        // After subscribing, so that a page that is opened now is closed.
        (!self.closed.load(Ordering::Acquire)).then_some(OpenPage {
            frames,
            _permit: permit,
        })
    }

    /// The frames from now on.
    pub fn frames(&self) -> Frames {
        Frames(self.frames.subscribe())
    }

    /// Closes all pages, because the server is shutting down.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.frames.send_replace(None);
    }

    fn lock(&self) -> MutexGuard<'_, Histories> {
        self.histories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The frames of a feed, one per second.
pub struct Frames(watch::Receiver<Option<Arc<Frame>>>);

impl Frames {
    /// Waits for the next frame. `None` if the server is shutting down. Cancel-safe.
    pub async fn next(&mut self) -> Option<Arc<Frame>> {
        self.0.changed().await.ok()?;
        self.0.borrow_and_update().clone()
    }
}

/// A page that is open. Dropping it closes it.
pub struct OpenPage {
    /// The frames since it was opened.
    pub frames: Frames,
    _permit: OwnedSemaphorePermit,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Buckets, Metrics};

    fn feed() -> Arc<LiveFeed> {
        let metrics = Metrics::new(Buckets::NONE).expect("the metrics are valid");
        let telemetry = Telemetry::of_metrics(Arc::new(metrics));
        LiveFeed::new(Arc::default(), Arc::new(telemetry))
    }

    #[tokio::test]
    async fn open_pages_get_a_frame_for_each_sample() {
        let feed = feed();
        feed.sample();
        let mut page = feed.open_page().expect("there is room");
        feed.sample();
        assert!(page.frames.next().await.is_some());
    }

    #[test]
    fn the_number_of_open_pages_is_limited() {
        let feed = feed();
        let mut pages: Vec<_> = (0..MAX_PAGES).map_while(|_| feed.open_page()).collect();
        assert_eq!(pages.len(), MAX_PAGES);
        assert!(feed.open_page().is_none());
        pages.pop();
        assert!(feed.open_page().is_some());
    }

    #[tokio::test]
    async fn pages_are_closed_at_shutdown_and_none_is_opened_afterwards() {
        let feed = feed();
        let mut page = feed.open_page().expect("there is room");
        feed.close();
        assert!(page.frames.next().await.is_none());
        assert!(feed.open_page().is_none());
    }
}
