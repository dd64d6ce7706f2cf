//! The one place that waits by asking again.

use std::fmt::Debug;
use std::time::Duration;

use inference_server::clock;

/// How long a test waits for what must happen. It only bounds tests that fail: on a busy machine, a process may take a
/// minute to start.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

const PAUSE: Duration = Duration::from_millis(5);

/// Asks `probe` until it has an answer, and panics with `what` and the last refusal when [`PATIENCE`] is over.
pub(crate) fn eventually<T, E: Debug>(what: &str, probe: impl FnMut() -> Result<T, E>) -> T {
    eventually_within(PATIENCE, what, probe)
}

/// Whether `condition` comes to hold within `patience`.
pub(crate) fn happens_within(patience: Duration, condition: impl Fn() -> bool) -> bool {
    let deadline = clock::now() + patience;
    while !condition() {
        if clock::now() >= deadline {
            return false;
        }
        std::thread::park_timeout(PAUSE);
    }
    true
}

/// As [`eventually`], with another patience.
pub(crate) fn eventually_within<T, E: Debug>(
    patience: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = clock::now() + patience;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(refusal) if clock::now() >= deadline => {
                panic!("waited {patience:?} for {what}; the last answer was {refusal:?}")
            }
            Err(_) => std::thread::park_timeout(PAUSE),
        }
    }
}
