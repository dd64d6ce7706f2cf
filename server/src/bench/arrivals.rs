//! Arrival times of the requests of an open loop. Pure: offsets from the start, computed from a seed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The distribution of arrivals over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Arrivals {
    /// A Poisson process: independent arrivals, like those of many clients.
    Poisson,
    /// Equal intervals.
    Constant,
    /// Bursts of this many requests. The bursts are a Poisson process.
    Burst(u32),
}

impl Arrivals {
    /// Parses `poisson`, `constant` or `burst:8`. The error is a hint.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "poisson" => Ok(Self::Poisson),
            None if text == "constant" => Ok(Self::Constant),
            Some(("burst", size)) => match size.parse() {
                Ok(size) if size > 0 => Ok(Self::Burst(size)),
                _ => Err("expected a burst size of 1 or more, such as `burst:8`".to_owned()),
            },
            _ => Err("expected `poisson`, `constant` or `burst:8`".to_owned()),
        }
    }

    /// An endless schedule of arrivals at this rate per second, as offsets from the start.
    pub(super) fn at_rate(self, rate: f64, seed: u64) -> Schedule {
        Schedule {
            arrivals: self,
            rate,
            random: fastrand::Rng::with_seed(seed),
            seconds: 0.0,
            left_of_burst: 0,
        }
    }
}

impl std::fmt::Display for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Poisson => f.write_str("poisson"),
            Self::Constant => f.write_str("constant"),
            Self::Burst(size) => write!(f, "burst:{size}"),
        }
    }
}

/// An endless schedule of arrivals, created by [`Arrivals::at_rate`].
pub(super) struct Schedule {
    arrivals: Arrivals,
    rate: f64,
    random: fastrand::Rng,
    seconds: f64,
    left_of_burst: u32,
}

impl Schedule {
    /// An interval of a Poisson process: exponentially distributed, by inversion sampling.
    fn interval(&mut self, rate: f64) -> f64 {
        // `f64()` is in [0, 1), and the logarithm is defined on (0, 1].
        -(1.0 - self.random.f64()).ln() / rate
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.seconds += match self.arrivals {
            Arrivals::Poisson => self.interval(self.rate),
            Arrivals::Constant => 1.0 / self.rate,
            Arrivals::Burst(size) if self.left_of_burst == 0 => {
                self.left_of_burst = size - 1;
                self.interval(self.rate / f64::from(size))
            }
            Arrivals::Burst(_) => {
                self.left_of_burst -= 1;
                0.0
            }
        };
        // The schedule ends when `Duration` overflows.
        Duration::try_from_secs_f64(self.seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within_a_minute(arrivals: Arrivals, rate: f64, seed: u64) -> Vec<Duration> {
        arrivals
            .at_rate(rate, seed)
            .take_while(|due| *due < Duration::from_secs(60))
            .collect()
    }

    #[test]
    fn every_kind_of_arrivals_has_the_requested_rate() {
        for arrivals in [Arrivals::Poisson, Arrivals::Constant, Arrivals::Burst(8)] {
            let count = within_a_minute(arrivals, 200.0, 1).len();
            // 12 000 are expected; the bursts deviate most, by 310 in one standard deviation.
            assert!((10_700..13_300).contains(&count), "{arrivals}: {count}");
        }
    }

    #[test]
    fn the_standard_deviation_of_poisson_intervals_equals_their_mean() {
        let due = within_a_minute(Arrivals::Poisson, 1000.0, 7);
        let intervals: Vec<f64> = due
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs_f64())
            .collect();
        let mean = intervals.iter().sum::<f64>() / intervals.len() as f64;
        let variance = intervals
            .iter()
            .map(|interval| (interval - mean).powi(2))
            .sum::<f64>()
            / intervals.len() as f64;
        let ratio = variance.sqrt() / mean;
        assert!((0.97..1.03).contains(&ratio), "{ratio}");
    }

    #[test]
    fn constant_arrivals_are_evenly_spaced() {
        let due: Vec<u128> = Arrivals::Constant
            .at_rate(4.0, 1)
            .take(3)
            .map(|due| due.as_millis())
            .collect();
        assert_eq!(due, [250, 500, 750]);
    }

    #[test]
    fn the_requests_of_a_burst_are_due_at_the_same_time() {
        let due: Vec<Duration> = Arrivals::Burst(3).at_rate(30.0, 3).take(9).collect();
        for burst in due.chunks(3) {
            assert_eq!(burst, [burst[0]; 3]);
        }
        assert!(due[0] < due[3] && due[3] < due[6]);
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule() {
        let of = |seed| within_a_minute(Arrivals::Poisson, 50.0, seed);
        assert_eq!(of(5), of(5));
        assert_ne!(of(5), of(6));
    }

    #[test]
    fn parse_accepts_what_display_writes() {
        for arrivals in [Arrivals::Poisson, Arrivals::Constant, Arrivals::Burst(8)] {
            assert_eq!(Arrivals::parse(&arrivals.to_string()), Ok(arrivals));
        }
        for wrong in [
            "",
            "uniform",
            "burst",
            "burst:",
            "burst:0",
            "burst:-1",
            "poisson:3",
        ] {
            assert!(Arrivals::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
