//! The jobs of a server: opens the store when it is needed, and counts what happens.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OnceCell, watch};

use super::webhooks::WebhookSettings;
use super::{JobStore, NewJob, StoreError, StoreLimits, Submission, WorkerId};
use crate::clock;
use crate::config::JobSettings;
use crate::metrics::{JobMetrics, ModelJobs, SubmissionOutcome};

/// Time after which opening the store is tried again.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// The jobs of a server. Protocols submit them and report on them; the runner runs them.
pub struct Jobs {
    /// The settings.
    pub settings: JobSettings,
    /// The settings of webhooks.
    pub webhooks: WebhookSettings,
    pub(super) metrics: JobMetrics,
    pub(super) worker: WorkerId,
    store: OnceCell<Arc<dyn JobStore>>,
    /// When and why the store could not be opened.
    failure: Mutex<Option<(Instant, StoreError)>>,
    /// The store was opened after a failure.
    pub(super) wake: Notify,
    is_stopping: watch::Sender<bool>,
}

impl Jobs {
    /// Creates the jobs of a server. The store is opened later.
    pub fn new(settings: JobSettings, metrics: JobMetrics) -> Self {
        let worker = format!("{}-{:016x}", std::process::id(), fastrand::u64(..));
        Self {
            webhooks: WebhookSettings::new(&settings),
            settings,
            metrics,
            worker: WorkerId::new(worker),
            store: OnceCell::new(),
            failure: Mutex::new(None),
            wake: Notify::new(),
            is_stopping: watch::Sender::new(false),
        }
    }

    /// Opens the store, unless jobs are disabled.
    ///
    /// # Errors
    /// It cannot be opened, and waiting does not help. Other errors are logged: the runner opens the store later.
    pub async fn open(&self) -> Result<(), StoreError> {
        match self.store().await {
            Ok(_) => Ok(()),
            Err(
                error @ (StoreError::Corrupt(_)
                | StoreError::NewerSchema { .. }
                | StoreError::Misconfigured { .. }),
            ) => Err(error),
            // It was logged.
            Err(_) => Ok(()),
        }
    }

    /// The store. `None` if jobs are disabled.
    ///
    /// # Errors
    /// It cannot be opened now.
    pub async fn store(&self) -> Result<Option<Arc<dyn JobStore>>, StoreError> {
        match self.settings.enabled {
            true => self.opened().await.map(Some),
            false => Ok(None),
        }
    }

    async fn opened(&self) -> Result<Arc<dyn JobStore>, StoreError> {
        let open = || async {
            if let Some(error) = self.recent_failure() {
                return Err(error);
            }
            let limits = StoreLimits {
                max_queued: self.settings.max_queued_jobs as u64,
                max_bytes: self.settings.max_disk_size,
                retention: self.settings.retention,
            };
            let opened = super::open::open(&self.settings.store, limits).await;
            self.opened_with(opened.as_ref().err());
            opened
        };
        self.store.get_or_try_init(open).await.cloned()
    }

    /// The error of the last attempt to open the store, if that is not long ago.
    fn recent_failure(&self) -> Option<StoreError> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, error) = failure.as_ref()?;
        let age = clock::now().saturating_duration_since(*at);
        (age < REOPEN_INTERVAL).then(|| error.clone())
    }

    /// Records an attempt to open the store. An error is logged once.
    fn opened_with(&self, error: Option<&StoreError>) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = failure.take().map(|(_, error)| error);
        *failure = error.map(|error| (clock::now(), error.clone()));
        match (error, previous) {
            (Some(error), previous) if previous.as_ref() != Some(error) => {
                log::error!("jobs are not available: {error}");
            }
            (None, Some(_)) => {
                log::info!("jobs are available");
                self.wake.notify_one();
            }
            (Some(_), _) | (None, None) => {}
        }
    }

    /// The store, if it is open.
    pub(super) fn opened_store(&self) -> Option<Arc<dyn JobStore>> {
        self.store.get().cloned()
    }

    /// Stores a job. Once it is stored, it will run.
    ///
    /// # Errors
    /// The store failed.
    pub async fn submit(&self, job: NewJob) -> Result<Submission, StoreError> {
        let started = clock::now();
        let submitted = match self.opened().await {
            Ok(store) => store.submit(job).await,
            Err(error) => Err(error),
        };
        let outcome = match &submitted {
            Ok(Submission::Created(_)) => SubmissionOutcome::Created,
            Ok(Submission::Existing(_)) => SubmissionOutcome::Repeated,
            Ok(
                Submission::Conflict { .. } | Submission::QueueFull { .. } | Submission::StorageFull { .. },
            ) => SubmissionOutcome::Rejected,
            Err(_) => SubmissionOutcome::Error,
        };
        let took = clock::now().saturating_duration_since(started);
        self.metrics.count_submission(outcome, took);
        submitted
    }

    /// The jobs of a model that wait or run, as the metrics report them. `None` if jobs are disabled.
    pub fn of_model(&self, model: &str) -> Option<ModelJobs> {
        self.settings.enabled.then(|| self.metrics.of_model(model))
    }

    /// Answers clients that wait for a job, and stops claiming jobs.
    pub fn stop(&self) {
        self.is_stopping.send_replace(true);
    }

    /// Waits until [`stop`](Self::stop) was called. Cancel-safe.
    pub async fn stopping(&self) {
        let mut receiver = self.is_stopping.subscribe();
        // The sender is not dropped before.
        let _ = receiver.wait_for(|is_stopping| *is_stopping).await;
    }
}
