//! Accepts connections up to a limit, and runs their TLS handshakes. Further connections wait in the backlog of the socket.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tonic::transport::server::{Connected, TcpConnectInfo, TcpIncoming};

use crate::tls::{self, Alpn, Certificates, HandshakeError, TlsStream};

/// Limits of the connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionLimits {
    /// Maximum number of open connections.
    pub(super) max_connections: usize,
    /// Maximum time of a TLS handshake.
    pub(super) handshake_timeout: Duration,
}

/// An open connection, which holds a permit of the connection limit.
pub(super) struct Connection {
    stream: MaybeTls,
    _permit: OwnedSemaphorePermit,
}

enum MaybeTls {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

/// Accepts connections, of which at most `max_connections` are open at a time, including those in a handshake.
pub(super) fn accept(
    listener: TcpListener,
    limits: ConnectionLimits,
    certificates: Option<Arc<Certificates>>,
) -> impl Stream<Item = io::Result<Connection>> + Send + 'static {
    let acceptor = Acceptor {
        incoming: TcpIncoming::from(listener).with_nodelay(Some(true)),
        permits: Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS))),
        handshake_timeout: limits.handshake_timeout,
        certificates,
        handshakes: JoinSet::new(),
    };
    stream::unfold(acceptor, async |mut acceptor| {
        let connection = acceptor.next().await?;
        Some((connection, acceptor))
    })
}

struct Acceptor {
    incoming: TcpIncoming,
    permits: Arc<Semaphore>,
    handshake_timeout: Duration,
    certificates: Option<Arc<Certificates>>,
    /// Handshakes in progress, which are canceled when the server stops accepting.
    handshakes: JoinSet<Option<Connection>>,
}

impl Acceptor {
    /// Returns the next connection that is ready for calls. `None` if the socket is closed.
    async fn next(&mut self) -> Option<io::Result<Connection>> {
        let Self {
            incoming,
            permits,
            handshake_timeout,
            certificates,
            handshakes,
        } = self;
        let timeout = *handshake_timeout;
        loop {
            let accept = async {
                // The semaphore is never closed.
                let permit = permits.clone().acquire_owned().await.ok()?;
                Some((incoming.next().await?, permit))
            };
            let (accepted, permit) = tokio::select! {
                accepted = accept => accepted?,
                Some(finished) = handshakes.join_next() => match finished {
                    Ok(Some(connection)) => return Some(Ok(connection)),
                    // A handshake that panicked was logged.
                    Ok(None) | Err(_) => continue,
                },
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => return Some(Err(error)),
            };
            let Some(certificates) = certificates.clone() else {
                let stream = MaybeTls::Plain(stream);
                return Some(Ok(Connection {
                    stream,
                    _permit: permit,
                }));
            };
            handshakes.spawn(async move {
                let stream = handshake(stream, timeout, &certificates).await?;
                Some(Connection {
                    stream: MaybeTls::Tls(Box::new(stream)),
                    _permit: permit,
                })
            });
        }
    }
}

async fn handshake(stream: TcpStream, timeout: Duration, certificates: &Certificates) -> Option<TlsStream> {
    let peer = stream.peer_addr();
    match tls::accept(certificates.config(Alpn::Grpc), stream, timeout).await {
        Ok(stream) => Some(stream),
        // Load balancers check a port this way.
        Err(HandshakeError::Disconnected) => None,
        Err(error) => {
            certificates.count_failed_handshake();
            if let Ok(peer) = peer {
                log::info!("TLS handshake with {peer} for gRPC failed: {error}");
            }
            None
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        match &self.stream {
            MaybeTls::Plain(stream) => stream.connect_info(),
            MaybeTls::Tls(stream) => stream.get_ref().0.connect_info(),
        }
    }
}

/// Calls a method of the stream, whichever it is.
macro_rules! forward {
    ($connection:expr, $stream:ident => $call:expr) => {
        match &mut $connection.get_mut().stream {
            MaybeTls::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            MaybeTls::Tls(stream) => {
                let $stream = Pin::new(&mut **stream);
                $call
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self, stream => stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        forward!(self, stream => stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, stream => stream.poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            MaybeTls::Plain(stream) => stream.is_write_vectored(),
            MaybeTls::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => stream.poll_shutdown(context))
    }
}
