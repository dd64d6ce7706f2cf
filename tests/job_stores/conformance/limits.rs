use std::time::Duration;

use inference_server::jobs::{StoreLimits, Submission, Viewer};

use crate::job_stores::fixture::{Open, RETENTION, Sure, job, limits};

pub(in crate::job_stores) async fn more_jobs_than_the_limit_are_rejected(open: Open) {
    let opened = open(StoreLimits {
        max_queued: 3,
        ..limits()
    })
    .await;
    let store = Sure(&*opened.store);
    let first = store.submit(job("a")).await.id;
    store.submit(job("b")).await;
    store.submit(job("c")).await;
    let full = Ok(Submission::QueueFull { queued: 3, limit: 3 });
    assert_eq!(opened.store.submit(job("d")).await, full);
    opened
        .store
        .cancel(first, &Viewer::All)
        .await
        .expect("the store works");
    store.submit(job("e")).await;
    assert_eq!(opened.store.submit(job("f")).await, full);
    let claimed = store.claim(1).await.remove(0);
    assert_eq!(
        opened.store.submit(job("g")).await,
        full,
        "a claimed job waits as well"
    );
    store.begin(claimed.record.id, claimed.fence).await;
    store.submit(job("h")).await;
    store.interrupt(&claimed).await;
    let full = opened.store.submit(job("i")).await;
    assert_eq!(full, Ok(Submission::QueueFull { queued: 4, limit: 3 }));
}

pub(in crate::job_stores) async fn more_bytes_than_the_limit_are_rejected(open: Open) {
    let limit = 4 << 20;
    let opened = open(StoreLimits {
        max_bytes: limit,
        ..limits()
    })
    .await;
    let store = Sure(&*opened.store);
    let large = "x".repeat(1 << 20);
    let mut stored = 0;
    let full = loop {
        match opened.store.submit(job(&large)).await.expect("the store works") {
            Submission::Created(_) => stored += 1,
            full => break full,
        }
        assert!(stored < 10, "the limit is not applied");
    };
    let Submission::StorageFull {
        used,
        limit: reported,
    } = full
    else {
        panic!("{full:?}")
    };
    assert!(reported == limit && used <= limit, "{used} of {reported}");
    assert!((2..4).contains(&stored), "{stored} jobs of 1 MiB in 4 MiB");
    store.submit(job("small")).await;

    // Results are stored nevertheless, and make room when they are removed.
    for claimed in store.claim(100).await {
        store.begin(claimed.record.id, claimed.fence).await;
        assert!(store.complete(&claimed).await.is_applied());
    }
    opened.clock.advance(RETENTION + Duration::from_secs(60));
    opened.store.sweep().await.expect("the store works");
    store.submit(job(&large)).await;
}
