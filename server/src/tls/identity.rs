//! Reads a certificate with its key, checks that they can be used, and builds the settings of the protocol.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::error::{TlsError, TlsSetting};
use super::handshake::Alpn;

/// The files of a server's certificate, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by its chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The certificates that sign those of clients. If set, every client must present one.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// The paths of all files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.cert, &self.key]
            .into_iter()
            .chain(&self.client_ca)
            .map(PathBuf::as_path)
    }
}

/// A certificate with its key, ready for use.
pub struct Identity {
    http: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
    /// Unix time.
    not_before: Duration,
    /// Unix time.
    not_after: Duration,
    /// Digest of the files.
    digest: [u8; 32],
}

impl Identity {
    /// Reads and checks the files. A certificate that has expired is accepted; see [`warning`](Self::warning).
    ///
    /// # Errors
    /// A file cannot be read or is malformed, or the key belongs to another certificate.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let mut hash = Sha256::new();
        let mut read = |setting, file: &Path| {
            let text = std::fs::read(file).map_err(|source| TlsError::Read {
                setting,
                file: file.to_owned(),
                source,
            })?;
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(&text);
            Ok(text)
        };
        let cert = read(TlsSetting::Cert, &files.cert)?;
        let key = read(TlsSetting::Key, &files.key)?;
        let client_ca = files
            .client_ca
            .as_deref()
            .map(|file| Ok((file, read(TlsSetting::ClientCa, file)?)))
            .transpose()?;
        let digest = hash.finalize().into();

        let provider = Arc::new(ring::default_provider());
        let chain = certificates(TlsSetting::Cert, &files.cert, &cert)?;
        let (not_before, not_after) = validity(&files.cert, &chain[0])?;
        let certified = certified_key(&provider, files, chain, &key)?;
        let verifier = client_ca
            .map(|(file, pem)| client_verifier(&provider, file, &pem))
            .transpose()?;
        let http = server_config(provider, certified, verifier).map_err(TlsError::Setup)?;
        let mut grpc = http.clone();
        grpc.alpn_protocols = Alpn::Grpc.names();
        Ok(Self {
            http: Arc::new(http),
            grpc: Arc::new(grpc),
            not_before,
            not_after,
            digest,
        })
    }

    pub(super) fn config(&self, alpn: Alpn) -> Arc<ServerConfig> {
        match alpn {
            Alpn::Http => self.http.clone(),
            Alpn::Grpc => self.grpc.clone(),
        }
    }

    /// Whether both were read from files with the same content.
    pub fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    /// Unix time at which the certificate expires.
    pub fn not_after(&self) -> Duration {
        self.not_after
    }

    /// Why clients will reject the certificate at this Unix time, if they will.
    pub fn warning(&self, now: Duration) -> Option<String> {
        let time = |unix: Duration| humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + unix);
        if now > self.not_after {
            return Some(format!("the TLS certificate expired at {}", time(self.not_after)));
        }
        (now < self.not_before).then(|| {
            format!(
                "the TLS certificate is not valid before {}",
                time(self.not_before)
            )
        })
    }
}

fn certificates(
    setting: TlsSetting,
    file: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let chain = parsed.map_err(|source| TlsError::Pem {
        setting,
        file: file.to_owned(),
        source,
    })?;
    if chain.is_empty() {
        let file = file.to_owned();
        return Err(TlsError::NoCertificate { setting, file });
    }
    Ok(chain)
}

/// The Unix times between which a certificate is valid.
fn validity(file: &Path, certificate: &CertificateDer<'_>) -> Result<(Duration, Duration), TlsError> {
    let parsed = Certificate::from_der(certificate).map_err(|source| TlsError::Certificate {
        setting: TlsSetting::Cert,
        file: file.to_owned(),
        source: source.into(),
    })?;
    let validity = parsed.tbs_certificate().validity();
    Ok((
        validity.not_before.to_unix_duration(),
        validity.not_after.to_unix_duration(),
    ))
}

fn certified_key(
    provider: &CryptoProvider,
    files: &TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    key: &[u8],
) -> Result<CertifiedKey, TlsError> {
    let file = || files.key.clone();
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| match source {
        pem::Error::NoItemsFound => TlsError::NoKey { file: file() },
        source => TlsError::Pem {
            setting: TlsSetting::Key,
            file: file(),
            source,
        },
    })?;
    let signer = provider.key_provider.load_private_key(key);
    let signer = signer.map_err(|source| TlsError::Key { file: file(), source })?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        // The provider cannot compare every kind of key.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Mismatch {
            cert: files.cert.clone(),
            key: file(),
        }),
        Err(source) => Err(TlsError::Certificate {
            setting: TlsSetting::Cert,
            file: files.cert.clone(),
            source: source.into(),
        }),
    }
}

type ClientVerifier = Arc<dyn rustls::server::danger::ClientCertVerifier>;

fn client_verifier(
    provider: &Arc<CryptoProvider>,
    file: &Path,
    text: &[u8],
) -> Result<ClientVerifier, TlsError> {
    let invalid = |source: Box<dyn std::error::Error + Send + Sync>| TlsError::Certificate {
        setting: TlsSetting::ClientCa,
        file: file.to_owned(),
        source,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(TlsSetting::ClientCa, file, text)? {
        roots.add(certificate).map_err(|source| invalid(source.into()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|source| invalid(source.into()))
}

fn server_config(
    provider: Arc<CryptoProvider>,
    certified: CertifiedKey,
    verifier: Option<ClientVerifier>,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = Alpn::Http.names();
    // Sessions are resumed with tickets, so the server keeps no state for clients that have left. The keys of the tickets
    // belong to this certificate and its `client_ca`: after a replacement, clients have to authenticate again.
    config.ticketer = ring::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    Ok(config)
}
