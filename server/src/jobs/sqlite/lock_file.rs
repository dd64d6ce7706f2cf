//! Exclusive use of a database by one server.
//!
//! The lock is on a file next to the database, and the kernel releases it when the process ends in any way. SQLite's exclusive
//! locking mode is no alternative: it excludes the reading connection of the same server as well, and copying a live database with
//! SQLite's own tools. A lock on the database file itself would interfere with the locks of SQLite, which the kernel releases
//! as soon as the process closes any descriptor of that file.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::errors::file_error;
use crate::jobs::StoreError;

/// Proves that this process is the only one that uses a database. The file is left behind: removing it would let two servers hold
/// locks on different files of this name.
pub(super) struct LockFile {
    _locked: File,
}

impl LockFile {
    /// Locks a database.
    ///
    /// # Errors
    /// Another process has locked it, or the file cannot be created.
    pub(super) fn acquire(database: &Path) -> Result<Self, StoreError> {
        let path = lock_path(database);
        let mut options = File::options();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut file = options.open(&path).map_err(|error| file_error(&error, &path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StoreError::Locked {
                    path: database.to_owned(),
                    holder: holder(&mut file),
                });
            }
            Err(error) => return Err(file_error(&error.into(), &path)),
        }
        // For the error message of the other server only, so a failure does not matter.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Self { _locked: file })
    }
}

/// Path of the lock of a database.
pub(super) fn lock_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file
        .take(20)
        .read_to_string(&mut text)
        .ok()
        .and_then(|_| text.trim().parse::<u32>().ok())
    {
        Some(process) => format!(" (process {process})"),
        None => String::new(),
    }
}
