//! Reads the output of a child process, which consists of log records and printed lines, and writes it to the server's log.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ChildStderr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use log::Level;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, ioctl_fionbio};

use super::event_fd::EventFd;
use super::log_records;

/// Maximum length of a printed line. Longer lines are split.
const MAX_LINE_BYTES: usize = 4 << 10;

/// A thread that logs the output of a child process until the process has exited.
pub(super) struct LogReader {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl LogReader {
    /// Starts the thread `name` for a child process of `model`.
    pub(super) fn start(
        name: String,
        model: &str,
        stderr: ChildStderr,
        log_socket: OwnedFd,
    ) -> io::Result<Self> {
        ioctl_fionbio(&stderr, true)?;
        let stop = Arc::new(EventFd::new()?);
        let mut reader = ReaderThread {
            stderr: Some(stderr),
            line: Vec::new(),
            target: format!("model::{model}::stderr"),
            model: model.to_owned(),
            log_socket: Some(log_socket),
            buffer: Vec::new(),
        };
        let thread = thread::Builder::new().name(name).spawn({
            let stop = stop.clone();
            move || reader.run(&stop)
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for LogReader {
    /// Waits until all output has been logged.
    fn drop(&mut self) {
        self.stop.signal();
        if let Some(thread) = self.thread.take() {
            // The thread does not panic. If it did, nothing more could be logged.
            let _ = thread.join();
        }
    }
}

struct ReaderThread {
    stderr: Option<ChildStderr>,
    /// The current incomplete line.
    line: Vec<u8>,
    target: String,
    model: String,
    log_socket: Option<OwnedFd>,
    buffer: Vec<u8>,
}

impl ReaderThread {
    fn run(&mut self, stop: &EventFd) {
        while self.stderr.is_some() || self.log_socket.is_some() {
            let stopped = match self.wait(stop) {
                Ok(stopped) => stopped,
                Err(error) => {
                    log::error!(target: &self.target, model = self.model.as_str(); "cannot read the output of the worker process: {error}");
                    return;
                }
            };
            self.write_records();
            self.write_lines();
            // Does not wait for the end of the streams: a process that the child has started may keep them open.
            if stopped {
                break;
            }
        }
        self.write_line();
    }

    /// Waits for output. Returns whether `stop` is signaled.
    fn wait(&self, stop: &EventFd) -> io::Result<bool> {
        let open: [Option<BorrowedFd<'_>>; 2] = [
            self.stderr.as_ref().map(AsFd::as_fd),
            self.log_socket.as_ref().map(AsFd::as_fd),
        ];
        let mut polled: Vec<PollFd<'_>> = std::iter::once(stop.fd())
            .chain(open.into_iter().flatten())
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        match poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => Ok(!polled[0].revents().is_empty()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn write_records(&mut self) {
        if let Some(socket) = &self.log_socket
            && !log_records::forward_pending(socket, &mut self.buffer).unwrap_or(false)
        {
            self.log_socket = None;
        }
    }

    fn write_lines(&mut self) {
        let Some(mut stderr) = self.stderr.take() else {
            return;
        };
        let mut buffer = [0; 4 << 10];
        loop {
            match stderr.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => self.push(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return,
            }
        }
        self.stderr = Some(stderr);
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            self.write_line();
            bytes = &bytes[end + 1..];
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() >= MAX_LINE_BYTES {
            self.write_line();
        }
    }

    fn write_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        let line = line.trim_end();
        if !line.is_empty() {
            log::log!(target: &self.target, Level::Warn, model = self.model.as_str(); "{line}");
        }
        self.line.clear();
    }
}
