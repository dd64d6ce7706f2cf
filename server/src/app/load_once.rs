//! `check --load`: loads every model once, without leaving files behind.

use std::sync::Arc;
use std::time::Duration;

use super::interruptible::run_interruptible;
use super::scratch_cleanup::ScratchCleanup;
use super::{AppError, reloader};
use crate::clock;
use crate::config::Settings;
use crate::metrics::Metrics;

/// Timeout for unloading the models.
const UNLOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Loads and warms up all models, then unloads them.
///
/// # Errors
/// A model failed to load, or a termination signal arrived.
pub(super) fn load_once(settings: &Settings) -> Result<(), AppError> {
    let prepare = || {
        let metrics = Arc::new(Metrics::new(settings.metrics.clone())?);
        let (reloader, _registry) = reloader(settings, metrics)?;
        let cleanup = ScratchCleanup::of(reloader.scratch_directory());
        Ok((reloader, cleanup))
    };
    let models = settings.models.clone();
    let loaded = run_interruptible("check", prepare, move |mut reloader| {
        let result = reloader.start(&models);
        // A model that does not unload in time is abandoned until the process exits.
        let _ = reloader.shut_down(clock::now() + UNLOAD_TIMEOUT, true);
        result
    });
    loaded?.map_err(AppError::Models)
}
