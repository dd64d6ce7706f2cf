//! The threads of the store: one writes, one reads.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{broadcast, mpsc};

use super::database::{Database, open_reader};
use super::errors::store_error;
use super::writing::{Usage, Writing};
use crate::jobs::timestamp::JumpDetector;
use crate::jobs::{JobChange, StoreClock, StoreError, StoreLimits, Timestamp};

/// Maximum number of calls in one transaction.
const GROUP: usize = 256;

/// A call for the writer.
pub(super) trait Write: Send {
    /// Whether the call creates the file if it does not exist. Otherwise, it is answered as one to an empty store.
    fn creates(&self) -> bool;

    /// Changes the database. The changes are undone if it fails.
    fn run(&mut self, writing: &mut Writing<'_>) -> Result<(), StoreError>;

    /// Answers the call, after its transaction was committed or has failed.
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

/// A call that the reading thread runs. It gets no connection if the file does not exist.
pub(super) type Read = Box<dyn FnOnce(Result<Option<&Connection>, StoreError>) + Send>;

/// What the threads share.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) limits: StoreLimits,
    pub(super) clock: StoreClock,
    pub(super) changes: broadcast::Sender<JobChange>,
    /// Whether the database exists and has its schema.
    pub(super) exists: AtomicBool,
}

/// The thread that writes.
///
/// It carries out all calls that wait for it in one transaction, so that they share one synchronization with the disk, and answers
/// them after the transaction is durable. Each call has a savepoint, so that one that fails changes nothing.
pub(super) struct Writer {
    shared: Arc<Shared>,
    database: Option<Database>,
    jumps: JumpDetector,
    /// Number of queued jobs. `None`: to be counted.
    queued: Option<u64>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system does not start a thread.
    pub(super) fn spawn(
        shared: Arc<Shared>,
        database: Option<Database>,
        calls: mpsc::Receiver<Box<dyn Write>>,
    ) -> std::io::Result<JoinHandle<()>> {
        let jumps = JumpDetector::new(shared.clock.clone());
        let writer = Self {
            shared,
            database,
            jumps,
            queued: None,
        };
        std::thread::Builder::new()
            .name("jobs-writer".to_owned())
            .spawn(move || writer.run(calls))
    }

    fn run(mut self, mut calls: mpsc::Receiver<Box<dyn Write>>) {
        while let Some(first) = calls.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP
                && let Ok(call) = calls.try_recv()
            {
                group.push(call);
            }
            self.carry_out(group);
        }
        if let Some(database) = self.database.take() {
            // Closing does this as well, but does not report errors.
            let checkpoint = database
                .connection
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            if let Err(error) = checkpoint {
                log::warn!("could not write back the log of the job store: {error}");
            }
        }
    }

    fn carry_out(&mut self, mut group: Vec<Box<dyn Write>>) {
        if self.database.is_none() && group.iter().any(|call| call.creates()) {
            match Database::open(&self.shared.path) {
                Ok(database) => {
                    log::info!("opened the job store {}", self.shared.path.display());
                    self.database = Some(database);
                    self.shared.exists.store(true, Ordering::Release);
                }
                Err(error) => {
                    for call in group {
                        let outcome = if call.creates() {
                            Err(error.clone())
                        } else {
                            Ok(())
                        };
                        call.answer(outcome);
                    }
                    return;
                }
            }
        }
        let outcome = match self.database.take() {
            None => Ok(Vec::new()),
            Some(database) => {
                let outcome = self.transact(&database.connection, &mut group);
                self.database = Some(database);
                outcome
            }
        };
        let (changes, outcome) = match outcome {
            Ok(changes) => (changes, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        for call in group {
            call.answer(outcome.clone());
        }
        for change in changes {
            // It fails without receivers, when nobody wants to know.
            let _ = self.shared.changes.send(change);
        }
    }

    /// Carries out calls in one transaction. If it fails, nothing was changed.
    fn transact(
        &mut self,
        connection: &Connection,
        group: &mut [Box<dyn Write>],
    ) -> Result<Vec<JobChange>, StoreError> {
        let (now, jump) = self.jumps.read();
        let queued = self.queued.take();
        let outcome = self.transaction(connection, group, now, jump, queued);
        match outcome {
            Ok((changes, queued)) => {
                self.queued = Some(queued);
                Ok(changes)
            }
            Err(error) => {
                if !connection.is_autocommit()
                    && let Err(error) = connection.execute_batch("ROLLBACK")
                {
                    log::error!("could not undo a transaction of the job store: {error}");
                }
                if let Some(jump) = jump {
                    self.jumps.undo(jump);
                }
                Err(error)
            }
        }
    }

    fn transaction(
        &self,
        connection: &Connection,
        group: &mut [Box<dyn Write>],
        now: Timestamp,
        jump: Option<i64>,
        queued: Option<u64>,
    ) -> Result<(Vec<JobChange>, u64), StoreError> {
        let path = &self.shared.path;
        let execute = |sql| {
            let mut statement = connection.prepare_cached(sql)?;
            statement.execute([]).map(|_| ())
        };
        let execute = |sql| execute(sql).map_err(|error| store_error(&error, path));
        execute("BEGIN IMMEDIATE")?;
        let mut writing = Writing {
            connection,
            path,
            limits: &self.shared.limits,
            now,
            usage: Usage {
                queued: 0,
                stored: None,
            },
            changes: Vec::new(),
        };
        writing.usage.queued = match queued {
            Some(queued) => queued,
            None => writing.count_queued()?,
        };
        if let Some(millis) = jump {
            log::warn!(
                "the clock jumped by {:+.1} s; the leases, time limits and retention of jobs move along",
                millis as f64 / 1e3
            );
            writing.move_times(millis)?;
        }
        for call in group {
            let (usage, changes) = (writing.usage, writing.changes.len());
            execute("SAVEPOINT call")?;
            if let Err(error) = call.run(&mut writing) {
                if connection.is_autocommit() {
                    // SQLite has undone everything, such as for lack of space.
                    return Err(error);
                }
                writing.usage = usage;
                writing.changes.truncate(changes);
                execute("ROLLBACK TO call")?;
            }
            execute("RELEASE call")?;
        }
        execute("COMMIT")?;
        Ok((writing.changes, writing.usage.queued))
    }
}

/// Starts the thread that reads.
///
/// # Errors
/// The system does not start a thread.
pub(super) fn spawn_reader(
    shared: Arc<Shared>,
    mut calls: mpsc::Receiver<Read>,
) -> std::io::Result<JoinHandle<()>> {
    let run = move || {
        let mut connection = None;
        while let Some(call) = calls.blocking_recv() {
            if connection.is_none() && shared.exists.load(Ordering::Acquire) {
                match open_reader(&shared.path) {
                    Ok(opened) => connection = Some(opened),
                    Err(error) => {
                        call(Err(error));
                        continue;
                    }
                }
            }
            call(Ok(connection.as_ref()));
        }
    };
    std::thread::Builder::new()
        .name("jobs-reader".to_owned())
        .spawn(run)
}
