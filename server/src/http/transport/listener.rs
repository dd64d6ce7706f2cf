//! Listening sockets, and accepting connections from them up to the limit. Further ones wait in the backlog.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Stage;
use super::worker_threads::Dispatcher;

/// Connections that wait to be accepted, as far as the system allows.
const BACKLOG: u32 = 2048;

/// Pause after the system had no resources for a connection.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A connection, and its place among those that are open.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) place: OwnedSemaphorePermit,
}

/// Listens on every address that the host name has, as far as each can be listened on.
pub(super) fn bind(address: (&str, u16)) -> io::Result<Vec<TcpListener>> {
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

/// The limit on open connections.
pub(super) fn places(max_connections: NonZeroUsize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(max_connections.get().min(Semaphore::MAX_PERMITS)))
}

/// Accepts connections and gives them to workers until the server stops. Then accepts what is in the backlog, whose
/// clients believe that they are connected, and closes the socket.
pub(super) fn accept(
    listener: TcpListener,
    places: Arc<Semaphore>,
    workers: Dispatcher,
    mut stages: watch::Receiver<Stage>,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    Ok(async move {
        let stopped = async {
            // The server was dropped if this fails.
            let _ = stages.wait_for(|stage| *stage == Stage::Stopped).await;
        };
        let accepting = async {
            let mut failing = false;
            loop {
                let Ok(place) = places.clone().acquire_owned().await else {
                    return;
                };
                let accepted = listener.accept().await;
                match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
                    Ok(accepted) => {
                        failing = false;
                        dispatch(accepted, place, &workers);
                    }
                    Err(error) if is_of_connection(&error) => {}
                    Err(error) => {
                        if !std::mem::replace(&mut failing, true) {
                            log::error!("cannot accept connections: {error}; trying again");
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
        let Ok(listener) = listener.into_std() else {
            return;
        };
        for _ in 0..BACKLOG {
            let Ok(accepted) = listener.accept() else {
                return;
            };
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            dispatch(accepted, place, &workers);
        }
    })
}

fn dispatch((stream, peer): (TcpStream, SocketAddr), place: OwnedSemaphorePermit, workers: &Dispatcher) {
    workers.dispatch(Accepted { stream, peer, place });
}

/// Whether the error is of the connection, which failed before it was accepted.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}
