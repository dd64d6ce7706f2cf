//! `check --load`: loads every model once, without leaving files behind.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::scratch_cleanup::ScratchCleanup;
use super::{AppError, reloader};
use crate::clock;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::reload::ModelFailure;
use crate::signals::{Signal, Signals};

/// Timeout for unloading the models.
const UNLOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Loads and warms up all models, then unloads them.
///
/// # Errors
/// A model failed to load, or a termination signal arrived.
pub(super) fn load_once(settings: &Settings) -> Result<(), AppError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let (mut reloader, _registry) =
            reloader(settings, Arc::new(Metrics::new(settings.metrics.clone())?))?;
        let _cleanup = ScratchCleanup::of(&reloader);
        let models = settings.models.clone();
        let (done, mut finished) = oneshot::channel::<Result<(), Vec<ModelFailure>>>();
        let loading = thread::Builder::new().name("check".to_owned()).spawn(move || {
            let result = reloader.start(&models);
            // A model that does not unload in time is abandoned until the process exits.
            let _ = reloader.shut_down(clock::now() + UNLOAD_TIMEOUT, true);
            drop(reloader);
            let _ = done.send(result);
        })?;
        loop {
            tokio::select! {
                result = &mut finished => {
                    let _ = loading.join();
                    return result.map_err(|_| AppError::ModelThread)?.map_err(AppError::Models);
                }
                signal = signals.next() => if signal == Signal::Terminate {
                    return Err(AppError::Interrupted);
                },
            }
        }
    })
}
