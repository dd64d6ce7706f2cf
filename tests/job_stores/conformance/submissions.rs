use std::time::Duration;

use futures_util::future::join_all;
use inference_server::batching::Priority;
use inference_server::digest::Digest;
use inference_server::jobs::{
    Header, IdempotencyKey, JobFilter, JobState, NewJob, Owner, Submission, Timestamp, Viewer, WebhookState,
};

use crate::job_stores::fixture::{Open, Sure, job, limits};

/// A job with an idempotency key.
fn keyed(key: &str, body: &str) -> NewJob {
    NewJob {
        idempotency_key: Some(IdempotencyKey {
            key: key.to_owned(),
            request: Digest::of(body.as_bytes()),
        }),
        ..job(body)
    }
}

pub(in crate::job_stores) async fn a_stored_job_has_what_was_submitted(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let before = opened.clock.now();
    let mut new = NewJob {
        owner: Some(Owner::new("0123")),
        priority: Priority::High,
        ttl: Some(Duration::from_secs(3600)),
        not_before: Some(Timestamp::from_millis(4_000_000_000_000)),
        label: Some("nightly ☾".to_owned()),
        webhook_url: Some("https://example.org/hook".to_owned()),
        max_attempts: 5,
        items: 7,
        ..job("x")
    };
    // Every byte, and a size that does not fit in one page.
    new.request.body = (0..=255).cycle().take(100_000).collect::<Vec<u8>>().into();
    new.request.headers.push(Header {
        name: "x-bytes".to_owned(),
        value: vec![0xe9, b':', b' ', 0xff],
    });
    let created = store.submit(new.clone()).await;
    let record = store.get(created.id).await;
    assert_eq!(record, created);
    assert_eq!(record.state, JobState::Queued);
    assert_eq!((record.model.as_str(), record.task.as_str()), ("words", "count"));
    assert_eq!((&record.owner, &record.label), (&new.owner, &new.label));
    assert_eq!(
        (record.priority, record.items, record.max_attempts),
        (Priority::High, 7, 5)
    );
    assert_eq!((record.attempts, record.items_done), (0, 0));
    assert_eq!(record.not_before, new.not_before);
    assert_eq!(
        record.expires_at,
        Some(record.created_at.plus(Duration::from_secs(3600)))
    );
    assert!(
        record.created_at.since(before) < Duration::from_secs(60),
        "{record:?}"
    );
    assert_eq!(
        (record.started_at, record.finished_at, &record.error),
        (None, None, &None)
    );
    assert_eq!(
        record.webhook.map(|webhook| webhook.state),
        Some(WebhookState::Waiting)
    );
    let request = opened.store.request(created.id, &Viewer::All).await;
    assert_eq!(request, Ok(Some(new.request)));
    assert_eq!(store.reply(created.id).await, None);
}

pub(in crate::job_stores) async fn a_repeated_submission_returns_the_first_job(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let first = store.submit(keyed("k", "a")).await;
    let again = opened.store.submit(keyed("k", "a")).await;
    assert_eq!(again, Ok(Submission::Existing(first.clone())));
    // Also after the job has ended.
    let claimed = store.start_one().await;
    store.complete(&claimed).await;
    let again = opened
        .store
        .submit(keyed("k", "a"))
        .await
        .expect("the store works");
    let Submission::Existing(existing) = again else {
        panic!("{again:?}")
    };
    assert_eq!((existing.id, existing.state), (first.id, JobState::Succeeded));
    assert_ne!(
        store.submit(job("a")).await.id,
        store.submit(job("a")).await.id,
        "without a key"
    );
}

pub(in crate::job_stores) async fn an_idempotency_key_with_another_request_is_a_conflict(open: Open) {
    let opened = open(limits()).await;
    let first = Sure(&*opened.store).submit(keyed("k", "a")).await;
    let other = opened.store.submit(keyed("k", "b")).await;
    assert_eq!(other, Ok(Submission::Conflict { existing: first.id }));
}

pub(in crate::job_stores) async fn an_idempotency_key_belongs_to_its_owner_and_ends_with_its_job(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let of = |owner: &str, body: &str| NewJob {
        owner: Some(Owner::new(owner)),
        ..keyed("k", body)
    };
    let first = store.submit(of("a", "1")).await;
    assert_ne!(store.submit(of("b", "2")).await.id, first.id);
    assert_ne!(store.submit(keyed("k", "3")).await.id, first.id);
    opened
        .store
        .cancel(first.id, &Viewer::All)
        .await
        .expect("the store works");
    opened
        .store
        .remove(first.id, &Viewer::All)
        .await
        .expect("the store works");
    assert_ne!(store.submit(of("a", "4")).await.id, first.id);
}

pub(in crate::job_stores) async fn concurrent_submissions_with_one_key_create_one_job(open: Open) {
    let opened = open(limits()).await;
    let outcomes = join_all((0..40).map(|_| opened.store.submit(keyed("k", "a")))).await;
    let created = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Ok(Submission::Created(_))));
    let existing = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Ok(Submission::Existing(_))));
    assert_eq!((created.count(), existing.count()), (1, 39), "{outcomes:?}");
    let page = opened
        .store
        .list(&JobFilter::default(), &Viewer::All, None, 10)
        .await;
    assert_eq!(page.expect("the store works").jobs.len(), 1);
}
