//! The output of the probe's child process: finds the report in its standard output, and keeps the end of its standard error.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ChildStderr, ChildStdout};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::REPORT_PREFIX;

/// Maximum length of a report, which is a manifest with its schemas.
pub(super) const MAX_REPORT_BYTES: usize = 4 << 20;
/// Maximum number of bytes of the child's standard error that are kept.
pub(super) const MAX_STDERR_BYTES: usize = 2 << 10;

/// The standard output and standard error of the child.
pub(super) struct ChildOutput {
    stdout: Stream<ChildStdout>,
    /// Position in the standard output up to which all lines are known not to be the report.
    scanned: usize,
    stderr: Stream<ChildStderr>,
}

impl ChildOutput {
    /// Takes the streams from `child`, which must have been started with pipes.
    pub(super) fn of(child: &mut Child) -> Self {
        Self {
            stdout: Stream::new(child.stdout.take()),
            scanned: 0,
            stderr: Stream::new(child.stderr.take()),
        }
    }

    /// Whether the standard output is longer than a report may be.
    pub(super) fn is_too_long(&self) -> bool {
        self.stdout.bytes.len() > MAX_REPORT_BYTES
    }

    /// Reads what is available, and waits for at most `timeout` if nothing is.
    pub(super) fn read(&mut self, timeout: Duration) -> io::Result<()> {
        let ready = {
            let mut polled: Vec<PollFd<'_>> = [self.stdout.fd(), self.stderr.fd()]
                .into_iter()
                .flatten()
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            // If both streams are closed, only the exit of the process remains to be waited for.
            let timeout = if polled.is_empty() {
                timeout.min(Duration::from_millis(1))
            } else {
                timeout
            };
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: timeout.subsec_nanos().into(),
            };
            match poll(&mut polled, Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut ready = polled.iter().map(|fd| !fd.revents().is_empty());
            let mut next = |open: bool| open && ready.next().unwrap_or(false);
            [next(self.stdout.fd().is_some()), next(self.stderr.fd().is_some())]
        };
        if ready[0] {
            self.stdout.read_once()?;
        }
        if ready[1] {
            self.stderr.read_once()?;
            let surplus = self.stderr.bytes.len().saturating_sub(MAX_STDERR_BYTES);
            self.stderr.bytes.drain(..surplus);
        }
        Ok(())
    }

    /// The report, if its line is complete. Examines each line once.
    pub(super) fn report_line(&mut self) -> Option<&[u8]> {
        let bytes = &self.stdout.bytes;
        while let Some(length) = bytes[self.scanned..].iter().position(|&byte| byte == b'\n') {
            let line = &bytes[self.scanned..self.scanned + length];
            if let Some(report) = line.strip_prefix(REPORT_PREFIX.as_bytes()) {
                return Some(report);
            }
            self.scanned += length + 1;
        }
        None
    }

    /// The end of the child's standard error as one line that starts with `; `, or an empty string.
    pub(super) fn stderr_tail(&self) -> String {
        let printed = String::from_utf8_lossy(&self.stderr.bytes);
        let lines: Vec<&str> = printed
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        match lines.as_slice() {
            [] => String::new(),
            [.., _] => format!(
                "; it printed: {}",
                lines[lines.len().saturating_sub(4)..].join(" | ")
            ),
        }
    }
}

/// One output stream of the child, and the bytes that were read from it.
struct Stream<R> {
    stream: Option<R>,
    bytes: Vec<u8>,
}

impl<R: Read + AsFd> Stream<R> {
    fn new(stream: Option<R>) -> Self {
        Self {
            stream,
            bytes: Vec::new(),
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    /// Reads once from a stream that `poll` reported as readable, which does not block.
    fn read_once(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        let mut buffer = [0; 16 << 10];
        match stream.read(&mut buffer) {
            Ok(0) => self.stream = None,
            Ok(read) => self.bytes.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
