//! Why a certificate cannot be used.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use rustls_pki_types::pem;

/// Why a certificate cannot be used. The text names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The setting that names the file.
        setting: TlsSetting,
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file is not PEM.
    #[error("invalid PEM in {}", file.display())]
    Pem {
        /// The setting that names the file.
        setting: TlsSetting,
        /// The file.
        file: PathBuf,
        /// The error of the parser.
        source: pem::Error,
    },
    /// A file contains no certificate.
    #[error("no certificate in {}: expected PEM that starts with -----BEGIN CERTIFICATE-----", file.display())]
    NoCertificate {
        /// The setting that names the file.
        setting: TlsSetting,
        /// The file.
        file: PathBuf,
    },
    /// A file contains no usable key.
    #[error("no private key in {}: expected PEM with an unencrypted key (PKCS #8, PKCS #1 or SEC 1)", file.display())]
    NoKey {
        /// The file.
        file: PathBuf,
    },
    /// A certificate is malformed.
    #[error("invalid certificate in {}", file.display())]
    Certificate {
        /// The setting that names the file.
        setting: TlsSetting,
        /// The file.
        file: PathBuf,
        /// The error of the parser.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The kind of key is not supported.
    #[error(
        "unsupported private key in {}: expected RSA of 2048 to 4096 bits, ECDSA P-256 or P-384, or Ed25519",
        file.display()
    )]
    Key {
        /// The file.
        file: PathBuf,
        /// The error of the library.
        source: rustls::Error,
    },
    /// The key belongs to another certificate.
    #[error("the private key in {} does not belong to the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The library rejects the combination.
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
}

/// A setting that names a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsSetting {
    /// The certificate and its chain.
    Cert,
    /// The private key.
    Key,
    /// The certificates that sign those of clients.
    ClientCa,
}

impl TlsError {
    /// The setting that names the file at fault.
    pub fn setting(&self) -> TlsSetting {
        match self {
            Self::Read { setting, .. }
            | Self::Pem { setting, .. }
            | Self::NoCertificate { setting, .. }
            | Self::Certificate { setting, .. } => *setting,
            Self::NoKey { .. } | Self::Key { .. } | Self::Mismatch { .. } => TlsSetting::Key,
            Self::Setup(_) => TlsSetting::Cert,
        }
    }
}
