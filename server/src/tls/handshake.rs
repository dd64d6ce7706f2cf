//! The handshake of a connection, on the side of the server.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// A connection over TLS.
pub type TlsStream = tokio_rustls::server::TlsStream<TcpStream>;

/// The protocols that a port offers with ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2 or HTTP/1.1.
    Http,
    /// HTTP/2.
    Grpc,
}

const HTTP2: &[u8] = b"h2";

impl Alpn {
    /// The names, most preferred first.
    pub(super) fn names(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::Http => &[HTTP2, b"http/1.1"],
            Self::Grpc => &[HTTP2],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }
}

/// Why a handshake failed.
#[derive(Debug)]
pub enum HandshakeError {
    /// The client sent a request without TLS. The connection is open.
    PlainHttp(TcpStream),
    /// It took too long.
    Timeout(Duration),
    /// The client disconnected without sending anything.
    Disconnected,
    /// The handshake failed.
    Failed(io::Error),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PlainHttp(_) => f.write_str("the client sent a request without TLS"),
            Self::Timeout(limit) => write!(f, "not completed within {} s", limit.as_secs_f64()),
            Self::Disconnected => f.write_str("the client disconnected"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// Runs the handshake of a new connection. Cancel-safe in that dropping the future closes the connection.
///
/// # Errors
/// See [`HandshakeError`].
pub async fn accept(
    config: Arc<ServerConfig>,
    stream: TcpStream,
    limit: Duration,
) -> Result<TlsStream, HandshakeError> {
    let handshake = async {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(0) => return Err(HandshakeError::Disconnected),
            // A record of TLS starts with a number below 32, a method of HTTP with a letter.
            Ok(_) if first[0].is_ascii_alphabetic() => return Err(HandshakeError::PlainHttp(stream)),
            Ok(_) => {}
            Err(error) => return Err(HandshakeError::Failed(error)),
        }
        let accepted = TlsAcceptor::from(config).accept(stream).await;
        accepted.map_err(HandshakeError::Failed)
    };
    timeout(limit, handshake)
        .await
        .unwrap_or(Err(HandshakeError::Timeout(limit)))
}

/// Whether the client has selected HTTP/2.
pub fn is_http2(stream: &TlsStream) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}
