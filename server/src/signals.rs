//! Signal handling.
//!
//! By default, many signals terminate a process, including some that tools send to all processes of a name or group,
//! such as SIGUSR1. Only SIGTERM and SIGINT shut the server down. SIGQUIT, SIGABRT and the signals of a crash keep
//! their default action, which is to terminate with a core dump. Rust's runtime ignores SIGPIPE.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// A signal that the process received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: reload the configuration.
    Reload,
    /// SIGTERM or SIGINT: shut down.
    Terminate,
    /// A signal that has no effect, with its name.
    Ignored(&'static str),
}

/// Signals that terminate a process by default and have no effect here. SIGXFSZ is sent for a write beyond the file
/// size limit; the write also fails with an error.
const IGNORED: [(i32, &str); 9] = [
    (libc::SIGUSR1, "SIGUSR1"),
    (libc::SIGUSR2, "SIGUSR2"),
    (libc::SIGALRM, "SIGALRM"),
    (libc::SIGVTALRM, "SIGVTALRM"),
    (libc::SIGPROF, "SIGPROF"),
    (libc::SIGIO, "SIGIO"),
    (libc::SIGPWR, "SIGPWR"),
    (libc::SIGSTKFLT, "SIGSTKFLT"),
    (libc::SIGXFSZ, "SIGXFSZ"),
];

/// The installed signal handlers. None of their signals terminates the process.
pub struct Signals {
    hangup: Stream,
    terminate: Stream,
    interrupt: Stream,
    ignored: Vec<(Stream, &'static str)>,
}

impl Signals {
    /// Installs the handlers. Must be called in a Tokio runtime.
    pub fn new() -> io::Result<Self> {
        let real_time = (libc::SIGRTMIN()..=libc::SIGRTMAX()).map(|number| (number, "a real-time signal"));
        let ignored = IGNORED.into_iter().chain(real_time);
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            ignored: ignored
                .map(|(number, name)| Ok((signal(SignalKind::from_raw(number))?, name)))
                .collect::<io::Result<_>>()?,
        })
    }

    /// Waits for the next signal. Cancel-safe.
    pub async fn next(&mut self) -> Signal {
        let ignored = &mut self.ignored;
        let next_ignored = poll_fn(|context| {
            for (stream, name) in ignored.iter_mut() {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(*name);
                }
            }
            Poll::Pending
        });
        tokio::select! {
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Terminate,
            name = next_ignored => Signal::Ignored(name),
        }
    }
}
