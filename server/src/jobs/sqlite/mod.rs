//! The store in a file: SQLite, used by one server.
//!
//! The file is created with the first job. Calls are carried out by two threads, one of which writes; see `threads`.
//!
//! # Durability
//! The log is written ahead, and synchronized with the disk before a call is answered (`synchronous = FULL`).
//!
//! # Time
//! Only one server uses the file, so claims that are found when it is opened are those of a process that no longer exists: they end
//! regardless of the time. If the clock of the machine jumps while the server runs, the ends of leases, time limits and retention
//! move along, so that a jump neither ends nor prolongs them.

mod database;
mod errors;
mod lock_file;
mod reading;
mod rows;
mod threads;
mod writing;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};

use database::Database;
use reading::Reading;
use threads::{Read, Shared, Write, Writer, spawn_reader};
use writing::{SweptPart, Writing};

use super::{
    Claim, ClaimedJob, Completion, Delivery, DeliveryReport, Fence, JobChange, JobError, JobFilter, JobId,
    JobPage, JobRecord, JobStore, NewJob, Progress, Removal, Statistics, StoreClock, StoreError, StoreFuture,
    StoreLimits, StoredReply, StoredRequest, Submission, Swept, Verdict, Viewer,
};

/// Maximum number of calls that wait for each thread.
const QUEUE: usize = 1024;

/// Number of changes that a receiver can lag behind.
const CHANGES: usize = 4096;

/// A store in a file.
pub struct SqliteStore {
    shared: Arc<Shared>,
    /// `None` after the store was closed.
    threads: Mutex<Option<Threads>>,
    recovered: Swept,
}

/// Channels to the thread that writes and the one that reads.
type Senders = (mpsc::Sender<Box<dyn Write>>, mpsc::Sender<Read>);

struct Threads {
    writes: mpsc::Sender<Box<dyn Write>>,
    reads: mpsc::Sender<Read>,
    handles: Vec<JoinHandle<()>>,
}

impl SqliteStore {
    /// Opens a store. A file that exists is opened and checked, and the claims of the server that used it before end; a file that
    /// does not exist is created with the first job.
    ///
    /// # Errors
    /// The file cannot be used.
    pub async fn open(path: &Path, limits: StoreLimits, clock: StoreClock) -> Result<Self, StoreError> {
        let file = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let exists = file
                .try_exists()
                .map_err(|error| errors::file_error(&error, &file))?;
            exists.then(|| Database::open(&file)).transpose()
        });
        let database = opened.await.map_err(|_| StoreError::Closed)??;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            limits,
            clock,
            changes: broadcast::Sender::new(CHANGES),
            exists: AtomicBool::new(database.is_some()),
        });
        let (writes, calls) = mpsc::channel(QUEUE);
        let failed = |error: std::io::Error| errors::file_error(&error, path);
        let writer = Writer::spawn(shared.clone(), database, calls).map_err(failed)?;
        let (reads, calls) = mpsc::channel(QUEUE);
        let reader = spawn_reader(shared.clone(), calls).map_err(failed)?;
        let threads = Threads {
            writes,
            reads,
            handles: vec![writer, reader],
        };
        let mut store = Self {
            shared,
            threads: Mutex::new(Some(threads)),
            recovered: Swept::default(),
        };
        store.recovered = store.write(Swept::default(), |writing| writing.recover()).await?;
        Ok(store)
    }

    /// The outcome of the claims of the server that used the file before.
    pub fn recovered(&self) -> Swept {
        self.recovered
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    fn senders(&self) -> Result<Senders, StoreError> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let threads = threads.as_ref().ok_or(StoreError::Closed)?;
        Ok((threads.writes.clone(), threads.reads.clone()))
    }

    /// Changes jobs. Returns `absent` if the file does not exist.
    fn write<T: Send + 'static>(
        &self,
        absent: T,
        operation: impl FnOnce(&mut Writing<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        let senders = self.senders();
        Box::pin(async move {
            let (call, outcome) = WriteCall::new(Some(absent), operation);
            let sent = senders?.0.send(Box::new(call)).await;
            sent.map_err(|_| StoreError::Closed)?;
            outcome.await.map_err(|_| StoreError::Closed)?
        })
    }

    /// Reads jobs. Returns `absent` if the file does not exist.
    fn read<T: Send + 'static>(
        &self,
        absent: T,
        query: impl FnOnce(Reading<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        let senders = self.senders();
        let shared = self.shared.clone();
        Box::pin(async move {
            let (answer, outcome) = oneshot::channel();
            let call: Read = Box::new(move |connection| {
                let path = &shared.path;
                let outcome = match connection {
                    Ok(Some(connection)) => query(Reading { connection, path }),
                    Ok(None) => Ok(absent),
                    Err(error) => Err(error),
                };
                // The caller may be gone.
                let _ = answer.send(outcome);
            });
            senders?.1.send(call).await.map_err(|_| StoreError::Closed)?;
            outcome.await.map_err(|_| StoreError::Closed)?
        })
    }

    /// Ends the threads, and waits for them.
    fn stop(&self) {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(threads) = threads else { return };
        drop((threads.writes, threads.reads));
        for handle in threads.handles {
            if handle.join().is_err() {
                log::error!("a thread of the job store has panicked");
            }
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.stop();
    }
}

impl JobStore for SqliteStore {
    fn submit(&self, job: NewJob) -> StoreFuture<'_, Submission> {
        let senders = self.senders();
        Box::pin(async move {
            let (call, outcome) = WriteCall::new(None, move |writing: &mut Writing<'_>| writing.submit(&job));
            match senders?.0.try_send(Box::new(call)) {
                Ok(()) => outcome.await.map_err(|_| StoreError::Closed)?,
                Err(mpsc::error::TrySendError::Full(_)) => Err(StoreError::Overloaded { waiting: QUEUE }),
                Err(mpsc::error::TrySendError::Closed(_)) => Err(StoreError::Closed),
            }
        })
    }

    fn get<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<JobRecord>> {
        let viewer = viewer.clone();
        self.read(None, move |reading| {
            Ok(reading.get(id, &viewer)?.map(|job| job.record()))
        })
    }

    fn request<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<StoredRequest>> {
        let viewer = viewer.clone();
        self.read(None, move |reading| reading.request(id, &viewer))
    }

    fn reply<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<StoredReply>> {
        let viewer = viewer.clone();
        self.read(None, move |reading| reading.reply(id, &viewer))
    }

    fn list<'a>(
        &'a self,
        filter: &'a JobFilter,
        viewer: &'a Viewer,
        cursor: Option<JobId>,
        limit: u32,
    ) -> StoreFuture<'a, JobPage> {
        let (filter, viewer) = (filter.clone(), viewer.clone());
        self.read(JobPage::default(), move |reading| {
            reading.list(&filter, &viewer, cursor, limit)
        })
    }

    fn cancel<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<Verdict>> {
        let viewer = viewer.clone();
        self.write(None, move |writing| writing.cancel(id, &viewer))
    }

    fn remove<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Removal> {
        let viewer = viewer.clone();
        self.write(Removal::NotFound, move |writing| writing.remove(id, &viewer))
    }

    fn retry<'a>(&'a self, id: JobId, viewer: &'a Viewer) -> StoreFuture<'a, Option<Verdict>> {
        let viewer = viewer.clone();
        self.write(None, move |writing| writing.retry(id, &viewer))
    }

    fn claim(&self, claim: Claim) -> StoreFuture<'_, Vec<ClaimedJob>> {
        self.write(Vec::new(), move |writing| writing.claim(&claim))
    }

    fn begin_attempt(&self, id: JobId, fence: Fence) -> StoreFuture<'_, Verdict> {
        self.write(Verdict::MISSING, move |writing| writing.begin_attempt(id, fence))
    }

    fn progress(&self, progress: Vec<Progress>) -> StoreFuture<'_, ()> {
        self.write((), move |writing| writing.progress(&progress))
    }

    fn complete(&self, id: JobId, fence: Fence, completion: Completion) -> StoreFuture<'_, Verdict> {
        self.write(Verdict::MISSING, move |writing| {
            writing.complete(id, fence, &completion)
        })
    }

    fn interrupt(&self, id: JobId, fence: Fence, error: JobError) -> StoreFuture<'_, Verdict> {
        self.write(Verdict::MISSING, move |writing| {
            writing.interrupt(id, fence, &error)
        })
    }

    fn release(&self, id: JobId, fence: Fence) -> StoreFuture<'_, Verdict> {
        self.write(Verdict::MISSING, move |writing| writing.release(id, fence))
    }

    fn renew(&self, claims: Vec<(JobId, Fence)>, lease: Duration) -> StoreFuture<'_, Vec<JobId>> {
        let lost = claims.iter().map(|(id, _)| *id).collect();
        self.write(lost, move |writing| writing.renew(&claims, lease))
    }

    fn sweep(&self) -> StoreFuture<'_, Swept> {
        Box::pin(async move {
            let mut total = Swept::default();
            loop {
                let part = self
                    .write(SweptPart::default(), |writing| writing.sweep())
                    .await?;
                total.add(part.swept);
                if !part.unfinished {
                    return Ok(total);
                }
            }
        })
    }

    fn statistics(&self) -> StoreFuture<'_, Statistics> {
        self.read(Statistics::default(), |reading| reading.statistics())
    }

    fn claim_deliveries(&self, limit: u32, lease: Duration) -> StoreFuture<'_, Vec<Delivery>> {
        self.write(Vec::new(), move |writing| writing.claim_deliveries(limit, lease))
    }

    fn record_delivery(&self, id: JobId, fence: Fence, report: DeliveryReport) -> StoreFuture<'_, ()> {
        self.write((), move |writing| writing.record_delivery(id, fence, report))
    }

    fn changes(&self) -> broadcast::Receiver<JobChange> {
        self.shared.changes.subscribe()
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(async move {
            let Some(threads) = threads else { return Ok(()) };
            let joined = tokio::task::spawn_blocking(move || {
                drop((threads.writes, threads.reads));
                threads.handles.into_iter().all(|handle| handle.join().is_ok())
            });
            if !joined.await.unwrap_or(false) {
                log::error!("a thread of the job store has panicked");
            }
            Ok(())
        })
    }
}

/// A call for the writer, with the channel for its answer.
struct WriteCall<T, F> {
    operation: Option<F>,
    /// The result if the file does not exist. If `None`, the file is created.
    absent: Option<T>,
    outcome: Option<Result<T, StoreError>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F: FnOnce(&mut Writing<'_>) -> Result<T, StoreError>> WriteCall<T, F> {
    fn new(absent: Option<T>, operation: F) -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (answer, outcome) = oneshot::channel();
        let call = Self {
            operation: Some(operation),
            absent,
            outcome: None,
            answer,
        };
        (call, outcome)
    }
}

impl<T, F> Write for WriteCall<T, F>
where
    T: Send,
    F: FnOnce(&mut Writing<'_>) -> Result<T, StoreError> + Send,
{
    fn creates(&self) -> bool {
        self.absent.is_none()
    }

    fn run(&mut self, writing: &mut Writing<'_>) -> Result<(), StoreError> {
        let Some(operation) = self.operation.take() else {
            return Ok(());
        };
        let outcome = operation(writing);
        let failure = outcome.as_ref().err().cloned();
        self.outcome = Some(outcome);
        failure.map_or(Ok(()), Err)
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let answer = match (outcome, self.outcome) {
            (Err(error), None | Some(Ok(_))) => Err(error),
            (_, Some(outcome)) => outcome,
            (Ok(()), None) => self.absent.ok_or(StoreError::Closed),
        };
        // The caller may be gone.
        let _ = self.answer.send(answer);
    }
}
