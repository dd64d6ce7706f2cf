//! Settings of durable jobs.

use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Secret;

/// Durable jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSettings {
    /// Whether jobs are accepted.
    pub enabled: bool,
    /// Where they are stored.
    pub store: JobStoreSetting,
    /// Maximum number of jobs that wait or run.
    pub max_queued_jobs: usize,
    /// Maximum size of the body of a job in bytes.
    pub max_job_size: usize,
    /// Maximum size of a result in bytes.
    pub max_result_size: usize,
    /// Maximum size of the store in bytes.
    pub max_disk_size: u64,
    /// Time for which finished jobs are kept.
    pub retention: Duration,
    /// Maximum number of times that a job starts.
    pub max_attempts: u32,
    /// Time after which the claim of a server on a job expires.
    pub lease: Duration,
    /// Secret with which webhooks are signed. Without it, webhooks are disabled.
    pub webhook_secret: Option<Secret>,
    /// Hosts that webhooks can reach, or domains after `*.`; every host with a public address if there are none.
    pub webhook_allowed_hosts: Vec<String>,
    /// Maximum time of an attempt to deliver a webhook.
    pub webhook_timeout: Duration,
    /// Maximum number of webhooks that are delivered at the same time.
    pub webhook_concurrency: usize,
}

/// Where jobs are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobStoreSetting {
    /// This file of SQLite, which is created with the first job.
    Sqlite(PathBuf),
    /// The PostgreSQL database with this URL.
    Postgres(Secret),
}
