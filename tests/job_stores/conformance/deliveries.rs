use std::time::Duration;

use inference_server::jobs::{
    Delivery, DeliveryOutcome, Fence, JobState, JobStore, NewJob, Removal, Swept, Viewer, WebhookState,
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

async fn record(store: &dyn JobStore, delivery: &Delivery, outcome: DeliveryOutcome) {
    let recorded = store
        .record_delivery(delivery.record.id, delivery.fence, outcome)
        .await;
    recorded.expect("the store works");
}

pub(in crate::job_stores) async fn the_outcome_of_a_job_is_delivered_until_it_is_accepted(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    store.succeeded(job("without")).await;
    let waiting = store.submit(hooked("a")).await;
    assert_eq!(due(&*opened.store).await, [], "the job has not ended");
    let claimed = store.start_one().await;
    store.complete(&claimed).await;
    assert_eq!(store.get(waiting.id).await.webhook, Some(WebhookState::Pending));
    let first = due(&*opened.store).await;
    let [first] = &first[..] else { panic!("{first:?}") };
    assert_eq!((first.url.as_str(), first.attempts), (URL, 0));
    assert_eq!(
        (first.record.id, first.record.state),
        (waiting.id, JobState::Succeeded)
    );
    assert_eq!(due(&*opened.store).await, [], "it is being delivered");

    let later = opened.clock.now().plus(Duration::from_secs(3600));
    record(&*opened.store, first, DeliveryOutcome::RetryAt(later)).await;
    assert_eq!(due(&*opened.store).await, []);
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
    record(&*opened.store, second, DeliveryOutcome::Delivered).await;
    assert_eq!(store.get(waiting.id).await.webhook, Some(WebhookState::Delivered));
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
    record(&*opened.store, &lost, DeliveryOutcome::Abandoned).await;
    assert_eq!(
        store.get(id).await.webhook,
        Some(WebhookState::Pending),
        "an old claim counts no more"
    );
    record(&*opened.store, &again, DeliveryOutcome::Abandoned).await;
    assert_eq!(store.get(id).await.webhook, Some(WebhookState::Failed));
    let missing = opened
        .store
        .record_delivery(id, Fence(99), DeliveryOutcome::Delivered)
        .await;
    assert_eq!(
        (missing, store.get(id).await.webhook),
        (Ok(()), Some(WebhookState::Failed))
    );
}

pub(in crate::job_stores) async fn jobs_with_pending_deliveries_are_kept(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let id = store.succeeded(hooked("a")).await.id;
    opened.clock.advance(RETENTION * 2);
    assert_eq!(opened.store.sweep().await, Ok(Swept::default()));
    let delivery = due(&*opened.store).await.remove(0);
    record(&*opened.store, &delivery, DeliveryOutcome::Delivered).await;
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
    assert_eq!(store.get(id).await.webhook, Some(WebhookState::Waiting));
    opened.clock.advance(LEASE * 2);
    assert_eq!(due(&*opened.store).await, []);
    opened
        .store
        .cancel(id, &Viewer::All)
        .await
        .expect("the store works");
    let cancelled = due(&*opened.store).await.remove(0);
    assert_eq!(
        (cancelled.record.state, cancelled.attempts),
        (JobState::Cancelled, 0)
    );
    assert_ne!(cancelled.message_id, dead.message_id);
}
