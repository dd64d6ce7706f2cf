//! Runs a command that loads models until it is complete or a termination signal arrives.

use std::thread;

use tokio::sync::oneshot;

use super::AppError;
use super::scratch_cleanup::ScratchCleanup;
use crate::signals::{Signal, Signals};

/// Runs `work` on a thread with this name, with what `prepare` returns. Leaves no files behind, even if `work` is abandoned
/// because of a signal.
///
/// # Errors
/// `prepare` failed, `work` panicked, or a termination signal arrived.
pub(super) fn run_interruptible<S: Send + 'static, T: Send + 'static>(
    name: &str,
    prepare: impl FnOnce() -> Result<(S, ScratchCleanup), AppError>,
    work: impl FnOnce(S) -> T + Send + 'static,
) -> Result<T, AppError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let (state, _cleanup) = prepare()?;
        let (done, mut finished) = oneshot::channel();
        let working = thread::Builder::new().name(name.to_owned()).spawn(move || {
            // The receiver is gone if a signal has arrived.
            let _ = done.send(work(state));
        })?;
        loop {
            tokio::select! {
                result = &mut finished => {
                    let _ = working.join();
                    return result.map_err(|_| AppError::ModelThread);
                }
                signal = signals.next() => if signal == Signal::Terminate {
                    return Err(AppError::Interrupted);
                },
            }
        }
    })
}
