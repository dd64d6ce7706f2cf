//! A lane: one connection between the server and a child, on which messages go to and fro in turns.
//!
//! A lane is a pair of `SOCK_SEQPACKET` sockets and a memory file that both sides have open. A message of up to
//! [`MOST_INLINE`] bytes is one datagram. A longer one is written to the memory file, and the datagram only says how long
//! it is: the kernel copies it once for each side, and no byte of it passes through the socket. The file is read and
//! written with `pread` and `pwrite`, never mapped, so there is no `unsafe`, and a child that cuts the file short under
//! the server's hands is a read that ends early and not a SIGBUS.
//!
//! Since the sides take turns, one file serves both directions, no socket buffer ever fills, and there is nothing to
//! deadlock on. Every message that is received is a copy of its own: the sender cannot change it any more.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags, SocketType,
};

use super::shared_memory::SharedMemory;
use super::wire::Encoder;

/// Up to this length a message goes through the socket. Measured with `benches/isolation`: just below it a batch takes 16 µs,
/// just above it, by the memory file, 22 µs.
pub(super) const MOST_INLINE: usize = 64 << 10;

/// Most bytes of one message. A child that announces more is not believed.
const MOST_MESSAGE: u64 = 4 << 30;

/// Most parts of a message that are sent as they lie: the kernel takes 1024, and more than a few cost more than a copy.
const MOST_PARTS: usize = 256;

/// Up to this length what has been received is copied, so that its buffer serves again; above it is handed on.
const COPIED: usize = 8 << 10;

const INLINE: u8 = 0;
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
    memory: SharedMemory,
    timeout: Option<Duration>,
    /// Where the next message comes in.
    buffer: Vec<u8>,
}

/// What the other process makes its side of.
#[derive(Debug)]
pub(super) struct FarEnd {
    pub(super) socket: OwnedFd,
    pub(super) memory: OwnedFd,
}

impl Lane {
    /// A lane, and its other side.
    pub(super) fn pair() -> io::Result<(Self, FarEnd)> {
        let (near, far) = socket_pair()?;
        let memory = SharedMemory::new()?;
        let far = FarEnd {
            socket: far,
            memory: memory.share()?,
        };
        Ok((Self::new(near, memory), far))
    }

    fn new(socket: OwnedFd, memory: SharedMemory) -> Self {
        Self {
            socket: Arc::new(socket),
            memory,
            timeout: None,
            buffer: Vec::new(),
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

    /// Sends a message. Does not block: whoever sends knows that the other side waits, or has room.
    pub(super) fn send(&mut self, mut message: Encoder) -> Result<(), LaneError> {
        let length = message.len();
        if length <= MOST_INLINE {
            return self.send_inline(message);
        }
        self.memory.write(message.parts()).map_err(LaneError::System)?;
        let mut datagram = [SHARED; 9];
        datagram[1..].copy_from_slice(&(length as u64).to_le_bytes());
        self.send_datagram(&[IoSlice::new(&datagram)])
    }

    fn send_inline(&mut self, mut message: Encoder) -> Result<(), LaneError> {
        if message.part_count() < MOST_PARTS {
            let parts = message.parts().map(IoSlice::new);
            let datagram: Vec<IoSlice<'_>> = std::iter::once(IoSlice::new(&[INLINE])).chain(parts).collect();
            return self.send_datagram(&datagram);
        }
        let mut datagram = Vec::with_capacity(message.len() + 1);
        datagram.push(INLINE);
        message.parts().for_each(|part| datagram.extend_from_slice(part));
        self.send_datagram(&[IoSlice::new(&datagram)])
    }

    fn send_datagram(&self, parts: &[IoSlice<'_>]) -> Result<(), LaneError> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        loop {
            match rustix::net::sendmsg(&self.socket, parts, &mut SendAncillaryBuffer::default(), flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(LaneError::TimedOut(Duration::ZERO)),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits for the next message.
    pub(super) fn receive(&mut self) -> Result<Bytes, LaneError> {
        self.buffer.clear();
        self.buffer.reserve(MOST_INLINE + 1);
        let length = loop {
            match rustix::net::recv(&self.socket, spare_capacity(&mut self.buffer), RecvFlags::TRUNC) {
                Ok((_, length)) => break length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(LaneError::TimedOut(self.timeout.unwrap_or_default())),
                Err(errno) => return Err(errno.into()),
            }
        };
        if length > self.buffer.len() {
            return Err(LaneError::Nonsense(format!("a datagram of {length} bytes")));
        }
        match self.buffer.split_first() {
            // Datagrams are never empty, so this is the end.
            None => Err(LaneError::Closed),
            Some((&INLINE, message)) if message.len() <= COPIED => Ok(Bytes::copy_from_slice(message)),
            Some((&INLINE, _)) => Ok(Bytes::from(std::mem::take(&mut self.buffer)).slice(1..)),
            Some((&SHARED, length)) => {
                let length = length
                    .try_into()
                    .map(u64::from_le_bytes)
                    .ok()
                    .filter(|length| *length <= MOST_MESSAGE)
                    .ok_or_else(|| LaneError::Nonsense("a message without a length".to_owned()))?;
                let message = self.memory.read(length).map_err(|error| {
                    LaneError::Nonsense(format!("a message of {length} bytes that are not there: {error}"))
                })?;
                Ok(Bytes::from(message))
            }
            Some((kind, _)) => Err(LaneError::Nonsense(format!("a datagram of the kind {kind}"))),
        }
    }
}

impl FarEnd {
    /// The side of the process that was handed this.
    pub(super) fn into_lane(self) -> Lane {
        Lane::new(self.socket, SharedMemory::from(self.memory))
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
