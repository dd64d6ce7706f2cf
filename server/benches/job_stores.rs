//! What a store of jobs costs: submissions, and whole lives of jobs, next to bare insertions into SQLite.
//!
//! `cargo bench -p inference-server --bench job_stores`, with the directory of the file in `BENCH_DIRECTORY`, and a PostgreSQL
//! database in `BENCH_POSTGRES` if it is to be measured.

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
    Claim, Completion, JobStore, ModelRoom, NewJob, StoreClock, StoreLimits, StoredReply, StoredRequest,
    Submission, WorkerId,
};
use inference_server::secret::Secret;

/// Duration of each measurement.
const DURATION: Duration = Duration::from_secs(3);

/// Bytes of a request and of a reply.
const BODY: usize = 2000;

/// Clients that submit, or servers that complete jobs, at the same time.
const CONCURRENCY: [usize; 3] = [1, 16, 128];

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let directory = std::env::var_os("BENCH_DIRECTORY").map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(directory).expect("a directory can be created");
    println!("{:<34} {:>10} {:>12}", "", "per second", "ms each");
    bare_insertions(directory.path());
    let limits = StoreLimits {
        max_queued: u64::MAX,
        max_bytes: u64::MAX,
        retention: Duration::from_secs(3600),
    };
    runtime.block_on(async {
        let path = directory.path().join("jobs.sqlite");
        let store = SqliteStore::open(&path, limits.clone(), StoreClock::default()).await;
        measure("SQLite", Arc::new(store.expect("the file can be opened"))).await;
        if let Ok(url) = std::env::var("BENCH_POSTGRES") {
            let store = PostgresStore::open(&Secret::new(url), limits, StoreClock::default()).await;
            measure("PostgreSQL", Arc::new(store.expect("the database can be used"))).await;
        }
    });
}

/// What the disk and SQLite cost without a store: one row and one synchronization each.
fn bare_insertions(directory: &Path) {
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
    report("bare insertions into SQLite", count, began.elapsed(), 1);
}

async fn measure(name: &str, store: Arc<dyn JobStore>) {
    for concurrency in CONCURRENCY {
        let (count, elapsed) = repeat(concurrency, |_| submit(&*store)).await;
        report(
            &format!("{name}, {concurrency:>3} clients submit"),
            count,
            elapsed,
            concurrency,
        );
    }
    for concurrency in CONCURRENCY {
        let (count, elapsed) = repeat(concurrency, |worker| complete(&*store, worker)).await;
        report(
            &format!("{name}, {concurrency:>3} claims run and complete"),
            count,
            elapsed,
            concurrency,
        );
    }
    store.close().await.expect("the store can be closed");
}

/// Calls a function again and again, at a concurrency. Returns the sum of what it returned.
async fn repeat<F: Future<Output = u64>>(concurrency: usize, call: impl Fn(usize) -> F) -> (u64, Duration) {
    let began = now();
    let count = AtomicU64::new(0);
    join_all((0..concurrency).map(async |number| {
        while began.elapsed() < DURATION {
            count.fetch_add(call(number).await, Ordering::Relaxed);
        }
    }))
    .await;
    (count.into_inner(), began.elapsed())
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

/// Claims eight jobs, as for a batch, and completes them.
async fn complete(store: &dyn JobStore, worker: usize) -> u64 {
    let claim = Claim {
        worker: WorkerId::new(worker.to_string()),
        lease: Duration::from_secs(60),
        room: vec![ModelRoom {
            model: "words".to_owned(),
            items: 8,
        }],
        max_bytes: u64::MAX,
    };
    let claimed = store.claim(claim).await.expect("jobs can be claimed");
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

fn report(what: &str, count: u64, elapsed: Duration, concurrency: usize) {
    let per_second = count as f64 / elapsed.as_secs_f64();
    let each = elapsed.as_secs_f64() * 1e3 * concurrency as f64 / count.max(1) as f64;
    println!("{what:<34} {per_second:>10.0} {each:>12.2}");
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}
