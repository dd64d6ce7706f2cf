//! The one place where the time is read.

use std::time::{Duration, Instant};

/// The time now.
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Time since 1970, to compare with the times of files.
pub fn unix_time() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
}

/// Milliseconds since 1970, for clients that ask when something was; never for measuring.
pub fn unix_millis() -> u64 {
    unix_time().as_millis() as u64
}

/// Seconds since 1970, for what is shown to people and to Prometheus; never for measuring.
pub fn unix_seconds() -> u64 {
    unix_time().as_secs()
}
