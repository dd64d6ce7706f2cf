//! Decides when a child process that exited is restarted. A pure state machine with the time as an argument.
//!
//! The first restart is immediate, because the batch that the process held is waiting. Further exits without a completed batch
//! in between are followed by a delay that doubles each time up to a maximum. Jitter keeps processes that exit for the same
//! reason from restarting at the same time. [`CRASH_LOOP_EXITS`] exits in a row are a crash loop. A completed batch, or a long
//! enough uptime, resets the count.

use std::time::{Duration, Instant};

/// Number of consecutive exits that make a crash loop. A single faulty item causes two (see `engine`).
pub(super) const CRASH_LOOP_EXITS: u32 = 5;

/// The range of the delays between restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RestartDelays {
    /// Delay before the second consecutive restart.
    pub(super) initial: Duration,
    /// Maximum delay.
    pub(super) max: Duration,
}

/// The state of one process and those that replace it.
#[derive(Clone, Debug)]
pub(super) struct RestartBackoff {
    delays: RestartDelays,
    consecutive_exits: u32,
    serving_since: Option<Instant>,
}

impl RestartBackoff {
    pub(super) fn new(delays: RestartDelays) -> Self {
        Self {
            delays,
            consecutive_exits: 0,
            serving_since: None,
        }
    }

    /// The process has been loaded and warmed up.
    pub(super) fn serving(&mut self, now: Instant) {
        self.serving_since = Some(now);
    }

    /// The process has completed a batch.
    pub(super) fn batch_completed(&mut self) {
        self.consecutive_exits = 0;
    }

    /// The process exited, or could not be started. Returns the delay before the next start. `random` is from 0 to 1.
    pub(super) fn exited(&mut self, now: Instant, random: f64) -> Duration {
        let served_for = self.serving_since.take().map(|since| now - since);
        if served_for.is_some_and(|served_for| served_for >= self.delays.max * 2) {
            self.consecutive_exits = 0;
        }
        self.consecutive_exits = self.consecutive_exits.saturating_add(1);
        let Some(doublings) = self.consecutive_exits.checked_sub(2) else {
            return Duration::ZERO;
        };
        let delay = self
            .delays
            .initial
            .saturating_mul(2u32.saturating_pow(doublings))
            .min(self.delays.max);
        delay.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }

    /// Whether the process keeps exiting.
    pub(super) fn is_crash_loop(&self) -> bool {
        self.consecutive_exits >= CRASH_LOOP_EXITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn backoff() -> RestartBackoff {
        RestartBackoff::new(RestartDelays {
            initial: Duration::from_millis(100),
            max: SECOND * 30,
        })
    }

    /// The delays in milliseconds after the given number of exits, each immediately after a start.
    fn delays(backoff: &mut RestartBackoff, now: Instant, random: f64, exits: usize) -> Vec<u128> {
        (0..exits)
            .map(|_| {
                backoff.serving(now);
                backoff.exited(now, random).as_millis()
            })
            .collect()
    }

    #[test]
    fn the_first_restart_is_immediate_and_later_delays_double_up_to_the_maximum() {
        let (mut backoff, now) = (backoff(), clock::now());
        assert_eq!(
            delays(&mut backoff, now, 1.0, 12),
            [
                0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000
            ]
        );
    }

    #[test]
    fn jitter_shortens_a_delay_by_at_most_half() {
        let now = clock::now();
        assert_eq!(delays(&mut backoff(), now, 0.0, 3), [0, 50, 100]);
        assert_eq!(delays(&mut backoff(), now, 0.5, 3), [0, 75, 150]);
    }

    #[test]
    fn five_exits_in_a_row_are_a_crash_loop_until_a_batch_completes() {
        let (mut backoff, now) = (backoff(), clock::now());
        delays(&mut backoff, now, 1.0, 4);
        assert!(!backoff.is_crash_loop());
        delays(&mut backoff, now, 1.0, 1);
        assert!(backoff.is_crash_loop());
        backoff.serving(now);
        assert!(backoff.is_crash_loop(), "a start does not end the crash loop");
        backoff.batch_completed();
        assert!(!backoff.is_crash_loop());
        assert_eq!(backoff.exited(now, 1.0), Duration::ZERO);
    }

    #[test]
    fn a_process_that_cannot_be_started_is_in_a_crash_loop() {
        let (mut backoff, now) = (backoff(), clock::now());
        for _ in 0..5 {
            backoff.exited(now, 1.0);
        }
        assert!(backoff.is_crash_loop());
    }

    #[test]
    fn exits_after_a_long_uptime_do_not_count_as_consecutive() {
        let (mut backoff, mut now) = (backoff(), clock::now());
        for _ in 0..20 {
            backoff.serving(now);
            now += SECOND * 60;
            assert_eq!(backoff.exited(now, 1.0), Duration::ZERO);
        }
        assert!(!backoff.is_crash_loop());
    }

    #[test]
    fn thousands_of_exits_do_not_overflow() {
        let (mut backoff, now) = (backoff(), clock::now());
        for _ in 0..10_000 {
            assert!(backoff.exited(now, 1.0) <= SECOND * 30);
        }
    }
}
