//! The certificate of the server, and its handshakes. These families exist only if TLS is enabled.

use std::time::Duration;

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts};

use super::{Metrics, ReloadResult, register};

/// The certificate and the handshakes.
pub struct TlsMetrics {
    expiry: IntGauge,
    reloads: IntCounterVec,
    failed_handshakes: IntCounter,
}

impl TlsMetrics {
    /// Creates and registers the families.
    ///
    /// # Errors
    /// They are registered already.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let registry = metrics.registry();
        let reloads = Opts::new(
            "inference_tls_reloads_total",
            "Replacements of the TLS certificate, by result.",
        );
        let created = Self {
            expiry: register(
                registry,
                IntGauge::new(
                    "inference_tls_certificate_expiry_timestamp_seconds",
                    "Unix time at which the TLS certificate expires.",
                )?,
            )?,
            reloads: register(registry, IntCounterVec::new(reloads, &["result"])?)?,
            failed_handshakes: register(
                registry,
                IntCounter::new(
                    "inference_tls_failed_handshakes_total",
                    "TLS handshakes that failed or timed out.",
                )?,
            )?,
        };
        for result in [ReloadResult::Success, ReloadResult::Failure] {
            created.reloads.with_label_values(&[result.label()]);
        }
        Ok(created)
    }

    /// Sets the Unix time at which the certificate expires.
    pub fn set_expiry(&self, unix: Duration) {
        self.expiry.set(i64::try_from(unix.as_secs()).unwrap_or(i64::MAX));
    }

    /// Counts a replacement of the certificate.
    pub fn count_reload(&self, succeeded: bool) {
        let result = match succeeded {
            true => ReloadResult::Success,
            false => ReloadResult::Failure,
        };
        self.reloads.with_label_values(&[result.label()]).inc();
    }

    /// Counts a handshake that failed.
    pub fn count_failed_handshake(&self) {
        self.failed_handshakes.inc();
    }
}
