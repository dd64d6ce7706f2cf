use std::time::Duration;

use inference_server::jobs::{
    Delivery, DeliveryOutcome, DeliveryReport, Fence, JobId, JobState, JobStore, NewJob, Removal, Swept,
    Viewer, WebhookDelivery, WebhookState,
};

use crate::job_stores::fixture::{LEASE, Open, RETENTION, Sure, job, limits};

const URL: &str = "https://example.org/hook?a=b";

fn hooked(body: &str) -> NewJob {
    NewJob {
        webhook_url: Some(URL.to_owned()),
        ..job(body)
    }
}

async fn due(store: &dyn JobStore) -> Vec<Delivery> {
    store.claim_deliveries(10, LEASE).await.expect("the store works")
}

/// An attempt that the receiver answered with this status.
fn report(outcome: DeliveryOutcome, status: u16) -> DeliveryReport {
    DeliveryReport {
        outcome,
        status: Some(status),
        error: (outcome != DeliveryOutcome::Delivered).then(|| format!("status {status}")),
    }
}

async fn record(store: &dyn JobStore, delivery: &Delivery, report: DeliveryReport) {
    let recorded = store
        .record_delivery(delivery.record.id, delivery.fence, report)
        .await;
    recorded.expect("the store works");
}

/// The state of the delivery, and the number of attempts.
async fn state(store: &Sure<'_>, id: JobId) -> Option<(WebhookState, u32)> {
    let webhook = store.get(id).await.webhook;
    webhook.map(|webhook| (webhook.state, webhook.attempts))
}

pub(in crate::job_stores) async fn the_outcome_of_a_job_is_delivered_until_it_is_accepted(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    store.succeeded(job("without")).await;
    let waiting = store.submit(hooked("a")).await;
    assert_eq!(due(&*opened.store).await, [], "the job has not ended");
    let claimed = store.start_one().await;
    store.complete(&claimed).await;
    assert_eq!(state(&store, waiting.id).await, Some((WebhookState::Pending, 0)));
    let first = due(&*opened.store).await;
    let [first] = &first[..] else { panic!("{first:?}") };
    assert_eq!((first.url.as_str(), first.attempts), (URL, 0));
    assert_eq!(
        (first.record.id, first.record.state),
        (waiting.id, JobState::Succeeded)
    );
    assert_eq!(due(&*opened.store).await, [], "it is being delivered");

    let later = DeliveryOutcome::RetryAfter(Duration::from_secs(3600));
    record(&*opened.store, first, report(later, 503)).await;
    assert_eq!(due(&*opened.store).await, []);
    let failed = store.get(waiting.id).await.webhook.expect("it has a webhook");
    let attempted_at = failed.attempted_at.expect("an attempt has ended");
    let expected = WebhookDelivery {
        state: WebhookState::Pending,
        attempts: 1,
        attempted_at: failed.attempted_at,
        status: Some(503),
        error: Some("status 503".to_owned()),
        next_attempt_at: Some(attempted_at.plus(Duration::from_secs(3600))),
    };
    assert_eq!(failed, expected);
    assert_eq!(
        opened
            .store
            .statistics()
            .await
            .map(|statistics| statistics.pending_deliveries),
        Ok(1)
    );
    opened.clock.advance(Duration::from_secs(3601));
    let second = due(&*opened.store).await;
    let [second] = &second[..] else {
        panic!("{second:?}")
    };
    assert_eq!((second.attempts, &second.message_id), (1, &first.message_id));
    assert!(second.age >= Duration::from_secs(3601), "{:?}", second.age);
    record(&*opened.store, second, report(DeliveryOutcome::Delivered, 204)).await;
    let delivered = store.get(waiting.id).await.webhook.expect("it has a webhook");
    let expected = WebhookDelivery {
        state: WebhookState::Delivered,
        attempts: 2,
        attempted_at: delivered.attempted_at,
        status: Some(204),
        error: None,
        next_attempt_at: None,
    };
    assert_eq!(delivered, expected);
    assert!(delivered.attempted_at > failed.attempted_at);
    opened.clock.advance(LEASE * 2);
    assert_eq!(due(&*opened.store).await, []);
}

pub(in crate::job_stores) async fn a_claimed_delivery_is_due_again_after_its_lease(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let id = store.succeeded(hooked("a")).await.id;
    let lost = due(&*opened.store).await.remove(0);
    opened.clock.advance(LEASE * 2);
    let again = due(&*opened.store).await.remove(0);
    assert_eq!(again.message_id, lost.message_id);
    assert!(again.fence > lost.fence);
    record(&*opened.store, &lost, report(DeliveryOutcome::Abandoned, 410)).await;
    assert_eq!(
        state(&store, id).await,
        Some((WebhookState::Pending, 0)),
        "an old claim counts no more"
    );
    record(&*opened.store, &again, report(DeliveryOutcome::Abandoned, 410)).await;
    assert_eq!(state(&store, id).await, Some((WebhookState::Failed, 1)));
    let missing = opened
        .store
        .record_delivery(id, Fence(99), report(DeliveryOutcome::Delivered, 200))
        .await;
    assert_eq!(
        (missing, state(&store, id).await),
        (Ok(()), Some((WebhookState::Failed, 1)))
    );
}

pub(in crate::job_stores) async fn jobs_with_pending_deliveries_are_kept(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let id = store.succeeded(hooked("a")).await.id;
    opened.clock.advance(RETENTION * 2);
    assert_eq!(opened.store.sweep().await, Ok(Swept::default()));
    let delivery = due(&*opened.store).await.remove(0);
    record(&*opened.store, &delivery, report(DeliveryOutcome::Delivered, 200)).await;
    assert_eq!(
        opened.store.sweep().await,
        Ok(Swept {
            removed: 1,
            ..Swept::default()
        })
    );

    let id = (store.succeeded(hooked("b")).await.id, id).0;
    assert_eq!(
        opened.store.remove(id, &Viewer::All).await,
        Ok(Removal::Removed),
        "unless a client removes them"
    );
    assert_eq!(due(&*opened.store).await, []);
}

pub(in crate::job_stores) async fn each_outcome_of_a_job_has_its_own_message(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let id = store.dead_letter(hooked("a")).await.id;
    let dead = due(&*opened.store).await.remove(0);
    assert_eq!(dead.record.state, JobState::DeadLetter);
    opened
        .store
        .retry(id, &Viewer::All)
        .await
        .expect("the store works");
    assert_eq!(state(&store, id).await, Some((WebhookState::Waiting, 0)));
    opened.clock.advance(LEASE * 2);
    assert_eq!(due(&*opened.store).await, []);
    opened
        .store
        .cancel(id, &Viewer::All)
        .await
        .expect("the store works");
    // An attempt to deliver the first message, which has taken long.
    record(&*opened.store, &dead, report(DeliveryOutcome::Delivered, 200)).await;
    assert_eq!(state(&store, id).await, Some((WebhookState::Pending, 0)));
    let cancelled = due(&*opened.store).await.remove(0);
    assert_eq!(
        (cancelled.record.state, cancelled.attempts),
        (JobState::Cancelled, 0)
    );
    assert_ne!(cancelled.message_id, dead.message_id);
}
