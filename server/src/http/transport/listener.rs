//! Binds listening sockets, and accepts connections up to the limit. Further connections wait in the backlog.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Stage;

/// Maximum number of connections waiting to be accepted. The operating system can lower it.
const BACKLOG: u32 = 2048;

/// Pause before retrying if the system has no resources for a connection.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// An open connection, which holds a permit of the connection limit.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Binds all addresses of the host name. Fails only if none can be bound.
pub(in crate::http) fn bind(address: (&str, u16)) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    let mut failed = None;
    for address in address.to_socket_addrs()? {
        match listen(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if listeners.is_empty() => Err(error),
        None if listeners.is_empty() => Err(io::Error::other("the host name has no address")),
        _ => Ok(listeners),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Creates the limit on open connections.
pub(super) fn connection_permits(max_connections: NonZeroUsize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(max_connections.get().min(Semaphore::MAX_PERMITS)))
}

/// Accepts connections and passes them to `serve` until the server stops. Then accepts the connections in the backlog,
/// which are established for their clients, and closes the socket.
pub(super) async fn accept(
    listener: TcpListener,
    permits: Arc<Semaphore>,
    mut stages: watch::Receiver<Stage>,
    serve: impl Fn(Accepted),
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let stopped = async {
        // Fails if the server was dropped.
        let _ = stages.wait_for(|stage| *stage == Stage::Stopped).await;
    };
    let accepting = async {
        let mut failing = false;
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    failing = false;
                    serve(Accepted { stream, peer, permit });
                }
                Err(error) if is_connection_error(&error) => {}
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        log::error!("failed to accept connections: {error}; retrying");
                    }
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
            }
        }
    };
    tokio::select! {
        () = stopped => {}
        () = accepting => {}
    }
    let listener = listener.into_std()?;
    for _ in 0..BACKLOG {
        let Ok((stream, peer)) = listener.accept() else {
            break;
        };
        let Ok(permit) = permits.clone().acquire_owned().await else {
            break;
        };
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream)?;
        serve(Accepted { stream, peer, permit });
    }
    Ok(())
}

/// Whether the error concerns one connection, which failed before it was accepted.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}
