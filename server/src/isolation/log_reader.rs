//! What a child says apart from answers: its records for the log, and whatever it or a library of it prints.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ChildStderr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use log::Level;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, ioctl_fionbio};

use super::log_records;
use super::process::Bell;

/// Most bytes of one printed line; a longer one is written in pieces.
const MOST_LINE: usize = 4 << 10;

/// A thread that writes what a child says to the server's log, until the child has ended and all is written.
pub(super) struct Outputs {
    end: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl Outputs {
    /// Begins to listen to a child of `model`. `name` is that of the thread.
    pub(super) fn listen(
        name: String,
        model: &str,
        stderr: ChildStderr,
        records: OwnedFd,
    ) -> io::Result<Self> {
        ioctl_fionbio(&stderr, true)?;
        let end = Arc::new(Bell::new()?);
        let mut listener = Listener {
            printed: Some(stderr),
            line: Vec::new(),
            target: format!("model::{model}::stderr"),
            model: model.to_owned(),
            records: Some(records),
            buffer: Vec::new(),
        };
        let thread = thread::Builder::new().name(name).spawn({
            let end = end.clone();
            move || listener.run(&end)
        })?;
        Ok(Self {
            end,
            thread: Some(thread),
        })
    }
}

impl Drop for Outputs {
    /// Waits until all that has been said is written.
    fn drop(&mut self) {
        self.end.ring();
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, there is nothing more to write.
            let _ = thread.join();
        }
    }
}

struct Listener {
    printed: Option<ChildStderr>,
    /// The line that is not complete.
    line: Vec<u8>,
    target: String,
    model: String,
    records: Option<OwnedFd>,
    buffer: Vec<u8>,
}

impl Listener {
    fn run(&mut self, end: &Bell) {
        while self.printed.is_some() || self.records.is_some() {
            let ended = match self.wait(end) {
                Ok(ended) => ended,
                Err(error) => {
                    log::error!(target: &self.target, model = self.model.as_str(); "what the process says cannot be read any more: {error}");
                    return;
                }
            };
            self.write_records();
            self.write_lines();
            // A process that it has left behind may hold them open.
            if ended {
                break;
            }
        }
        self.write_line();
    }

    /// Waits until there is something to do. Whether the end has been rung.
    fn wait(&self, end: &Bell) -> io::Result<bool> {
        let open: [Option<BorrowedFd<'_>>; 2] = [
            self.printed.as_ref().map(AsFd::as_fd),
            self.records.as_ref().map(AsFd::as_fd),
        ];
        let mut polled: Vec<PollFd<'_>> = std::iter::once(end.fd())
            .chain(open.into_iter().flatten())
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        match poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => Ok(!polled[0].revents().is_empty()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn write_records(&mut self) {
        if let Some(socket) = &self.records
            && !log_records::write_pending(socket, &mut self.buffer).unwrap_or(false)
        {
            self.records = None;
        }
    }

    fn write_lines(&mut self) {
        let Some(mut printed) = self.printed.take() else {
            return;
        };
        let mut buffer = [0; 4 << 10];
        loop {
            match printed.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => self.take(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return,
            }
        }
        self.printed = Some(printed);
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            self.write_line();
            bytes = &bytes[end + 1..];
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() >= MOST_LINE {
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
