//! A channel: a connection between the server and a child process on which messages alternate.
//!
//! A channel consists of a pair of `SOCK_SEQPACKET` sockets and two memory files that both sides map, one for each direction
//! (`shared_memory`). A message of up to [`MAX_INLINE`] bytes is one datagram. A longer message is copied into shared memory,
//! and the datagram only contains its length.
//!
//! Because the sides take turns, socket buffers never fill and the channel cannot deadlock. A received message is a copy that the
//! sender cannot change. A child can also receive a message without a copy ([`Channel::receive_borrowed`]); the next
//! [`Channel::send`] returns the memory to the server.

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

use super::encoding::Encoder;
use super::shared_memory::{self, MessageReader, MessageWriter};
use crate::clock;

/// Maximum length of a message that is sent through the socket. Measured with `benches/isolation`: at this length, both ways
/// take 14 µs; at twice the length, the socket takes 17 µs and shared memory 16 µs.
pub(super) const MAX_INLINE: usize = 16 << 10;

/// Waits up to this long spin if the previous wait was short: waking up on an idle CPU would take almost as long.
const SPIN_DURATION: Duration = Duration::from_micros(100);

const NO_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Maximum length of a message in bytes. Longer messages are neither sent nor accepted.
pub(super) const MAX_MESSAGE: u64 = 4 << 30;

/// Last byte of a datagram that contains the message.
const KIND_INLINE: u8 = 0;
/// Last byte of a datagram that contains the length of a message in shared memory.
const KIND_SHARED: u8 = 1;

/// Why a message was not sent or received.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    /// The other side has closed the connection.
    #[error("the connection is closed")]
    Closed,
    /// The other side did not reply in time.
    #[error("no reply within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The message exceeds the maximum length. Nothing was sent.
    #[error("the message has {length} bytes, but the maximum is {max}")]
    TooLong {
        /// Length of the message.
        length: u64,
        /// The maximum.
        max: u64,
    },
    /// There is not enough memory for the message, which was not sent or not received.
    #[error("not enough memory for a message")]
    NoMemory(#[source] io::Error),
    /// The received data is not a valid message.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// A system call failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

impl From<Errno> for ChannelError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Self::Closed,
            errno => Self::Io(errno.into()),
        }
    }
}

/// One side of a channel.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Arc<OwnedFd>,
    writer: MessageWriter,
    reader: MessageReader,
    timeout: Option<Duration>,
    /// Maximum length of a message to send.
    max_message: u64,
    /// The last datagram that was sent or received.
    datagram: Vec<u8>,
    /// Whether the last wait was no longer than [`SPIN_DURATION`].
    spin: bool,
}

/// The file descriptors of the other side of a channel.
#[derive(Debug)]
pub(super) struct PeerEnd {
    pub(super) socket: OwnedFd,
    /// Memory file from which that side reads.
    pub(super) reader: OwnedFd,
    /// Memory file to which that side writes.
    pub(super) writer: OwnedFd,
}

impl Channel {
    /// Creates a channel and the descriptors of its other side.
    pub(super) fn pair() -> io::Result<(Self, PeerEnd)> {
        let (own, peer) = socket_pair()?;
        let writer = MessageWriter::from(shared_memory::create()?);
        let reader = MessageReader::from(shared_memory::create()?);
        let peer = PeerEnd {
            socket: peer,
            reader: writer.duplicate()?,
            writer: reader.duplicate()?,
        };
        Ok((Self::new(own, writer, reader), peer))
    }

    fn new(socket: OwnedFd, writer: MessageWriter, reader: MessageReader) -> Self {
        Self {
            socket: Arc::new(socket),
            writer,
            reader,
            timeout: None,
            max_message: MAX_MESSAGE,
            datagram: Vec::with_capacity(MAX_INLINE + 1),
            spin: false,
        }
    }

    /// The socket, with which another thread can [`close`] the channel.
    pub(super) fn socket(&self) -> Arc<OwnedFd> {
        self.socket.clone()
    }

    /// Sets how long [`receive`](Self::receive) waits. `None` waits without limit.
    pub(super) fn set_timeout(&mut self, timeout: Option<Duration>) -> Result<(), ChannelError> {
        if self.timeout != timeout {
            set_socket_timeout(&self.socket, Timeout::Recv, timeout)?;
            self.timeout = timeout;
        }
        Ok(())
    }

    /// Sets the maximum length of a message to send.
    #[cfg(test)]
    pub(super) fn set_max_message(&mut self, max_message: u64) {
        self.max_message = max_message;
    }

    /// Sends a message and returns borrowed memory. Does not block, because the other side is waiting for it or the socket buffer
    /// has room.
    pub(super) fn send(&mut self, message: Encoder<'_>) -> Result<(), ChannelError> {
        self.reader.reclaim().map_err(ChannelError::Io)?;
        self.send_without_reclaim(message)
    }

    /// Sends a message to which the other side replies with a short one, and keeps borrowed memory.
    pub(super) fn send_without_reclaim(&mut self, mut message: Encoder<'_>) -> Result<(), ChannelError> {
        let length = message.len();
        if length as u64 > self.max_message {
            return Err(ChannelError::TooLong {
                length: length as u64,
                max: self.max_message,
            });
        }
        self.datagram.clear();
        if length <= MAX_INLINE {
            message
                .parts()
                .for_each(|part| self.datagram.extend_from_slice(part));
            self.datagram.push(KIND_INLINE);
        } else {
            self.writer
                .write(length, message.parts())
                .map_err(ChannelError::NoMemory)?;
            self.datagram.extend_from_slice(&(length as u64).to_le_bytes());
            self.datagram.push(KIND_SHARED);
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        loop {
            match rustix::net::send(&self.socket, &self.datagram, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(ChannelError::TimedOut(Duration::ZERO)),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits for the next message.
    pub(super) fn receive(&mut self) -> Result<Bytes, ChannelError> {
        self.receive_with(|reader, length| reader.read(length).map(Bytes::from))
    }

    /// Returns the next message if it has already arrived.
    pub(super) fn try_receive(&mut self) -> Result<Option<Bytes>, ChannelError> {
        let mut polled = [PollFd::new(&*self.socket, PollFlags::IN)];
        match poll(&mut polled, Some(&NO_WAIT)) {
            Ok(0) | Err(Errno::INTR) => Ok(None),
            Ok(_) => self.receive().map(Some),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits for the next message of a trusted side. It stays in shared memory until the next [`send`](Self::send).
    pub(super) fn receive_borrowed(&mut self) -> Result<Bytes, ChannelError> {
        self.receive_with(MessageReader::borrow)
    }

    fn receive_with(
        &mut self,
        take: impl FnOnce(&mut MessageReader, u64) -> io::Result<Bytes>,
    ) -> Result<Bytes, ChannelError> {
        let length = self.receive_datagram()?;
        if length > self.datagram.len() {
            return Err(ChannelError::Malformed(format!("datagram of {length} bytes")));
        }
        match self.datagram.split_last() {
            // Datagrams are never empty, so the connection has been closed.
            None => Err(ChannelError::Closed),
            Some((&KIND_INLINE, message)) => Ok(Bytes::copy_from_slice(message)),
            Some((&KIND_SHARED, length)) => {
                let length = length
                    .try_into()
                    .map(u64::from_le_bytes)
                    .ok()
                    .filter(|length| *length <= MAX_MESSAGE)
                    .ok_or_else(|| ChannelError::Malformed("invalid length".to_owned()))?;
                take(&mut self.reader, length).map_err(|error| match error.kind() {
                    io::ErrorKind::OutOfMemory => ChannelError::NoMemory(error),
                    _ => ChannelError::Malformed(format!(
                        "its {length} bytes are not in shared memory: {error}"
                    )),
                })
            }
            Some((kind, _)) => Err(ChannelError::Malformed(format!(
                "unknown kind {kind} of datagram"
            ))),
        }
    }

    /// Waits for a datagram and returns its length. A datagram that is too long is truncated.
    fn receive_datagram(&mut self) -> Result<usize, ChannelError> {
        self.datagram.clear();
        let started = clock::now();
        let received = loop {
            let blocking = !self.spin || started.elapsed() >= SPIN_DURATION;
            let flags = if blocking {
                RecvFlags::TRUNC
            } else {
                RecvFlags::TRUNC | RecvFlags::DONTWAIT
            };
            match rustix::net::recv(&self.socket, spare_capacity(&mut self.datagram), flags) {
                Ok((_, length)) => break Ok(length),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if !blocking => std::thread::yield_now(),
                Err(Errno::AGAIN) => break Err(ChannelError::TimedOut(self.timeout.unwrap_or_default())),
                Err(errno) => break Err(errno.into()),
            }
        };
        self.spin = started.elapsed() < SPIN_DURATION;
        received
    }
}

impl PeerEnd {
    /// The channel, in the process that received the descriptors.
    pub(super) fn into_channel(self) -> Channel {
        Channel::new(self.socket, self.writer.into(), self.reader.into())
    }
}

/// Closes a channel for both sides and wakes threads that wait on it. Messages that were already sent still arrive.
pub(super) fn close(socket: impl AsFd) {
    // The connection may be closed already.
    let _ = rustix::net::shutdown(socket, Shutdown::Both);
}

/// Creates two connected sockets that preserve message boundaries.
pub(super) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}
