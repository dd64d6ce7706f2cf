//! Records the results of a step: latencies, completions, failures.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::report::{ErrorCount, Latency};
use crate::client::{Failure, FailureKind};

/// Results of the requests of one step. Time is an argument.
pub(super) struct Recorder {
    /// The measurement, without warm-up and drain.
    window: Range<Instant>,
    /// Latency of successes that were due within the window, in microseconds.
    latency: Histogram<u64>,
    /// Successful replies within the window.
    completed: u64,
    failures: BTreeMap<FailureKind, (u64, String)>,
    /// Number of requests in flight, by the instant at which they were due.
    outstanding: BTreeMap<Instant, u64>,
}

impl Recorder {
    pub(super) fn new(window: Range<Instant>) -> Self {
        Self {
            window,
            // Three significant digits, up to an hour.
            latency: Histogram::new_with_bounds(1, 3_600_000_000, 3)
                .expect("the bounds and the precision are valid"),
            completed: 0,
            failures: BTreeMap::new(),
            outstanding: BTreeMap::new(),
        }
    }

    /// Records a request that is about to be sent.
    pub(super) fn begin(&mut self, due: Instant) {
        *self.outstanding.entry(due).or_default() += 1;
    }

    /// Records the result of a request that [began](Self::begin): when it was due, when it completed, and its result.
    ///
    /// A failure counts if the request was in flight within the window. A request that was in flight for the whole window
    /// counts as unanswered, whatever its result: clients that are starved must show in the report.
    pub(super) fn record(&mut self, due: Instant, completed: Instant, result: Result<(), Failure>) {
        if let Entry::Occupied(mut entry) = self.outstanding.entry(due) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        let due_within = self.window.contains(&due);
        match result {
            _ if due < self.window.start && completed >= self.window.end => {
                self.fail(Failure::unanswered(), 1)
            }
            Ok(()) => {
                self.completed += u64::from(self.window.contains(&completed));
                if due_within {
                    self.latency
                        .saturating_record(micros(completed.saturating_duration_since(due)));
                }
            }
            Err(failure) if due_within || self.window.contains(&completed) => self.fail(failure, 1),
            Err(_) => {}
        }
    }

    /// Ends the window early. Requests that have been in flight for the whole window count as unanswered.
    pub(super) fn cut(&mut self, end: Instant) {
        self.window.end = end.clamp(self.window.start, self.window.end);
        let unanswered = self
            .outstanding
            .range(..self.window.start)
            .map(|(_, count)| count)
            .sum();
        if unanswered > 0 {
            self.fail(Failure::unanswered(), unanswered);
        }
        self.outstanding.clear();
    }

    fn fail(&mut self, failure: Failure, count: u64) {
        self.failures
            .entry(failure.kind)
            .or_insert((0, failure.message))
            .0 += count;
    }

    /// Number of successful replies within the window.
    pub(super) fn completed(&self) -> u64 {
        self.completed
    }

    /// Number of successes that were due within the window.
    pub(super) fn succeeded(&self) -> u64 {
        self.latency.len()
    }

    /// Number of failed requests that were in flight within the window.
    pub(super) fn failed(&self) -> u64 {
        self.failures.values().map(|(count, _)| count).sum()
    }

    /// Latency of successes. `None` if there were none.
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

    /// The failures by kind, each with its first message.
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
    fn percentiles_cover_all_requests_within_the_window() {
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
    fn requests_of_the_warm_up_count_as_completed_but_not_for_latency() {
        let (start, mut recorder) = recorder();
        recorder.record(start, start + 99 * MS, Ok(()));
        recorder.record(start + 50 * MS, start + 150 * MS, Ok(()));
        recorder.record(start + 150 * MS, start + 350 * MS, Ok(()));
        assert_eq!((recorder.completed(), recorder.succeeded()), (1, 1));
        assert!(recorder.latency().expect("one was due in the window").max > 0.199);
    }

    #[test]
    fn a_request_in_flight_for_the_whole_window_is_a_failure_whatever_its_result() {
        let (start, mut recorder) = recorder();
        let late = failure(FailureKind::Timeout, "late");
        for (completed, result) in [(start + 250 * MS, Ok(())), (start + 300 * MS, Err(late))] {
            recorder.begin(start);
            recorder.record(start, completed, result);
        }
        assert_eq!((recorder.completed(), recorder.succeeded()), (0, 0));
        let errors = recorder.errors();
        assert_eq!(
            (errors[0].kind.as_str(), errors[0].count, errors.len()),
            ("unanswered", 2, 1)
        );
    }

    #[test]
    fn a_failure_within_the_window_counts_even_if_the_request_is_older() {
        let (start, mut recorder) = recorder();
        recorder.record(
            start,
            start + 150 * MS,
            Err(failure(FailureKind::Timeout, "late")),
        );
        assert_eq!(recorder.failed(), 1);
    }

    #[test]
    fn cutting_the_window_counts_unanswered_requests() {
        let (start, mut recorder) = recorder();
        for due in [start, start, start + 50 * MS, start + 110 * MS] {
            recorder.begin(due);
        }
        recorder.record(start, start + 105 * MS, Ok(()));
        recorder.cut(start + 150 * MS);
        assert_eq!((recorder.completed(), recorder.failed()), (1, 2));
    }

    #[test]
    fn failures_are_counted_by_kind_with_their_first_message() {
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
