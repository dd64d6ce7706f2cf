//! A lane: one connection between the server and a child, on which messages go to and fro in turns.
//!
//! A lane is a pair of `SOCK_SEQPACKET` sockets and two memory files that both sides have mapped, one for each direction
//! (`shared_memory`). A message of up to [`MOST_INLINE`] bytes is one datagram. A longer one is copied into the memory, and
//! the datagram only says how long it is.
//!
//! Since the sides take turns, no socket buffer ever fills, and there is nothing to deadlock on. What is received is a copy
//! of its own, which the sender cannot change any more, or for a child ([`Lane::receive_lent`]) the memory itself: then
//! [`Lane::send`] gives it back, together with the turn.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType};

use super::codec::Encoder;
use super::shared_memory::{self, Incoming, Outgoing};
use crate::clock;

/// Up to this length a message goes through the socket. Measured with `benches/isolation`: at this length either way takes
/// 14 µs, at twice of it the socket 17 µs and the memory 16 µs.
pub(super) const MOST_INLINE: usize = 16 << 10;

/// A wait as short as this is spent awake, if the last one was: on an idle processor it takes almost as long to wake up.
const SHORT_WAIT: Duration = Duration::from_micros(100);

const NO_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Maximum length of a message in bytes. Longer ones are not sent, and a child that announces one is not believed.
pub(super) const MAX_MESSAGE: u64 = 4 << 30;

/// The last byte of a datagram: the message is what precedes it.
const INLINE: u8 = 0;
/// The last byte of a datagram: the message is in the memory, and its length is what precedes it.
const SHARED: u8 = 1;

/// Why a message did not come or go.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaneError {
    /// The other side is gone.
    #[error("the connection is closed")]
    Closed,
    /// The other side did not answer in time.
    #[error("no answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The message is longer than a lane can carry. Nothing was sent.
    #[error("{length} bytes, and a message has at most {most}")]
    TooLong {
        /// Length of the message.
        length: u64,
        /// The limit.
        most: u64,
    },
    /// There is no memory for the message, which was not sent or not read.
    #[error("no memory for a message")]
    NoMemory(#[source] io::Error),
    /// What came is no message.
    #[error("nonsense: {0}")]
    Nonsense(String),
    /// The system refused.
    #[error("the connection failed")]
    System(#[source] io::Error),
}

impl From<Errno> for LaneError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Self::Closed,
            errno => Self::System(errno.into()),
        }
    }
}

/// One side of a lane.
#[derive(Debug)]
pub(super) struct Lane {
    socket: Arc<OwnedFd>,
    outgoing: Outgoing,
    incoming: Incoming,
    timeout: Option<Duration>,
    /// Maximum length of a message to send.
    max_message: u64,
    /// The last datagram.
    datagram: Vec<u8>,
    /// Whether the last wait was no longer than [`SHORT_WAIT`].
    prompt: bool,
}

/// What the other process makes its side of.
#[derive(Debug)]
pub(super) struct FarEnd {
    pub(super) socket: OwnedFd,
    /// Where it finds messages.
    pub(super) incoming: OwnedFd,
    /// Where it puts them.
    pub(super) outgoing: OwnedFd,
}

impl Lane {
    /// A lane, and its other side.
    pub(super) fn pair() -> io::Result<(Self, FarEnd)> {
        let (near, far) = socket_pair()?;
        let outgoing = Outgoing::from(shared_memory::create()?);
        let incoming = Incoming::from(shared_memory::create()?);
        let far = FarEnd {
            socket: far,
            incoming: outgoing.share()?,
            outgoing: incoming.share()?,
        };
        Ok((Self::new(near, outgoing, incoming), far))
    }

    fn new(socket: OwnedFd, outgoing: Outgoing, incoming: Incoming) -> Self {
        Self {
            socket: Arc::new(socket),
            outgoing,
            incoming,
            timeout: None,
            max_message: MAX_MESSAGE,
            datagram: Vec::with_capacity(MOST_INLINE + 1),
            prompt: false,
        }
    }

    /// The socket, with which [`close`] can be called from another thread.
    pub(super) fn socket(&self) -> Arc<OwnedFd> {
        self.socket.clone()
    }

    /// How long [`receive`](Self::receive) waits from now on; `None` is for ever.
    pub(super) fn set_timeout(&mut self, timeout: Option<Duration>) -> Result<(), LaneError> {
        if self.timeout != timeout {
            set_socket_timeout(&self.socket, Timeout::Recv, timeout)?;
            self.timeout = timeout;
        }
        Ok(())
    }

    /// Sends no longer messages from now on.
    #[cfg(test)]
    pub(super) fn limit(&mut self, max_message: u64) {
        self.max_message = max_message;
    }

    /// Sends a message, and gives back what was lent. Does not block: whoever sends knows that the other side waits, or has
    /// room.
    pub(super) fn send(&mut self, message: Encoder<'_>) -> Result<(), LaneError> {
        self.incoming.reclaim().map_err(LaneError::System)?;
        self.interject(message)
    }

    /// Sends a message that the other side answers with a short one, and keeps what was lent meanwhile.
    pub(super) fn interject(&mut self, mut message: Encoder<'_>) -> Result<(), LaneError> {
        let length = message.len();
        if length as u64 > self.max_message {
            return Err(LaneError::TooLong {
                length: length as u64,
                most: self.max_message,
            });
        }
        self.datagram.clear();
        if length <= MOST_INLINE {
            message
                .parts()
                .for_each(|part| self.datagram.extend_from_slice(part));
            self.datagram.push(INLINE);
        } else {
            self.outgoing
                .write(length, message.parts())
                .map_err(LaneError::NoMemory)?;
            self.datagram.extend_from_slice(&(length as u64).to_le_bytes());
            self.datagram.push(SHARED);
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        loop {
            match rustix::net::send(&self.socket, &self.datagram, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(LaneError::TimedOut(Duration::ZERO)),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits for the next message.
    pub(super) fn receive(&mut self) -> Result<Bytes, LaneError> {
        self.receive_with(|incoming, length| incoming.copy(length).map(Bytes::from))
    }

    /// The next message, if it has come already.
    pub(super) fn try_receive(&mut self) -> Result<Option<Bytes>, LaneError> {
        let mut polled = [PollFd::new(&*self.socket, PollFlags::IN)];
        match poll(&mut polled, Some(&NO_WAIT)) {
            Ok(0) | Err(Errno::INTR) => Ok(None),
            Ok(_) => self.receive().map(Some),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits for the next message of a side that is trusted, which stays where it is until the next [`send`](Self::send).
    pub(super) fn receive_lent(&mut self) -> Result<Bytes, LaneError> {
        self.receive_with(Incoming::lend)
    }

    fn receive_with(
        &mut self,
        take: impl FnOnce(&mut Incoming, u64) -> io::Result<Bytes>,
    ) -> Result<Bytes, LaneError> {
        let length = self.receive_datagram()?;
        if length > self.datagram.len() {
            return Err(LaneError::Nonsense(format!("a datagram of {length} bytes")));
        }
        match self.datagram.split_last() {
            // Datagrams are never empty, so this is the end.
            None => Err(LaneError::Closed),
            Some((&INLINE, message)) => Ok(Bytes::copy_from_slice(message)),
            Some((&SHARED, length)) => {
                let length = length
                    .try_into()
                    .map(u64::from_le_bytes)
                    .ok()
                    .filter(|length| *length <= MAX_MESSAGE)
                    .ok_or_else(|| LaneError::Nonsense("a message without a length".to_owned()))?;
                take(&mut self.incoming, length).map_err(|error| match error.kind() {
                    io::ErrorKind::OutOfMemory => LaneError::NoMemory(error),
                    _ => LaneError::Nonsense(format!(
                        "a message of {length} bytes that are not there: {error}"
                    )),
                })
            }
            Some((kind, _)) => Err(LaneError::Nonsense(format!("a datagram of the kind {kind}"))),
        }
    }

    /// Waits for a datagram, and says how long it was; what is too long for a message is cut off.
    fn receive_datagram(&mut self) -> Result<usize, LaneError> {
        self.datagram.clear();
        let begun = clock::now();
        let received = loop {
            let asleep = !self.prompt || begun.elapsed() >= SHORT_WAIT;
            let flags = if asleep {
                RecvFlags::TRUNC
            } else {
                RecvFlags::TRUNC | RecvFlags::DONTWAIT
            };
            match rustix::net::recv(&self.socket, spare_capacity(&mut self.datagram), flags) {
                Ok((_, length)) => break Ok(length),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if !asleep => std::thread::yield_now(),
                Err(Errno::AGAIN) => break Err(LaneError::TimedOut(self.timeout.unwrap_or_default())),
                Err(errno) => break Err(errno.into()),
            }
        };
        self.prompt = begun.elapsed() < SHORT_WAIT;
        received
    }
}

impl FarEnd {
    /// The side of the process that was handed this.
    pub(super) fn into_lane(self) -> Lane {
        Lane::new(self.socket, self.outgoing.into(), self.incoming.into())
    }
}

/// Ends a lane for both sides: whoever waits on it, or will, is told that it is closed. What is under way still arrives.
pub(super) fn close(socket: impl AsFd) {
    // It may have ended already.
    let _ = rustix::net::shutdown(socket, Shutdown::Both);
}

/// Two connected sockets that keep messages apart.
pub(super) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}
