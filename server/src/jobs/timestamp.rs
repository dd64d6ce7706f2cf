//! Points in time that are stored, and where stores read them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::clock;

/// A point in time: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The end of the year 9999, which is after every other time.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// Creates a time from milliseconds since the Unix epoch, at most [`Timestamp::MAX`].
    pub const fn from_millis(millis: u64) -> Self {
        if millis > Self::MAX.0 {
            Self::MAX
        } else {
            Self(millis)
        }
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// This time plus a duration.
    pub fn plus(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// This time minus a duration, at least the Unix epoch.
    pub fn minus(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// The duration since an earlier time; zero if that time is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// As stores keep it.
    pub(super) fn to_stored(self) -> i64 {
        self.0.cast_signed()
    }

    /// What [`Timestamp::to_stored`] returned.
    pub(super) fn from_stored(millis: i64) -> Self {
        Self::from_millis(u64::try_from(millis).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + Duration::from_millis(self.0)).fmt(f)
    }
}

/// The clock of a store: that of the machine or of the database, plus what tests add, so that hours pass without waiting and
/// clocks jump. Clones share what was added.
#[derive(Clone, Debug, Default)]
pub struct StoreClock(Arc<Added>);

/// Milliseconds.
#[derive(Debug, Default)]
struct Added {
    elapsed: AtomicI64,
    jumps: AtomicI64,
}

impl StoreClock {
    /// Lets time pass.
    pub fn advance(&self, duration: Duration) {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        self.0.elapsed.fetch_add(millis, Ordering::Relaxed);
    }

    /// Sets the clock forward or back, without time passing.
    pub fn jump(&self, millis: i64) {
        self.0.jumps.fetch_add(millis, Ordering::Relaxed);
    }

    /// The time of this machine.
    pub fn now(&self) -> Timestamp {
        self.adjust(Timestamp::from_millis(clock::unix_millis()))
    }

    /// A time that another clock reported, plus what was added.
    pub fn adjust(&self, time: Timestamp) -> Timestamp {
        let added = self.added().saturating_add(self.0.jumps.load(Ordering::Relaxed));
        Timestamp::from_millis(time.millis().saturating_add_signed(added))
    }

    fn added(&self) -> i64 {
        self.0.elapsed.load(Ordering::Relaxed)
    }
}

/// Detects jumps of the clock of this machine, by comparing it with the time that has passed.
pub(super) struct JumpDetector {
    clock: StoreClock,
    origin: Instant,
    /// The clock minus the time that has passed, in milliseconds.
    difference: i64,
}

impl JumpDetector {
    /// Smaller differences are the drift of a clock, or its correction.
    const TOLERANCE: i64 = 2_000;

    pub(super) fn new(clock: StoreClock) -> Self {
        let mut detector = Self {
            clock,
            origin: clock::now(),
            difference: 0,
        };
        detector.difference = detector.measure().0;
        detector
    }

    /// The time, and by how many milliseconds the clock has jumped since the last call, forward or back.
    pub(super) fn read(&mut self) -> (Timestamp, Option<i64>) {
        let (difference, now) = self.measure();
        let jump = difference - self.difference;
        self.difference = difference;
        (now, (jump.abs() > Self::TOLERANCE).then_some(jump))
    }

    /// Reports a jump again, because what it required has failed.
    pub(super) fn undo(&mut self, jump: i64) {
        self.difference -= jump;
    }

    fn measure(&self) -> (i64, Timestamp) {
        let passed = clock::now().saturating_duration_since(self.origin).as_millis();
        let passed = i64::try_from(passed)
            .unwrap_or(i64::MAX)
            .saturating_add(self.clock.added());
        let now = self.clock.now();
        (now.to_stored().saturating_sub(passed), now)
    }
}
