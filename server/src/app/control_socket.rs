//! The control socket of a server: the command `reload` asks it to reload, and receives the outcome.
//!
//! A signal cannot return an outcome, and HTTP can be encrypted, need a key, or listen elsewhere. The socket is a Unix socket
//! with an abstract name that contains the process ID. It serves clients of the same user and root, one after the other. A
//! client sends one line, and receives the outcome as JSON.

use std::convert::Infallible;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::time::Duration;

use rustix::process::{Uid, geteuid};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

use super::models::Command;

/// The name of the socket of a process, without its ID.
const NAME_PREFIX: &str = "inference-server/";

/// The request for a reload.
const RELOAD: &str = "reload\n";

/// Time for a client to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after a failure to accept a connection.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The outcome of a reload: what changed, or why it failed.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Reloaded(String),
    Failed(String),
}

fn address(process: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("{NAME_PREFIX}{process}"))
}

/// Opens the socket of this process and serves it, if it can be opened. Must be called in a Tokio runtime. Never returns.
pub(super) async fn serve(commands: Sender<Command>) -> Infallible {
    let listener = match open() {
        Ok(listener) => listener,
        Err(error) => {
            log::warn!(
                "cannot open the control socket: {error}; `inference-server reload` does not reach this server, but SIGHUP does"
            );
            return std::future::pending().await;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = serve_client(stream, &commands).await {
                    log::debug!("control socket: {error}");
                }
            }
            Err(error) => {
                log::debug!("control socket: {error}");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
    }
}

fn open() -> io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::bind_addr(&address(std::process::id())?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn serve_client(mut stream: UnixStream, commands: &Sender<Command>) -> io::Result<()> {
    if !may_control(Uid::from_raw(stream.peer_cred()?.uid())) {
        return Err(io::Error::other("rejected a client of another user"));
    }
    let mut request = [0; RELOAD.len()];
    tokio::time::timeout(REQUEST_TIMEOUT, stream.read_exact(&mut request)).await??;
    if request != RELOAD.as_bytes() {
        return Err(io::Error::other("unknown request"));
    }
    let (reply, outcome) = oneshot::channel();
    // Dropping the command, which happens during the shutdown, closes the channel.
    let _ = commands.send(Command::Reload { reply: Some(reply) });
    let outcome = match outcome.await {
        Ok(Ok(summary)) => Outcome::Reloaded(summary),
        Ok(Err(reason)) => Outcome::Failed(reason),
        Err(_) => Outcome::Failed("the server is shutting down".to_owned()),
    };
    stream.write_all(&serde_json::to_vec(&outcome)?).await
}

/// Whether a client of this user may control the server: the same user, who could send it signals as well, or root.
fn may_control(user: Uid) -> bool {
    user == geteuid() || user.is_root()
}

/// Why a running server was not reloaded.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// No server is running.
    #[error("no running server found on this machine: start it, or name its process with `--pid`")]
    NoServer,
    /// More than one is running.
    #[error("several servers are running, with the process IDs {}: choose one with `--pid`", list(.0))]
    Several(Vec<u32>),
    /// The servers cannot be listed.
    #[error("cannot list the sockets of running servers in /proc/net/unix: name the process with `--pid`")]
    List(#[source] io::Error),
    /// The process has no control socket.
    #[error("cannot reach a server with the process ID {process}")]
    Unreachable {
        /// The process ID.
        process: u32,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another process answers in its place.
    #[error("the control socket of process {0} belongs to another process")]
    Impostor(u32),
    /// The server closed the connection.
    #[error(
        "the server with the process ID {0} did not answer: it has exited, or it belongs to another user"
    )]
    NoAnswer(u32),
    /// The server did not answer in time.
    #[error("the reload has not finished after {} s; it continues", .0.as_secs_f64())]
    Timeout(Duration),
    /// The reload failed.
    #[error("reload failed; the server keeps its current configuration: {0}")]
    Failed(String),
}

fn list(processes: &[u32]) -> String {
    let texts: Vec<String> = processes.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// Asks a running server to reload and waits for the outcome. Returns what changed. Without a `process`, asks the only server
/// that is running.
///
/// # Errors
/// The reload failed, or the server cannot be reached.
pub fn reload(process: Option<u32>, timeout: Duration) -> Result<String, ReloadError> {
    let process = match process {
        Some(process) => process,
        None => only_server()?,
    };
    let unreachable = |source| ReloadError::Unreachable { process, source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(unreachable)?;
    runtime.block_on(async {
        let stream = connect(process).map_err(unreachable)?;
        // Any process can take a name that is free.
        let peer = stream.peer_cred().map_err(unreachable)?;
        if peer.pid().and_then(|peer| u32::try_from(peer).ok()) != Some(process) {
            return Err(ReloadError::Impostor(process));
        }
        let line = tokio::time::timeout(timeout, ask(stream))
            .await
            .map_err(|_| ReloadError::Timeout(timeout))?;
        match line.ok().and_then(|line| serde_json::from_str(&line).ok()) {
            Some(Outcome::Reloaded(summary)) => Ok(summary),
            Some(Outcome::Failed(reason)) => Err(ReloadError::Failed(reason)),
            None => Err(ReloadError::NoAnswer(process)),
        }
    })
}

fn connect(process: u32) -> io::Result<UnixStream> {
    // Tokio cannot connect to abstract names.
    let stream = std::os::unix::net::UnixStream::connect_addr(&address(process)?)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Requests a reload and returns the answer, which is empty if the server closes the connection.
async fn ask(mut stream: UnixStream) -> io::Result<String> {
    stream.write_all(RELOAD.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn only_server() -> Result<u32, ReloadError> {
    let sockets = std::fs::read_to_string("/proc/net/unix").map_err(ReloadError::List)?;
    match servers(&sockets)[..] {
        [] => Err(ReloadError::NoServer),
        [process] => Ok(process),
        ref several => Err(ReloadError::Several(several.to_vec())),
    }
}

/// The processes that have a control socket, according to `/proc/net/unix`.
fn servers(sockets: &str) -> Vec<u32> {
    let names = sockets
        .lines()
        .filter_map(|line| line.split_whitespace().nth(7)?.strip_prefix('@'));
    let mut processes: Vec<u32> = names
        .filter_map(|name| name.strip_prefix(NAME_PREFIX)?.parse().ok())
        .collect();
    processes.sort_unstable();
    processes.dedup();
    processes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_found_by_the_names_of_their_sockets() {
        let sockets = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 100 @inference-server/42\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 101 @inference-server/42\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 102 @inference-server/7\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 103 @inference-server/x\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 104 /run/inference-server/9\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 105\n";
        assert_eq!(servers(sockets), [7, 42]);
        assert!(servers("").is_empty());
    }

    #[test]
    fn only_the_same_user_and_root_control_a_server() {
        assert!(may_control(geteuid()));
        assert!(may_control(Uid::ROOT));
        assert!(!may_control(Uid::from_raw(geteuid().as_raw().wrapping_add(1))));
    }

    #[test]
    fn a_socket_of_another_process_is_not_used() {
        // Greater than any process ID.
        let process = std::process::id() | 1 << 30;
        let name = address(process).expect("a short name");
        let listener = std::os::unix::net::UnixListener::bind_addr(&name);
        let _listener = listener.expect("no other test uses this name");
        let error = reload(Some(process), Duration::from_secs(60)).expect_err("it belongs to this process");
        assert!(matches!(error, ReloadError::Impostor(_)), "{error}");
    }
}
