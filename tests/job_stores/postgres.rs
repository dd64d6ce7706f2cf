//! The store in PostgreSQL.
//!
//! Starting a database server takes seconds, so that one test runs the whole suite.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use inference_server::digest::Digest;
use inference_server::jobs::postgres::PostgresStore;
use inference_server::jobs::{
    Claim, IdempotencyKey, JobChange, JobId, JobState, JobStore, NewJob, StoreClock, StoreError, StoreLimits,
    Submission, Viewer, WorkerId,
};
use inference_server::secret::Secret;
use tokio::sync::Semaphore;

use super::conformance;
use super::fixture::{Opened, Sure, claim_of, job, limits, reply_to, success};
use crate::harness::postgres::Postgres;
use crate::harness::tls::Authority;
use crate::harness::tools::run;
use crate::harness::{eventually, rounds, seed};

/// Delay of a client, or of a server, between two attempts.
const RETRY: Duration = Duration::from_millis(5);

async fn open(url: &str) -> Result<PostgresStore, StoreError> {
    PostgresStore::open(&Secret::new(url), limits(), StoreClock::default()).await
}

/// A store in a new database of a server.
async fn open_new(server: &Postgres, number: usize, limits: StoreLimits) -> Opened {
    let url = Secret::new(server.create_database(&format!("case_{number}")));
    let clock = StoreClock::default();
    let connect = move |clock: StoreClock| {
        let (url, limits) = (url.clone(), limits.clone());
        async move {
            let store = PostgresStore::open(&url, limits, clock).await;
            Arc::new(store.expect("the store can be opened")) as Arc<dyn JobStore>
        }
    };
    Opened {
        store: connect(clock.clone()).await,
        clock: clock.clone(),
        reopen: Box::new(move || Box::pin(connect(clock.clone()))),
        _guard: Box::new(()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_suite() {
    let Some(server) = Postgres::start() else { return };
    let server = Arc::new(server);
    let databases = Arc::new(AtomicUsize::new(0));
    let open: super::fixture::Open = Arc::new(move |limits| {
        let server = server.clone();
        let number = databases.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { open_new(&server, number, limits).await })
    });
    for (name, case) in conformance::cases(&open) {
        eprintln!("{name}");
        case.await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_share_one_queue_and_learn_about_the_jobs_of_others() {
    let Some(server) = Postgres::start() else { return };
    let url = server.create_database("shared");
    // They create the schema at the same time.
    let (first, second) = tokio::join!(open(&url), open(&url));
    let (first, second) = (
        first.expect("the store can be opened"),
        second.expect("the store can be opened"),
    );
    // What was announced before a store listens is lost.
    eventually("both stores to listen", || {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle' AND query LIKE 'LISTEN %'";
        match server.sql(count).trim() {
            "2" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    let mut changes = second.changes();

    let submitted = Sure(&first).submit(job("a")).await;
    let queued = JobChange::Queued {
        model: "words".to_owned(),
    };
    while changes.recv().await != Ok(queued.clone()) {}
    let claimed = Sure(&second).start_one().await;
    assert_eq!(claimed.record.id, submitted.id);
    assert!(Sure(&first).claim(9).await.is_empty());
    assert!(Sure(&second).complete(&claimed).await.is_applied());
    assert_eq!(Sure(&first).reply(submitted.id).await, Some(reply_to(b"a")));

    let mut changes = first.changes();
    let cancelled = Sure(&second).submit(job("b")).await.id;
    second
        .cancel(cancelled, &Viewer::All)
        .await
        .expect("the store works");
    while changes.recv().await != Ok(JobChange::Ended(cancelled, JobState::Cancelled)) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_used_is_rejected_with_the_reason() {
    let Some(server) = Postgres::start() else { return };
    for (url, expected) in [
        (
            "postgres://host:port/x".to_owned(),
            "set `store` in `[jobs]` to postgres://",
        ),
        (
            server.url("absent"),
            "create the database, or correct its name in `store`",
        ),
        (
            server.url("postgres").replace("postgres@", "stranger@"),
            "role \"stranger\" does not exist",
        ),
    ] {
        let error = open(&url)
            .await
            .err()
            .expect("the store cannot be used")
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
    let url = server.create_database("newer");
    open(&url)
        .await
        .expect("the store can be opened")
        .close()
        .await
        .expect("the store can be closed");
    let user = url.replace("postgres@", "reader@");
    server.sql("CREATE ROLE reader LOGIN");
    let error = open(&user)
        .await
        .err()
        .expect("the user has no rights")
        .to_string();
    assert!(
        error.contains("permission denied") && error.contains("grant the user"),
        "{error}"
    );
    let other = PostgresStore::open(&Secret::new(url), limits(), StoreClock::default()).await;
    assert_eq!(other.map(|store| store.place().contains("newer")), Ok(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_database_is_used_as_soon_as_it_can_be_reached() {
    let Some(server) = Postgres::start() else { return };
    let url = server.create_database("late");
    server.kill();
    let store = open(&url).await.expect("the server starts without the database");
    let error = store.submit(job("a")).await.expect_err("the database is down");
    assert!(error.is_transient(), "{error:?}");
    assert!(!error.to_string().contains("postgres@"), "{error}");
    let mut changes = store.changes();
    server.run();
    while changes.recv().await != Ok(JobChange::Unknown) {}
    let id = loop {
        // Until the delay after the last failure is over.
        match store.submit(job("a")).await {
            Ok(Submission::Created(record)) => break record.id,
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
        tokio::time::sleep(RETRY).await;
    };
    assert_eq!(Sure(&store).state(id).await, JobState::Queued);
}

/// Set in the process that trusts the authority of the test.
const TRUST: &str = "SSL_CERT_FILE";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_encrypted_and_the_certificate_is_checked() {
    const ADDRESS: &str = "INFERENCE_TEST_POSTGRES_URL";
    const NAME: &str = "job_stores::postgres::connections_are_encrypted_and_the_certificate_is_checked";
    if let Ok(url) = std::env::var(ADDRESS) {
        let store = open(&url).await.expect("the store can be opened");
        Sure(&store).submit(job("a")).await;
        return;
    }
    let authority = Authority::new();
    let Some(server) = Postgres::start_with_tls(&authority.issue()) else {
        return;
    };
    server.create_database("encrypted");
    let url = server.tls_url("encrypted");

    let untrusting = open(&url).await.expect("the server starts without the database");
    let error = untrusting
        .submit(job("a"))
        .await
        .expect_err("the authority is unknown")
        .to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");

    let directory = tempfile::tempdir().expect("a directory can be created");
    let trusted = directory.path().join("ca.pem");
    std::fs::write(&trusted, authority.pem()).expect("the file can be written");
    let mut test = Command::new(std::env::current_exe().expect("the executable has a path"));
    test.args(["--exact", NAME, "--nocapture"])
        .env(TRUST, trusted)
        .env(ADDRESS, &url);
    run(&mut test);
    let jobs = "SELECT count(*) FROM inference_server.jobs";
    assert_eq!(server.sql_in("encrypted", jobs).trim(), "1");
}

/// Two servers complete the jobs of several clients, while the database is killed again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_has_exactly_one_result_although_the_database_is_killed() {
    const CLIENTS: u64 = 4;
    const SERVERS: u64 = 2;
    let Some(server) = Postgres::start() else { return };
    let url = server.create_database("killed");
    let mut random = fastrand::Rng::with_seed(seed());
    let done = Arc::new(AtomicBool::new(false));
    let progress = Arc::new(Semaphore::new(0));

    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let (url, done, progress) = (url.clone(), done.clone(), progress.clone());
        clients.spawn(async move { submit_until(&url, client, &done, &progress).await });
    }
    let mut servers = tokio::task::JoinSet::new();
    let stop = Arc::new(AtomicBool::new(false));
    for number in 0..SERVERS {
        let (url, stop, progress) = (url.clone(), stop.clone(), progress.clone());
        servers.spawn(async move { serve_until(&url, number, &stop, &progress).await });
    }
    for _ in 0..rounds(4, 60) {
        // Some progress, so that it is killed in the middle of work.
        let calls = progress.acquire_many(random.u32(50..300)).await;
        calls.expect("the semaphore is open").forget();
        server.kill();
        server.run();
    }
    done.store(true, Ordering::Relaxed);
    let mut submitted = BTreeMap::new();
    while let Some(ids) = clients.join_next().await {
        submitted.extend(ids.expect("a client has not panicked"));
    }
    let store = open(&url).await.expect("the store can be opened");
    for (id, body) in &submitted {
        loop {
            match store.get(*id, &Viewer::All).await {
                Ok(Some(record)) if record.state == JobState::Succeeded => break,
                Ok(Some(record)) => assert!(!record.state.is_final(), "{record:?}"),
                Ok(None) => panic!("{id} was acknowledged and is lost"),
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
            tokio::time::sleep(RETRY).await;
        }
        assert_eq!(Sure(&store).reply(*id).await, Some(reply_to(body.as_bytes())));
    }
    stop.store(true, Ordering::Relaxed);
    let mut completed = BTreeSet::new();
    while let Some(ids) = servers.join_next().await {
        for id in ids.expect("a server has not panicked") {
            assert!(completed.insert(id), "{id} has two results");
        }
    }
    let extra = completed.difference(&submitted.keys().copied().collect()).count();
    assert_eq!(extra, 0, "repeated submissions create no jobs");
    assert!(submitted.len() > 100, "{} jobs", submitted.len());
}

async fn submit_until(
    url: &str,
    client: u64,
    done: &AtomicBool,
    progress: &Semaphore,
) -> Vec<(JobId, String)> {
    let store = open(url).await.expect("the store can be opened");
    let mut submitted = Vec::new();
    let mut number = 0;
    while !done.load(Ordering::Relaxed) {
        let body = format!("{client} {number}");
        let new = NewJob {
            idempotency_key: Some(IdempotencyKey {
                key: body.clone(),
                request: Digest::of(body.as_bytes()),
            }),
            max_attempts: 1000,
            ..job(&body)
        };
        // Submits until it knows that the job is stored.
        loop {
            match store.submit(new.clone()).await {
                Ok(Submission::Created(record) | Submission::Existing(record)) => {
                    submitted.push((record.id, body));
                    break;
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => assert!(error.is_transient(), "{error:?}"),
            }
            tokio::time::sleep(RETRY).await;
        }
        progress.add_permits(1);
        number += 1;
    }
    submitted
}

async fn serve_until(url: &str, number: u64, stop: &AtomicBool, progress: &Semaphore) -> Vec<JobId> {
    let store = open(url).await.expect("the store can be opened");
    let mut completed = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let claim = Claim {
            worker: WorkerId::new(number.to_string()),
            // Claims whose answer was lost end soon.
            lease: Duration::from_secs(1),
            ..claim_of(8)
        };
        let _ = store.sweep().await;
        for claimed in store.claim(claim).await.unwrap_or_default() {
            let (id, fence) = (claimed.record.id, claimed.fence);
            let begun = store.begin_attempt(id, fence).await;
            if !begun.is_ok_and(|verdict| verdict.is_applied()) {
                continue;
            }
            let verdict = store.complete(id, fence, success(&claimed.request)).await;
            if verdict.is_ok_and(|verdict| verdict.is_applied()) {
                completed.push(id);
                progress.add_permits(1);
            }
        }
        tokio::time::sleep(RETRY).await;
    }
    completed
}
