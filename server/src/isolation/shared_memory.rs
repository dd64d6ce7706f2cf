//! A memory file that two processes have open: one writes a message into it, the other reads it out.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::buffer::spare_capacity;
use rustix::fs::MemfdFlags;
use rustix::io::Errno;

/// What stays allocated between messages, so that the kernel does not have to find and clear it for each. A longer
/// message is given back as soon as it has been read.
const KEPT: u64 = 16 << 20;

/// Parts of a message below this length are put together before they are written.
const GATHERED: usize = 32 << 10;

/// Bytes of a block, as the system counts what a file holds.
const BLOCK: u64 = 512;

/// See the module.
#[derive(Debug)]
pub(super) struct SharedMemory {
    file: File,
}

impl From<OwnedFd> for SharedMemory {
    fn from(fd: OwnedFd) -> Self {
        Self { file: File::from(fd) }
    }
}

impl SharedMemory {
    /// An empty file without a name in any folder.
    pub(super) fn new() -> io::Result<Self> {
        let fd = rustix::fs::memfd_create("inference-server message", MemfdFlags::CLOEXEC)?;
        Ok(Self::from(fd))
    }

    /// The same file, for the other process.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// Writes the parts end to end, from the start of the file.
    pub(super) fn write<'a>(&self, parts: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        let mut gathered = Vec::with_capacity(GATHERED);
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            self.file.write_all_at(bytes, at)?;
            at += bytes.len() as u64;
            io::Result::Ok(())
        };
        for part in parts {
            if gathered.len() + part.len() > GATHERED {
                put(&gathered)?;
                gathered.clear();
            }
            if part.len() > GATHERED {
                put(part)?;
            } else {
                gathered.extend_from_slice(part);
            }
        }
        put(&gathered)
    }

    /// Reads the first `length` bytes. Whoever reads is done with the file, until it writes.
    pub(super) fn read(&self, length: u64) -> io::Result<Vec<u8>> {
        // The file may be shorter, by whatever the other side does to it, or be long and hold nothing: memory is not taken
        // for what is not there.
        let metadata = self.file.metadata()?;
        if metadata.len() < length || metadata.blocks().saturating_mul(BLOCK) < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length)?;
        while bytes.len() < length {
            let at = bytes.len() as u64;
            match rustix::io::pread(&self.file, spare_capacity(&mut bytes), at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        bytes.truncate(length);
        if length as u64 > KEPT {
            self.file.set_len(0)?;
        }
        Ok(bytes)
    }
}
