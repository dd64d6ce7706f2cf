//! Rate limits of named keys, and the header fields that report them.
//!
//! A limit is a token bucket: it holds up to `burst` tokens, which are replenished at a constant rate (the algorithm is GCRA).
//! Its state is one atomic word. The header fields are `RateLimit-Policy` and `RateLimit` of
//! draft-ietf-httpapi-ratelimit-headers-11.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::clock;
use crate::config::RateSettings;

/// The header field with the policies, in lower case.
pub(super) const POLICY_FIELD: &str = "ratelimit-policy";

/// The header field with what is left of them, in lower case.
pub(super) const LIMIT_FIELD: &str = "ratelimit";

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Requests,
    Items,
}

impl Unit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Items => "items",
        }
    }
}

/// The server's clock, relative to the creation of a limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerClock(Instant);

impl Default for ServerClock {
    fn default() -> Self {
        Self(clock::now())
    }
}

impl Clock for ServerClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        clock::now().saturating_duration_since(self.0)
    }
}

/// A limit and its state.
pub(super) struct RateLimit<C: Clock = ServerClock> {
    unit: Unit,
    settings: RateSettings,
    limiter: RateLimiter<NotKeyed, InMemoryState, C, StateInformationMiddleware>,
}

/// What is left of a limit after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remaining {
    /// Number of available tokens.
    pub(super) count: u32,
    /// Seconds until all tokens are available, or, for a rejected request, until it could be admitted.
    pub(super) seconds: u32,
}

/// Why a request is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// It can be admitted after this time.
    Wait(Duration, Remaining),
    /// It can never be admitted, because it exceeds a burst.
    Burst,
}

impl<C: Clock> RateLimit<C> {
    pub(super) fn new(unit: Unit, settings: RateSettings, clock: C) -> Option<Self> {
        let quota = Quota::with_period(settings.interval())?.allow_burst(settings.burst);
        Some(Self {
            unit,
            settings,
            limiter: RateLimiter::direct_with_clock(quota, clock).with_middleware(),
        })
    }

    pub(super) fn settings(&self) -> RateSettings {
        self.settings
    }

    /// Takes `count` tokens, or none if fewer are available.
    pub(super) fn take(&self, count: NonZeroU32) -> Result<Remaining, Excess> {
        if count > self.settings.burst {
            return Err(Excess::Burst);
        }
        let interval = self.settings.interval();
        match self.limiter.check_n(count) {
            Ok(Ok(state)) => {
                let left = state.remaining_burst_capacity();
                let missing = self.settings.burst.get().saturating_sub(left);
                Ok(Remaining {
                    count: left,
                    seconds: whole_seconds(interval.saturating_mul(missing)),
                })
            }
            Ok(Err(not_until)) => {
                let wait = not_until.wait_time_from(self.limiter.clock().now());
                let missing = wait.as_nanos().div_ceil(interval.as_nanos());
                let missing = u32::try_from(missing).unwrap_or(u32::MAX);
                let remaining = Remaining {
                    count: count.get().saturating_sub(missing),
                    seconds: whole_seconds(wait),
                };
                Err(Excess::Wait(wait, remaining))
            }
            Err(_) => Err(Excess::Burst),
        }
    }

    /// The member of `RateLimit-Policy` for this limit.
    pub(super) fn policy(&self) -> String {
        let unit = match self.unit {
            // The default.
            Unit::Requests => "",
            Unit::Items => ";qu=\"items\"",
        };
        format!(
            "\"{}\";q={}{unit};w={}",
            self.unit.name(),
            self.settings.burst,
            whole_seconds(self.settings.window())
        )
    }
}

impl Remaining {
    /// The member of `RateLimit` for this state.
    pub(super) fn field(self, unit: Unit) -> String {
        format!("\"{}\";r={};t={}", unit.name(), self.count, self.seconds)
    }
}

/// Rounds up to whole seconds, at least one.
fn whole_seconds(time: Duration) -> u32 {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    u32::try_from(seconds.max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn limit(per_second: f64, burst: u32) -> (RateLimit<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let settings = RateSettings {
            per_second,
            burst: count(burst),
        };
        let limit = RateLimit::new(Unit::Items, settings, clock.clone()).expect("the rate is valid");
        (limit, clock)
    }

    fn count(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).expect("the test takes a token")
    }

    fn take(limit: &RateLimit<FakeRelativeClock>, number: u32) -> Result<(u32, u32), Excess> {
        let taken = limit.take(count(number));
        taken.map(|remaining| (remaining.count, remaining.seconds))
    }

    fn wait(millis: u64, count: u32, seconds: u32) -> Result<(u32, u32), Excess> {
        let wait = Duration::from_millis(millis);
        Err(Excess::Wait(wait, Remaining { count, seconds }))
    }

    #[test]
    fn tokens_are_replenished_one_by_one_at_the_rate() {
        let (limit, clock) = limit(10.0, 20);
        assert_eq!(take(&limit, 1), Ok((19, 1)));
        assert_eq!(take(&limit, 15), Ok((4, 2)));
        assert_eq!(take(&limit, 4), Ok((0, 2)));
        assert_eq!(take(&limit, 1), wait(100, 0, 1));
        clock.advance(Duration::from_millis(99));
        assert_eq!(take(&limit, 1), wait(1, 0, 1));
        clock.advance(Duration::from_millis(1));
        assert_eq!(take(&limit, 1), Ok((0, 2)));
        clock.advance(Duration::from_millis(1500));
        assert_eq!(take(&limit, 5), Ok((10, 1)));
        clock.advance(Duration::from_secs(3600));
        assert_eq!(take(&limit, 20), Ok((0, 2)));
    }

    #[test]
    fn a_rejected_request_takes_nothing_and_reports_what_is_left() {
        let (limit, clock) = limit(2.0, 8);
        assert_eq!(take(&limit, 6), Ok((2, 3)));
        assert_eq!(take(&limit, 5), wait(1500, 2, 2));
        assert_eq!(take(&limit, 5), wait(1500, 2, 2));
        clock.advance(Duration::from_millis(1500));
        assert_eq!(take(&limit, 5), Ok((0, 4)));
    }

    #[test]
    fn more_than_a_burst_is_never_admitted() {
        let (limit, clock) = limit(100.0, 8);
        assert_eq!(take(&limit, 9), Err(Excess::Burst));
        clock.advance(Duration::from_secs(3600));
        assert_eq!(take(&limit, 9), Err(Excess::Burst));
        assert_eq!(take(&limit, u32::MAX), Err(Excess::Burst));
        assert_eq!(take(&limit, 8), Ok((0, 1)));
    }

    #[test]
    fn a_rate_can_be_less_than_one_per_second() {
        let (limit, clock) = limit(0.1, 2);
        assert_eq!(take(&limit, 2), Ok((0, 20)));
        assert_eq!(take(&limit, 1), wait(10_000, 0, 10));
        clock.advance(Duration::from_secs(10));
        assert_eq!(take(&limit, 1), Ok((0, 20)));
        assert_eq!(limit.policy(), "\"items\";q=2;qu=\"items\";w=20");
    }

    #[test]
    fn header_fields_have_a_member_per_limit() {
        let (limit, _) = limit(500.0, 750);
        assert_eq!(limit.policy(), "\"items\";q=750;qu=\"items\";w=2");
        let remaining = limit.take(count(50)).expect("a burst is available");
        assert_eq!(remaining.field(Unit::Items), "\"items\";r=700;t=1");
        assert_eq!(remaining.field(Unit::Requests), "\"requests\";r=700;t=1");
    }
}
