//! Points in time that are stored, and where stores read them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::clock;

/// A point in time: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// A time after every other.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// Creates a time from milliseconds since the Unix epoch. Times after the year 292 million are that year.
    pub const fn from_millis(millis: u64) -> Self {
        if millis > Self::MAX.0 {
            Self::MAX
        } else {
            Self(millis)
        }
    }

    /// Milliseconds since the Unix epoch, at most `i64::MAX`.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// This time plus a duration.
    pub fn plus(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// The duration since an earlier time; zero if that time is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = std::time::UNIX_EPOCH.checked_add(Duration::from_millis(self.0));
        match time {
            Some(time) => humantime::format_rfc3339_millis(time).fmt(f),
            None => write!(f, "{} ms", self.0),
        }
    }
}

/// The time of a store: that of the machine or of the database, plus a shift. The shift is zero unless a test moves it, so
/// that hours pass without waiting, and clocks jump. Clones share the shift.
#[derive(Clone, Debug, Default)]
pub struct StoreClock {
    shift: Arc<AtomicI64>,
}

impl StoreClock {
    /// Moves the clock by a number of milliseconds, which can be negative.
    pub fn shift(&self, millis: i64) {
        self.shift.fetch_add(millis, Ordering::Relaxed);
    }

    /// The time of this machine.
    pub fn now(&self) -> Timestamp {
        self.at(Timestamp::from_millis(clock::unix_millis()))
    }

    /// A time that was read elsewhere, plus the shift.
    pub fn at(&self, time: Timestamp) -> Timestamp {
        let shift = self.shift.load(Ordering::Relaxed);
        Timestamp::from_millis(time.millis().saturating_add_signed(shift))
    }
}
