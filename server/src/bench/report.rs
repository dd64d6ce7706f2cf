//! The report, and its JSON format. Durations are in seconds.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::arrivals::Arrivals;
use super::error::BenchError;
use crate::json;

/// Version of the format. It is increased when the meaning of a field changes, not when a field is added.
pub(super) const REPORT_VERSION: u32 = 1;

/// One run of the command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) version: u32,
    /// Name of the run in tables and plots.
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
    /// The steps, in the order in which they ran.
    pub(super) steps: Vec<Step>,
}

/// The results of one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Step {
    pub(super) load: Load,
    /// Duration of the measurement, without the warm-up.
    pub(super) seconds: f64,
    /// Number of successes that were due in that time.
    pub(super) requests: u64,
    /// Successful replies in that time, per second.
    pub(super) requests_per_second: f64,
    pub(super) items_per_second: f64,
    /// Latency of successes that were due in that time. Absent if there were none.
    pub(super) latency_seconds: Option<Latency>,
    /// Failed requests that were in flight in that time.
    pub(super) errors: Vec<ErrorCount>,
    /// Fraction of the time in which the thread of this program used a CPU. Near 1, this program limits the results, not the
    /// server.
    pub(super) client_busy: f64,
    /// Absent if the server does not have these metrics.
    pub(super) server: Option<ServerSide>,
}

/// The load of a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Load {
    /// A closed loop: this many clients, each of which waits for its reply.
    Closed {
        #[serde(rename = "callers")]
        clients: u32,
    },
    /// An open loop: this many requests per second, independent of replies.
    Open { rate: f64, arrivals: Arrivals },
}

impl Load {
    /// Whether this is an open loop.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// Number of clients, or requests per second.
    pub(super) fn size(&self) -> f64 {
        match self {
            Self::Closed { clients } => f64::from(*clients),
            Self::Open { rate, .. } => *rate,
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { clients: 1 } => f.write_str("1 client"),
            Self::Closed { clients } => write!(f, "{clients} clients"),
            Self::Open { rate, arrivals } => write!(f, "{rate}/s {arrivals}"),
        }
    }
}

/// Time from the moment a request was due to the last byte of its reply.
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

/// Means of the server's metrics over the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ServerSide {
    /// Time of an item in the queue.
    pub(super) queue_seconds: Option<f64>,
    /// Time to prepare an item.
    pub(super) prepare_seconds: Option<f64>,
    /// Time of a batch in the model.
    pub(super) inference_seconds: Option<f64>,
    /// Time to write a reply.
    pub(super) encode_seconds: Option<f64>,
    /// Items in a batch.
    pub(super) batch_size: Option<f64>,
    pub(super) batches: u64,
    pub(super) items_succeeded: u64,
    /// Includes items that failed in a reply with status 200.
    pub(super) items_failed: u64,
}

impl Step {
    /// Number of failed requests.
    pub(super) fn failed(&self) -> u64 {
        self.errors.iter().map(|error| error.count).sum()
    }

    /// Description of the first failure.
    pub(super) fn first_error(&self) -> String {
        match self.errors.first() {
            Some(error) => format!("{}: {}", error.kind, error.first_message),
            None => "no reply arrived in time; measure longer with --duration".to_owned(),
        }
    }
}

impl Report {
    /// Encodes the report.
    pub(super) fn to_json(&self) -> Result<String, BenchError> {
        serde_json::to_string_pretty(self).map_err(BenchError::Json)
    }

    /// Reads a report from a file.
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
        // The version first: the rest of another version can have any form.
        let Versioned { version } = json::from_str(text).map_err(not_a_report)?;
        if version != REPORT_VERSION {
            return Err(BenchError::Version {
                path: path.to_owned(),
                found: version,
                expected: REPORT_VERSION,
            });
        }
        json::from_str(text).map_err(not_a_report)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A report with steps of these loads. Its values grow with the load and with `factor`.
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

    pub(crate) fn closed(clients: u32) -> Load {
        Load::Closed { clients }
    }

    pub(crate) fn open(rate: f64) -> Load {
        let arrivals = Arrivals::Burst(8);
        Load::Open { rate, arrivals }
    }

    #[test]
    fn a_report_survives_a_round_trip() {
        let written = report("a", &[closed(1), open(2.5)], 1.0);
        let text = written.to_json().expect("it can be written");
        let read = Report::from_json(Path::new("a.json"), &text).expect("it can be read");
        assert_eq!(read, written);
    }

    #[test]
    fn other_versions_and_other_files_are_rejected() {
        for (text, part) in [
            (r#"{"version": 2}"#, "a.json has format version 2, expected 1"),
            (r#"{"version": 1}"#, "a.json is not a report"),
            ("[]", "a.json is not a report"),
        ] {
            let error = Report::from_json(Path::new("a.json"), text).expect_err("it is none");
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
