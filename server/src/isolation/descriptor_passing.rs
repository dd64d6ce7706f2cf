//! How a child gets its ends of the connections: as descriptors in one message on the socket that is its standard input.
//!
//! So nothing has to be inherited but the three standard descriptors: every other one of the server is closed on exec, and
//! children do not hold the connections of each other.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use super::lane::FarEnd;

/// Most lanes on which items are prepared: the kernel passes no more than 253 descriptors with a message.
pub(super) const MOST_PREPARE_LANES: usize = 64;

/// Three descriptors for each lane, and one for records of the log.
const MOST_DESCRIPTORS: usize = 3 * (MOST_PREPARE_LANES + 1) + 1;

/// Room for as many descriptors in a message.
const ROOM: usize = rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS));

/// What a child is handed.
#[derive(Debug)]
pub(super) struct Handover {
    /// Where records of the log go.
    pub(super) records: OwnedFd,
    /// The lane of the start and of the batches.
    pub(super) main: FarEnd,
    /// The lanes on which items are prepared.
    pub(super) prepare: Vec<FarEnd>,
}

impl Handover {
    /// Sends all of it.
    pub(super) fn send(&self, to: impl AsFd) -> io::Result<()> {
        let lanes = std::iter::once(&self.main).chain(&self.prepare);
        let descriptors: Vec<BorrowedFd<'_>> = std::iter::once(self.records.as_fd())
            .chain(lanes.flat_map(|lane| [lane.socket.as_fd(), lane.incoming.as_fd(), lane.outgoing.as_fd()]))
            .collect();
        let mut room = [MaybeUninit::uninit(); ROOM];
        let mut control = SendAncillaryBuffer::new(&mut room);
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        rustix::net::sendmsg(to, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives all of it.
    pub(super) fn receive(from: impl AsFd) -> io::Result<Self> {
        let mut room = [MaybeUninit::uninit(); ROOM];
        let mut control = RecvAncillaryBuffer::new(&mut room);
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
        let missing = || io::Error::other("standard input is no connection to a server");
        let records = descriptors.next().ok_or_else(missing)?;
        let mut lanes = std::iter::from_fn(|| {
            Some(FarEnd {
                socket: descriptors.next()?,
                incoming: descriptors.next()?,
                outgoing: descriptors.next()?,
            })
        });
        Ok(Self {
            records,
            main: lanes.next().ok_or_else(missing)?,
            prepare: lanes.collect(),
        })
    }
}
