//! When a message is sent again.
//!
//! Pure. The delays grow by a factor of three, from five seconds to three hours, with jitter, so that receivers which
//! recover are not overwhelmed. A message is abandoned a day after its job ended.

use std::time::Duration;

use super::super::DeliveryOutcome;

/// Delay after the first failure.
const FIRST: Duration = Duration::from_secs(5);

/// Factor from one delay to the next.
const GROWTH: u32 = 3;

/// Maximum delay.
const LONGEST: Duration = Duration::from_secs(3 * 60 * 60);

/// Time after the end of the job in which its message is sent.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// The delays are shortened by up to this share.
const JITTER: f64 = 0.25;

/// An attempt to deliver that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// Number of attempts before this one.
    pub attempts: u32,
    /// Time since the job ended.
    pub age: Duration,
    /// How long the receiver has asked the sender to wait.
    pub retry_after: Option<Duration>,
}

impl FailedAttempt {
    /// When to try again, if at all. `jitter` is a random number from 0 to 1.
    pub fn outcome(&self, jitter: f64) -> DeliveryOutcome {
        let longest = GROWTH
            .checked_pow(self.attempts)
            .and_then(|factor| FIRST.checked_mul(factor))
            .map_or(LONGEST, |delay| delay.min(LONGEST));
        let delay = longest.mul_f64(1.0 - JITTER * jitter.clamp(0.0, 1.0));
        let delay = delay.max(self.retry_after.unwrap_or_default());
        match self.age.checked_add(delay) {
            Some(age) if age <= PATIENCE => DeliveryOutcome::RetryAfter(delay),
            _ => DeliveryOutcome::Abandoned,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The delays in seconds until a message is abandoned, if every attempt fails at once.
    fn delays(jitter: f64) -> Vec<u64> {
        let mut age = Duration::ZERO;
        let mut delays = Vec::new();
        for attempts in 0.. {
            let failed = FailedAttempt {
                attempts,
                age,
                retry_after: None,
            };
            match failed.outcome(jitter) {
                DeliveryOutcome::RetryAfter(delay) => {
                    delays.push(delay.as_secs());
                    age += delay;
                }
                _ => break,
            }
        }
        delays
    }

    #[test]
    fn delays_grow_for_up_to_a_day() {
        let latest = delays(0.0);
        assert_eq!(latest[..8], [5, 15, 45, 135, 405, 1215, 3645, 10_800]);
        assert!(latest[8..].iter().all(|delay| *delay == 10_800));
        assert_eq!(latest.len(), 14);
        let total: u64 = latest.iter().sum();
        assert!((21 * 3600..=24 * 3600).contains(&total), "{total}");
    }

    #[test]
    fn jitter_shortens_them_by_up_to_a_quarter() {
        let (latest, earliest) = (delays(0.0), delays(1.0));
        for (latest, earliest) in latest.iter().zip(&earliest) {
            assert_eq!(*earliest, latest * 3 / 4, "{latest}");
        }
    }

    #[test]
    fn a_receiver_can_ask_for_a_longer_delay_within_the_day() {
        let of = |retry_after| FailedAttempt {
            attempts: 0,
            age: Duration::ZERO,
            retry_after: Some(Duration::from_secs(retry_after)),
        };
        let after = |seconds| DeliveryOutcome::RetryAfter(Duration::from_secs(seconds));
        assert_eq!(of(1).outcome(0.0), after(5));
        assert_eq!(of(600).outcome(0.0), after(600));
        assert_eq!(of(86_401).outcome(0.0), DeliveryOutcome::Abandoned);
        assert_eq!(of(u64::MAX).outcome(0.0), DeliveryOutcome::Abandoned);
    }
}
