//! Errors of stores.

use std::path::PathBuf;

/// Why a store could not do what it was asked. Nothing was changed, unless the error says that the outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached now. The store reconnects by itself.
    #[error("the job store is unavailable: {reason}; retry later")]
    Unavailable {
        /// What happened.
        reason: String,
    },
    /// The connection was lost after the change was sent: it may or may not have been made. Submissions can be repeated with
    /// the same idempotency key.
    #[error(
        "the job store lost its connection, and the outcome is unknown: {reason}; check the state of the job, or repeat the request"
    )]
    OutcomeUnknown {
        /// What happened.
        reason: String,
    },
    /// More calls are waiting for the store than it accepts.
    #[error("the job store is overloaded: {waiting} calls are waiting; retry later")]
    Overloaded {
        /// Number of waiting calls.
        waiting: usize,
    },
    /// The disk has no space.
    #[error(
        "the disk of the job store is full: {place}: free some space, or set `path` in `[jobs]` to a larger disk"
    )]
    DiskFull {
        /// File or database.
        place: String,
    },
    /// The file or the database cannot be written.
    #[error(
        "the job store is read-only: {place}: {reason}; make it writable, or set `path` in `[jobs]` to another file"
    )]
    ReadOnly {
        /// File or database.
        place: String,
        /// What the system reported.
        reason: String,
    },
    /// Reading or writing the disk failed.
    #[error("the disk of the job store failed: {place}: {reason}; check the disk and the system log")]
    Io {
        /// File.
        place: String,
        /// What the system reported.
        reason: String,
    },
    /// The content is damaged.
    #[error(transparent)]
    Corrupt(Corruption),
    /// Another server uses the file.
    #[error(
        "the job store {path} is used by another server{holder}: stop it, set `path` in `[jobs]` to another file, or share a \
         PostgreSQL database between the servers with `store` in `[jobs]`"
    )]
    Locked {
        /// The file.
        path: PathBuf,
        /// The other process, as ` (process 1234)`, if it is known.
        holder: String,
    },
    /// The store was written by a newer version of the server.
    #[error(
        "the job store {place} has schema version {found}; this server supports versions up to {supported}: use the version of \
         the server that wrote it, or a newer one"
    )]
    NewerSchema {
        /// File or database.
        place: String,
        /// Version of its schema.
        found: u32,
        /// Highest supported version.
        supported: u32,
    },
    /// The address, the credentials or the permissions of the database are wrong: retrying does not help.
    #[error("the job store {place} cannot be opened: {reason}; {hint}")]
    Misconfigured {
        /// File or database, without credentials.
        place: String,
        /// What was rejected.
        reason: String,
        /// How to fix it.
        hint: String,
    },
    /// The store was closed, because the server is shutting down.
    #[error("the job store is closed: the server is shutting down")]
    Closed,
}

impl StoreError {
    /// Whether the same call can succeed later without anyone changing the configuration.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. }
                | Self::OutcomeUnknown { .. }
                | Self::Overloaded { .. }
                | Self::DiskFull { .. }
        )
    }
}

/// A damaged store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the job store {place} is corrupt: {reason}; {repair}")]
pub struct Corruption {
    /// File or database.
    pub place: String,
    /// What is damaged.
    pub reason: String,
    /// How to repair it.
    pub repair: String,
}
