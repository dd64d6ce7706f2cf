//! A stop event that can be waited for together with other file descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::clock;

/// An event that stays signaled, for threads that wait for several descriptors.
pub(super) struct EventFd(OwnedFd);

impl EventFd {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Wakes all current and later waiters.
    pub(super) fn signal(&self) {
        // Fails only if the counter overflows, in which case the event is signaled already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Waits until the event is signaled, for at most `timeout`. Returns whether it is.
    pub(super) fn wait(&self, timeout: Duration) -> io::Result<bool> {
        wait_readable(&[Some(self.fd()), None], Some(timeout)).map(|ready| ready[0])
    }
}

/// Waits until at least one of the descriptors is readable. Returns which ones are.
pub(super) fn wait_readable(
    fds: &[Option<BorrowedFd<'_>>; 2],
    timeout: Option<Duration>,
) -> io::Result<[bool; 2]> {
    let deadline = timeout.map(|timeout| clock::now() + timeout);
    loop {
        let mut polled: Vec<PollFd<'_>> = fds
            .iter()
            .flatten()
            .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
            .collect();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(clock::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let mut ready = polled.iter().map(|fd| !fd.revents().is_empty());
        return Ok(fds.map(|fd| fd.is_some() && ready.next().unwrap_or(false)));
    }
}
