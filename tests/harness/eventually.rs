//! Waiting by polling.

use std::fmt::Debug;
use std::time::Duration;

use inference_server::clock;

/// Timeout of conditions that must become true. It only affects failing tests. On a busy machine, a process can take a minute to
/// start.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

const PAUSE: Duration = Duration::from_millis(5);

/// Calls `probe` until it succeeds. After [`PATIENCE`], panics with `what` and the last error.
pub(crate) fn eventually<T, E: Debug>(what: &str, probe: impl FnMut() -> Result<T, E>) -> T {
    eventually_within(PATIENCE, what, probe)
}

/// Whether `condition` becomes true within `patience`.
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

/// Like [`eventually`], with a different timeout.
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
                panic!("waited {patience:?} for {what}: {refusal:?}")
            }
            Err(_) => std::thread::park_timeout(PAUSE),
        }
    }
}
