//! The server as the first process of a container.
//!
//! A process whose parent has ended becomes the child of the first process, such as a helper that a killed worker process
//! leaves behind, and stays as a zombie until that reaps it. The server could not reap processes that it does not know
//! without taking the exit status of those that it or a plugin has started. So as the first process, or as a subreaper,
//! this program starts itself once more as the server, and only reaps and passes on signals.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode};

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, child_subreaper, getpid, getppid, kill_process,
    set_parent_process_death_signal, wait,
};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// The variable by which the server learns that this process has started it.
const STARTED_BY: &str = "_INFERENCE_SERVER_STARTED_BY";

/// Signals that are passed on.
const PASSED_ON: [Signal; 6] = [
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

/// Runs the server as a child, reaps all others, and returns the exit code of the server.
///
/// # Errors
/// The child cannot be started or waited for.
pub fn run_as_child() -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        // Before the child is started, so that its end is not missed.
        let mut ended = signal(SignalKind::child())?;
        let mut passed_on = PASSED_ON
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
                _ = ended.recv() => {}
                received = next(&mut passed_on) => {
                    // It may have ended in the meantime.
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

/// Reaps every child that has ended; the exit code if the server is one of them.
fn reap(server: Pid) -> io::Result<Option<ExitCode>> {
    while let Some((pid, status)) = wait(WaitOptions::NOHANG)? {
        if pid == server {
            return Ok(Some(exit_code(status)));
        }
    }
    Ok(None)
}

/// As shells have it: 128 and the number of the signal, if one ended the server.
fn exit_code(status: WaitStatus) -> ExitCode {
    let signaled = status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or(signaled).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Lets the server end with the process that has started it as its child, if one has.
pub fn end_with_parent() {
    let started_by = std::env::var(STARTED_BY)
        .ok()
        .and_then(|pid| pid.parse::<i32>().ok());
    if let (Some(parent), Some(started_by)) = (getppid(), started_by)
        && parent.as_raw_pid() == started_by
    {
        // Not worth failing for: the first process of a container takes all others with it anyway.
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
    }
}
