//! Certificates that are made for a test, and the settings of clients that use them.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ALL_VERSIONS, ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate authority.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key can be generated");
        let mut params = CertificateParams::new(Vec::new()).expect("there are no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "authority of a test");
        let certificate = params.self_signed(&key).expect("it can be signed");
        Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Returns the certificate of the authority, in PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Issues a certificate for this machine, which servers and clients can use.
    pub(crate) fn issue(&self) -> Pair {
        self.issue_until(4000)
    }

    /// Issues a certificate that expires at the start of this year.
    pub(crate) fn issue_until(&self, year: i32) -> Pair {
        let key = KeyPair::generate().expect("a key can be generated");
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).expect("the names are valid");
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be signed");
        Pair {
            cert: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Returns the settings of a client that trusts this authority and offers these protocols.
    pub(crate) fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        self.client_with(ALL_VERSIONS, protocols, None)
    }

    /// Like [`client`](Self::client), with these versions of TLS, and a certificate of the client.
    pub(crate) fn client_with(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
        identity: Option<&Pair>,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(certificate(&self.pem))
            .expect("a certificate of an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("the versions are supported")
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
                builder
                    .with_client_auth_cert(vec![certificate(&pair.cert)], key)
                    .expect("the key belongs to the certificate")
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

impl Pair {
    /// Writes the files `server.pem` and `server-key.pem`, each atomically.
    pub(crate) fn write(&self, dir: &Path) {
        write(&dir.join("server-key.pem"), &self.key);
        write(&dir.join("server.pem"), &self.cert);
    }
}

/// Writes a file atomically.
pub(crate) fn write(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).expect("write a file");
    std::fs::rename(new, file).expect("rename a file");
}

/// Returns the first certificate of a PEM text.
pub(crate) fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

/// Connects to a server on this machine.
pub(crate) async fn connect(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::from(address.ip());
    TlsConnector::from(config).connect(name, stream).await
}
