//! What was measured, as a table for people and as JSON.

use std::fmt;
use std::time::Duration;

use serde_json::json;

use crate::overhead::{Comparison, Figures};
use crate::probes::{Probe, Probes};
use crate::traces::{Cost, Traces};

/// Everything.
pub(crate) struct Report {
    pub(crate) overhead: Vec<Comparison>,
    pub(crate) rest: Option<Rest>,
    pub(crate) probes: Option<Probes>,
    pub(crate) traces: Option<Traces>,
}

/// What is not compared with anything.
pub(crate) struct Rest {
    pub(crate) start_to_ready: Duration,
    pub(crate) idle_rss: u64,
    pub(crate) busy_rss: u64,
    pub(crate) binary_bytes: u64,
    pub(crate) plugin_bytes: u64,
}

impl Figures {
    fn median_ratio(&self) -> f64 {
        self.ratios[self.ratios.len() / 2]
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "requests_per_second": self.per_second.round(),
            "p50_us": micros(self.p50),
            "p99_us": micros(self.p99),
            "cpu_us_per_item": micros(self.cpu_per_item),
            "cpu_ratio": self.median_ratio(),
        })
    }
}

impl Comparison {
    fn json(&self) -> serde_json::Value {
        json!({
            "connections": self.cell.connections,
            "items": self.cell.items,
            "actix_web": self.bare.json(),
            "actix_web_with_thread": self.thread.json(),
            "server": self.server.json(),
        })
    }
}

impl Report {
    pub(crate) fn json(&self) -> serde_json::Value {
        let overhead: Vec<_> = self.overhead.iter().map(Comparison::json).collect();
        let mut report = json!({ "overhead": overhead });
        if let Some(probes) = &self.probes {
            let probe = |probe: &Probe| {
                json!({
                    "port": probe.port,
                    "path": probe.path,
                    "p50_us": micros(probe.latencies.quantile(0.5)),
                    "p99_us": micros(probe.latencies.quantile(0.99)),
                    "max_us": micros(probe.latencies.quantile(1.0)),
                })
            };
            report["probes"] = probes.probes.iter().map(probe).collect();
            report["requests_per_second_during_probes"] = json!(probes.per_second.round());
        }
        if let Some(traces) = &self.traces {
            let cost = |cost: &Cost| {
                json!({
                    "traced": cost.traced,
                    "cpu_ratio": cost.ratio(),
                    "standard_error": cost.error(),
                    "exporter": cost.exporter,
                    "exports": cost.exports,
                    "dropped_spans": cost.dropped,
                })
            };
            report["traces"] = traces.costs.iter().map(cost).collect();
        }
        if let Some(rest) = &self.rest {
            report["start_to_ready_us"] = json!(micros(rest.start_to_ready));
            report["idle_rss_bytes"] = json!(rest.idle_rss);
            report["rss_after_load_bytes"] = json!(rest.busy_rss);
            report["binary_bytes"] = json!(rest.binary_bytes);
            report["template_plugin_bytes"] = json!(rest.plugin_bytes);
        }
        report
    }
}

fn micros(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e7).round() / 10.0
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.overhead.is_empty() {
            write_overhead(f, &self.overhead)?;
        }
        if let Some(rest) = &self.rest {
            write!(f, "\n{rest}")?;
        }
        if let Some(probes) = &self.probes {
            write!(f, "\n{probes}")?;
        }
        match &self.traces {
            Some(traces) => write!(f, "\n{traces}"),
            None => Ok(()),
        }
    }
}

fn write_overhead(f: &mut fmt::Formatter<'_>, overhead: &[Comparison]) -> fmt::Result {
    writeln!(
        f,
        "{:<11} {:>5}  {:<13} {:>10} {:>8} {:>8} {:>14}  {:>9}",
        "connections", "items", "", "requests/s", "p50 us", "p99 us", "CPU ms per", "CPU ratio"
    )?;
    writeln!(f, "{:>74}", "1000 items")?;
    for comparison in overhead {
        for (name, figures) in [
            ("actix-web", &comparison.bare),
            ("with a thread", &comparison.thread),
            ("this server", &comparison.server),
        ] {
            let (lowest, highest) = (figures.ratios[0], figures.ratios[figures.ratios.len() - 1]);
            writeln!(
                f,
                "{:>11} {:>5}  {name:<13} {:>10.0} {:>8.0} {:>8.0} {:>14.2}  {:.2} ({lowest:.2}–{highest:.2})",
                comparison.cell.connections,
                comparison.cell.items,
                figures.per_second,
                micros(figures.p50),
                micros(figures.p99),
                micros(figures.cpu_per_item),
                figures.median_ratio(),
            )?;
        }
    }
    Ok(())
}

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: f64, unit: &str| writeln!(f, "{name:<27} {value:>8.2} {unit}");
        line("start to ready (median)", micros(self.start_to_ready) / 1e3, "ms")?;
        line("resident memory, idle", mebibytes(self.idle_rss), "MiB")?;
        line("resident memory, after load", mebibytes(self.busy_rss), "MiB")?;
        line("server binary, stripped", mebibytes(self.binary_bytes), "MiB")?;
        line("template plugin, stripped", mebibytes(self.plugin_bytes), "MiB")
    }
}

impl fmt::Display for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "probes during {:.0} requests/s", self.per_second)?;
        writeln!(
            f,
            "{:<12} {:<9} {:>8} {:>8} {:>8}",
            "port", "path", "p50 ms", "p99 ms", "max ms"
        )?;
        for Probe {
            port,
            path,
            latencies,
        } in &self.probes
        {
            let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| micros(latencies.quantile(share)) / 1e3);
            writeln!(f, "{port:<12} {path:<9} {p50:>8.2} {p99:>8.2} {max:>8.2}")?;
        }
        Ok(())
    }
}
