//! The metrics of the server. The application creates one [`Metrics`] and passes it on; there are no globals.
//!
//! Names follow the conventions of Prometheus: times in seconds, `_total` for counters. Labels are names of models, tasks
//! and API keys, and closed sets of reasons, so clients cannot add label values. The series of a task exist, at zero, as soon as its model is
//! known; series of rare reasons and outcomes appear when they are first counted. A scrape only reads.

mod api_keys;
mod budget;
mod calls;
mod endpoints;
mod exemplars;
mod jobs;
mod labels;
mod open_metrics;
mod recent_latencies;
mod reloads;
mod requests;
mod series;
mod tasks;
mod tls;
mod traces;
mod workers;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use prometheus::core::Collector;
use prometheus::{IntGauge, Opts, Registry};

use budget::BudgetCollector;
use reloads::ReloadMetrics;
use series::{Builder, Series};

use crate::build_info;
use crate::byte_budget::ByteBudget;

pub use api_keys::{KeyCounters, KeyMetrics, KeyOutcome};
pub use calls::CallMetrics;
pub use endpoints::TaskEndpoints;
pub use exemplars::Exemplar;
pub use jobs::{ClaimOutcome, JobDepth, JobMetrics, ModelJobs, SubmissionOutcome, WebhookOutcome};
pub use labels::{ItemOutcome, REJECTIONS, ReloadResult, RestartReason};
pub use open_metrics::{OPEN_METRICS, write_open_metrics};
pub use recent_latencies::RecentLatencies;
pub use requests::{Protocol, RequestMetrics};
pub use series::Buckets;
pub use tasks::{StageLatencies, TaskMetrics};
pub use tls::TlsMetrics;
pub use traces::TraceMetrics;
pub use workers::{WorkerCounts, WorkerMetrics};

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    buckets: Buckets,
    /// Read without a lock by the event loop.
    models: ArcSwap<Models>,
    /// Held while `models` is replaced.
    writer: Mutex<()>,
    reloads: ReloadMetrics,
}

type Models = BTreeMap<String, ModelMetrics>;

/// The exemplars of each bucket, by histogram, model and task.
type ExemplarsByTask = HashMap<(&'static str, String, String), Vec<Option<Exemplar>>>;

/// The series of one model.
#[derive(Clone)]
struct ModelMetrics {
    /// Requests that do not name a task of the model.
    requests: Arc<RequestMetrics>,
    requests_series: Series,
    workers: Option<Arc<WorkerMetrics>>,
    tasks: BTreeMap<String, Arc<TaskMetrics>>,
}

impl ModelMetrics {
    fn new(model: &str) -> Result<Self, prometheus::Error> {
        let labels = [("model", model), ("task", "")];
        let mut builder = Builder::new(&labels);
        Ok(Self {
            requests: Arc::new(RequestMetrics::new(&mut builder, None)?),
            requests_series: builder.finish(),
            workers: None,
            tasks: BTreeMap::new(),
        })
    }

    fn all_series(&self) -> impl Iterator<Item = &Series> {
        let workers = self.workers.iter().map(|workers| &workers.series);
        let tasks = self.tasks.values().map(|task| &task.series);
        [&self.requests_series].into_iter().chain(workers).chain(tasks)
    }
}

impl Metrics {
    /// Creates and registers the families.
    ///
    /// # Errors
    /// If `buckets` are not ascending.
    pub fn new(buckets: Buckets) -> Result<Self, prometheus::Error> {
        // Validates the names, labels and buckets that every model and task will use.
        TaskMetrics::new("", "", &[], &buckets)?;
        WorkerMetrics::new("")?;
        let registry = Registry::new();
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        registry.register(Box::new(build_info_gauge()?))?;
        Ok(Self {
            models: ArcSwap::default(),
            writer: Mutex::new(()),
            buckets,
            reloads: ReloadMetrics::new(&registry)?,
            registry,
        })
    }

    /// Adds the metrics of the bytes that all requests hold.
    ///
    /// # Errors
    /// They are registered already.
    pub fn expose_budget(&self, budget: &Arc<ByteBudget>) -> Result<(), prometheus::Error> {
        self.registry
            .register(Box::new(BudgetCollector::new(budget.clone())?))
    }

    /// The registry, for metrics that other modules define, such as those of the HTTP routes.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The buckets of the histograms.
    pub fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    /// The series of a task, created at zero if they do not exist. `reasons` are the values of the label `reason` of
    /// `inference_batches_total`.
    pub fn task(&self, model: &str, task: &str, reasons: &[&'static str]) -> Arc<TaskMetrics> {
        self.change(model, |metrics| {
            if let Some(known) = metrics.tasks.get(task) {
                return known.clone();
            }
            let created = Arc::new(valid(TaskMetrics::new(model, task, reasons, &self.buckets)));
            self.expose(&created.series);
            metrics.tasks.insert(task.to_owned(), created.clone());
            created
        })
    }

    /// The series of the worker processes of a model, created at zero if they do not exist.
    pub fn workers(&self, model: &str) -> Arc<WorkerMetrics> {
        self.change(model, |metrics| {
            let workers = metrics.workers.get_or_insert_with(|| {
                let created = Arc::new(valid(WorkerMetrics::new(model)));
                self.expose(&created.series);
                created
            });
            workers.clone()
        })
    }

    /// The present counts of the worker processes of a model; `None` if it has none.
    pub fn worker_counts(&self, model: &str) -> Option<WorkerCounts> {
        let models = self.models.load();
        let workers = models.get(model)?.workers.as_ref()?;
        Some(workers.counts())
    }

    /// Creates the series of a model, so that its requests are counted even if it cannot be loaded.
    pub fn add_model(&self, model: &str) {
        self.change(model, |_| ());
    }

    /// Counts a request with `count`: for the task that it names, or for the model if it names none or an unknown one.
    /// Requests to unknown models are not counted.
    pub fn count_request(&self, model: &str, task: Option<&str>, count: impl FnOnce(&RequestMetrics)) {
        let models = self.models.load();
        let Some(model) = models.get(model) else { return };
        match task.and_then(|task| model.tasks.get(task)) {
            Some(task) => count(&task.requests),
            None => count(&model.requests),
        }
    }

    /// The exemplars of all tasks.
    fn exemplars(&self) -> ExemplarsByTask {
        let models = self.models.load();
        let tasks = models.iter().flat_map(|(model, metrics)| {
            let tasks = metrics.tasks.iter();
            tasks.map(move |(task, metrics)| ((model.clone(), task.clone()), metrics.requests.exemplars()))
        });
        tasks
            .flat_map(|((model, task), histograms)| {
                histograms.map(|(name, exemplars)| ((name, model.clone(), task.clone()), exemplars))
            })
            .filter(|(_, exemplars)| !exemplars.is_empty())
            .collect()
    }

    /// Removes a model that is no longer configured, with its tasks.
    pub fn remove_model(&self, model: &str) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut models = Models::clone(&self.models.load());
        if let Some(removed) = models.remove(model) {
            removed.all_series().for_each(|series| self.hide(series));
            self.models.store(Arc::new(models));
        }
    }

    /// Removes the tasks of a model for which `keep` is false.
    pub fn retain_tasks(&self, model: &str, keep: impl Fn(&str) -> bool) {
        self.change(model, |metrics| {
            metrics.tasks.retain(|task, removed| {
                let keep = keep(task);
                if !keep {
                    self.hide(&removed.series);
                }
                keep
            });
        });
    }

    /// Counts a reload that ended at `unix_seconds`.
    pub fn count_reload(&self, result: ReloadResult, unix_seconds: u64) {
        self.reloads.count(result, unix_seconds);
    }

    /// Counts a generation that was loaded.
    pub fn generation_loaded(&self) {
        self.reloads.generation_loaded();
    }

    /// Counts a generation that has drained and dropped its model.
    pub fn generation_ended(&self) {
        self.reloads.generation_ended();
    }

    /// Changes the series of one model, which are created if they do not exist.
    fn change<R>(&self, model: &str, change: impl FnOnce(&mut ModelMetrics) -> R) -> R {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut models = Models::clone(&self.models.load());
        let metrics = models.entry(model.to_owned()).or_insert_with(|| {
            let created = valid(ModelMetrics::new(model));
            self.expose(&created.requests_series);
            created
        });
        let result = change(metrics);
        self.models.store(Arc::new(models));
        result
    }

    fn expose(&self, series: &Series) {
        for one in series.each() {
            if let Err(error) = self.registry.register(Box::new(one)) {
                log::error!("cannot register metrics: {error}");
            }
        }
    }

    fn hide(&self, series: &Series) {
        for one in series.each() {
            if let Err(error) = self.registry.unregister(Box::new(one)) {
                log::error!("cannot remove metrics: {error}");
            }
        }
    }
}

/// Series are invalid only if their names, labels or buckets are, and [`Metrics::new`] has validated those.
fn valid<T>(series: Result<T, prometheus::Error>) -> T {
    series.expect("names, labels and buckets of the metrics are valid")
}

/// A gauge whose labels describe the build.
fn build_info_gauge() -> Result<IntGauge, prometheus::Error> {
    let name = "inference_build_info";
    let help = "1, with the version, commit, plugin ABI and target of the server as labels.";
    let options = Opts::new(name, help)
        .const_label("version", build_info::VERSION)
        .const_label("commit", build_info::COMMIT.unwrap_or(build_info::UNKNOWN))
        .const_label("abi_version", build_info::abi_version())
        .const_label("target", build_info::TARGET);
    let gauge = IntGauge::with_opts(options)?;
    gauge.set(1);
    Ok(gauge)
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, family: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Buckets, Metrics, Protocol};

    #[test]
    fn models_with_similar_names_have_separate_series() {
        let metrics = Metrics::new(Buckets::NONE).expect("the metrics are valid");
        let names: Vec<_> = (0..100).map(|number| format!("m{number}")).collect();
        for name in &names {
            metrics.add_model(name);
            metrics.count_request(name, None, |requests| {
                requests.observe(Protocol::Native, 200, Duration::ZERO);
            });
        }
        let count = || {
            let families = metrics.registry.gather();
            let family = families
                .iter()
                .find(|family| family.name() == "inference_requests_total");
            family.map_or(0, |family| family.get_metric().len())
        };
        assert_eq!(count(), names.len());
        names.iter().for_each(|name| metrics.remove_model(name));
        assert_eq!(count(), 0);
    }
}
