//! A memory file that two processes map: one writes messages into it, and the other reads them.
//!
//! Copying into a mapping costs a third of a `pwrite` of the same bytes, and reading a message in place costs nothing.
//!
//! The file can grow, and a seal keeps it from shrinking, so every byte of a mapping stays backed by memory whatever the other
//! side does. The content, however, can change at any time. The server therefore copies a message before it examines it
//! ([`MessageReader::read`]). A child trusts the server and reads the message in place ([`MessageReader::borrow`]).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, memfd_create};

/// Memory that stays allocated between messages, so that the kernel does not have to allocate and clear it for each of them.
/// The rest of a longer message is freed after it has been read.
const RETAINED_BYTES: u64 = 16 << 20;

/// Minimum size of a mapping. Sizes double, so that mappings are rarely replaced.
const MIN_MAPPING: u64 = 256 << 10;

/// Unit in which the system counts the allocated blocks of a file.
const BLOCK_SIZE: u64 = 512;

/// Creates an anonymous file that can only grow.
pub(super) fn create() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create("inference-server messages", flags)?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(fd)
}

/// A file and its mapping.
#[derive(Debug)]
struct MappedFile {
    file: File,
    map: Option<Arc<MmapRaw>>,
}

impl From<OwnedFd> for MappedFile {
    fn from(fd: OwnedFd) -> Self {
        let file = File::from(fd);
        Self { file, map: None }
    }
}

impl MappedFile {
    /// A mapping of at least `length` bytes. The file must be that long.
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

/// Size of the file and the mapping for a message of `message` bytes.
fn mapping_size(message: u64) -> u64 {
    message.next_power_of_two().max(MIN_MAPPING)
}

fn to_usize(length: u64) -> io::Result<usize> {
    usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory.into())
}

/// The side that writes messages.
#[derive(Debug)]
pub(super) struct MessageWriter(MappedFile);

impl From<OwnedFd> for MessageWriter {
    fn from(fd: OwnedFd) -> Self {
        Self(MappedFile::from(fd))
    }
}

impl MessageWriter {
    /// A descriptor of the same file, for the other process.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.file.as_fd().try_clone_to_owned()
    }

    /// Writes the parts one after the other to the start of the file. Their total length must be `length`.
    pub(super) fn write<'a>(
        &mut self,
        length: usize,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        let size = mapping_size(length as u64);
        let metadata = self.0.file.metadata()?;
        if metadata.len() < size {
            self.0.file.set_len(size)?;
        }
        // Allocates the memory here, where failing is an error. Below, missing memory would terminate the process.
        if metadata.blocks().saturating_mul(BLOCK_SIZE) < length as u64 {
            fallocate(&self.0.file, FallocateFlags::empty(), 0, length as u64)?;
        }
        let map = self.0.map(to_usize(size)?)?;
        let mut at = 0;
        for part in parts {
            if part.len() > map.len() - at {
                return Err(io::Error::other("a message is longer than announced"));
            }
            let destination = map.as_mut_ptr().wrapping_add(at);
            // SAFETY: The check above ensures that the part fits after `at`, and the file cannot become shorter than the mapping.
            // Nothing else in this process refers to the mapping, so the part does not overlap with it.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), destination, part.len()) };
            at += part.len();
        }
        Ok(())
    }
}

/// The side that reads messages.
#[derive(Debug)]
pub(super) struct MessageReader {
    mapped: MappedFile,
    /// Number of bytes that are currently borrowed.
    borrowed: u64,
}

impl From<OwnedFd> for MessageReader {
    fn from(fd: OwnedFd) -> Self {
        let mapped = MappedFile::from(fd);
        Self { mapped, borrowed: 0 }
    }
}

impl MessageReader {
    /// A descriptor of the same file, for the other process.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.mapped.file.as_fd().try_clone_to_owned()
    }

    /// A copy of the first `length` bytes, which the other process cannot change.
    pub(super) fn read(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let map = self.map_checked(length)?;
        let length = to_usize(length)?;
        let mut bytes = Vec::<u8>::new();
        bytes.try_reserve_exact(length)?;
        // SAFETY: The mapping and the vector's capacity are at least `length` bytes. The vector is new, so they do not overlap.
        // The other side may write concurrently, but any bytes are valid, and only the copy is examined.
        unsafe { std::ptr::copy_nonoverlapping(map.as_ptr(), bytes.as_mut_ptr(), length) };
        // SAFETY: `length` bytes have just been written.
        unsafe { bytes.set_len(length) };
        self.free_excess(length as u64)?;
        Ok(bytes)
    }

    /// The first `length` bytes in place.
    ///
    /// The caller must trust the other side not to write until it has been told that [`reclaim`](Self::reclaim) succeeded.
    pub(super) fn borrow(&mut self, length: u64) -> io::Result<Bytes> {
        let map = self.map_checked(length)?.clone();
        let length = to_usize(length)?;
        self.borrowed = length as u64;
        Ok(Bytes::from_owner(BorrowedMessage { map, length }))
    }

    /// Ends the borrow.
    ///
    /// # Errors
    /// The bytes are still in use.
    pub(super) fn reclaim(&mut self) -> io::Result<()> {
        if self
            .mapped
            .map
            .as_mut()
            .is_some_and(|map| Arc::get_mut(map).is_none())
        {
            return Err(io::Error::other("an item is still in use after its batch"));
        }
        let borrowed = std::mem::take(&mut self.borrowed);
        self.free_excess(borrowed)
    }

    /// The mapping, if the file contains `length` bytes.
    fn map_checked(&mut self, length: u64) -> io::Result<&Arc<MmapRaw>> {
        // The other side may announce more bytes than it has written, or extend the file without writing. Neither may make
        // this process allocate memory.
        let metadata = self.mapped.file.metadata()?;
        let size = mapping_size(length);
        if metadata.len() < size || metadata.blocks().saturating_mul(BLOCK_SIZE) < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.mapped.map(to_usize(size)?)
    }

    fn free_excess(&self, length: u64) -> io::Result<()> {
        if length > RETAINED_BYTES {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&self.mapped.file, flags, RETAINED_BYTES, length - RETAINED_BYTES)?;
        }
        Ok(())
    }
}

/// Bytes of a mapping that the other side does not write to while this exists.
struct BorrowedMessage {
    map: Arc<MmapRaw>,
    length: usize,
}

impl AsRef<[u8]> for BorrowedMessage {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: The mapping is at least `length` bytes long and lives as long as `self`, and the file cannot become shorter.
        // The other side, which the borrower trusts, does not write to it in the meantime.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr(), self.length) }
    }
}
