//! When a child that died is started again: a pure state machine, with the time as an argument.
//!
//! The first death is followed by a new start at once, since the batch that the child held waits for it. Deaths that
//! follow one another without a completed batch between them are followed by a pause that doubles each time, up to a
//! limit, and varies a little at random, so that children that die of the same cause do not come back in step. After
//! [`CRASH_LOOP`] of them it is a crash loop. A completed batch, or a long enough life, makes the child as good as new.

use std::time::{Duration, Instant};

/// So many deaths in a row are a crash loop. One poisonous item causes two, see `engine`.
pub(super) const CRASH_LOOP: u32 = 5;

/// How pauses grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backoff {
    /// The pause before the second restart in a row.
    pub(super) first: Duration,
    /// The longest pause.
    pub(super) longest: Duration,
}

/// The deaths of one child and its successors.
#[derive(Clone, Debug)]
pub(super) struct Restarts {
    backoff: Backoff,
    in_a_row: u32,
    up_since: Option<Instant>,
}

impl Restarts {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            in_a_row: 0,
            up_since: None,
        }
    }

    /// A child is loaded and warm.
    pub(super) fn started(&mut self, now: Instant) {
        self.up_since = Some(now);
    }

    /// It has completed a batch.
    pub(super) fn proved(&mut self) {
        self.in_a_row = 0;
    }

    /// It died, or could not be started. How long to pause before the next start; `random` is from 0 to 1.
    pub(super) fn died(&mut self, now: Instant, random: f64) -> Duration {
        let lived = self.up_since.take().map(|since| now - since);
        if lived.is_some_and(|lived| lived >= self.backoff.longest * 2) {
            self.in_a_row = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        let Some(doublings) = self.in_a_row.checked_sub(2) else {
            return Duration::ZERO;
        };
        let pause = self
            .backoff
            .first
            .saturating_mul(2u32.saturating_pow(doublings))
            .min(self.backoff.longest);
        pause.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }

    /// Whether it keeps dying.
    pub(super) fn is_crash_loop(&self) -> bool {
        self.in_a_row >= CRASH_LOOP
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn restarts() -> Restarts {
        Restarts::new(Backoff {
            first: Duration::from_millis(100),
            longest: SECOND * 30,
        })
    }

    /// The pauses, in milliseconds, after so many deaths, each right after the start.
    fn pauses(restarts: &mut Restarts, now: Instant, random: f64, deaths: usize) -> Vec<u128> {
        (0..deaths)
            .map(|_| {
                restarts.started(now);
                restarts.died(now, random).as_millis()
            })
            .collect()
    }

    #[test]
    fn the_first_restart_is_at_once_and_pauses_then_double_up_to_the_limit() {
        let (mut restarts, now) = (restarts(), clock::now());
        assert_eq!(
            pauses(&mut restarts, now, 1.0, 12),
            [
                0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000
            ]
        );
    }

    #[test]
    fn chance_shortens_a_pause_by_half_at_most() {
        let now = clock::now();
        assert_eq!(pauses(&mut restarts(), now, 0.0, 3), [0, 50, 100]);
        assert_eq!(pauses(&mut restarts(), now, 0.5, 3), [0, 75, 150]);
    }

    #[test]
    fn five_deaths_in_a_row_are_a_crash_loop_until_a_batch_completes() {
        let (mut restarts, now) = (restarts(), clock::now());
        pauses(&mut restarts, now, 1.0, 4);
        assert!(!restarts.is_crash_loop());
        pauses(&mut restarts, now, 1.0, 1);
        assert!(restarts.is_crash_loop());
        restarts.started(now);
        assert!(restarts.is_crash_loop(), "a start alone proves nothing");
        restarts.proved();
        assert!(!restarts.is_crash_loop());
        assert_eq!(restarts.died(now, 1.0), Duration::ZERO);
    }

    #[test]
    fn a_child_that_cannot_even_be_started_is_in_a_crash_loop_as_well() {
        let (mut restarts, now) = (restarts(), clock::now());
        for _ in 0..5 {
            restarts.died(now, 1.0);
        }
        assert!(restarts.is_crash_loop());
    }

    #[test]
    fn deaths_far_apart_do_not_add_up() {
        let (mut restarts, mut now) = (restarts(), clock::now());
        for _ in 0..20 {
            restarts.started(now);
            now += SECOND * 60;
            assert_eq!(restarts.died(now, 1.0), Duration::ZERO);
        }
        assert!(!restarts.is_crash_loop());
    }

    #[test]
    fn years_of_deaths_overflow_nothing() {
        let (mut restarts, now) = (restarts(), clock::now());
        for _ in 0..10_000 {
            assert!(restarts.died(now, 1.0) <= SECOND * 30);
        }
    }
}
