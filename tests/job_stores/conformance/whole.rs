use std::collections::BTreeMap;
use std::sync::Arc;

use inference_server::digest::Digest;
use inference_server::jobs::{
    Claim, IdempotencyKey, JobFilter, JobId, JobState, JobStore, NewJob, StoreError, Submission, Viewer,
    WorkerId,
};

use crate::harness::{rounds, seed};
use crate::job_stores::faults::FaultyStore;
use crate::job_stores::fixture::{LEASE, Open, Sure, claim_of, error, job, limits, reply_to, success};

pub(in crate::job_stores) async fn everything_is_found_again_after_closing(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let done = store.succeeded(job("done")).await.id;
    let started = store.submit(job("started")).await.id;
    let held = store.start_one().await;
    let queued = store.submit(job("queued")).await.id;
    let mut before = Vec::new();
    for id in [done, started, queued] {
        before.push(store.get(id).await);
    }
    opened.store.close().await.expect("the store can be closed");

    let again = (opened.reopen)().await;
    let store = Sure(&*again);
    // The claims of a server that exited end at once, or after their lease.
    opened.clock.advance(LEASE * 2);
    again.sweep().await.expect("the store works");
    assert_eq!(store.get(done).await, before[0]);
    assert_eq!(store.get(queued).await, before[2]);
    assert_eq!(store.reply(done).await, Some(reply_to(b"done")));
    let record = store.get(started).await;
    assert_eq!((record.state, record.attempts), (JobState::Queued, 1));
    assert!(!store.complete(&held).await.is_applied());
    let request = again.request(queued, &Viewer::All).await;
    assert_eq!(request, Ok(Some(job("queued").request)));
    assert_eq!(store.claim(9).await.len(), 2);
}

pub(in crate::job_stores) async fn a_closed_store_says_so(open: Open) {
    let opened = open(limits()).await;
    let id = Sure(&*opened.store).submit(job("a")).await.id;
    opened.store.close().await.expect("the store can be closed");
    assert_eq!(opened.store.close().await, Ok(()), "again");
    assert_eq!(opened.store.get(id, &Viewer::All).await, Err(StoreError::Closed));
    assert_eq!(opened.store.submit(job("b")).await, Err(StoreError::Closed));
    assert_eq!(
        opened.store.claim(claim_of(1)).await.map(|jobs| jobs.len()),
        Err(StoreError::Closed)
    );
}

/// Clients submit until they know that their jobs are stored. Servers ignore errors, and vanish at random while they hold jobs.
pub(in crate::job_stores) async fn every_job_has_exactly_one_result_although_calls_fail_and_servers_vanish(
    open: Open,
) {
    const CLIENTS: u64 = 5;
    const SERVERS: u64 = 4;
    let jobs = rounds(20, 400);
    let opened = open(limits()).await;
    let seed = seed();
    let faulty = |number| Arc::new(FaultyStore::new(opened.store.clone(), seed ^ number));

    let submit = async |client: u64| {
        let store = faulty(client);
        let mut ids = BTreeMap::new();
        for number in 0..jobs {
            let body = format!("{client} {number}");
            let new = NewJob {
                idempotency_key: Some(IdempotencyKey {
                    key: body.clone(),
                    request: Digest::of(body.as_bytes()),
                }),
                max_attempts: 1000,
                ..job(&body)
            };
            let record = loop {
                match store.submit(new.clone()).await {
                    Ok(Submission::Created(record) | Submission::Existing(record)) => break record,
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => {}
                }
            };
            ids.insert(record.id, body);
        }
        ids
    };
    let submitted = futures_util::future::join_all((0..CLIENTS).map(submit));

    let total = CLIENTS as usize * jobs;
    let serve = async |server: u64| {
        let store = faulty(1000 + server);
        let mut random = fastrand::Rng::with_seed(seed ^ server);
        while count_of(&*opened.store, JobState::Succeeded).await < total {
            let claim = Claim {
                worker: WorkerId::new(server.to_string()),
                ..claim_of(8)
            };
            for claimed in store.claim(claim).await.unwrap_or_default() {
                let (id, fence) = (claimed.record.id, claimed.fence);
                if random.u8(..) < 20 {
                    continue; // The server has vanished.
                }
                if !store
                    .begin_attempt(id, fence)
                    .await
                    .is_ok_and(|verdict| verdict.is_applied())
                {
                    continue;
                }
                let _ = match random.u8(..) {
                    0..20 => continue,
                    20..40 => store.interrupt(id, fence, error("crash")).await,
                    40..60 => store.release(id, fence).await,
                    _ => store.complete(id, fence, success(&claimed.request)).await,
                };
            }
            opened.clock.advance(LEASE / 4);
            let _ = store.sweep().await;
        }
    };
    let served = futures_util::future::join_all((0..SERVERS).map(serve));
    let (submitted, _) = tokio::join!(submitted, served);

    let submitted: BTreeMap<JobId, String> = submitted.into_iter().flatten().collect();
    assert_eq!(submitted.len(), total, "each submission has its own job");
    let (mut found, mut cursor) = (0, None);
    loop {
        let page = opened
            .store
            .list(&JobFilter::default(), &Viewer::All, cursor, 100)
            .await;
        let page = page.expect("the store works");
        for record in &page.jobs {
            let body = submitted
                .get(&record.id)
                .expect("every job was acknowledged, and once");
            assert_eq!(record.state, JobState::Succeeded, "{record:?}");
            let reply = Sure(&*opened.store).reply(record.id).await;
            assert_eq!(reply, Some(reply_to(body.as_bytes())));
        }
        found += page.jobs.len();
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found, total);
}

async fn count_of(store: &dyn JobStore, state: JobState) -> usize {
    let statistics = store.statistics().await.expect("the store works");
    let depths = statistics.depths.iter().filter(|depth| depth.state == state);
    depths.map(|depth| depth.jobs as usize).sum()
}
