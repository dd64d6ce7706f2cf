//! The recent load of an engine. The application measures it at regular intervals, so that a report needs no history.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

/// The load of an engine at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Waiting items of all tasks, without background items.
    pub queued_items: usize,
    /// How long an item that arrives now is expected to wait. `None` if nothing is known yet.
    pub expected_wait: Option<Duration>,
    /// Part of the workers' time in which they ran batches, from 0 to 1, in the last interval.
    pub utilization: f64,
    /// Requests that were answered per second, in the last interval.
    pub requests_per_second: f64,
}

/// Totals since the start of an engine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) at: Instant,
    /// Time of all workers in batches.
    pub(super) busy: Duration,
    /// Requests that were answered.
    pub(super) requests: u64,
}

/// Rates over the last interval between two measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) utilization: f64,
    pub(super) requests_per_second: f64,
}

impl Rates {
    /// The rates between two measurements of an engine with this number of workers. `None` if no time has passed.
    fn between(from: Measured, to: Measured, workers: usize) -> Option<Self> {
        let seconds = to.at.saturating_duration_since(from.at).as_secs_f64();
        if seconds <= 0.0 {
            return None;
        }
        let busy = to.busy.saturating_sub(from.busy).as_secs_f64();
        Some(Self {
            utilization: (busy / (seconds * workers.max(1) as f64)).min(1.0),
            requests_per_second: to.requests.saturating_sub(from.requests) as f64 / seconds,
        })
    }
}

/// Measures the rates of an engine.
#[derive(Default)]
pub(super) struct LoadMeter {
    last: Mutex<Option<Measured>>,
    rates: ArcSwap<Rates>,
}

impl LoadMeter {
    /// Ends the current interval and starts the next one.
    pub(super) fn measure(&self, now: Measured, workers: usize) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let rates = last
            .replace(now)
            .and_then(|last| Rates::between(last, now, workers));
        if let Some(rates) = rates {
            self.rates.store(rates.into());
        }
    }

    /// The rates of the last complete interval: zero before there is one.
    pub(super) fn rates(&self) -> Rates {
        **self.rates.load()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn rates_are_those_of_the_last_interval() {
        let start = clock::now();
        let meter = LoadMeter::default();
        let measure = |seconds: f64, busy: f64, requests| {
            let now = Measured {
                at: start + Duration::from_secs_f64(seconds),
                busy: Duration::from_secs_f64(busy),
                requests,
            };
            meter.measure(now, 2);
            let rates = meter.rates();
            (rates.utilization, rates.requests_per_second)
        };
        assert_eq!(
            measure(0.0, 7.0, 3),
            (0.0, 0.0),
            "nothing is known of the first interval"
        );
        assert_eq!(measure(2.0, 8.0, 23), (0.25, 10.0));
        assert_eq!(measure(2.0, 8.0, 23), (0.25, 10.0), "no time has passed");
        assert_eq!(measure(3.0, 10.5, 23), (1.0, 0.0), "at most 1");
        // The totals of a batch that ends during a measurement can be read in the wrong order.
        assert_eq!(measure(4.0, 10.0, 22), (0.0, 0.0));
    }
}
