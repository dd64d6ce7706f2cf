//! Writes the metrics in the OpenMetrics format, which has exemplars.
//!
//! The text format of `prometheus` has none. The names of counters, histograms and gauges as Prometheus stores them are the
//! same in both formats.

use std::fmt::{self, Write};

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::{Exemplar, ExemplarsByTask, Metrics};

/// The media type of the format.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Units that a family can have. They are the last part of its name.
const UNITS: [&str; 3] = ["seconds", "bytes", "ratio"];

/// All metrics of the process.
pub fn write_open_metrics(metrics: &Metrics) -> String {
    let mut text = String::new();
    let exemplars = metrics.exemplars();
    for family in metrics.registry().gather() {
        write_family(&mut text, &family, &exemplars);
    }
    text.push_str("# EOF\n");
    text
}

fn write_family(text: &mut String, family: &MetricFamily, exemplars: &ExemplarsByTask) {
    let whole_name = family.name();
    let (name, kind) = match family.get_field_type() {
        MetricType::COUNTER => match whole_name.strip_suffix("_total") {
            Some(name) => (name, "counter"),
            None => (whole_name, "unknown"),
        },
        MetricType::GAUGE => (whole_name, "gauge"),
        MetricType::HISTOGRAM => (whole_name, "histogram"),
        MetricType::SUMMARY => (whole_name, "summary"),
        MetricType::UNTYPED => (whole_name, "unknown"),
    };
    // Writing to a string never fails.
    let _ = writeln!(text, "# TYPE {name} {kind}");
    if let Some(unit) = UNITS.iter().find(|unit| has_unit(name, unit)) {
        let _ = writeln!(text, "# UNIT {name} {unit}");
    }
    let _ = writeln!(text, "# HELP {name} {}", Escaped(family.help()));
    for metric in family.get_metric() {
        match family.get_field_type() {
            MetricType::COUNTER => write_sample(text, whole_name, metric, metric.get_counter().get_value()),
            MetricType::GAUGE => write_sample(text, whole_name, metric, metric.get_gauge().get_value()),
            MetricType::HISTOGRAM => {
                write_histogram(text, name, metric, exemplars_of(name, metric, exemplars))
            }
            MetricType::SUMMARY => {
                let summary = metric.get_summary();
                write_sum(text, name, metric, summary.sample_sum(), summary.sample_count());
            }
            MetricType::UNTYPED => {}
        }
    }
}

fn has_unit(name: &str, unit: &str) -> bool {
    name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'))
}

/// The exemplars of the buckets of a series.
fn exemplars_of<'a>(name: &str, metric: &Metric, exemplars: &'a ExemplarsByTask) -> &'a [Option<Exemplar>] {
    if exemplars.is_empty() {
        return &[];
    }
    let label = |wanted: &str| {
        let label = metric.get_label().iter().find(|label| label.name() == wanted);
        label.map(|label| label.value().to_owned())
    };
    let found = label("model").zip(label("task")).and_then(|(model, task)| {
        let mut histograms = exemplars.keys().map(|(histogram, ..)| *histogram);
        let histogram = histograms.find(|histogram| *histogram == name)?;
        exemplars.get(&(histogram, model, task))
    });
    found.map_or(&[], Vec::as_slice)
}

fn write_histogram(text: &mut String, name: &str, metric: &Metric, exemplars: &[Option<Exemplar>]) {
    let histogram = metric.get_histogram();
    let finite = histogram
        .get_bucket()
        .iter()
        .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
        .filter(|(bound, _)| bound.is_finite());
    let all = finite.chain([(f64::INFINITY, histogram.get_sample_count())]);
    for (index, (bound, count)) in all.enumerate() {
        let bound = match bound.is_finite() {
            true => format!("{bound:?}"),
            false => "+Inf".to_owned(),
        };
        let _ = write!(text, "{name}_bucket{} {count}", Labels(metric, Some(&bound)));
        if let Some(Some(exemplar)) = exemplars.get(index) {
            let Exemplar {
                trace,
                seconds,
                unix_time,
            } = exemplar;
            let at = unix_time.as_secs_f64();
            let _ = write!(text, " # {{trace_id=\"{trace}\"}} {seconds} {at:.3}");
        }
        text.push('\n');
    }
    write_sum(
        text,
        name,
        metric,
        histogram.get_sample_sum(),
        histogram.get_sample_count(),
    );
}

fn write_sum(text: &mut String, name: &str, metric: &Metric, sum: f64, count: u64) {
    write_sample(text, &format!("{name}_sum"), metric, sum);
    let _ = writeln!(text, "{name}_count{} {count}", Labels(metric, None));
}

fn write_sample(text: &mut String, name: &str, metric: &Metric, value: f64) {
    let labels = Labels(metric, None);
    let _ = match value {
        f64::INFINITY => writeln!(text, "{name}{labels} +Inf"),
        f64::NEG_INFINITY => writeln!(text, "{name}{labels} -Inf"),
        value => writeln!(text, "{name}{labels} {value}"),
    };
}

/// The labels of a series, and the bound of a bucket.
struct Labels<'a>(&'a Metric, Option<&'a str>);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(metric, bound) = self;
        let own = metric
            .get_label()
            .iter()
            .map(|label| (label.name(), label.value()));
        let mut separator = '{';
        for (name, value) in own.chain(bound.map(|bound| ("le", bound))) {
            write!(f, "{separator}{name}=\"{}\"", Escaped(value))?;
            separator = ',';
        }
        match separator {
            ',' => f.write_char('}'),
            _ => Ok(()),
        }
    }
}

/// Text in which special characters are escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::{Gauge, IntCounterVec, Opts};

    use super::*;
    use crate::metrics::Buckets;
    use crate::trace_context::TraceContext;

    /// The lines of a family and its samples.
    fn lines(metrics: &Metrics, family: &str) -> Vec<String> {
        let text = write_open_metrics(metrics);
        assert!(text.ends_with("\n# EOF\n"));
        let lines = text.lines().filter(|line| {
            let mut words = line.split([' ', '{']);
            let word = words.find(|word| !["#", "TYPE", "UNIT", "HELP"].contains(word));
            word.is_some_and(|name| name.starts_with(family))
        });
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn counters_gauges_units_and_special_characters_are_written_as_the_format_requires() {
        let metrics = Metrics::new(Buckets::NONE).expect("the metrics are valid");
        let counter = IntCounterVec::new(Opts::new("x_total", "A \"b\" \\ c"), &["l"]).expect("it is valid");
        counter.with_label_values(&["q\"\n"]).inc();
        let gauge = Gauge::new("x_free_bytes", "Free").expect("it is valid");
        gauge.set(f64::INFINITY);
        for collector in [
            Box::new(counter) as Box<dyn prometheus::core::Collector>,
            Box::new(gauge),
        ] {
            metrics.registry().register(collector).expect("it is new");
        }
        assert_eq!(
            lines(&metrics, "x"),
            [
                "# TYPE x_free_bytes gauge",
                "# UNIT x_free_bytes bytes",
                "# HELP x_free_bytes Free",
                "x_free_bytes +Inf",
                "# TYPE x counter",
                "# HELP x A \\\"b\\\" \\\\ c",
                "x_total{l=\"q\\\"\\n\"} 1",
            ]
        );
    }

    #[test]
    fn a_bucket_has_the_exemplar_of_the_task_it_belongs_to() {
        let buckets = Buckets {
            requests: vec![Duration::from_millis(5), Duration::from_secs(2)],
            ..Buckets::NONE
        };
        let metrics = Metrics::new(buckets).expect("the metrics are valid");
        let task = metrics.task("m", "t", &[]);
        metrics.task("m", "other", &[]);
        let parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = TraceContext::parse(parent).expect("it is valid").trace;
        task.requests.set_exemplars(trace, Duration::from_millis(7), None);
        let lines = lines(&metrics, "inference_latency_seconds_bucket");
        let exemplars: Vec<&String> = lines.iter().filter(|line| line.contains(" # ")).collect();
        assert_eq!(exemplars.len(), 1, "{lines:#?}");
        let start = "inference_latency_seconds_bucket{model=\"m\",task=\"t\",le=\"2.0\"} 0 \
                     # {trace_id=\"0af7651916cd43dd8448eb211c80319c\"} 0.007 ";
        assert!(exemplars[0].starts_with(start), "{}", exemplars[0]);
        assert_eq!(lines.len(), 6);
        assert!(lines[2].contains("le=\"+Inf\"}"), "{}", lines[2]);
    }
}
