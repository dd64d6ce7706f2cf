//! Runs as the first process of a container.
//!
//! When the parent of a process exits, for example when a worker process with a helper is killed, the process becomes a child of
//! the first process, and remains a zombie until that one reaps it. The server cannot reap unknown children without stealing the
//! exit status of processes that it or a plugin waits for. Therefore, as process 1 or as a subreaper, this program starts the
//! server as a child process, reaps all children, and forwards signals.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode};

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, child_subreaper, getpid, getppid, kill_process,
    set_parent_process_death_signal, wait,
};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// The variable that tells the server that this process has started it.
const STARTED_BY: &str = "_INFERENCE_SERVER_STARTED_BY";

/// Signals that are forwarded to the server.
const FORWARDED: [Signal; 6] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
];

/// Whether orphans become children of this process.
pub fn adopts_orphans() -> bool {
    getpid().is_init() || child_subreaper().is_ok_and(|subreaper| subreaper.is_some())
}

/// Runs the server as a child process, reaps all other children, and returns the exit code of the server.
///
/// # Errors
/// The child process cannot be started or waited for.
pub fn run_as_child() -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        // Before the child process is started, so that its exit is not missed.
        let mut child_exited = signal(SignalKind::child())?;
        let mut forwarded = FORWARDED
            .into_iter()
            .map(|kind| Ok((kind, signal(SignalKind::from_raw(kind.as_raw()))?)))
            .collect::<io::Result<Vec<_>>>()?;
        let child = start()?;
        let server = Pid::from_child(&child);
        loop {
            if let Some(code) = reap(server)? {
                return Ok(code);
            }
            tokio::select! {
                _ = child_exited.recv() => {}
                received = next(&mut forwarded) => {
                    // The server may have exited in the meantime.
                    let _ = kill_process(server, received);
                }
            }
        }
    })
}

fn start() -> io::Result<Child> {
    let mut arguments = std::env::args_os();
    let name = arguments
        .next()
        .unwrap_or_else(|| OsString::from("inference-server"));
    Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .env(STARTED_BY, std::process::id().to_string())
        .spawn()
}

async fn next(streams: &mut [(Signal, Stream)]) -> Signal {
    std::future::poll_fn(|context| {
        for (kind, stream) in streams.iter_mut() {
            if stream.poll_recv(context).is_ready() {
                return std::task::Poll::Ready(*kind);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

/// Reaps all children that have exited. Returns the exit code of the server if it is one of them.
fn reap(server: Pid) -> io::Result<Option<ExitCode>> {
    while let Some((pid, status)) = wait(WaitOptions::NOHANG)? {
        if pid == server {
            return Ok(Some(exit_code(status)));
        }
    }
    Ok(None)
}

/// The exit code for a status, like shells: 128 plus the signal, if a signal terminated the server.
fn exit_code(status: WaitStatus) -> ExitCode {
    let signaled = status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or(signaled).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Makes the server exit together with the process that started it as its child, if there is one.
pub fn exit_with_parent() {
    let started_by = std::env::var(STARTED_BY)
        .ok()
        .and_then(|pid| pid.parse::<i32>().ok());
    if let (Some(parent), Some(started_by)) = (getppid(), started_by)
        && parent.as_raw_pid() == started_by
    {
        // Errors are ignored: when the first process of a container exits, the kernel kills all others anyway.
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
    }
}
