//! The one place where the time is read.

use std::time::Instant;

/// The time now.
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    Instant::now()
}
