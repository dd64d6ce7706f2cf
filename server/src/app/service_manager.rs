//! Talks to the service manager, systemd: reports the state of the server, feeds the watchdog, and receives listening
//! sockets. Without a service manager, nothing happens.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use rustix::net::{AddressFamily, SocketType, sockopt};
use sd_notify::NotifyState;

use crate::registry::Snapshot;

/// Maximum length of a status text, in bytes.
const MAX_STATUS: usize = 500;

/// Reports that the startup has ended: the server listens, and has tried to load every model.
pub(super) fn report_ready(snapshot: &Snapshot) {
    notify(&[NotifyState::Ready, NotifyState::Status(&status(snapshot, None))]);
}

/// Reports that a reload has begun.
pub(super) fn report_reloading() {
    // systemd compares the time with that of the signal that it sent.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]),
        Err(error) => log::warn!("cannot read the clock for the service manager: {error}"),
    }
}

/// Reports that a reload has ended, and why if it failed.
pub(super) fn report_reloaded(snapshot: &Snapshot, failure: Option<&str>) {
    notify(&[
        NotifyState::Ready,
        NotifyState::Status(&status(snapshot, failure)),
    ]);
}

/// Reports that the server is shutting down.
pub(super) fn report_stopping() {
    notify(&[
        NotifyState::Stopping,
        NotifyState::Status("finishing accepted requests"),
    ]);
}

/// Feeds the watchdog of the service manager for as long as `respond` completes. Never returns.
pub(super) async fn feed_watchdog(respond: impl AsyncFn()) -> Infallible {
    let Some(timeout) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    loop {
        respond().await;
        notify(&[NotifyState::Watchdog]);
        // Late responses of a busy machine must not exceed the timeout.
        tokio::time::sleep(timeout / 4).await;
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot notify the service manager: {error}");
    }
}

/// The status text: one line that `systemctl status` shows.
fn status(snapshot: &Snapshot, failure: Option<&str>) -> String {
    let total = snapshot.models().count();
    let ready = snapshot.models().filter(|entry| entry.is_ready()).count();
    let mut text = format!("{ready} of {total} models ready");
    if let Some(failure) = failure {
        text.push_str("; the last reload failed: ");
        text.push_str(failure.lines().next().unwrap_or_default());
    }
    text.truncate(text.floor_char_boundary(MAX_STATUS));
    text
}

/// Sockets that the service manager listens on for the server.
#[derive(Debug, Default)]
pub(super) struct PassedSockets {
    /// Those for HTTP.
    pub(super) http: Vec<TcpListener>,
    /// The one for gRPC.
    pub(super) grpc: Option<TcpListener>,
}

/// Why the sockets of the service manager cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The variables that describe them are invalid.
    #[error("invalid LISTEN_PID, LISTEN_FDS or LISTEN_FDNAMES")]
    Variables(#[source] io::Error),
    /// The name is unknown.
    #[error("unknown socket name `{0}`: expected `http` or `grpc` in `FileDescriptorName=`")]
    Name(String),
    /// There is more than one socket for gRPC.
    #[error("got several sockets named `grpc`, expected one")]
    SeveralGrpc,
    /// It is not a socket that accepts TCP connections.
    #[error("socket `{name}` does not accept TCP connections: use `ListenStream=` with a port")]
    Kind {
        /// Its name.
        name: String,
        /// The error of the operating system, if there was one.
        source: Option<io::Error>,
    },
}

impl PassedSockets {
    /// Takes the sockets of this process. Must be called once, before other code opens files.
    ///
    /// # Errors
    /// A socket has an unknown name or does not accept TCP connections.
    pub(super) fn take() -> Result<Self, SocketError> {
        let mut sockets = Self::default();
        // The names of the sockets of another process, whose environment this one inherited, do not matter.
        if sd_notify::listen_fds().map_err(SocketError::Variables)?.len() == 0 {
            return Ok(sockets);
        }
        for (descriptor, name) in sd_notify::listen_fds_with_names().map_err(SocketError::Variables)? {
            let listener = listener(own(descriptor), &name)?;
            match name.as_str() {
                // Service managers other than systemd may pass sockets without names.
                "http" | "unknown" | "" => sockets.http.push(listener),
                "grpc" if sockets.grpc.is_some() => return Err(SocketError::SeveralGrpc),
                "grpc" => sockets.grpc = Some(listener),
                _ => return Err(SocketError::Name(name)),
            }
        }
        Ok(sockets)
    }
}

#[allow(unsafe_code, reason = "descriptors are passed as numbers")]
fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: LISTEN_PID names this process, so the service manager opened the descriptor for it before it started, and
    // `take`, which is called once, is the only code that uses its number.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

fn listener(socket: OwnedFd, name: &str) -> Result<TcpListener, SocketError> {
    let kind = |source: Option<io::Error>| SocketError::Kind {
        name: name.to_owned(),
        source,
    };
    let is_listener = accepts_tcp(&socket).map_err(|error| kind(Some(error)))?;
    is_listener
        .then(|| TcpListener::from(socket))
        .ok_or_else(|| kind(None))
}

fn accepts_tcp(socket: impl AsFd) -> io::Result<bool> {
    let domain = sockopt::socket_domain(&socket)?;
    Ok([AddressFamily::INET, AddressFamily::INET6].contains(&domain)
        && sockopt::socket_type(&socket)? == SocketType::STREAM
        && sockopt::socket_acceptconn(&socket)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_sockets_that_accept_tcp_connections_are_used() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = tcp.local_addr().expect("it listens");
        let taken = listener(tcp.into(), "http").expect("it listens");
        assert_eq!(taken.local_addr().expect("it listens"), address);

        let directory = tempfile::tempdir().expect("a directory can be created");
        let unix = UnixListener::bind(directory.path().join("socket")).expect("it can be bound");
        let connected = std::net::TcpStream::connect(address).expect("it listens");
        let file = tempfile::tempfile().expect("a file can be created");
        for other in [OwnedFd::from(unix), connected.into(), file.into()] {
            let error = listener(other, "http").expect_err("it does not accept TCP connections");
            let message = "socket `http` does not accept TCP connections: use `ListenStream=` with a port";
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn the_status_is_one_short_line() {
        let long = format!("first {}\nsecond", "é".repeat(MAX_STATUS));
        let text = status(&Snapshot::default(), Some(&long));
        assert!(
            text.starts_with("0 of 0 models ready; the last reload failed: first é"),
            "{text}"
        );
        assert!(text.len() <= MAX_STATUS && !text.contains('\n'));
    }
}
