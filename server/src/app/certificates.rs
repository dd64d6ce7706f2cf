//! The TLS certificate: opened at the start, and replaced when its files change. A reload replaces it as well (`models`).

use std::convert::Infallible;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::AppError;
use crate::clock;
use crate::config::{ConfigError, ConfigWarning, Settings, TlsSettings};
use crate::error::Chain;
use crate::metrics::{Metrics, TlsMetrics};
use crate::tls::{Certificates, Identity, TlsFiles, TlsSetting};

/// Interval between checks of the files.
const INTERVAL: Duration = Duration::from_secs(2);

/// Reads the certificate, if TLS is enabled, and creates its metrics.
///
/// # Errors
/// The certificate cannot be used.
pub(super) fn open(settings: &Settings, metrics: &Metrics) -> Result<Option<Arc<Certificates>>, AppError> {
    let Some(tls) = &settings.server.tls else {
        return Ok(None);
    };
    let identity = read(tls).map_err(|error| AppError::Config(error.into()))?;
    let metrics = TlsMetrics::new(metrics)?;
    Ok(Some(Certificates::new(tls.files.clone(), identity, metrics)))
}

/// Reads and checks the certificate.
///
/// # Errors
/// It cannot be used. The error has the place of the setting that names the file at fault.
pub(super) fn read(tls: &TlsSettings) -> Result<Identity, ConfigError> {
    Identity::read(&tls.files).map_err(|error| {
        let origin = tls.origin(error.setting());
        let message = format!("invalid TLS certificate: {}", Chain(&error));
        ConfigError::new(origin, message, None)
    })
}

/// A warning if clients will reject the certificate.
pub(super) fn config_warning(tls: &TlsSettings, identity: &Identity) -> Option<ConfigWarning> {
    Some(ConfigWarning {
        origin: tls.origin(TlsSetting::Cert),
        message: identity.warning(clock::unix_time())?,
        hint: Some("replace the certificate".to_owned()),
    })
}

/// Replaces the certificate when its files change. Never returns.
pub(super) async fn watch(certificates: Option<Arc<Certificates>>) -> Infallible {
    let Some(certificates) = certificates else {
        return std::future::pending().await;
    };
    let mut files = WatchedFiles::new(stamps(certificates.files()));
    loop {
        tokio::time::sleep(INTERVAL).await;
        let checked = certificates.clone();
        let Ok(next) = tokio::task::spawn_blocking(move || {
            files.check(&checked);
            files
        })
        .await
        else {
            log::error!("the files of the TLS certificate are no longer watched");
            return std::future::pending().await;
        };
        files = next;
    }
}

/// Identifies the content of a file without reading it. `None` if the file does not exist.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

fn stamps(files: &TlsFiles) -> Vec<Stamp> {
    files.paths().map(stamp).collect()
}

fn stamp(file: &Path) -> Stamp {
    let metadata = std::fs::metadata(file).ok()?;
    Some((
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ))
}

/// The files as they were seen last.
struct WatchedFiles {
    seen: Vec<Stamp>,
    /// Why the files as they were seen last cannot be used, if they have not been read successfully since. A certificate and
    /// its key are rarely replaced at the same instant, so a failure is reported only if the files stay as they are.
    failure: Option<String>,
}

impl WatchedFiles {
    fn new(seen: Vec<Stamp>) -> Self {
        Self { seen, failure: None }
    }

    fn check(&mut self, certificates: &Certificates) {
        // Before the files are read, so that later changes are noticed.
        let now = stamps(certificates.files());
        if now == self.seen {
            if let Some(failure) = self.failure.take() {
                log::error!("TLS certificate not replaced; keeping the current one: {failure}");
                certificates.count_failed_reload();
            }
            return;
        }
        self.seen = now;
        let reloaded = certificates.reload();
        self.failure = reloaded.err().map(|error| Chain(&error).to_string());
    }
}
