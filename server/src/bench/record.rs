//! What a step has seen so far: latencies, completions, failures.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::client::{Failure, FailureKind};
use super::report::{ErrorCount, Latency};

/// Counts the requests of one step. Whoever makes it keeps it; time is an argument.
pub(super) struct Recorder {
    /// Warm-up and drain lie outside.
    window: Range<Instant>,
    /// Of the successes that were due within the window, in microseconds.
    latency: Histogram<u64>,
    /// Successes that were answered within the window.
    completed: u64,
    failures: BTreeMap<FailureKind, (u64, String)>,
}

impl Recorder {
    pub(super) fn new(window: Range<Instant>) -> Self {
        Self {
            window,
            // Three digits; a request is given up long before an hour.
            latency: Histogram::new_with_bounds(1, 3_600_000_000, 3)
                .expect("the bounds and the precision are among those that are possible"),
            completed: 0,
            failures: BTreeMap::new(),
        }
    }

    /// Counts a request: when it was due, when it was settled, and how.
    pub(super) fn record(&mut self, due: Instant, settled: Instant, result: Result<(), Failure>) {
        let due_within = self.window.contains(&due);
        match result {
            Ok(()) => {
                self.completed += u64::from(self.window.contains(&settled));
                if due_within {
                    self.latency
                        .saturating_record(micros(settled.saturating_duration_since(due)));
                }
            }
            Err(failure) if due_within => {
                let count = self.failures.entry(failure.kind).or_insert((0, failure.message));
                count.0 += 1;
            }
            Err(_) => {}
        }
    }

    /// Successes that were answered within the window.
    pub(super) fn completed(&self) -> u64 {
        self.completed
    }

    /// Successes that were due within the window.
    pub(super) fn succeeded(&self) -> u64 {
        self.latency.len()
    }

    /// Failures of requests that were due within the window.
    pub(super) fn failed(&self) -> u64 {
        self.failures.values().map(|(count, _)| count).sum()
    }

    /// How long successes took; `None` when there were none.
    pub(super) fn latency(&self) -> Option<Latency> {
        let at = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1e6;
        (!self.latency.is_empty()).then(|| Latency {
            mean: self.latency.mean() / 1e6,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: self.latency.max() as f64 / 1e6,
        })
    }

    /// The failures, each kind with the message of its first.
    pub(super) fn errors(&self) -> Vec<ErrorCount> {
        self.failures
            .iter()
            .map(|(kind, (count, message))| ErrorCount {
                kind: kind.to_string(),
                count: *count,
                first_message: message.clone(),
            })
            .collect()
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const MS: Duration = Duration::from_millis(1);

    /// A recorder of the window from 100 ms to 200 ms after an instant.
    fn recorder() -> (Instant, Recorder) {
        let start = clock::now();
        (start, Recorder::new(start + 100 * MS..start + 200 * MS))
    }

    fn failure(kind: FailureKind, message: &str) -> Failure {
        Failure {
            kind,
            message: message.to_owned(),
        }
    }

    #[test]
    fn percentiles_are_those_of_all_requests_within_the_window() {
        let (start, mut recorder) = recorder();
        for millis in 1..=100 {
            let due = start + 100 * MS + (millis - 1) * MS;
            recorder.record(due, due + millis * MS, Ok(()));
        }
        let latency = recorder.latency().expect("there were some");
        let close = |got: f64, millis: f64| (got * 1e3 / millis - 1.0).abs() < 0.002;
        assert!(
            close(latency.p50, 50.0) && close(latency.p90, 90.0) && close(latency.p99, 99.0),
            "{latency:?}"
        );
        assert!(
            close(latency.max, 100.0) && close(latency.mean, 50.5),
            "{latency:?}"
        );
        assert_eq!(recorder.succeeded(), 100);
    }

    #[test]
    fn warm_up_is_not_measured_but_what_it_sent_may_complete_in_the_window() {
        let (start, mut recorder) = recorder();
        recorder.record(start, start + 99 * MS, Ok(()));
        recorder.record(start + 50 * MS, start + 150 * MS, Ok(()));
        recorder.record(start + 150 * MS, start + 350 * MS, Ok(()));
        assert_eq!((recorder.completed(), recorder.succeeded()), (1, 1));
        assert!(recorder.latency().expect("one was due in the window").max > 0.199);
    }

    #[test]
    fn failures_are_counted_by_kind_with_the_first_message_of_each() {
        let (start, mut recorder) = recorder();
        let due = start + 120 * MS;
        for (kind, message) in [
            (FailureKind::Status(503), "draining"),
            (FailureKind::Timeout, "late"),
            (FailureKind::Status(503), "gone"),
        ] {
            recorder.record(due, due + MS, Err(failure(kind, message)));
        }
        recorder.record(
            start,
            start + MS,
            Err(failure(FailureKind::Connect, "in the warm-up")),
        );
        let errors: Vec<(String, u64, String)> = recorder
            .errors()
            .into_iter()
            .map(|error| (error.kind, error.count, error.first_message))
            .collect();
        let expected = [("503", 2, "draining"), ("timeout", 1, "late")];
        let expected = expected.map(|(kind, count, message)| (kind.to_owned(), count, message.to_owned()));
        assert_eq!(errors, expected);
        assert!(recorder.latency().is_none());
    }
}
