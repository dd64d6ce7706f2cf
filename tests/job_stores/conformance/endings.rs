use std::time::Duration;

use inference_server::jobs::transition::Rejection;
use inference_server::jobs::{
    Completion, JobError, JobId, JobState, JobStore, NewJob, Removal, StoredReply, Swept, Verdict, Viewer,
};

use crate::job_stores::fixture::{LEASE, Open, RETENTION, Sure, error, job, limits, reply_to};

const FENCED: Verdict = Verdict::Rejected(Rejection::Fenced);

async fn has_request(store: &dyn JobStore, id: JobId) -> bool {
    store
        .request(id, &Viewer::All)
        .await
        .expect("the store works")
        .is_some()
}

pub(in crate::job_stores) async fn a_job_succeeds_with_exactly_its_reply(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let id = store
        .submit(NewJob {
            items: 3,
            ..job("a b c")
        })
        .await
        .id;
    let claimed = store.start_one().await;
    let running = store.get(id).await;
    assert_eq!((running.state, running.attempts), (JobState::Running, 1));
    assert!(running.started_at.is_some() && running.finished_at.is_none());
    assert_eq!(
        store.complete(&claimed).await,
        Verdict::Applied(JobState::Succeeded)
    );
    let record = store.get(id).await;
    assert_eq!(
        (record.state, record.items_done, record.reply_status),
        (JobState::Succeeded, 3, Some(200))
    );
    assert!(record.finished_at >= record.started_at && record.finished_at.is_some());
    assert_eq!(store.reply(id).await, Some(reply_to(b"a b c")));
    assert!(
        !has_request(&*opened.store, id).await,
        "the request is not needed any more"
    );
}

pub(in crate::job_stores) async fn a_rejected_request_fails_at_once_with_its_reply(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let id = store.submit(job("bad")).await.id;
    let claimed = store.claim_one().await;
    let reply = StoredReply {
        status: 422,
        ..reply_to(b"bad")
    };
    let completion = Completion::Failed {
        error: error("invalid_input"),
        reply: Some(reply.clone()),
    };
    let verdict = opened.store.complete(id, claimed.fence, completion).await;
    assert_eq!(verdict, Ok(Verdict::Applied(JobState::Failed)));
    let record = store.get(id).await;
    assert_eq!((record.state, record.attempts), (JobState::Failed, 0));
    assert_eq!(
        (record.error, record.reply_status),
        (Some(error("invalid_input")), Some(422))
    );
    assert_eq!(store.reply(id).await, Some(reply));
}

pub(in crate::job_stores) async fn an_error_can_have_any_character(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let id = store.submit(job("a")).await.id;
    let claimed = store.start_one().await;
    let error = JobError {
        code: "model_fault".to_owned(),
        message: "a\u{0}b \u{1f980} \n \"'\\".to_owned(),
    };
    let interrupted = opened.store.interrupt(id, claimed.fence, error.clone()).await;
    assert_eq!(interrupted, Ok(Verdict::Applied(JobState::Queued)));
    // PostgreSQL has no U+0000.
    let kept = error.message.replace('\0', "\u{fffd}");
    assert_eq!(
        store.get(id).await.error.map(|error| error.message),
        Some(kept.clone())
    );
    let claimed = store.start_one().await;
    let failed = Completion::Failed { error, reply: None };
    let failed = opened.store.complete(id, claimed.fence, failed).await;
    assert_eq!(failed, Ok(Verdict::Applied(JobState::Failed)));
    assert_eq!(store.get(id).await.error.map(|error| error.message), Some(kept));
}

pub(in crate::job_stores) async fn a_late_result_is_discarded(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let id = store.submit(job("a")).await.id;
    let late = store.start_one().await;
    opened.clock.advance(LEASE * 2);
    opened.store.sweep().await.expect("the store works");
    assert_eq!(store.complete(&late).await, FENCED, "nobody holds the job");
    let second = store.start_one().await;
    assert_eq!(
        store.complete(&late).await,
        FENCED,
        "another server holds the job"
    );
    assert_eq!(store.interrupt(&late).await, FENCED);
    assert_eq!(store.reply(id).await, None);
    let reply = StoredReply {
        status: 201,
        ..reply_to(b"second")
    };
    let verdict = opened
        .store
        .complete(id, second.fence, Completion::Succeeded(reply.clone()))
        .await;
    assert_eq!(verdict, Ok(Verdict::Applied(JobState::Succeeded)));
    assert_eq!(store.complete(&late).await, FENCED, "the job has ended");
    assert_eq!(store.reply(id).await, Some(reply));
    assert_eq!(store.get(id).await.attempts, 2);
}

pub(in crate::job_stores) async fn a_result_is_stored_once(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let id = store.submit(job("a")).await.id;
    let claimed = store.claim_one().await;
    let state = |state| Verdict::Rejected(Rejection::State(state));
    assert_eq!(
        store.complete(&claimed).await,
        state(JobState::Queued),
        "the attempt has not begun"
    );
    store.begin(id, claimed.fence).await;
    assert_eq!(store.begin(id, claimed.fence).await, state(JobState::Running));
    assert!(store.complete(&claimed).await.is_applied());
    let other = Completion::Succeeded(reply_to(b"other"));
    assert_eq!(opened.store.complete(id, claimed.fence, other).await, Ok(FENCED));
    assert_eq!(store.reply(id).await, Some(reply_to(b"a")));
    assert_eq!(store.get(id).await.attempts, 1);
}

pub(in crate::job_stores) async fn a_cancelled_job_stays_cancelled(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let cancel = |id| opened.store.cancel(id, &Viewer::All);
    let running = store.submit(job("running")).await.id;
    let claimed = store.start_one().await;
    let queued = store.submit(job("queued")).await.id;
    for id in [running, queued] {
        assert_eq!(cancel(id).await, Ok(Some(Verdict::Applied(JobState::Cancelled))));
        let rejected = Verdict::Rejected(Rejection::State(JobState::Cancelled));
        assert_eq!(cancel(id).await, Ok(Some(rejected)));
        assert!(!has_request(&*opened.store, id).await);
    }
    assert_eq!(
        opened.store.renew(vec![(running, claimed.fence)], LEASE).await,
        Ok(vec![running])
    );
    assert_eq!(store.complete(&claimed).await, FENCED);
    assert!(store.claim(9).await.is_empty());
    opened.clock.advance(LEASE * 2);
    assert_eq!(opened.store.sweep().await, Ok(Swept::default()));
    assert_eq!(store.state(running).await, JobState::Cancelled);
    assert_eq!(store.reply(running).await, None);
}

pub(in crate::job_stores) async fn a_job_that_uses_all_attempts_is_a_dead_letter_and_can_be_retried(
    open: Open,
) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let id = store
        .submit(NewJob {
            max_attempts: 2,
            ..job("poison")
        })
        .await
        .id;
    let crashed = store.start_one().await;
    assert_eq!(
        store.interrupt(&crashed).await,
        Verdict::Applied(JobState::Queued)
    );
    assert_eq!(
        store.get(id).await.error,
        Some(error("model_crashed")),
        "the reason is shown while it waits"
    );
    store.start_one().await;
    opened.clock.advance(LEASE * 2);
    let swept = opened.store.sweep().await;
    assert_eq!(
        swept,
        Ok(Swept {
            dead_letters: 1,
            ..Swept::default()
        })
    );
    let record = store.get(id).await;
    assert_eq!((record.state, record.attempts), (JobState::DeadLetter, 2));
    assert!(store.claim(9).await.is_empty());

    let retried = opened.store.retry(id, &Viewer::All).await;
    assert_eq!(retried, Ok(Some(Verdict::Applied(JobState::Queued))));
    let record = store.get(id).await;
    assert_eq!(
        (record.attempts, record.error, record.finished_at),
        (0, None, None)
    );
    let again = opened.store.retry(id, &Viewer::All).await;
    assert_eq!(
        again,
        Ok(Some(Verdict::Rejected(Rejection::State(JobState::Queued))))
    );
    let claimed = store.start_one().await;
    assert!(store.complete(&claimed).await.is_applied());
    assert_eq!(store.reply(id).await, Some(reply_to(b"poison")));
}

pub(in crate::job_stores) async fn a_job_expires_when_it_has_waited_too_long(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let minute = Duration::from_secs(60);
    let with_ttl = |body| NewJob {
        ttl: Some(minute),
        ..job(body)
    };
    let started = store.submit(with_ttl("started")).await.id;
    let claimed = store.start_one().await;
    let swept = store.submit(with_ttl("swept")).await.id;
    let without = store.submit(job("without")).await.id;
    opened.clock.advance(minute * 2);
    assert_eq!(
        opened.store.renew(vec![(started, claimed.fence)], LEASE).await,
        Ok(Vec::new())
    );
    assert_eq!(
        opened.store.sweep().await,
        Ok(Swept {
            expired: 1,
            ..Swept::default()
        })
    );
    assert_eq!(store.state(swept).await, JobState::Expired);
    assert_eq!(store.state(without).await, JobState::Queued);
    assert!(
        store.complete(&claimed).await.is_applied(),
        "a job that runs does not expire"
    );

    let unswept = store.submit(with_ttl("unswept")).await.id;
    opened.clock.advance(minute * 2);
    let claimed: Vec<JobId> = store.claim(9).await.iter().map(|job| job.record.id).collect();
    assert_eq!(claimed, [without], "also if it was not swept");
    assert_eq!(store.state(unswept).await, JobState::Expired);
}

pub(in crate::job_stores) async fn finished_jobs_are_removed_after_their_retention(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let old = store.succeeded(job("old")).await.id;
    let waiting = store.submit(job("waiting")).await.id;
    opened.clock.advance(RETENTION / 2);
    let cancelled = store.submit(job("cancelled")).await.id;
    opened
        .store
        .cancel(cancelled, &Viewer::All)
        .await
        .expect("the store works");
    opened.clock.advance(RETENTION / 2 + LEASE);
    assert_eq!(
        opened.store.sweep().await,
        Ok(Swept {
            removed: 1,
            ..Swept::default()
        })
    );
    assert_eq!(opened.store.get(old, &Viewer::All).await, Ok(None));
    assert_eq!(store.reply(old).await, None);
    assert_eq!(store.state(waiting).await, JobState::Queued);
    assert_eq!(store.state(cancelled).await, JobState::Cancelled);
    opened.clock.advance(RETENTION / 2);
    assert_eq!(
        opened.store.sweep().await,
        Ok(Swept {
            removed: 1,
            ..Swept::default()
        })
    );
}

pub(in crate::job_stores) async fn a_job_that_has_not_ended_cannot_be_removed(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let id = store.submit(job("a")).await.id;
    let remove = || opened.store.remove(id, &Viewer::All);
    assert_eq!(remove().await, Ok(Removal::NotFinal(JobState::Queued)));
    let claimed = store.start_one().await;
    assert_eq!(remove().await, Ok(Removal::NotFinal(JobState::Running)));
    store.complete(&claimed).await;
    assert_eq!(remove().await, Ok(Removal::Removed));
    assert_eq!(remove().await, Ok(Removal::NotFound));
    assert_eq!(opened.store.get(id, &Viewer::All).await, Ok(None));
    assert_eq!(store.begin(id, claimed.fence).await, Verdict::MISSING);
}
