//! Signals that the process handles.
//!
//! By default many signals terminate a process, among them some that tools send to every process of a name or group, such
//! as SIGUSR1. Only those that ask for it end the server. SIGQUIT, SIGABRT and the signals of a crash keep their default
//! action, which is to terminate with a core dump; SIGPIPE is ignored by Rust's runtime.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// A request to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: reload the configuration.
    Reload,
    /// SIGTERM or SIGINT: shut down.
    Terminate,
    /// A signal without a meaning here, by its name.
    Ignored(&'static str),
}

/// Signals that terminate a process by default and mean nothing here. SIGXFSZ is sent for a write beyond the file size
/// limit, which fails with an error as well.
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

/// Handlers for the signals of this process. Once they are installed, none of these signals terminates it.
pub struct Signals {
    hangup: Stream,
    terminate: Stream,
    interrupt: Stream,
    ignored: Vec<(Stream, &'static str)>,
}

impl Signals {
    /// Installs the handlers. Must be called within a tokio runtime.
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
