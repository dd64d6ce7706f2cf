//! Errors of PostgreSQL as errors of the store.

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::jobs::{Corruption, StoreError};

/// What an error means for the store. `place` names the database, without credentials.
pub(super) fn store_error(error: &Error, place: &str) -> StoreError {
    let reason = reason(error);
    let Some(code) = error.code() else {
        return StoreError::Unavailable {
            reason: format!("{place}: {reason}"),
        };
    };
    let misconfigured = |hint: &str| StoreError::Misconfigured {
        place: place.to_owned(),
        reason: reason.clone(),
        hint: hint.to_owned(),
    };
    match *code {
        SqlState::DISK_FULL => StoreError::DiskFull {
            place: place.to_owned(),
        },
        SqlState::READ_ONLY_SQL_TRANSACTION => StoreError::ReadOnly {
            place: place.to_owned(),
            reason,
        },
        SqlState::DATA_CORRUPTED | SqlState::INDEX_CORRUPTED => corrupt(place, reason),
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => misconfigured(
            "check the user and the password in `store`, and pg_hba.conf of the database server",
        ),
        SqlState::INVALID_CATALOG_NAME => {
            misconfigured("create the database, or correct its name in `store`")
        }
        SqlState::INSUFFICIENT_PRIVILEGE => misconfigured(
            "grant the user of `store` CREATE on the database, or make it the owner of the schema `inference_server`",
        ),
        SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_COLUMN | SqlState::INVALID_SCHEMA_NAME => {
            misconfigured(
                "restore the schema `inference_server`, or drop it and restart the server to start without jobs",
            )
        }
        _ => StoreError::Unavailable {
            reason: format!("{place}: {reason}"),
        },
    }
}

/// Content that no server has written.
pub(super) fn corrupt(place: &str, reason: impl Into<String>) -> StoreError {
    StoreError::Corrupt(Corruption {
        place: place.to_owned(),
        reason: reason.into(),
        repair: "restore it from a backup, or drop the schema `inference_server` and restart the server to start without jobs"
            .to_owned(),
    })
}

/// The message of the database, or of the connection.
fn reason(error: &Error) -> String {
    match error.as_db_error() {
        Some(error) => error.message().to_owned(),
        None => crate::error::Chain(error).to_string(),
    }
}
