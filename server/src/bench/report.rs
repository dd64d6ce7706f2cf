//! The results, as they are written to a file and read back. Durations are in seconds.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::arrivals::Arrivals;
use super::error::BenchError;
use crate::json;

/// Of the file. It grows when a field changes its meaning; new fields alone are read as they come.
pub(super) const REPORT_VERSION: u32 = 1;

/// One run of the command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) version: u32,
    /// How tables and plots call it.
    pub(super) label: String,
    pub(super) server_url: String,
    pub(super) model: String,
    pub(super) task: String,
    pub(super) started_unix_seconds: u64,
    pub(super) items_per_request: usize,
    pub(super) body_bytes: usize,
    pub(super) warm_up_seconds: f64,
    pub(super) timeout_seconds: f64,
    pub(super) seed: u64,
    /// In the order in which they ran.
    pub(super) steps: Vec<Step>,
}

/// What one load came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Step {
    pub(super) load: Load,
    /// How long it was measured, warm-up not counted.
    pub(super) seconds: f64,
    /// Successes that were due in that time.
    pub(super) requests: u64,
    /// Successes that were answered in that time, per second.
    pub(super) requests_per_second: f64,
    pub(super) items_per_second: f64,
    /// Of the successes that were due in that time; absent when there were none.
    pub(super) latency_seconds: Option<Latency>,
    /// Requests that failed and were in flight in that time.
    pub(super) errors: Vec<ErrorCount>,
    /// Share of the time in which this program's thread computed. Near 1, the figures are of this program, not of the server.
    pub(super) client_busy: f64,
    /// Absent when the server has no such metrics.
    pub(super) server: Option<ServerSide>,
}

/// How requests are made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Load {
    /// So many callers, each of which waits for its answer.
    Closed { callers: u32 },
    /// So many requests per second, whatever becomes of them.
    Open { rate: f64, arrivals: Arrivals },
}

impl Load {
    /// Whether two loads belong on one axis.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// Its place on the axis: callers, or requests per second.
    pub(super) fn size(&self) -> f64 {
        match self {
            Self::Closed { callers } => f64::from(*callers),
            Self::Open { rate, .. } => *rate,
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { callers: 1 } => f.write_str("1 caller"),
            Self::Closed { callers } => write!(f, "{callers} callers"),
            Self::Open { rate, arrivals } => write!(f, "{rate}/s {arrivals}"),
        }
    }
}

/// From when a request was due to the last byte of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Latency {
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p99_9: f64,
    pub(super) max: f64,
}

/// Failures of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ErrorCount {
    /// The status, or `timeout`, `connect`, `broken`, `unanswered`.
    pub(super) kind: String,
    pub(super) count: u64,
    pub(super) first_message: String,
}

/// Means of the server's own metrics over the time measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ServerSide {
    /// Of an item.
    pub(super) queue_seconds: Option<f64>,
    /// Of an item.
    pub(super) prepare_seconds: Option<f64>,
    /// Of a batch.
    pub(super) inference_seconds: Option<f64>,
    /// Of a request.
    pub(super) encode_seconds: Option<f64>,
    /// Items in a batch.
    pub(super) batch_size: Option<f64>,
    pub(super) batches: u64,
    pub(super) items_succeeded: u64,
    /// Also those that failed alone, in an answer with status 200.
    pub(super) items_failed: u64,
}

impl Step {
    /// How many requests failed.
    pub(super) fn failed(&self) -> u64 {
        self.errors.iter().map(|error| error.count).sum()
    }

    /// The first failure, in words.
    pub(super) fn first_error(&self) -> String {
        match self.errors.first() {
            Some(error) => format!("{}: {}", error.kind, error.first_message),
            None => "none was answered in time; measure longer with --duration".to_owned(),
        }
    }
}

impl Report {
    /// As it is written.
    pub(super) fn to_json(&self) -> Result<String, BenchError> {
        serde_json::to_string_pretty(self).map_err(BenchError::Json)
    }

    /// Reads what another run has written.
    pub(super) fn read(path: &Path) -> Result<Self, BenchError> {
        let text = std::fs::read_to_string(path).map_err(|source| BenchError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::from_json(path, &text)
    }

    fn from_json(path: &Path, text: &str) -> Result<Self, BenchError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let not_a_report = |source| BenchError::NotAReport {
            path: path.to_owned(),
            source,
        };
        // The version first: of another one, the rest may look like anything.
        let Versioned { version } = json::from_str(text).map_err(not_a_report)?;
        if version != REPORT_VERSION {
            return Err(BenchError::Version {
                path: path.to_owned(),
                got: version,
                expected: REPORT_VERSION,
            });
        }
        json::from_str(text).map_err(not_a_report)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A report with steps at these loads; the numbers grow with the load, and with `factor`.
    pub(crate) fn report(label: &str, loads: &[Load], factor: f64) -> Report {
        let step = |load: &Load| {
            let latency = load.size() * 0.001 * factor;
            Step {
                load: *load,
                seconds: 10.0,
                requests: 1000,
                requests_per_second: 100.0 * load.size().sqrt() / factor,
                items_per_second: 200.0 * load.size().sqrt() / factor,
                latency_seconds: Some(Latency {
                    mean: latency * 1.1,
                    p50: latency,
                    p90: latency * 2.0,
                    p99: latency * 3.0,
                    p99_9: latency * 4.0,
                    max: latency * 5.0,
                }),
                errors: Vec::new(),
                client_busy: 0.25,
                server: Some(ServerSide {
                    queue_seconds: Some(latency / 2.0),
                    prepare_seconds: Some(0.000_012),
                    inference_seconds: Some(latency / 4.0),
                    encode_seconds: None,
                    batch_size: Some(load.size() / factor),
                    batches: 500,
                    items_succeeded: 2000,
                    items_failed: 0,
                }),
            }
        };
        Report {
            version: REPORT_VERSION,
            label: label.to_owned(),
            server_url: "http://127.0.0.1:8080".to_owned(),
            model: "digits".to_owned(),
            task: "classify".to_owned(),
            started_unix_seconds: 1_700_000_000,
            items_per_request: 2,
            body_bytes: 321,
            warm_up_seconds: 1.0,
            timeout_seconds: 10.0,
            seed: 1,
            steps: loads.iter().map(step).collect(),
        }
    }

    pub(crate) fn closed(callers: u32) -> Load {
        Load::Closed { callers }
    }

    pub(crate) fn open(rate: f64) -> Load {
        let arrivals = Arrivals::Burst(8);
        Load::Open { rate, arrivals }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let written = report("a", &[closed(1), open(2.5)], 1.0);
        let text = written.to_json().expect("it can be written");
        let read = Report::from_json(Path::new("a.json"), &text).expect("it can be read");
        assert_eq!(read, written);
    }

    #[test]
    fn another_version_and_another_file_are_refused() {
        for (text, part) in [
            (r#"{"version": 2}"#, "a.json has version 2, expected 1"),
            (r#"{"version": 1}"#, "a.json is not a report"),
            ("[]", "a.json is not a report"),
        ] {
            let error = Report::from_json(Path::new("a.json"), text).expect_err("it is none");
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
