//! The schema of the database.

use tokio_postgres::Client;

use super::errors::store_error;
use crate::jobs::StoreError;

/// Each changes the schema from the version of its index to the next one.
const MIGRATIONS: [&str; 2] = [include_str!("schema.sql"), include_str!("webhook_attempts.sql")];

/// Key of the lock that lets one server migrate at a time: "job1".
const LOCK: i64 = 0x6a6f_6231;

/// Brings the schema up to date, all or nothing. Servers that start at the same time wait for each other.
///
/// # Errors
/// The schema is newer than this server, or the user of the database must not create it.
pub(super) async fn migrate(client: &mut Client, place: &str) -> Result<(), StoreError> {
    let failed = |error: tokio_postgres::Error| store_error(&error, place);
    let supported = MIGRATIONS.len() as i32;
    // Without locks and privileges if there is nothing to do.
    if version(client, place).await? == Some(supported) {
        return Ok(());
    }
    // Before the transaction begins, so that it sees what the server that had the lock has created. If the migration fails, the
    // connection is closed, and the lock is released.
    client
        .execute("SELECT pg_advisory_lock($1)", &[&LOCK])
        .await
        .map_err(failed)?;
    let transaction = client.transaction().await.map_err(failed)?;
    let found = version(transaction.client(), place).await?.unwrap_or(0);
    if found > supported {
        return Err(StoreError::NewerSchema {
            place: place.to_owned(),
            found: found.unsigned_abs(),
            supported: supported.unsigned_abs(),
        });
    }
    if found == 0 {
        let create = "CREATE SCHEMA IF NOT EXISTS inference_server; \
                      CREATE TABLE inference_server.schema_version (version INTEGER NOT NULL); \
                      INSERT INTO inference_server.schema_version VALUES (0)";
        transaction.batch_execute(create).await.map_err(failed)?;
    }
    for migration in &MIGRATIONS[usize::try_from(found).unwrap_or(0)..] {
        transaction.batch_execute(migration).await.map_err(failed)?;
    }
    let update = "UPDATE inference_server.schema_version SET version = $1 WHERE version < $1";
    transaction.execute(update, &[&supported]).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    client
        .execute("SELECT pg_advisory_unlock($1)", &[&LOCK])
        .await
        .map_err(failed)?;
    Ok(())
}

/// Version of the schema. `None` if there is none.
async fn version(client: &Client, place: &str) -> Result<Option<i32>, StoreError> {
    let failed = |error: tokio_postgres::Error| store_error(&error, place);
    let exists = "SELECT to_regclass('inference_server.schema_version') IS NOT NULL";
    let exists: bool = client.query_one(exists, &[]).await.map_err(failed)?.get(0);
    if !exists {
        return Ok(None);
    }
    let select = "SELECT version FROM inference_server.schema_version";
    let row = client.query_opt(select, &[]).await.map_err(failed)?;
    Ok(row.map(|row| row.get(0)))
}
