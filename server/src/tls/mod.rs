//! TLS: certificates and their replacement, and handshakes of servers and clients.
//!
//! [`Certificates`] holds the certificate that new connections use. [`accept`] runs the handshake of a connection. This
//! module does not know listeners or the configuration, and does not decide when files are read again.

mod certificates;
#[cfg(any(feature = "batch", feature = "bench", feature = "jobs", feature = "status"))]
mod client;
mod error;
mod handshake;
mod identity;

pub use certificates::{Certificates, Reloaded};
#[cfg(any(feature = "batch", feature = "bench", feature = "jobs", feature = "status"))]
pub use client::{ClientTls, Trust, connect};
pub use error::{TlsError, TlsSetting};
pub use handshake::{Alpn, HandshakeError, TlsStream, accept, is_http2};
pub use identity::{Identity, TlsFiles};
