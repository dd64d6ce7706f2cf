//! The only place where the time is read.

use std::time::{Duration, Instant};

/// The current time.
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Unix time, to compare with the times of files.
pub fn unix_time() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
}

/// Unix time in milliseconds, for timestamps in replies. Not for measuring.
pub fn unix_millis() -> u64 {
    unix_time().as_millis() as u64
}

/// Unix time in seconds, for timestamps in reports and metrics. Not for measuring.
pub fn unix_seconds() -> u64 {
    unix_time().as_secs()
}
