//! Metrics of the state of each model. They are computed from the current snapshot at each scrape, so the next scrape does
//! not contain models that were removed.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::{ModelEntry, Registry};

/// Metric families with one gauge for each model.
pub struct ModelStateMetrics {
    registry: Arc<Registry>,
    families: Vec<(Desc, Read)>,
}

/// Computes the value of a family for a model.
type Read = fn(&ModelEntry) -> Option<f64>;

impl ModelStateMetrics {
    /// Metrics of the models in `registry`.
    ///
    /// # Errors
    /// If the definition of a family is invalid.
    pub fn new(registry: Arc<Registry>) -> Result<Self, prometheus::Error> {
        let family = |name: &str, help: &str, value| {
            let labels = vec!["model".to_owned()];
            Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new()).map(|desc| (desc, value))
        };
        let ready: Read = |entry| Some(f64::from(u8::from(entry.is_ready())));
        let generation: Read = |entry| {
            let number = entry.generation().map_or(0, |generation| generation.number);
            Some(number as f64)
        };
        let oldest_batch: Read = |entry| {
            let running = entry.generation().map(|generation| generation.engine.running());
            let ages = running.iter().flatten().map(|(_, batch)| batch.age());
            Some(ages.max().unwrap_or_default().as_secs_f64())
        };
        let budget: Read = |entry| {
            let budget = entry.generation()?.engine.memory_budget()?;
            Some(budget as f64)
        };
        let reserved: Read = |entry| {
            let engine = &entry.generation()?.engine;
            engine.memory_budget().map(|_| engine.reserved_memory() as f64)
        };
        Ok(Self {
            registry,
            families: vec![
                family(
                    "inference_model_ready",
                    "1 while the model can run a batch, otherwise 0.",
                    ready,
                )?,
                family(
                    "inference_model_generation",
                    "Number of the serving generation, 0 if none is serving.",
                    generation,
                )?,
                family(
                    "inference_oldest_batch_seconds",
                    "Age of the oldest batch that a worker of the model is running, 0 if none is running.",
                    oldest_batch,
                )?,
                family(
                    "inference_memory_budget_bytes",
                    "Maximum predicted memory of the batches of the model that run at the same time, if there is a limit.",
                    budget,
                )?,
                family(
                    "inference_memory_reserved_bytes",
                    "Predicted memory of the batches of the model that are running, if it is limited.",
                    reserved,
                )?,
            ],
        })
    }
}

impl Collector for ModelStateMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.families.iter().map(|(desc, _)| desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let snapshot = self.registry.snapshot();
        let family = |(desc, value): &(Desc, Read)| {
            let mut family = MetricFamily::default();
            family.set_name(desc.fq_name.clone());
            family.set_help(desc.help.clone());
            family.set_field_type(MetricType::GAUGE);
            let metrics = snapshot
                .models()
                .filter_map(|entry| Some(gauge(entry.name(), value(entry)?)));
            family.set_metric(metrics.collect());
            family
        };
        self.families.iter().map(family).collect()
    }
}

fn gauge(model: &str, value: f64) -> Metric {
    let mut label = LabelPair::default();
    label.set_name("model".to_owned());
    label.set_value(model.to_owned());
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(vec![label]);
    metric.set_gauge(gauge);
    metric
}
