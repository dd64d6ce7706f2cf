//! Passes a child process its ends of the connections, as descriptors in one message on the socket that is its standard input.
//!
//! A child therefore inherits only the three standard descriptors. All others of the server are closed on exec, so child
//! processes do not hold each other's connections.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use super::channel::PeerEnd;

/// Maximum number of prepare channels. The kernel passes at most 253 descriptors with a message.
pub(super) const MAX_PREPARE_CHANNELS: usize = 64;

/// Three descriptors for each channel, and one for log records.
const MAX_DESCRIPTORS: usize = 3 * (MAX_PREPARE_CHANNELS + 1) + 1;

/// Size of the ancillary data of a message with that many descriptors.
const CONTROL_BUFFER_BYTES: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS));

/// The descriptors that a child receives.
#[derive(Debug)]
pub(super) struct ChildDescriptors {
    /// Sends log records to the server.
    pub(super) log_socket: OwnedFd,
    /// The channel for loading and for batches.
    pub(super) main: PeerEnd,
    /// The channels for preparing items.
    pub(super) prepare: Vec<PeerEnd>,
}

impl ChildDescriptors {
    /// Sends all descriptors in one message.
    pub(super) fn send(&self, to: impl AsFd) -> io::Result<()> {
        let channels = std::iter::once(&self.main).chain(&self.prepare);
        let descriptors: Vec<BorrowedFd<'_>> = std::iter::once(self.log_socket.as_fd())
            .chain(channels.flat_map(|channel| {
                [
                    channel.socket.as_fd(),
                    channel.reader.as_fd(),
                    channel.writer.as_fd(),
                ]
            }))
            .collect();
        let mut buffer = [MaybeUninit::uninit(); CONTROL_BUFFER_BYTES];
        let mut control = SendAncillaryBuffer::new(&mut buffer);
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        rustix::net::sendmsg(to, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives the message that [`send`](Self::send) sent.
    pub(super) fn receive(from: impl AsFd) -> io::Result<Self> {
        let mut buffer = [MaybeUninit::uninit(); CONTROL_BUFFER_BYTES];
        let mut control = RecvAncillaryBuffer::new(&mut buffer);
        let mut byte = [0];
        rustix::net::recvmsg(
            from,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let mut descriptors = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten();
        let missing = || io::Error::other("standard input is not a connection to a server");
        let log_socket = descriptors.next().ok_or_else(missing)?;
        let mut channels = std::iter::from_fn(|| {
            Some(PeerEnd {
                socket: descriptors.next()?,
                reader: descriptors.next()?,
                writer: descriptors.next()?,
            })
        });
        Ok(Self {
            log_socket,
            main: channels.next().ok_or_else(missing)?,
            prepare: channels.collect(),
        })
    }
}
