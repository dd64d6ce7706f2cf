//! What was measured, as a table for people and as JSON.

use std::fmt;
use std::time::Duration;

use serde_json::json;

use crate::overhead::{Comparison, Figures};

/// The 99th percentiles while a model computes on every core.
pub(crate) struct Health {
    pub(crate) readyz: Duration,
    pub(crate) metrics: Duration,
}

/// Everything.
pub(crate) struct Report {
    pub(crate) overhead: Vec<Comparison>,
    pub(crate) rest: Option<Rest>,
}

/// What is not compared with anything.
pub(crate) struct Rest {
    pub(crate) start_to_ready: Duration,
    pub(crate) idle_rss: u64,
    pub(crate) busy_rss: u64,
    /// Or why it was not measured.
    pub(crate) health: Result<Health, String>,
    pub(crate) binary_bytes: u64,
    pub(crate) plugin_bytes: u64,
}

impl Comparison {
    fn median_ratio(&self) -> f64 {
        self.ratios[self.ratios.len() / 2]
    }

    fn json(&self) -> serde_json::Value {
        let figures = |figures: &Figures| {
            json!({
                "requests_per_second": figures.per_second.round(),
                "p50_us": micros(figures.p50),
                "p99_us": micros(figures.p99),
                "cpu_us_per_item": micros(figures.cpu_per_item),
            })
        };
        json!({
            "connections": self.cell.connections,
            "items": self.cell.items,
            "actix_web": figures(&self.bare),
            "server": figures(&self.server),
            "cpu_ratio": self.median_ratio(),
        })
    }
}

impl Report {
    pub(crate) fn json(&self) -> serde_json::Value {
        let overhead: Vec<_> = self.overhead.iter().map(Comparison::json).collect();
        let mut report = json!({ "overhead": overhead });
        if let Some(rest) = &self.rest {
            let health = match &rest.health {
                Ok(health) => {
                    json!({"readyz_p99_us": micros(health.readyz), "metrics_p99_us": micros(health.metrics)})
                }
                Err(reason) => json!({ "not_measured": reason }),
            };
            report["start_to_ready_us"] = json!(micros(rest.start_to_ready));
            report["idle_rss_bytes"] = json!(rest.idle_rss);
            report["rss_after_load_bytes"] = json!(rest.busy_rss);
            report["while_computing"] = health;
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
        writeln!(
            f,
            "{:<11} {:>5}  {:<12} {:>10} {:>8} {:>8} {:>14}  {:>9}",
            "connections", "items", "", "requests/s", "p50 us", "p99 us", "CPU ms per", "CPU ratio"
        )?;
        writeln!(f, "{:>73}", "1000 items")?;
        for comparison in &self.overhead {
            let lowest = comparison.ratios[0];
            let highest = comparison.ratios[comparison.ratios.len() - 1];
            let ratio = format!("{:.2} ({lowest:.2}–{highest:.2})", comparison.median_ratio());
            for (name, figures, ratio) in [
                ("actix-web", &comparison.bare, ""),
                ("this server", &comparison.server, ratio.as_str()),
            ] {
                writeln!(
                    f,
                    "{:>11} {:>5}  {name:<12} {:>10.0} {:>8.0} {:>8.0} {:>14.2}  {ratio}",
                    comparison.cell.connections,
                    comparison.cell.items,
                    figures.per_second,
                    micros(figures.p50),
                    micros(figures.p99),
                    micros(figures.cpu_per_item),
                )?;
            }
        }
        match &self.rest {
            Some(rest) => write!(f, "\n{rest}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: f64, unit: &str| writeln!(f, "{name:<27} {value:>8.2} {unit}");
        line("start to ready (median)", micros(self.start_to_ready) / 1e3, "ms")?;
        line("resident memory, idle", mebibytes(self.idle_rss), "MiB")?;
        line("resident memory, after load", mebibytes(self.busy_rss), "MiB")?;
        if let Ok(health) = &self.health {
            line("/readyz p99, cores busy", micros(health.readyz) / 1e3, "ms")?;
            line("/metrics p99, cores busy", micros(health.metrics) / 1e3, "ms")?;
        }
        line("server binary, stripped", mebibytes(self.binary_bytes), "MiB")?;
        line("template plugin, stripped", mebibytes(self.plugin_bytes), "MiB")?;
        if let Err(reason) = &self.health {
            writeln!(f, "probes while cores are busy: not measured, {reason}")?;
        }
        Ok(())
    }
}
