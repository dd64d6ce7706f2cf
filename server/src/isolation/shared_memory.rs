//! A memory file that two processes have mapped: one writes messages into it, the other finds them there.
//!
//! A copy into a mapping costs a third of a `pwrite` of the same bytes, and what the other side reads where it lies costs
//! nothing at all.
//!
//! The file may grow, and is sealed against being made shorter: whatever the other side does to it, a mapping has memory
//! behind each of its bytes. What that memory holds is another matter. The server therefore copies what it is sent
//! ([`Incoming::copy`]) and only then looks at it; a child, which has to believe the server anyway, is lent the bytes where
//! they are ([`Incoming::lend`]).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, memfd_create};

/// What stays allocated between messages, so that the kernel does not have to find and clear it for each. Of a longer
/// message the rest is given back once it has been read.
const KEPT: u64 = 16 << 20;

/// Shortest mapping. Longer ones double, so that few messages need a new one.
const SHORTEST: u64 = 256 << 10;

/// Bytes of a block, as the system counts what a file holds.
const BLOCK: u64 = 512;

/// A new file without a name in any folder, that can only grow.
pub(super) fn create() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create("inference-server messages", flags)?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(fd)
}

/// A file and as much of it as is mapped.
#[derive(Debug)]
struct Mapped {
    file: File,
    map: Option<Arc<MmapRaw>>,
}

impl From<OwnedFd> for Mapped {
    fn from(fd: OwnedFd) -> Self {
        let file = File::from(fd);
        Self { file, map: None }
    }
}

impl Mapped {
    /// The mapping, of at least `length` bytes. The file is as long.
    fn map(&mut self, length: usize) -> io::Result<&Arc<MmapRaw>> {
        if self.map.as_ref().is_none_or(|map| map.len() < length) {
            self.map = None;
            let map = MmapOptions::new().len(length).map_raw(&self.file)?;
            self.map = Some(Arc::new(map));
        }
        self.map
            .as_ref()
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// The length of the file, and of what is mapped of it, for a message of so many bytes.
fn room_for(message: u64) -> u64 {
    message.next_power_of_two().max(SHORTEST)
}

fn in_memory(length: u64) -> io::Result<usize> {
    usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory.into())
}

/// The side that writes.
#[derive(Debug)]
pub(super) struct Outgoing(Mapped);

impl From<OwnedFd> for Outgoing {
    fn from(fd: OwnedFd) -> Self {
        Self(Mapped::from(fd))
    }
}

impl Outgoing {
    /// The same file, for the other process.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        self.0.file.as_fd().try_clone_to_owned()
    }

    /// Writes the parts end to end, from the start of the file. They are `length` bytes together.
    pub(super) fn write<'a>(
        &mut self,
        length: usize,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        let room = room_for(length as u64);
        let metadata = self.0.file.metadata()?;
        if metadata.len() < room {
            self.0.file.set_len(room)?;
        }
        // Memory that cannot be had is an error here; it would be the end of the process below.
        if metadata.blocks().saturating_mul(BLOCK) < length as u64 {
            fallocate(&self.0.file, FallocateFlags::empty(), 0, length as u64)?;
        }
        let map = self.0.map(in_memory(room)?)?;
        let mut at = 0;
        for part in parts {
            if part.len() > map.len() - at {
                return Err(io::Error::other("a message is longer than it says"));
            }
            let place = map.as_mut_ptr().wrapping_add(at);
            // SAFETY: The part fits behind `at`, as was just seen, and the file cannot become shorter than the mapping.
            // Nothing in this process refers to the mapping but for this pointer, so the part does not overlap with it.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), place, part.len()) };
            at += part.len();
        }
        Ok(())
    }
}

/// The side that reads.
#[derive(Debug)]
pub(super) struct Incoming {
    mapped: Mapped,
    /// How many bytes are lent.
    lent: u64,
}

impl From<OwnedFd> for Incoming {
    fn from(fd: OwnedFd) -> Self {
        let mapped = Mapped::from(fd);
        Self { mapped, lent: 0 }
    }
}

impl Incoming {
    /// The same file, for the other process.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        self.mapped.file.as_fd().try_clone_to_owned()
    }

    /// A copy of the first `length` bytes, which nobody can change any more.
    pub(super) fn copy(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let map = self.holding(length)?;
        let length = in_memory(length)?;
        let mut bytes = Vec::<u8>::new();
        bytes.try_reserve_exact(length)?;
        // SAFETY: The mapping is at least `length` bytes long, as is the vector's room, which is new and so does not overlap
        // with it. Whatever the other side writes meanwhile, these are bytes, and they are looked at only in the copy.
        unsafe { std::ptr::copy_nonoverlapping(map.as_ptr(), bytes.as_mut_ptr(), length) };
        // SAFETY: So many have just been written.
        unsafe { bytes.set_len(length) };
        self.give_back(length as u64)?;
        Ok(bytes)
    }

    /// The first `length` bytes where they are.
    ///
    /// Only for who trusts the other side not to write again before it has been told that
    /// [`reclaim`](Self::reclaim) took them back.
    pub(super) fn lend(&mut self, length: u64) -> io::Result<Bytes> {
        let map = self.holding(length)?.clone();
        let length = in_memory(length)?;
        self.lent = length as u64;
        Ok(Bytes::from_owner(Lent { map, length }))
    }

    /// Takes back what was lent.
    ///
    /// # Errors
    /// It is still in use.
    pub(super) fn reclaim(&mut self) -> io::Result<()> {
        if self
            .mapped
            .map
            .as_mut()
            .is_some_and(|map| Arc::get_mut(map).is_none())
        {
            return Err(io::Error::other("an item of a batch is in use after the batch"));
        }
        let lent = std::mem::take(&mut self.lent);
        self.give_back(lent)
    }

    /// The mapping, if the file has so many bytes.
    fn holding(&mut self, length: u64) -> io::Result<&Arc<MmapRaw>> {
        // The file may be shorter, by what the other side says, or be long and hold nothing: memory is not taken for what
        // is not there.
        let metadata = self.mapped.file.metadata()?;
        let room = room_for(length);
        if metadata.len() < room || metadata.blocks().saturating_mul(BLOCK) < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.mapped.map(in_memory(room)?)
    }

    fn give_back(&self, length: u64) -> io::Result<()> {
        if length > KEPT {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&self.mapped.file, flags, KEPT, length - KEPT)?;
        }
        Ok(())
    }
}

/// Bytes of a mapping that the other side does not write to as long as this is there.
struct Lent {
    map: Arc<MmapRaw>,
    length: usize,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: The mapping is at least `length` bytes long and stays as long as `self`; the file cannot become shorter.
        // The other side, which whoever borrowed this trusts, does not write to it meanwhile.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr(), self.length) }
    }
}
