//! What the server counts. One [`Metrics`] per process, made by the roof and handed down; no globals.
//!
//! Names follow Prometheus: seconds, `_total` for counters. Labels are `model`, `task` and closed sets of reasons, so that no
//! client can grow them. Every series of a task is present, at zero, from the moment its model is known.

mod buckets;
mod calls;
mod labels;
mod workers;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use crate::error::Rejection;
use buckets::{powers, seconds, seconds_in_high_resolution};
use labels::{REJECTIONS, rejection_index};
use workers::WorkerFamilies;

pub use buckets::ENDPOINT_SECONDS;
pub use calls::CallMetrics;
pub use labels::{ItemOutcome, ReloadResult, RestartReason};
pub use workers::WorkerMetrics;

/// All families of the process.
pub struct Metrics {
    registry: Registry,
    queue_seconds: HistogramVec,
    prepare_seconds: HistogramVec,
    inference_seconds: HistogramVec,
    encode_seconds: HistogramVec,
    batch_wait_seconds: HistogramVec,
    learned_batch_seconds: GaugeVec,
    learned_unit_seconds: GaugeVec,
    batch_size: HistogramVec,
    batch_weight: HistogramVec,
    batches: IntCounterVec,
    items: IntCounterVec,
    rejections: IntCounterVec,
    queued_items: IntGaugeVec,
    queued_weight: IntGaugeVec,
    executing_items: IntGaugeVec,
    out_of_memory: IntCounterVec,
    workers: WorkerFamilies,
    model_ready: IntGaugeVec,
    model_generation: IntGaugeVec,
    generations_live: IntGauge,
    generations_loaded: IntCounter,
    reloads: IntCounterVec,
    last_reload: IntGauge,
}

/// The series of one task of one model. A new generation of the model goes on counting in the same series.
pub struct TaskMetrics {
    /// From arrival (or the end of prepare) to the start of the batch, per item.
    pub queue_seconds: Histogram,
    /// Decoding and preprocessing, per item.
    pub prepare_seconds: Histogram,
    /// `predict_batch`, per batch.
    pub inference_seconds: Histogram,
    /// Turning outputs into the reply's body, per request.
    pub encode_seconds: Histogram,
    /// How long a free worker waited for company, with items at hand, per batch.
    pub batch_wait_seconds: Histogram,
    /// What a batch takes however small it is, as the policy has learned it.
    pub learned_batch_seconds: Gauge,
    /// What each further item, or unit of weight, adds to that.
    pub learned_unit_seconds: Gauge,
    /// Items per batch.
    pub batch_size: Histogram,
    /// Cost per batch, in the model's units.
    pub batch_weight: Histogram,
    /// Items that wait.
    pub queued_items: IntGauge,
    /// Weight that waits.
    pub queued_weight: IntGauge,
    /// Items in running batches.
    pub executing_items: IntGauge,
    /// Batches that did not fit in memory.
    pub out_of_memory: IntCounter,
    batches: Vec<(&'static str, IntCounter)>,
    items: Vec<IntCounter>,
    rejections: Vec<IntCounter>,
}

impl TaskMetrics {
    /// Counts an item.
    pub fn count_item(&self, outcome: ItemOutcome) {
        self.items[outcome as usize].inc();
    }

    /// How many items have come to this.
    pub fn counted(&self, outcome: ItemOutcome) -> u64 {
        self.items[outcome as usize].get()
    }

    /// Counts a refused request.
    pub fn count_rejection(&self, rejection: &Rejection) {
        self.rejections[rejection_index(rejection)].inc();
    }

    /// Counts a batch by the reason for which it was closed.
    pub fn count_batch(&self, reason: &'static str) {
        if let Some((_, counter)) = self.batches.iter().find(|(name, _)| *name == reason) {
            counter.inc();
        }
    }
}

impl Metrics {
    /// Makes and registers all families.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let of_task = ["model", "task"];
        let metrics = Self {
            queue_seconds: histogram(
                &registry,
                "inference_queue_seconds",
                "Time an item waited, from the end of its preparation to the start of its batch.",
                seconds(),
            )?,
            prepare_seconds: histogram(
                &registry,
                "inference_prepare_seconds",
                "Time to decode and preprocess an item.",
                seconds(),
            )?,
            inference_seconds: histogram(
                &registry,
                "inference_seconds",
                "Time the model computed on a batch.",
                seconds_in_high_resolution(),
            )?,
            encode_seconds: histogram(
                &registry,
                "inference_encode_seconds",
                "Time to turn a request's outputs into the body of its reply.",
                seconds(),
            )?,
            batch_wait_seconds: histogram(
                &registry,
                "inference_batch_wait_seconds",
                "Time a free worker waited for company, with items at hand, before it took a batch.",
                seconds(),
            )?,
            learned_batch_seconds: register(
                &registry,
                GaugeVec::new(
                    Opts::new(
                        "inference_learned_batch_seconds",
                        "What a batch takes however small it is, as the adaptive policy has learned it.",
                    ),
                    &of_task,
                )?,
            )?,
            learned_unit_seconds: register(
                &registry,
                GaugeVec::new(
                    Opts::new(
                        "inference_learned_unit_seconds",
                        "What each further item, or unit of weight, adds, as the adaptive policy has learned it.",
                    ),
                    &of_task,
                )?,
            )?,
            batch_size: histogram(
                &registry,
                "inference_batch_size",
                "Items in a batch.",
                powers(2.0, 11),
            )?,
            batch_weight: histogram(
                &registry,
                "inference_batch_weight",
                "Cost of a batch, in the model's units (tokens, pixels; items where the model states none).",
                powers(4.0, 13),
            )?,
            batches: register(
                &registry,
                IntCounterVec::new(
                    Opts::new("inference_batches_total", "Batches run, by why they were closed."),
                    &["model", "task", "reason"],
                )?,
            )?,
            items: register(
                &registry,
                IntCounterVec::new(
                    Opts::new("inference_items_total", "Items settled, by what became of them."),
                    &["model", "task", "outcome"],
                )?,
            )?,
            rejections: register(
                &registry,
                IntCounterVec::new(
                    Opts::new("inference_rejections_total", "Requests not admitted, by why."),
                    &["model", "task", "reason"],
                )?,
            )?,
            queued_items: gauge(&registry, "inference_queue_items", "Items that wait.", &of_task)?,
            queued_weight: gauge(
                &registry,
                "inference_queue_weight",
                "Weight that waits, in the model's units.",
                &of_task,
            )?,
            executing_items: gauge(
                &registry,
                "inference_executing_items",
                "Items in batches that are running.",
                &of_task,
            )?,
            out_of_memory: register(
                &registry,
                IntCounterVec::new(
                    Opts::new(
                        "inference_out_of_memory_total",
                        "Batches that did not fit in memory and were halved or failed.",
                    ),
                    &of_task,
                )?,
            )?,
            workers: WorkerFamilies::register(&registry)?,
            model_ready: gauge(
                &registry,
                "inference_model_ready",
                "1 while the model serves, else 0.",
                &["model"],
            )?,
            model_generation: gauge(
                &registry,
                "inference_model_generation",
                "Number of the generation that serves; 0 while none does.",
                &["model"],
            )?,
            generations_live: register(
                &registry,
                IntGauge::new("inference_generations_live", "Generations that serve or drain.")?,
            )?,
            generations_loaded: register(
                &registry,
                IntCounter::new(
                    "inference_generations_loaded_total",
                    "Generations ever loaded; the code of each stays mapped until the process ends.",
                )?,
            )?,
            reloads: register(
                &registry,
                IntCounterVec::new(
                    Opts::new("inference_reloads_total", "Reloads, by result."),
                    &["result"],
                )?,
            )?,
            last_reload: register(
                &registry,
                IntGauge::new(
                    "inference_last_successful_reload_timestamp_seconds",
                    "Unix time at which the present state went live.",
                )?,
            )?,
            registry,
        };
        metrics.reloads.with_label_values(&["success"]);
        metrics.reloads.with_label_values(&["failure"]);
        metrics.registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        Ok(metrics)
    }

    /// The registry, for families that others own (the endpoints').
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The series of a task, made at zero if they are new. `reasons` are the values of `reason` in
    /// `inference_batches_total`.
    pub fn task(&self, model: &str, task: &str, reasons: &[&'static str]) -> TaskMetrics {
        let of_task = [model, task];
        TaskMetrics {
            queue_seconds: self.queue_seconds.with_label_values(&of_task),
            prepare_seconds: self.prepare_seconds.with_label_values(&of_task),
            inference_seconds: self.inference_seconds.with_label_values(&of_task),
            encode_seconds: self.encode_seconds.with_label_values(&of_task),
            batch_wait_seconds: self.batch_wait_seconds.with_label_values(&of_task),
            learned_batch_seconds: self.learned_batch_seconds.with_label_values(&of_task),
            learned_unit_seconds: self.learned_unit_seconds.with_label_values(&of_task),
            batch_size: self.batch_size.with_label_values(&of_task),
            batch_weight: self.batch_weight.with_label_values(&of_task),
            queued_items: self.queued_items.with_label_values(&of_task),
            queued_weight: self.queued_weight.with_label_values(&of_task),
            executing_items: self.executing_items.with_label_values(&of_task),
            out_of_memory: self.out_of_memory.with_label_values(&of_task),
            batches: reasons
                .iter()
                .map(|reason| (*reason, self.batches.with_label_values(&[model, task, *reason])))
                .collect(),
            items: ItemOutcome::ALL
                .iter()
                .map(|outcome| self.items.with_label_values(&[model, task, outcome.label()]))
                .collect(),
            rejections: REJECTIONS
                .iter()
                .map(|reason| self.rejections.with_label_values(&[model, task, *reason]))
                .collect(),
        }
    }

    /// The series of the worker processes of a model, made at zero if they are new.
    pub fn workers(&self, model: &str) -> WorkerMetrics {
        self.workers.of(model)
    }

    /// States whether a model could run a batch now, which may change while the same generation serves.
    pub fn set_ready(&self, model: &str, ready: bool) {
        self.model_ready.with_label_values(&[model]).set(i64::from(ready));
    }

    /// States which generation of a model serves; `None` while none does.
    pub fn set_model(&self, model: &str, generation: Option<u64>) {
        self.set_ready(model, generation.is_some());
        self.model_generation
            .with_label_values(&[model])
            .set(generation.unwrap_or(0) as i64);
    }

    /// Forgets a model that is configured no more, with the tasks that it had.
    pub fn remove_model<'a>(
        &self,
        model: &str,
        tasks: impl Iterator<Item = &'a str>,
        reasons: &[&'static str],
    ) {
        // A family that lacks the series says so with an error, which is as good as having removed it.
        let _ = self.model_ready.remove_label_values(&[model]);
        let _ = self.model_generation.remove_label_values(&[model]);
        self.workers.remove(model);
        for task in tasks {
            self.remove_task(model, task, reasons);
        }
    }

    /// Forgets a task that its model has no more.
    pub fn remove_task(&self, model: &str, task: &str, reasons: &[&'static str]) {
        let of_task = [model, task];
        for family in [
            &self.queue_seconds,
            &self.prepare_seconds,
            &self.inference_seconds,
            &self.encode_seconds,
            &self.batch_wait_seconds,
            &self.batch_size,
            &self.batch_weight,
        ] {
            let _ = family.remove_label_values(&of_task);
        }
        for family in [&self.queued_items, &self.queued_weight, &self.executing_items] {
            let _ = family.remove_label_values(&of_task);
        }
        for family in [&self.learned_batch_seconds, &self.learned_unit_seconds] {
            let _ = family.remove_label_values(&of_task);
        }
        let _ = self.out_of_memory.remove_label_values(&of_task);
        for reason in reasons {
            let _ = self.batches.remove_label_values(&[model, task, reason]);
        }
        for outcome in ItemOutcome::ALL {
            let _ = self.items.remove_label_values(&[model, task, outcome.label()]);
        }
        for reason in REJECTIONS {
            let _ = self.rejections.remove_label_values(&[model, task, reason]);
        }
    }

    /// Counts a reload; `unix_seconds` is when it ended.
    pub fn count_reload(&self, result: ReloadResult, unix_seconds: u64) {
        match result {
            ReloadResult::Success => {
                self.reloads.with_label_values(&["success"]).inc();
                self.last_reload.set(unix_seconds as i64);
            }
            ReloadResult::Failure => self.reloads.with_label_values(&["failure"]).inc(),
        }
    }

    /// A generation was loaded.
    pub fn generation_loaded(&self) {
        self.generations_loaded.inc();
        self.generations_live.inc();
    }

    /// A generation has drained and dropped its model.
    pub fn generation_ended(&self) {
        self.generations_live.dec();
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, family: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: Vec<f64>,
) -> Result<HistogramVec, prometheus::Error> {
    register(
        registry,
        HistogramVec::new(
            HistogramOpts::new(name, help).buckets(buckets),
            &["model", "task"],
        )?,
    )
}

fn gauge(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
}
