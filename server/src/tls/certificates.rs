//! The certificate that new connections use.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use super::error::TlsError;
use super::handshake::Alpn;
use super::identity::{Identity, TlsFiles};
use crate::clock;
use crate::metrics::TlsMetrics;

/// The certificate that new connections use, and the files from which it is read. Connections keep the certificate that
/// they were opened with.
pub struct Certificates {
    files: TlsFiles,
    current: ArcSwap<Identity>,
    /// Held while files are read for a replacement, so that the content read last is used.
    reading: Mutex<()>,
    metrics: TlsMetrics,
}

/// What a reload of the certificate changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// New connections use another certificate, key or client CA.
    Replaced,
    /// The files have the same content as before.
    Unchanged,
}

impl Certificates {
    /// Uses an identity that was read from these files.
    pub fn new(files: TlsFiles, identity: Identity, metrics: TlsMetrics) -> Arc<Self> {
        metrics.set_expiry(identity.not_after());
        warn(&identity);
        Arc::new(Self {
            files,
            current: ArcSwap::from_pointee(identity),
            reading: Mutex::default(),
            metrics,
        })
    }

    /// The files.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// The settings for a new connection.
    pub fn config(&self, alpn: Alpn) -> Arc<ServerConfig> {
        self.current.load().config(alpn)
    }

    /// Checks that the files could be used, without using them.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn check(&self) -> Result<(), TlsError> {
        Identity::read(&self.files).map(drop)
    }

    /// Reads the files again. From then on, new connections use them.
    ///
    /// # Errors
    /// They cannot be used. New connections keep using the current certificate.
    pub fn reload(&self) -> Result<Reloaded, TlsError> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = Identity::read(&self.files)?;
        if identity.is_same(&self.current.load()) {
            return Ok(Reloaded::Unchanged);
        }
        self.metrics.set_expiry(identity.not_after());
        self.metrics.count_reload(true);
        let expiry = std::time::UNIX_EPOCH + identity.not_after();
        log::info!(
            "TLS certificate replaced; the new one expires at {}",
            humantime::format_rfc3339_seconds(expiry)
        );
        warn(&identity);
        self.current.store(Arc::new(identity));
        Ok(Reloaded::Replaced)
    }

    /// Counts a reload that failed.
    pub fn count_failed_reload(&self) {
        self.metrics.count_reload(false);
    }

    /// Counts a handshake that failed.
    pub fn count_failed_handshake(&self) {
        self.metrics.count_failed_handshake();
    }
}

fn warn(identity: &Identity) {
    if let Some(warning) = identity.warning(clock::unix_time()) {
        log::warn!("{warning}; clients will reject it");
    }
}
