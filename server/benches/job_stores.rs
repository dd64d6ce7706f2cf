//! What a store of jobs costs: submissions, claims, and whole lives of jobs, next to bare insertions into SQLite.
//!
//! SQLite is measured twice: on the disk, where each change waits until it is durable, and in memory (`/dev/shm`), where that takes no
//! time. The difference of the second measurement to bare insertions is the time that the server adds to a submission.
//!
//! `cargo bench -p inference-server --bench job_stores`, with the directory of the file in `BENCH_DIRECTORY`, and the URL of a
//! PostgreSQL database in `BENCH_POSTGRES` if it is to be measured.

#![allow(clippy::print_stdout, reason = "the report is the output")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use inference_server::batching::Priority;
use inference_server::jobs::postgres::PostgresStore;
use inference_server::jobs::sqlite::SqliteStore;
use inference_server::jobs::{
    Claim, ClaimedJob, Completion, JobStore, ModelRoom, NewJob, StoreClock, StoreLimits, StoredReply,
    StoredRequest, Submission, WorkerId,
};
use inference_server::secret::Secret;

/// Duration of each measurement.
const DURATION: Duration = Duration::from_secs(2);

/// Bytes of a request and of a reply.
const BODY: usize = 2000;

/// Clients that submit, or servers that run jobs, at the same time.
const CONCURRENCY: [usize; 3] = [1, 16, 128];

/// Jobs of a claim, as for a batch.
const BATCH: u32 = 8;

/// A directory whose files are never written to a disk.
const MEMORY: &str = "/dev/shm";

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let disk = std::env::var_os("BENCH_DIRECTORY").map_or_else(std::env::temp_dir, PathBuf::from);
    println!("{:<46} {:>10} {:>10}", "", "per second", "ms each");
    runtime.block_on(async {
        sqlite("disk", &disk).await;
        match Path::new(MEMORY).is_dir() {
            true => {
                let [bare, submission] = sqlite("memory", Path::new(MEMORY)).await;
                println!(
                    "a submission takes {:.0} us without the disk, a bare insertion {:.0} us: the server adds {:.0} us",
                    submission * 1e6,
                    bare * 1e6,
                    (submission - bare) * 1e6
                );
            }
            false => println!("{MEMORY} does not exist, so the time without the disk was not measured"),
        }
        match std::env::var("BENCH_POSTGRES") {
            Ok(url) => {
                let store = PostgresStore::open(&Secret::new(url), limits(), StoreClock::default()).await;
                measure("PostgreSQL", Arc::new(store.expect("the database can be used"))).await;
            }
            Err(_) => println!("BENCH_POSTGRES is not set, so PostgreSQL was not measured"),
        }
    });
}

/// Limits that are not reached.
fn limits() -> StoreLimits {
    StoreLimits {
        max_queued: u64::MAX,
        max_bytes: u64::MAX,
        retention: Duration::from_secs(3600),
    }
}

/// Measures SQLite in a directory. Returns the seconds of a bare insertion, and of a submission by one client.
async fn sqlite(place: &str, directory: &Path) -> [f64; 2] {
    let directory = tempfile::tempdir_in(directory).expect("a directory can be created");
    let bare = bare_insertions(place, directory.path());
    let path = directory.path().join("jobs.sqlite");
    let store = SqliteStore::open(&path, limits(), StoreClock::default()).await;
    let store = Arc::new(store.expect("the file can be opened"));
    [bare, measure(&format!("SQLite ({place})"), store).await]
}

/// What the disk and SQLite cost without a store: one row and one synchronization each. Returns the seconds of one.
fn bare_insertions(place: &str, directory: &Path) -> f64 {
    let connection =
        rusqlite::Connection::open(directory.join("bare.sqlite")).expect("the file can be created");
    let prepare = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)";
    connection
        .execute_batch(prepare)
        .expect("the table can be created");
    let mut insert = connection
        .prepare("INSERT INTO t (body) VALUES (?1)")
        .expect("the statement is correct");
    let body = vec![b'x'; BODY];
    let began = now();
    let mut count = 0;
    while began.elapsed() < DURATION {
        insert.execute([&body]).expect("the row can be inserted");
        count += 1;
    }
    report(
        &format!("SQLite ({place}), bare insertions"),
        count,
        began.elapsed(),
        1,
    )
}

/// Measures a store. Returns the seconds of a submission by one client.
async fn measure(name: &str, store: Arc<dyn JobStore>) -> f64 {
    let mut alone = f64::INFINITY;
    for concurrency in CONCURRENCY {
        let (count, elapsed) = repeat(concurrency, |_| submit(&*store)).await;
        let what = format!("{name}, {concurrency} clients submit");
        let each = report(&what, count, elapsed, concurrency);
        if concurrency == 1 {
            alone = each;
        }
    }
    for concurrency in CONCURRENCY {
        let (count, elapsed) = repeat(concurrency, |worker| claim_and_release(&*store, worker)).await;
        let what = format!("{name}, {concurrency} servers claim and release");
        report(&what, count, elapsed, concurrency);
    }
    for concurrency in CONCURRENCY {
        let (count, elapsed) = repeat(concurrency, |worker| complete(&*store, worker)).await;
        let what = format!("{name}, {concurrency} servers claim, run and complete");
        report(&what, count, elapsed, concurrency);
    }
    store.close().await.expect("the store can be closed");
    alone
}

/// Calls a function again and again, at a concurrency, while it returns something. Returns the sum of what it returned.
async fn repeat<F: Future<Output = u64>>(concurrency: usize, call: impl Fn(usize) -> F) -> (u64, Duration) {
    let began = now();
    let sum = AtomicU64::new(0);
    join_all((0..concurrency).map(async |number| {
        while began.elapsed() < DURATION {
            match call(number).await {
                // No jobs are left.
                0 => break,
                count => sum.fetch_add(count, Ordering::Relaxed),
            };
        }
    }))
    .await;
    (sum.into_inner(), began.elapsed())
}

async fn submit(store: &dyn JobStore) -> u64 {
    let job = NewJob {
        request: StoredRequest {
            method: "POST".to_owned(),
            path: "/v1/models/words:predict".to_owned(),
            query: None,
            headers: Vec::new(),
            content_type: Some("application/json".to_owned()),
            body: vec![b'x'; BODY].into(),
        },
        model: "words".to_owned(),
        task: "count".to_owned(),
        owner: None,
        priority: Priority::Normal,
        ttl: None,
        not_before: None,
        label: None,
        idempotency_key: None,
        webhook_url: None,
        max_attempts: 3,
        items: 1,
    };
    let submission = store.submit(job).await.expect("the job can be stored");
    u64::from(matches!(submission, Submission::Created(_)))
}

async fn claim(store: &dyn JobStore, worker: usize) -> Vec<ClaimedJob> {
    let claim = Claim {
        worker: WorkerId::new(worker.to_string()),
        lease: Duration::from_secs(60),
        room: vec![ModelRoom {
            model: "words".to_owned(),
            items: BATCH,
        }],
        max_bytes: u64::MAX,
    };
    store.claim(claim).await.expect("jobs can be claimed")
}

/// Claims jobs, and returns them.
async fn claim_and_release(store: &dyn JobStore, worker: usize) -> u64 {
    let claimed = claim(store, worker).await;
    let releases = claimed.iter().map(|job| store.release(job.record.id, job.fence));
    for released in join_all(releases).await {
        assert!(released.expect("the job can be released").is_applied());
    }
    claimed.len() as u64
}

/// Claims jobs, and completes them.
async fn complete(store: &dyn JobStore, worker: usize) -> u64 {
    let claimed = claim(store, worker).await;
    let lives = claimed.iter().map(async |job| {
        let reply = StoredReply {
            status: 200,
            content_type: Some("application/json".to_owned()),
            headers: Vec::new(),
            body: vec![b'y'; BODY].into(),
        };
        let (id, fence) = (job.record.id, job.fence);
        let begun = store
            .begin_attempt(id, fence)
            .await
            .expect("the attempt can be counted");
        assert!(begun.is_applied());
        let completed = store.complete(id, fence, Completion::Succeeded(reply)).await;
        assert!(completed.expect("the job can be completed").is_applied());
    });
    join_all(lives).await;
    claimed.len() as u64
}

/// Prints a line. Returns the seconds of one.
fn report(what: &str, count: u64, elapsed: Duration, concurrency: usize) -> f64 {
    let per_second = count as f64 / elapsed.as_secs_f64();
    let each = elapsed.as_secs_f64() * concurrency as f64 / count.max(1) as f64;
    println!("{what:<46} {per_second:>10.0} {:>10.3}", each * 1e3);
    each
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}
