//! The sandbox of builds without the feature `sandbox`: it cannot be entered.

use super::SandboxSettings;

/// Why the sandbox cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The build has no sandbox.
    #[error("this build of the server omits the feature `sandbox`")]
    Omitted,
}

/// Succeeds only with best effort, with a warning.
pub(super) fn enter(settings: &SandboxSettings) -> Result<(), SandboxError> {
    if !settings.best_effort {
        return Err(SandboxError::Omitted);
    }
    log::warn!("there is no sandbox: {}", SandboxError::Omitted);
    Ok(())
}
