//! Opens and creates the database.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::errors::{corrupt, file_error, store_error};
use super::lock_file::LockFile;
use crate::jobs::StoreError;

/// Each changes the schema from the version of its index to the next one.
const MIGRATIONS: [&str; 2] = [include_str!("schema.sql"), include_str!("webhook_attempts.sql")];

/// Marks the file as a store of jobs ("job1"), so that another database is not taken for one.
const APPLICATION_ID: i32 = 0x6a6f_6231;

/// How long to wait for a program that holds a lock, such as a shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The log is truncated to this size after it was written back.
const JOURNAL_SIZE_LIMIT: u64 = 64 << 20;

/// The connection that writes, and the lock of the file.
pub(super) struct Database {
    // Closed before the lock is released.
    pub(super) connection: Connection,
    _lock: LockFile,
}

impl Database {
    /// Opens a database, or creates it, with the current schema.
    ///
    /// # Errors
    /// The file is used by another server, damaged, not a store, of a newer version, or cannot be written.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        create_directory(path)?;
        let lock = LockFile::acquire(path)?;
        // Before SQLite opens it, because requests are private. The files next to it get the same permissions.
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        drop(options.open(path).map_err(|error| file_error(&error, path))?);
        let failed = |error: rusqlite::Error| store_error(&error, path);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(64);
        let version = schema_version(&connection, path)?;
        if version == 0 {
            // Only possible before the first table exists.
            connection
                .pragma_update(None, "auto_vacuum", "INCREMENTAL")
                .map_err(failed)?;
        }
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .map_err(failed)?;
        connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(failed)?;
        connection
            .pragma_update(None, "foreign_keys", true)
            .map_err(failed)?;
        connection
            .pragma_update(None, "journal_size_limit", JOURNAL_SIZE_LIMIT.to_string())
            .map_err(failed)?;
        migrate(&mut connection, version, path)?;
        if version > 0 {
            check(&connection, path)?;
        }
        Ok(Self {
            connection,
            _lock: lock,
        })
    }
}

/// Opens a second connection that only reads.
///
/// # Errors
/// SQLite fails.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let failed = |error: rusqlite::Error| store_error(&error, path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection
        .pragma_update(None, "query_only", true)
        .map_err(failed)?;
    Ok(connection)
}

fn create_directory(path: &Path) -> Result<(), StoreError> {
    let directory = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty());
    let Some(directory) = directory else { return Ok(()) };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(directory)
        .map_err(|error| file_error(&error, directory))
}

fn schema_version(connection: &Connection, path: &Path) -> Result<u32, StoreError> {
    let failed = |error: rusqlite::Error| store_error(&error, path);
    let version: u32 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(failed)?;
    let application: i32 = connection
        .query_row("PRAGMA application_id", [], |row| row.get(0))
        .map_err(failed)?;
    let tables: u32 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    if application != APPLICATION_ID && (version, tables) != (0, 0) {
        return Err(StoreError::Misconfigured {
            place: path.display().to_string(),
            reason: "it is a database of another program".to_owned(),
            hint: "set `path` in `[jobs]` to another file".to_owned(),
        });
    }
    let supported = MIGRATIONS.len() as u32;
    if version > supported {
        return Err(StoreError::NewerSchema {
            place: path.display().to_string(),
            found: version,
            supported,
        });
    }
    Ok(version)
}

/// Brings the schema up to date, all or nothing.
fn migrate(connection: &mut Connection, version: u32, path: &Path) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| store_error(&error, path);
    let transaction = connection
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .map_err(failed)?;
    for migration in &MIGRATIONS[version as usize..] {
        transaction.execute_batch(migration).map_err(failed)?;
    }
    transaction
        .pragma_update(None, "application_id", APPLICATION_ID)
        .map_err(failed)?;
    transaction
        .pragma_update(None, "user_version", MIGRATIONS.len() as u32)
        .map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// Checks the table of jobs and its indexes. The bodies, which can be large, are checked when they are read.
fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let report: String = connection
        .query_row("PRAGMA quick_check('jobs')", [], |row| row.get(0))
        .map_err(|error| store_error(&error, path))?;
    if report == "ok" {
        Ok(())
    } else {
        Err(corrupt(path, report))
    }
}
