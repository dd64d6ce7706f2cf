//! The series of one owner (a model or a task), which are added to the registry and removed from it together.
//!
//! The labels of the owner are constant labels: the registry merges the families of all owners by name, and series that are
//! still updated after their owner was removed are not exposed.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Metric, MetricFamily, MetricType, Summary};
use prometheus::{CounterVec, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts};

type Result<T> = std::result::Result<T, prometheus::Error>;

/// The upper bounds of histogram buckets for each kind of duration, ascending. A histogram without buckets has only a sum and
/// a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// For the time that a batch takes in the model.
    pub inference: Vec<Duration>,
    /// For the time from the head of a request to its reply.
    pub requests: Vec<Duration>,
    /// For the other stages of a request: preparation, queue, encoding, and the wait of a batch for more items.
    pub stages: Vec<Duration>,
}

impl Buckets {
    /// No buckets.
    pub const NONE: Self = Self {
        inference: Vec::new(),
        requests: Vec::new(),
        stages: Vec::new(),
    };

    /// The bounds for latencies of requests, in seconds, as `prometheus` takes them.
    pub fn request_seconds(&self) -> Vec<f64> {
        seconds(&self.requests)
    }
}

/// Bounds in seconds. `prometheus` replaces an empty list with its own defaults, but accepts the bound that every histogram has.
pub(super) fn seconds(bounds: &[Duration]) -> Vec<f64> {
    if bounds.is_empty() {
        return vec![f64::INFINITY];
    }
    bounds.iter().map(Duration::as_secs_f64).collect()
}

/// All series of one owner.
#[derive(Clone)]
pub(super) struct Series(Arc<[Arc<dyn Collector>]>);

impl Series {
    /// The series one by one. They must be registered one by one: the registry identifies a collector by the sum of the hashes of
    /// its series, and these sums are often equal for two owners with similar names.
    pub(super) fn each(&self) -> impl Iterator<Item = Self> {
        self.0
            .iter()
            .map(|collector| Self(Arc::new([Arc::clone(collector)])))
    }
}

impl Collector for Series {
    fn desc(&self) -> Vec<&Desc> {
        self.0.iter().flat_map(|collector| collector.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let families = self.0.iter().flat_map(|collector| collector.collect());
        families.map(without_empty_histograms).collect()
    }
}

/// Converts a histogram without buckets to a summary, the type that Prometheus has for a sum and a count.
fn without_empty_histograms(mut family: MetricFamily) -> MetricFamily {
    let is_summary = family.get_field_type() == MetricType::HISTOGRAM
        && family
            .get_metric()
            .iter()
            .all(|metric| metric.get_histogram().get_bucket().is_empty());
    if !is_summary {
        return family;
    }
    family.set_field_type(MetricType::SUMMARY);
    let metrics = family.take_metric().into_iter().map(|mut histogram| {
        let mut summary = Summary::default();
        summary.set_sample_count(histogram.get_histogram().get_sample_count());
        summary.set_sample_sum(histogram.get_histogram().get_sample_sum());
        let mut metric = Metric::from_label(histogram.take_label());
        metric.set_summary(summary);
        metric
    });
    family.set_metric(metrics.collect());
    family
}

/// A series that most owners do not use.
struct Optional<C> {
    series: C,
    is_used: fn(&C) -> bool,
}

impl<C: Collector> Collector for Optional<C> {
    fn desc(&self) -> Vec<&Desc> {
        self.series.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        match (self.is_used)(&self.series) {
            true => self.series.collect(),
            false => Vec::new(),
        }
    }
}

/// Creates the series of one owner.
pub(super) struct Builder<'a> {
    labels: &'a [(&'static str, &'a str)],
    collectors: Vec<Arc<dyn Collector>>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(labels: &'a [(&'static str, &'a str)]) -> Self {
        Self {
            labels,
            collectors: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Series {
        Series(self.collectors.into())
    }

    fn add<C: Collector + Clone + 'static>(&mut self, collector: C) -> C {
        self.collectors.push(Arc::new(collector.clone()));
        collector
    }

    /// Adds a series that is exposed from its first use on.
    fn add_optional<C: Collector + Clone + 'static>(&mut self, series: C, is_used: fn(&C) -> bool) -> C {
        self.collectors.push(Arc::new(Optional {
            series: series.clone(),
            is_used,
        }));
        series
    }

    fn options(&self, name: &str, help: &str) -> Opts {
        let options = Opts::new(name, help);
        self.labels.iter().fold(options, |options, (label, value)| {
            options.const_label(*label, *value)
        })
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram> {
        let options = HistogramOpts {
            common_opts: self.options(name, help),
            buckets,
        };
        Ok(self.add(Histogram::with_opts(options)?))
    }

    /// A histogram that is exposed from its first use on.
    pub(super) fn optional_histogram(
        &mut self,
        name: &str,
        help: &str,
        buckets: Vec<f64>,
    ) -> Result<Histogram> {
        let options = HistogramOpts {
            common_opts: self.options(name, help),
            buckets,
        };
        let is_used = |histogram: &Histogram| histogram.get_sample_count() > 0;
        Ok(self.add_optional(Histogram::with_opts(options)?, is_used))
    }

    /// A gauge that is exposed unless it is zero.
    pub(super) fn optional_gauge(&mut self, name: &str, help: &str) -> Result<Gauge> {
        let options = self.options(name, help);
        Ok(self.add_optional(Gauge::with_opts(options)?, |gauge| gauge.get() != 0.0))
    }

    /// A counter that is exposed from its first use on.
    pub(super) fn optional_int_counter(&mut self, name: &str, help: &str) -> Result<IntCounter> {
        let options = self.options(name, help);
        Ok(self.add_optional(IntCounter::with_opts(options)?, |counter| counter.get() > 0))
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Result<Gauge> {
        let options = self.options(name, help);
        Ok(self.add(Gauge::with_opts(options)?))
    }

    pub(super) fn int_gauge(&mut self, name: &str, help: &str) -> Result<IntGauge> {
        let options = self.options(name, help);
        Ok(self.add(IntGauge::with_opts(options)?))
    }

    pub(super) fn int_counter(&mut self, name: &str, help: &str) -> Result<IntCounter> {
        let options = self.options(name, help);
        Ok(self.add(IntCounter::with_opts(options)?))
    }

    /// Counters by labels whose values are not known in advance. The values must not come from clients.
    pub(super) fn counter_vec(&mut self, name: &str, help: &str, labels: &[&str]) -> Result<CounterVec> {
        let options = self.options(name, help);
        Ok(self.add(CounterVec::new(options, labels)?))
    }

    /// Like [`counter_vec`](Self::counter_vec), for integers.
    pub(super) fn int_counter_vec(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec> {
        let options = self.options(name, help);
        Ok(self.add(IntCounterVec::new(options, labels)?))
    }

    /// Counters by a reason from a closed set. The series of the first reason exists from the start, at zero.
    pub(super) fn reasons(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        reasons: &[&'static str],
    ) -> Result<ReasonCounters> {
        let family = self.int_counter_vec(name, help, &[label])?;
        if let Some(first) = reasons.first() {
            family.get_metric_with_label_values(&[*first])?;
        }
        let counters = reasons.iter().map(|reason| (*reason, OnceLock::new()));
        Ok(ReasonCounters {
            family,
            counters: counters.collect(),
        })
    }
}

/// Counters by a reason. The series of a reason is created when it is first counted.
pub(super) struct ReasonCounters {
    family: IntCounterVec,
    counters: Box<[(&'static str, OnceLock<IntCounter>)]>,
}

impl ReasonCounters {
    /// Increments the counter of a reason. A reason that is not in the set is ignored.
    pub(super) fn inc(&self, reason: &str) {
        if let Some((reason, counter)) = self.counters.iter().find(|(known, _)| *known == reason) {
            counter
                .get_or_init(|| self.family.with_label_values(&[*reason]))
                .inc();
        }
    }

    /// The counter of a reason.
    pub(super) fn get(&self, reason: &str) -> u64 {
        let counter = self.counters.iter().find(|(known, _)| *known == reason);
        counter
            .and_then(|(_, counter)| counter.get())
            .map_or(0, IntCounter::get)
    }
}
