//! The store in a file.

use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use inference_server::jobs::sqlite::SqliteStore;
use inference_server::jobs::{
    Completion, JobFilter, JobPage, JobState, JobStore, NewJob, StoreClock, StoreError, Submission, Swept,
    Verdict, Viewer, WebhookState,
};

use super::conformance::{declare_tests, with_cases};
use super::fixture::{LEASE, RETENTION, Sure, claim_of, job, limits, reply_to, sqlite_at};
use crate::harness::small_disk::SmallDisk;

with_cases!(declare_tests! crate::job_stores::fixture::open_sqlite);

async fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(path, limits(), StoreClock::default()).await
}

/// Opens a file that must be rejected, and returns the message.
async fn rejection(path: &Path) -> (StoreError, String) {
    match open(path).await {
        Ok(_) => panic!("the store was opened"),
        Err(error) => (error.clone(), error.to_string()),
    }
}

/// Creates a store with some jobs, and closes it.
async fn create(path: &Path) {
    let store = open(path).await.expect("the store can be opened");
    for number in 0..200 {
        Sure(&store).submit(job(&number.to_string())).await;
    }
    store.close().await.expect("the store can be closed");
}

#[tokio::test]
async fn the_file_is_created_with_the_first_job_and_is_private() {
    let directory = tempfile::tempdir().expect("a directory can be created");
    let path = directory.path().join("data/jobs.sqlite");
    let store = open(&path).await.expect("the store can be opened");
    assert_eq!(
        store.list(&JobFilter::default(), &Viewer::All, None, 9).await,
        Ok(JobPage::default())
    );
    assert_eq!(store.sweep().await, Ok(Swept::default()));
    assert_eq!(store.claim(claim_of(9)).await.map(|jobs| jobs.len()), Ok(0));
    assert!(!path.parent().expect("the file has a directory").exists());

    Sure(&store).submit(job("secret")).await;
    let data = path.parent().expect("the file has a directory");
    let files = std::fs::read_dir(data).expect("the directory can be read");
    for file in files {
        let file = file.expect("the directory can be read");
        let mode = file.metadata().expect("the file exists").permissions().mode();
        assert_eq!(
            mode & 0o077,
            0,
            "{:?} can be read by other users: {mode:o}",
            file.path()
        );
    }
    assert!(path.exists());
}

#[tokio::test]
async fn a_second_server_on_the_same_file_is_rejected() {
    let directory = tempfile::tempdir().expect("a directory can be created");
    let path = directory.path().join("jobs.sqlite");
    let first = open(&path).await.expect("the store can be opened");
    // Both find no file, and the second one notices at its first job.
    let second = open(&path).await.expect("the store can be opened");
    Sure(&first).submit(job("a")).await;
    let rejected = second
        .submit(job("b"))
        .await
        .expect_err("the file is in use")
        .to_string();
    let expected = format!(
        "the job store {} is used by another server (process {})",
        path.display(),
        std::process::id()
    );
    assert!(rejected.starts_with(&expected), "{rejected}");
    let (error, message) = rejection(&path).await;
    assert!(matches!(error, StoreError::Locked { .. }), "{message}");
    assert!(message.contains("PostgreSQL"), "{message}");
    first.close().await.expect("the store can be closed");
    Sure(&second).submit(job("b")).await;
}

#[tokio::test]
async fn a_damaged_file_is_rejected_with_a_way_to_repair_it() {
    let directory = tempfile::tempdir().expect("a directory can be created");
    for (name, damage) in [
        (
            "no database",
            (0, &b"this file is not a database, and never was"[..]),
        ),
        ("damaged table", (4096, &[0xa5; 3 * 4096][..])),
    ] {
        let path = directory.path().join(name);
        create(&path).await;
        let file = std::fs::File::options()
            .write(true)
            .open(&path)
            .expect("the file can be opened");
        file.write_all_at(damage.1, damage.0)
            .expect("the file can be written");
        let (error, message) = rejection(&path).await;
        assert!(matches!(error, StoreError::Corrupt(_)), "{name}: {message}");
        let repair = format!("sqlite3 {} .recover", path.display());
        assert!(
            message.contains(&repair) && message.contains("move"),
            "{name}: {message}"
        );
    }
}

#[tokio::test]
async fn a_database_of_another_program_is_not_touched() {
    let directory = tempfile::tempdir().expect("a directory can be created");
    let path = directory.path().join("accounts.sqlite");
    let other = rusqlite::Connection::open(&path).expect("the database can be created");
    other
        .execute_batch("CREATE TABLE accounts (id INTEGER)")
        .expect("the table can be created");
    drop(other);
    let before = std::fs::read(&path).expect("the file can be read");
    let (_, message) = rejection(&path).await;
    assert!(
        message.contains("it is a database of another program"),
        "{message}"
    );
    assert_eq!(std::fs::read(&path).expect("the file can be read"), before);
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_rejected() {
    let directory = tempfile::tempdir().expect("a directory can be created");
    let path = directory.path().join("jobs.sqlite");
    create(&path).await;
    let newer = rusqlite::Connection::open(&path).expect("the database can be opened");
    newer
        .pragma_update(None, "user_version", 1000)
        .expect("the version can be set");
    drop(newer);
    let (error, message) = rejection(&path).await;
    assert!(
        matches!(error, StoreError::NewerSchema { found: 1000, .. }),
        "{message}"
    );
}

#[tokio::test]
async fn a_file_of_an_older_version_is_migrated_with_its_jobs() {
    let directory = tempfile::tempdir().expect("a directory can be created");
    let path = directory.path().join("jobs.sqlite");
    let store = open(&path).await.expect("the store can be opened");
    let hooked = NewJob {
        webhook_url: Some("https://example.org/".to_owned()),
        ..job("a")
    };
    let id = Sure(&store).succeeded(hooked).await.id;
    store.close().await.expect("the store can be closed");
    let older = rusqlite::Connection::open(&path).expect("the database can be opened");
    older
        .execute_batch(
            "ALTER TABLE jobs DROP COLUMN webhook_attempted_at; ALTER TABLE jobs DROP COLUMN webhook_status; \
             ALTER TABLE jobs DROP COLUMN webhook_error; PRAGMA user_version = 1",
        )
        .expect("the columns can be removed");
    drop(older);
    let store = open(&path).await.expect("the store can be opened");
    let sure = Sure(&store);
    let webhook = sure.get(id).await.webhook.expect("it has a webhook");
    assert_eq!(
        (webhook.state, webhook.attempted_at),
        (WebhookState::Pending, None)
    );
    assert_eq!(sure.reply(id).await, Some(reply_to(b"a")));
    sure.succeeded(job("new")).await;
}

#[tokio::test]
async fn claims_of_a_server_that_exited_end_when_the_file_is_opened() {
    let directory = tempfile::tempdir().expect("a directory can be created");
    let path = directory.path().join("jobs.sqlite");
    let store = open(&path).await.expect("the store can be opened");
    let sure = Sure(&store);
    let poison = sure
        .submit(NewJob {
            max_attempts: 1,
            ..job("poison")
        })
        .await
        .id;
    sure.start_one().await;
    let started = sure.submit(job("started")).await.id;
    sure.start_one().await;
    let claimed = sure.submit(job("claimed")).await.id;
    sure.claim_one().await;
    store.close().await.expect("the store can be closed");

    let store = open(&path).await.expect("the store can be opened");
    assert_eq!(
        store.recovered(),
        Swept {
            requeued: 2,
            dead_letters: 1,
            ..Swept::default()
        }
    );
    for (id, state, attempts) in [
        (poison, JobState::DeadLetter, 1),
        (started, JobState::Queued, 1),
        (claimed, JobState::Queued, 0),
    ] {
        let record = Sure(&store).get(id).await;
        assert_eq!((record.state, record.attempts), (state, attempts));
    }
}

#[tokio::test]
async fn jumps_of_the_clock_neither_lose_nor_repeat_jobs() {
    const DAYS: i64 = 24 * 3600 * 1000;
    let directory = tempfile::tempdir().expect("a directory can be created");
    let clock = StoreClock::default();
    let store = sqlite_at(&directory.path().join("jobs.sqlite"), limits(), clock.clone()).await;
    let sure = Sure(&*store);
    let done = sure.succeeded(job("done")).await.id;
    let ttl = Some(Duration::from_secs(60));
    let held = sure.submit(NewJob { ttl, ..job("held") }).await.id;
    let claimed = sure.start_one().await;
    let waiting = sure
        .submit(NewJob {
            ttl,
            ..job("waiting")
        })
        .await
        .id;
    for jump in [2 * DAYS, -400 * DAYS, 4000 * DAYS, -3602 * DAYS] {
        clock.jump(jump);
        assert_eq!(store.sweep().await, Ok(Swept::default()), "{jump}");
        assert_eq!(
            store.renew(vec![(held, claimed.fence)], LEASE).await,
            Ok(Vec::new()),
            "{jump}"
        );
        let states = [
            sure.state(done).await,
            sure.state(held).await,
            sure.state(waiting).await,
        ];
        assert_eq!(
            states,
            [JobState::Succeeded, JobState::Running, JobState::Queued],
            "{jump}"
        );
        // The order of submission counts, not that of the clock.
        let new = sure.submit(job("new")).await.id;
        assert_eq!(
            store.cancel(new, &Viewer::All).await,
            Ok(Some(Verdict::Applied(JobState::Cancelled)))
        );
    }
    // Durations still end.
    clock.advance(LEASE * 3);
    let swept = store.sweep().await;
    assert_eq!(
        swept,
        Ok(Swept {
            expired: 2,
            ..Swept::default()
        })
    );
    clock.advance(RETENTION);
    assert_eq!(store.sweep().await.map(|swept| swept.removed), Ok(7));
}

#[tokio::test]
async fn the_file_shrinks_after_jobs_were_removed() {
    let directory = tempfile::tempdir().expect("a directory can be created");
    let path = directory.path().join("jobs.sqlite");
    let clock = StoreClock::default();
    let store = sqlite_at(&path, limits(), clock.clone()).await;
    let large = "x".repeat(1 << 20);
    for _ in 0..40 {
        let id = Sure(&*store).submit(job(&large)).await.id;
        store.cancel(id, &Viewer::All).await.expect("the store works");
    }
    let used = store.statistics().await.expect("the store works").stored_bytes;
    assert!(used < 4 << 20, "space of removed requests is used again: {used}");
    let ids: Vec<_> = futures_util::future::join_all((0..40).map(|_| async {
        let id = Sure(&*store).submit(job(&large)).await.id;
        store.cancel(id, &Viewer::All).await.expect("the store works");
    }))
    .await;
    assert_eq!(ids.len(), 40);
    for _ in 0..10 {
        store.sweep().await.expect("the store works");
    }
    store.close().await.expect("the store can be closed");
    let size = std::fs::metadata(&path).expect("the file exists").len();
    assert!(size < 16 << 20, "{size}");
}

#[tokio::test]
async fn a_full_disk_rejects_submissions_before_it_is_full_and_keeps_every_job() {
    let Some(disk) = SmallDisk::enter(
        "job_stores::sqlite::a_full_disk_rejects_submissions_before_it_is_full_and_keeps_every_job",
    ) else {
        return;
    };
    let path = disk.path().join("jobs.sqlite");
    let store = open(&path).await.expect("the store can be opened");
    let body = "x".repeat(300_000);
    let mut stored = Vec::new();
    let error = loop {
        match store.submit(job(&body)).await {
            Ok(Submission::Created(record)) => stored.push(record.id),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    assert!(stored.len() > 10, "{} jobs", stored.len());
    // The rest of the disk is taken by someone else.
    let filler = std::fs::File::create(disk.path().join("filler")).expect("a file can be created");
    let mut at = 0;
    while filler.write_all_at(&[1; 4096], at).is_ok() {
        at += 4096;
    }
    let claimed = store.claim(claim_of(1)).await;
    if let Err(error) = &claimed {
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    }
    std::fs::remove_file(disk.path().join("filler")).expect("the file exists");
    for id in &stored {
        let request = store.request(*id, &Viewer::All).await.expect("the store works");
        assert_eq!(request.map(|request| request.body.len()), Some(body.len()));
    }
    let claimed = store.claim(claim_of(1000)).await.expect("there is space again");
    assert!(
        claimed.len() + 1 >= stored.len(),
        "{} of {}",
        claimed.len(),
        stored.len()
    );
    for claimed in claimed {
        let (id, fence) = (claimed.record.id, claimed.fence);
        Sure(&store).begin(id, fence).await;
        let completed = store
            .complete(id, fence, Completion::Succeeded(reply_to(b"small")))
            .await;
        assert!(completed.expect("there is space for results").is_applied());
    }
    drop(store);
}

#[tokio::test]
async fn a_read_only_disk_is_reported() {
    let Some(disk) = SmallDisk::enter("job_stores::sqlite::a_read_only_disk_is_reported") else {
        return;
    };
    let path = disk.path().join("jobs.sqlite");
    create(&path).await;
    disk.make_read_only();
    let (error, message) = rejection(&path).await;
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{message}");
    assert!(message.contains("make it writable"), "{message}");
    let absent = disk.path().join("new.sqlite");
    let store = open(&absent).await.expect("nothing is written yet");
    let error = store.submit(job("a")).await.expect_err("nothing can be written");
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
}
