use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use inference_server::batching::Priority;
use inference_server::jobs::{Claim, ClaimedJob, Fence, JobState, ModelRoom, NewJob, Swept, Verdict};

use crate::job_stores::fixture::{LEASE, Open, Sure, claim_of, job, limits};

fn bodies(claimed: &[ClaimedJob]) -> Vec<&str> {
    let bodies = claimed.iter().map(|job| std::str::from_utf8(&job.request.body));
    bodies.map(|body| body.expect("the body is text")).collect()
}

pub(in crate::job_stores) async fn jobs_are_claimed_by_priority_and_then_in_the_order_of_submission(
    open: Open,
) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    for (body, priority) in [
        ("low 1", Priority::Low),
        ("normal 1", Priority::Normal),
        ("high 1", Priority::High),
        ("low 2", Priority::Low),
        ("normal 2", Priority::Normal),
        ("high 2", Priority::High),
    ] {
        store
            .submit(NewJob {
                priority,
                ..job(body)
            })
            .await;
    }
    assert_eq!(
        bodies(&store.claim(4).await),
        ["high 1", "high 2", "normal 1", "normal 2"]
    );
    assert_eq!(bodies(&store.claim(4).await), ["low 1", "low 2"]);
    assert_eq!(bodies(&store.claim(4).await), [""; 0]);
}

pub(in crate::job_stores) async fn claims_fill_the_room_of_each_model(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    for model in ["a", "b", "c"] {
        for number in 0..3 {
            let new = job(&format!("{model}{number}"));
            store
                .submit(NewJob {
                    model: model.to_owned(),
                    ..new
                })
                .await;
        }
    }
    let room = [("a", 2), ("b", 0), ("d", 5), ("c", 9)];
    let room = room.map(|(model, items)| ModelRoom {
        model: model.to_owned(),
        items,
    });
    let claim = Claim {
        room: room.to_vec(),
        ..claim_of(0)
    };
    let claimed = opened.store.claim(claim).await.expect("the store works");
    assert_eq!(bodies(&claimed), ["a0", "a1", "c0", "c1", "c2"]);
    // A claimed job waits until its attempt begins.
    assert_eq!(store.state(claimed[0].record.id).await, JobState::Queued);
}

pub(in crate::job_stores) async fn a_job_with_more_items_than_there_is_room_is_claimed(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    for items in [3, 100, 1] {
        store
            .submit(NewJob {
                items,
                ..job(&items.to_string())
            })
            .await;
    }
    assert_eq!(bodies(&store.claim(4).await), ["3", "100"]);
    assert_eq!(bodies(&store.claim(1).await), ["1"]);
}

pub(in crate::job_stores) async fn claimed_requests_are_bounded_in_bytes(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    for letter in ["a", "b", "c"] {
        store.submit(job(&letter.repeat(1000))).await;
    }
    let claim = |max_bytes| {
        opened.store.claim(Claim {
            max_bytes,
            ..claim_of(9)
        })
    };
    assert_eq!(claim(2999).await.expect("the store works").len(), 2);
    assert_eq!(
        claim(10).await.expect("the store works").len(),
        1,
        "one job is claimed in any case"
    );
}

pub(in crate::job_stores) async fn a_job_is_not_claimed_before_its_time(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let hour = Duration::from_secs(3600);
    let later = Some(opened.clock.now().plus(hour));
    store
        .submit(NewJob {
            not_before: later,
            ..job("later")
        })
        .await;
    store.submit(job("now")).await;
    assert_eq!(bodies(&store.claim(9).await), ["now"]);
    opened.clock.advance(hour / 2);
    assert_eq!(bodies(&store.claim(9).await), [""; 0]);
    opened.clock.advance(hour);
    assert_eq!(bodies(&store.claim(9).await), ["later"]);
}

pub(in crate::job_stores) async fn concurrent_claims_never_return_a_job_twice(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    join_all((0..200).map(|number| store.submit(job(&number.to_string())))).await;
    let claims = join_all((0..50).map(|_| store.claim(4))).await;
    let claimed: Vec<_> = claims.iter().flatten().map(|job| job.record.id).collect();
    let distinct: BTreeSet<_> = claimed.iter().collect();
    assert_eq!((claimed.len(), distinct.len()), (200, 200));
}

pub(in crate::job_stores) async fn a_lease_that_is_renewed_is_kept_and_others_are_lost(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    for body in ["kept", "lost"] {
        store.submit(job(body)).await;
    }
    let claimed = store.claim(2).await;
    let [kept, lost] = &claimed[..] else {
        panic!("{claimed:?}")
    };
    opened.clock.advance(LEASE * 2 / 3);
    let renewed = opened
        .store
        .renew(vec![(kept.record.id, kept.fence)], LEASE)
        .await;
    assert_eq!(renewed, Ok(Vec::new()));
    opened.clock.advance(LEASE * 2 / 3);
    let swept = opened.store.sweep().await.expect("the store works");
    assert_eq!(
        swept,
        Swept {
            requeued: 1,
            ..Swept::default()
        }
    );
    let claims = vec![
        (kept.record.id, kept.fence),
        (lost.record.id, lost.fence),
        (kept.record.id, Fence(9)),
    ];
    let renewed = opened.store.renew(claims, LEASE).await;
    assert_eq!(
        renewed,
        Ok(vec![lost.record.id, kept.record.id]),
        "lost, and with a fence that is not its own"
    );
    assert_eq!(bodies(&store.claim(9).await), ["lost"]);
}

pub(in crate::job_stores) async fn a_lost_claim_costs_an_attempt_only_if_the_attempt_had_begun(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let id = store.submit(job("a")).await.id;
    for (begins, attempts) in [(false, 0), (true, 1), (false, 1), (true, 2)] {
        let claimed = store.claim_one().await;
        if begins {
            store.begin(id, claimed.fence).await;
        }
        opened.clock.advance(LEASE * 2);
        let swept = opened.store.sweep().await.expect("the store works");
        assert_eq!(
            swept,
            Swept {
                requeued: 1,
                ..Swept::default()
            }
        );
        let record = store.get(id).await;
        assert_eq!((record.state, record.attempts), (JobState::Queued, attempts));
    }
}

pub(in crate::job_stores) async fn a_released_claim_costs_nothing(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let id = store.submit(job("a")).await.id;
    let first = store.claim_one().await;
    let released = opened.store.release(id, first.fence).await;
    assert_eq!(released, Ok(Verdict::Applied(JobState::Queued)));
    let second = store.claim_one().await;
    assert!(second.fence > first.fence);
    let again = opened
        .store
        .release(id, first.fence)
        .await
        .expect("the store works");
    assert!(!again.is_applied(), "{again:?}");
    assert_eq!(store.get(id).await.attempts, 0);
}
