//! Statements on a connection.

use std::collections::HashMap;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement, Transaction};

use super::errors::{corrupt, store_error};
use super::rows;
use crate::jobs::stored::{COLUMNS, StoredJob};
use crate::jobs::{JobId, StoreClock, StoreError, Timestamp};

/// Parameters of a statement.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A connection, and the statements that it has prepared.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) statements: HashMap<String, Statement>,
}

/// Runs statements, inside of a transaction or each on its own.
pub(super) struct Statements<'a> {
    pub(super) client: &'a Client,
    pub(super) prepared: &'a mut HashMap<String, Statement>,
    pub(super) place: &'a str,
}

impl Statements<'_> {
    pub(super) async fn query(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        let statement = self.prepare(sql).await?;
        let rows = self.client.query(&statement, params).await;
        rows.map_err(|error| store_error(&error, self.place))
    }

    pub(super) async fn execute(&mut self, sql: &str, params: Params<'_>) -> Result<u64, StoreError> {
        let statement = self.prepare(sql).await?;
        let changed = self.client.execute(&statement, params).await;
        changed.map_err(|error| store_error(&error, self.place))
    }

    pub(super) async fn prepare(&mut self, sql: &str) -> Result<Statement, StoreError> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await;
        let statement = statement.map_err(|error| store_error(&error, self.place))?;
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Jobs that satisfy a condition, which can be followed by an order, a limit and a lock.
    pub(super) async fn jobs_where(
        &mut self,
        condition: &str,
        params: Params<'_>,
    ) -> Result<Vec<StoredJob>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM inference_server.jobs WHERE {condition}");
        let rows = self.query(&sql, params).await?;
        rows.iter().map(|row| self.job_of(row)).collect()
    }

    /// The job with an identifier.
    pub(super) async fn job(&mut self, id: JobId) -> Result<Option<StoredJob>, StoreError> {
        Ok(self.jobs_where("id = $1", &[&id.uuid()]).await?.pop())
    }

    /// The time of the database, which is the same for all servers.
    pub(super) async fn now(&mut self, clock: &StoreClock) -> Result<Timestamp, StoreError> {
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        let rows = self.query(sql, &[]).await?;
        let millis = rows.first().map_or(0, |row| row.get::<_, i64>(0));
        Ok(clock.adjust(Timestamp::from_stored(millis)))
    }

    fn job_of(&self, row: &Row) -> Result<StoredJob, StoreError> {
        let raw = rows::raw_job(row).map_err(|error| store_error(&error, self.place))?;
        let seq = raw.seq;
        raw.parse().map_err(|column| {
            corrupt(
                self.place,
                format!("the job with the number {seq} has an invalid `{column}`"),
            )
        })
    }
}

impl Session {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            statements: HashMap::new(),
        }
    }

    /// Runs statements, each on its own.
    pub(super) fn statements<'a>(&'a mut self, place: &'a str) -> Statements<'a> {
        Statements {
            client: &self.client,
            prepared: &mut self.statements,
            place,
        }
    }

    /// Begins a transaction.
    pub(super) async fn begin<'a>(&'a mut self, place: &'a str) -> Result<Open<'a>, StoreError> {
        let transaction = self.client.transaction().await;
        Ok(Open {
            transaction: transaction.map_err(|error| store_error(&error, place))?,
            prepared: &mut self.statements,
            place,
        })
    }
}

/// An open transaction. It is undone when it is dropped.
pub(super) struct Open<'a> {
    transaction: Transaction<'a>,
    prepared: &'a mut HashMap<String, Statement>,
    place: &'a str,
}

impl<'a> Open<'a> {
    /// Names the database.
    pub(super) fn place(&self) -> &'a str {
        self.place
    }

    pub(super) fn statements(&mut self) -> Statements<'_> {
        Statements {
            client: self.transaction.client(),
            prepared: self.prepared,
            place: self.place,
        }
    }

    /// Makes the changes durable.
    ///
    /// # Errors
    /// Nothing was changed, or the connection was lost and the outcome is unknown.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        let place = self.place;
        self.transaction
            .commit()
            .await
            .map_err(|error| match error.as_db_error() {
                Some(_) => store_error(&error, place),
                None => StoreError::OutcomeUnknown {
                    reason: format!("{place}: {}", crate::error::Chain(&error)),
                },
            })
    }
}
