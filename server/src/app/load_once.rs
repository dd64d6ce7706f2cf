//! `check --load`: loads every model once, and leaves nothing behind.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::leftovers::Leftovers;
use super::{AppError, reloader};
use crate::clock;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::reload::ModelFailure;
use crate::signals::{Signal, Signals};

/// How long models may take to drop what they loaded.
const UNLOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Loads and warms up all models, and drops them again.
///
/// # Errors
/// A model did not load, or a termination signal arrived.
pub(super) fn load_once(settings: &Settings) -> Result<(), AppError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let (mut reloader, _registry) =
            reloader(settings, Arc::new(Metrics::new(settings.metrics.clone())?))?;
        let _leftovers = Leftovers::of(&reloader);
        let models = settings.models.clone();
        let (done, mut finished) = oneshot::channel::<Result<(), Vec<ModelFailure>>>();
        let loading = thread::Builder::new().name("check".to_owned()).spawn(move || {
            let result = reloader.start(&models);
            // A model that does not finish is left to the end of the process.
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
