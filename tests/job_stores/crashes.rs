//! A process that uses the store is killed at random moments. What it had acknowledged exists afterwards.
//!
//! `INFERENCE_TEST_LONG=1` kills it more often.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use inference_server::jobs::sqlite::SqliteStore;
use inference_server::jobs::{JobId, JobState, JobStore, NewJob, StoreClock, Viewer};

use super::fixture::{LEASE, Sure, claim_of, job, limits, reply_to, success};
use crate::harness::{rounds, seed};

/// Path of the store, in the process that is killed.
const VARIABLE: &str = "INFERENCE_TEST_JOB_STORE";

/// Tasks of the process that submit, and tasks that complete jobs.
const CLIENTS: u64 = 6;
const WORKERS: u64 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_job_of_a_killed_process_exists_and_has_at_most_one_result() {
    let directory = tempfile::tempdir().expect("a directory can be created");
    let path = directory.path().join("jobs.sqlite");
    let mut random = fastrand::Rng::with_seed(seed());
    let mut acknowledged = Acknowledged::default();
    for round in 0..rounds(20, 300) {
        let mut process = start(&path, round);
        let output = BufReader::new(process.stdout.take().expect("the output is a pipe"));
        let lines_until_kill = random.usize(0..300);
        for (number, line) in output.split(b'\n').enumerate() {
            acknowledged.read(&line.expect("the pipe can be read"));
            if number == lines_until_kill {
                // What it writes until it is gone is read as well.
                process.kill().expect("the process runs");
            }
        }
        process.wait().expect("the process has exited");
        acknowledged.check(&path).await;
    }
    assert!(
        acknowledged.completed.len() > 100,
        "{} jobs were completed",
        acknowledged.completed.len()
    );
    finish(&path).await;
    let store = open(&path).await;
    for (id, body) in &acknowledged.submitted {
        assert_eq!(Sure(&store).reply(*id).await, Some(reply_to(body.as_bytes())));
    }
}

/// What the process has acknowledged.
#[derive(Default)]
struct Acknowledged {
    submitted: BTreeMap<JobId, String>,
    completed: BTreeSet<JobId>,
}

impl Acknowledged {
    fn read(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        // A line that was cut off lacks its end.
        let Some(line) = line.strip_prefix('@').and_then(|line| line.strip_suffix('.')) else {
            return;
        };
        let (kind, rest) = line.split_once(' ').expect("the line has a kind");
        let (id, body) = rest.split_once(' ').expect("the line has an id");
        let id = id.parse().expect("the id is one");
        match kind {
            "submitted" => {
                self.submitted.insert(id, body.to_owned());
            }
            "completed" => assert!(self.completed.insert(id), "{id} was completed twice"),
            other => panic!("{other}"),
        }
    }

    async fn check(&self, path: &Path) {
        let store = open(path).await;
        for (id, body) in &self.submitted {
            let record = Sure(&store).get(*id).await;
            let reply = Sure(&store).reply(*id).await;
            match record.state {
                JobState::Succeeded => assert_eq!(reply, Some(reply_to(body.as_bytes()))),
                JobState::Queued => {
                    assert_eq!(reply, None, "{record:?}");
                    let request = store.request(*id, &Viewer::All).await.expect("the store works");
                    assert_eq!(request.map(|request| request.body), Some(body.clone().into()));
                    assert!(!self.completed.contains(id), "the result of {id} was lost");
                }
                other => panic!("{other:?}: {record:?}"),
            }
        }
        store.close().await.expect("the store can be closed");
    }
}

async fn open(path: &Path) -> SqliteStore {
    let store = SqliteStore::open(path, limits(), StoreClock::default()).await;
    store.expect("the store can be opened after a crash")
}

/// Completes every job.
async fn finish(path: &Path) {
    let store = open(path).await;
    loop {
        let claimed = Sure(&store).claim(1000).await;
        if claimed.is_empty() {
            break;
        }
        for job in claimed {
            Sure(&store).begin(job.record.id, job.fence).await;
            assert!(Sure(&store).complete(&job).await.is_applied());
        }
    }
    store.close().await.expect("the store can be closed");
}

/// Starts a process that runs [`child`].
fn start(path: &Path, round: usize) -> Child {
    let executable = std::env::current_exe().expect("the executable has a path");
    Command::new(executable)
        .args([
            "--exact",
            "job_stores::crashes::child",
            "--ignored",
            "--nocapture",
        ])
        .env(VARIABLE, path)
        .env("INFERENCE_TEST_ROUND", round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the process can be started")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs until it is killed, by another test"]
async fn child() {
    let Some(path) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
        return;
    };
    let store: Arc<dyn JobStore> = Arc::new(open(&path).await);
    let round = std::env::var("INFERENCE_TEST_ROUND").unwrap_or_default();
    let number = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (store, number, round) = (store.clone(), number.clone(), round.clone());
        tasks.spawn(async move {
            loop {
                let body = format!(
                    "{round}-{} {}",
                    number.fetch_add(1, Ordering::Relaxed),
                    "x".repeat(5000)
                );
                let max_attempts = 100_000;
                let record = Sure(&*store)
                    .submit(NewJob {
                        max_attempts,
                        ..job(&body)
                    })
                    .await;
                acknowledge(&format!("submitted {} {body}", record.id));
            }
        });
    }
    for _ in 0..WORKERS {
        let store = store.clone();
        tasks.spawn(async move {
            loop {
                for claimed in store.claim(claim_of(3)).await.expect("jobs can be claimed") {
                    Sure(&*store).begin(claimed.record.id, claimed.fence).await;
                    let renewed = store.renew(vec![(claimed.record.id, claimed.fence)], LEASE).await;
                    assert_eq!(renewed, Ok(Vec::new()));
                    let outcome = success(&claimed.request);
                    let completed = store.complete(claimed.record.id, claimed.fence, outcome).await;
                    assert!(completed.expect("the job can be completed").is_applied());
                    acknowledge(&format!("completed {} -", claimed.record.id));
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// Writes a line, at once.
fn acknowledge(what: &str) {
    let line = format!("@{what}.\n");
    // The other end is closed when the test has failed.
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}
