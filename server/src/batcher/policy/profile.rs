//! What tends to follow: how many arrivals come within a time after an event of one kind.
//!
//! A [`Profile`] is a rate of arrivals by the age of the event, learned from [`Window`]s: what was seen after one
//! event, up to the moment when its watching ended. Nothing here knows what kind of event it is, nor what is decided by
//! it. Memory and the cost of an operation are fixed.

use std::time::Instant;

/// Ages are told apart in spans that grow by a quarter, from 20 µs to two seconds.
const SPANS: usize = 52;

/// Where each span ends, in seconds of age.
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

/// After so many windows the part of one in the profile has fallen to a third.
const MEMORY: f64 = 24.0;

/// What is known of an age is forgotten after so many windows that ended long before it: it is of other times. What came
/// after a pause, for one, is not expected for ever once traffic goes on without pauses.
const FORGOTTEN: u16 = 100;

/// So many times as long as a window is long before an age.
const LONG_BEFORE: f64 = 4.0;

/// The span in which an age lies. The last one also holds what is older.
fn span_of(age: f64) -> usize {
    if age <= ENDS[0] {
        return 0;
    }
    // A cast of a float saturates.
    (((age / ENDS[0]).ln() / GROWTH.ln()).ceil() as usize).min(SPANS - 1)
}

/// What came after one event.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) opened: Instant,
    /// How much cause the event gave: the number of replies that went out, say.
    pub(super) causes: f64,
    /// Arrivals so far.
    pub(super) came: u32,
    counts: [u16; SPANS],
}

impl Window {
    pub(super) fn open(opened: Instant, causes: usize) -> Self {
        Window {
            opened,
            causes: causes as f64,
            came: 0,
            counts: [0; SPANS],
        }
    }

    pub(super) fn count(&mut self, at: Instant) {
        let span = &mut self.counts[span_of(self.age(at))];
        *span = span.saturating_add(1);
        self.came = self.came.saturating_add(1);
    }

    /// Seconds since it was opened.
    pub(super) fn age(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.opened).as_secs_f64()
    }
}

/// Arrivals after an event, by its age.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    arrivals: [f64; SPANS],
    /// Seconds watched, times causes.
    watched: [f64; SPANS],
    /// Arrivals per cause that are expected up to the end of each span.
    expected: [f64; SPANS],
    /// Arrivals on which that rests.
    evidence: [f64; SPANS],
    /// How many windows have ended long before each span since one reached it.
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

    /// Learns from a window that was watched for so many seconds. What is known of ages that it did
    /// not reach is kept, for a while.
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

    /// The ages at which a profile has steps, in seconds.
    pub(super) fn ages() -> impl Iterator<Item = f64> {
        ENDS.into_iter()
    }

    /// Arrivals per cause that are expected up to an age.
    pub(super) fn expected_by(&self, age: f64) -> f64 {
        at(&self.expected, age)
    }

    /// The ages after `age` at which spans end, each with the arrivals per cause that are expected between the two, and
    /// the arrivals seen lately on which that rests.
    pub(super) fn steps_after(&self, age: f64) -> impl Iterator<Item = Step> {
        let (expected, evidence) = (at(&self.expected, age), at(&self.evidence, age));
        (span_of(age)..SPANS).map(move |span| Step {
            age: ENDS[span],
            expected: self.expected[span] - expected,
            evidence: self.evidence[span] - evidence,
        })
    }
}

/// An age at which a profile is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) age: f64,
    pub(super) expected: f64,
    pub(super) evidence: f64,
}

/// Reads a sum over spans at an age between their ends.
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
    fn a_profile_learns_when_callers_return_and_how_many() {
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
    fn what_a_window_did_not_reach_is_not_taken_for_silence() {
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
