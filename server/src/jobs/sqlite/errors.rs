//! Errors of SQLite as errors of the store.

use std::path::Path;

use rusqlite::ErrorCode;
use rusqlite::ffi;

use crate::jobs::{Corruption, StoreError};

/// What an error of SQLite means for the store.
pub(super) fn store_error(error: &rusqlite::Error, path: &Path) -> StoreError {
    let place = path.display().to_string();
    let reason = error.to_string();
    let Some(code) = error.sqlite_error() else {
        // A value with another type than the schema has.
        return corrupt(path, reason);
    };
    match code.code {
        ErrorCode::DiskFull => StoreError::DiskFull { place },
        // Growing the index of the log fails in this way on a full disk.
        ErrorCode::SystemIoFailure if code.extended_code == ffi::SQLITE_IOERR_SHMSIZE => {
            StoreError::DiskFull { place }
        }
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => StoreError::ReadOnly { place, reason },
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => corrupt(path, reason),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Unavailable {
            reason: format!("another program holds a lock on {place}"),
        },
        ErrorCode::CannotOpen => StoreError::Misconfigured {
            place,
            reason,
            hint: "check that the directory exists, and that the user of the server can write to it"
                .to_owned(),
        },
        _ => StoreError::Io { place, reason },
    }
}

/// A damaged file.
pub(super) fn corrupt(path: &Path, reason: impl Into<String>) -> StoreError {
    let place = path.display().to_string();
    StoreError::Corrupt(Corruption {
        repair: format!(
            "stop the server, then recover what is readable with `sqlite3 {place} .recover | sqlite3 {place}.recovered` and use \
             that file, or move {place} away to start without jobs"
        ),
        place,
        reason: reason.into(),
    })
}

/// An error of creating or locking a file.
pub(super) fn file_error(error: &std::io::Error, path: &Path) -> StoreError {
    use std::io::ErrorKind;
    let place = path.display().to_string();
    let reason = error.to_string();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::DiskFull { place },
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => StoreError::ReadOnly { place, reason },
        ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::NotFound => {
            StoreError::Misconfigured {
                place,
                reason,
                hint: "set `path` in `[jobs]` to a file in a directory that the server can write to"
                    .to_owned(),
            }
        }
        _ => StoreError::Io { place, reason },
    }
}
