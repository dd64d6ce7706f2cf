//! Arrivals after an event: how many, and when.
//!
//! A [`Profile`] is a rate of arrivals by the age of the event. It is learned from [`Window`]s, each of which records the
//! arrivals after one event until its observation ended. What kind of event it is, and what is decided from the rate, is
//! unknown here. Memory and the cost of an operation are constant.

use std::time::Instant;

/// Ages are grouped into spans that grow by a quarter, from 20 µs to two seconds.
const SPANS: usize = 52;

/// The end of each span, in seconds of age.
const ENDS: [f64; SPANS] = {
    let mut ends = [20e-6; SPANS];
    let mut span = 1;
    while span < SPANS {
        ends[span] = ends[span - 1] * GROWTH;
        span += 1;
    }
    ends
};

const GROWTH: f64 = 1.25;

/// After this many windows, the share of a window in the profile has fallen to about a third.
const MEMORY: f64 = 24.0;

/// The rate at an age is forgotten after this many windows that ended long before it, because it describes another kind of
/// traffic: arrivals after a pause, for example, are not expected forever once the traffic has no pauses.
const FORGOTTEN: u16 = 100;

/// A window ended long before an age if the age is greater than its duration by this factor.
const LONG_BEFORE: f64 = 4.0;

/// The span of an age. The last span also contains greater ages.
fn span_of(age: f64) -> usize {
    if age <= ENDS[0] {
        return 0;
    }
    // A cast of a float saturates.
    (((age / ENDS[0]).ln() / GROWTH.ln()).ceil() as usize).min(SPANS - 1)
}

/// The arrivals after one event.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) opened: Instant,
    /// The number of possible causes of arrivals that the event brought, such as the number of replies.
    pub(super) causes: f64,
    /// Arrivals so far.
    pub(super) came: u32,
    counts: [u16; SPANS],
}

impl Window {
    /// Begins the observation of an event.
    pub(super) fn open(opened: Instant, causes: usize) -> Self {
        Window {
            opened,
            causes: causes as f64,
            came: 0,
            counts: [0; SPANS],
        }
    }

    /// Counts an arrival.
    pub(super) fn count(&mut self, at: Instant) {
        let span = &mut self.counts[span_of(self.age(at))];
        *span = span.saturating_add(1);
        self.came = self.came.saturating_add(1);
    }

    /// Seconds since the event.
    pub(super) fn age(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.opened).as_secs_f64()
    }
}

/// The rate of arrivals after events of one kind, by the age of the event.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    arrivals: [f64; SPANS],
    /// Observed seconds times causes.
    watched: [f64; SPANS],
    /// Expected arrivals per cause up to the end of each span.
    expected: [f64; SPANS],
    /// Recent arrivals on which `expected` is based.
    evidence: [f64; SPANS],
    /// Number of windows that ended long before each span since one reached it.
    unreached: [u16; SPANS],
}

impl Profile {
    pub(super) fn new() -> Self {
        Profile {
            arrivals: [0.0; SPANS],
            watched: [0.0; SPANS],
            expected: [0.0; SPANS],
            evidence: [0.0; SPANS],
            unreached: [0; SPANS],
        }
    }

    /// Learns from a window that was observed for `watched` seconds. The rates at ages that it did not reach are kept for
    /// a while.
    pub(super) fn learn(&mut self, window: &Window, watched: f64) {
        let (mut start, mut expected, mut evidence) = (0.0, 0.0, 0.0);
        for (span, end) in ENDS.into_iter().enumerate() {
            let width = end - start;
            let seen = (watched - start).clamp(0.0, width);
            if seen > 0.0 {
                let kept = 1.0 - seen / width / MEMORY;
                self.arrivals[span] = self.arrivals[span] * kept + f64::from(window.counts[span]);
                self.watched[span] = self.watched[span] * kept + seen * window.causes;
                self.unreached[span] = 0;
            } else if start > watched * LONG_BEFORE {
                self.unreached[span] = self.unreached[span].saturating_add(1);
                if self.unreached[span] > FORGOTTEN {
                    (self.arrivals[span], self.watched[span]) = (0.0, 0.0);
                }
            }
            if self.watched[span] > 0.0 {
                expected += self.arrivals[span] / self.watched[span] * width;
                evidence += self.arrivals[span];
            }
            self.expected[span] = expected;
            self.evidence[span] = evidence;
            start = end;
        }
    }

    /// The ages at which spans end, in seconds.
    pub(super) fn ages() -> impl Iterator<Item = f64> {
        ENDS.into_iter()
    }

    /// Expected arrivals per cause up to an age.
    pub(super) fn expected_by(&self, age: f64) -> f64 {
        at(&self.expected, age)
    }

    /// The ends of spans after `age`, each with the arrivals expected in between.
    pub(super) fn steps_after(&self, age: f64) -> impl Iterator<Item = Step> {
        let (expected, evidence) = (at(&self.expected, age), at(&self.evidence, age));
        (span_of(age)..SPANS).map(move |span| Step {
            age: ENDS[span],
            expected: self.expected[span] - expected,
            evidence: self.evidence[span] - evidence,
        })
    }
}

/// The arrivals that are expected between two ages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// The later age, in seconds.
    pub(super) age: f64,
    /// Expected arrivals per cause.
    pub(super) expected: f64,
    /// Recent arrivals on which `expected` is based.
    pub(super) evidence: f64,
}

/// Interpolates a sum over spans at an age between their ends.
fn at(sums: &[f64; SPANS], age: f64) -> f64 {
    let span = span_of(age);
    let (start, before) = match span {
        0 => (0.0, 0.0),
        _ => (ENDS[span - 1], sums[span - 1]),
    };
    let part = ((age - start) / (ENDS[span] - start)).clamp(0.0, 1.0);
    before + (sums[span] - before) * part
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_profile_learns_when_clients_return_and_how_many() {
        let mut profile = Profile::new();
        let opened = crate::clock::now();
        for _ in 0..50 {
            let mut window = Window::open(opened, 4);
            for _ in 0..4 {
                window.count(opened + Duration::from_micros(400));
            }
            profile.learn(&window, 6e-3);
        }
        assert!(profile.expected_by(300e-6) < 0.01);
        assert!((profile.expected_by(500e-6) - 1.0).abs() < 0.01);
        assert!((profile.expected_by(1.0) - 1.0).abs() < 0.01);
    }

    #[test]
    fn ages_that_a_window_did_not_reach_do_not_count_as_silence() {
        let mut profile = Profile::new();
        let opened = crate::clock::now();
        let mut window = Window::open(opened, 1);
        window.count(opened + Duration::from_millis(3));
        profile.learn(&window, 10e-3);
        for _ in 0..100 {
            profile.learn(&Window::open(opened, 1), 1e-3);
        }
        assert!(profile.expected_by(10e-3) > 0.5);
    }

    #[test]
    fn every_age_lies_in_the_span_that_ends_next() {
        for (span, end) in ENDS.into_iter().enumerate() {
            assert_eq!(span_of(end * 0.999), span);
            assert!(span_of(end * 1.001) > span || span == SPANS - 1);
        }
    }
}
