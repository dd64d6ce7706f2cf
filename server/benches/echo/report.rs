//! The results, as a table and as JSON.

use std::fmt;
use std::time::Duration;

use serde_json::json;

/// A measurement of throughput.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) connections: usize,
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) cpu_per_request: Duration,
}

/// The 99th percentiles while a model computes on every core.
pub(crate) struct Health {
    pub(crate) readyz: Duration,
    pub(crate) metrics: Duration,
}

/// All results.
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) start_to_ready: Duration,
    pub(crate) idle_rss: u64,
    pub(crate) busy_rss: u64,
    /// Or why it was not measured.
    pub(crate) health: Result<Health, String>,
    pub(crate) binary_bytes: u64,
    pub(crate) plugin_bytes: u64,
}

impl Report {
    pub(crate) fn json(&self) -> serde_json::Value {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "name": row.name,
                    "connections": row.connections,
                    "requests_per_second": row.per_second.round(),
                    "p50_us": micros(row.p50),
                    "p99_us": micros(row.p99),
                    "server_cpu_us_per_request": micros(row.cpu_per_request),
                })
            })
            .collect();
        let health = match &self.health {
            Ok(health) => {
                json!({"readyz_p99_us": micros(health.readyz), "metrics_p99_us": micros(health.metrics)})
            }
            Err(reason) => json!({ "not_measured": reason }),
        };
        json!({
            "rows": rows,
            "start_to_ready_us": micros(self.start_to_ready),
            "idle_rss_bytes": self.idle_rss,
            "rss_after_load_bytes": self.busy_rss,
            "while_computing": health,
            "binary_bytes": self.binary_bytes,
            "template_plugin_bytes": self.plugin_bytes,
        })
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
            "{:<12} {:>11} {:>11} {:>10} {:>10} {:>16}",
            "request", "connections", "requests/s", "p50 us", "p99 us", "server CPU us"
        )?;
        for row in &self.rows {
            writeln!(
                f,
                "{:<12} {:>11} {:>11.0} {:>10.0} {:>10.0} {:>16.1}",
                row.name,
                row.connections,
                row.per_second,
                micros(row.p50),
                micros(row.p99),
                micros(row.cpu_per_request)
            )?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "start to ready (median)     {:>8.1} ms",
            micros(self.start_to_ready) / 1e3
        )?;
        writeln!(
            f,
            "resident memory, idle       {:>8.1} MiB",
            mebibytes(self.idle_rss)
        )?;
        writeln!(
            f,
            "resident memory, after load {:>8.1} MiB",
            mebibytes(self.busy_rss)
        )?;
        match &self.health {
            Ok(health) => {
                writeln!(
                    f,
                    "/readyz p99, cores busy     {:>8.2} ms",
                    micros(health.readyz) / 1e3
                )?;
                writeln!(
                    f,
                    "/metrics p99, cores busy    {:>8.2} ms",
                    micros(health.metrics) / 1e3
                )?;
            }
            Err(reason) => writeln!(f, "health while cores are busy: not measured: {reason}")?,
        }
        writeln!(
            f,
            "server binary, stripped     {:>8.1} MiB",
            mebibytes(self.binary_bytes)
        )?;
        writeln!(
            f,
            "template plugin, stripped   {:>8.1} MiB",
            mebibytes(self.plugin_bytes)
        )
    }
}
