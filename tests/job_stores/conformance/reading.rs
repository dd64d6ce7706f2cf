use std::collections::BTreeSet;
use std::time::Duration;

use inference_server::jobs::{
    ClaimedJob, Depth, JobChange, JobFilter, JobId, JobState, NewJob, Owner, Progress, Removal, Verdict,
    Viewer,
};
use tokio::sync::broadcast::error::RecvError;

use crate::job_stores::fixture::{Open, Sure, job, limits};

fn viewer(owner: &str) -> Viewer {
    Viewer::Owner(Owner::new(owner))
}

pub(in crate::job_stores) async fn a_job_is_visible_to_its_owner_only(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let owned = |owner: &str| NewJob {
        owner: Some(Owner::new(owner)),
        ..job(owner)
    };
    let id = store.dead_letter(owned("a")).await.id;
    let without = store.submit(job("without")).await.id;
    let other = viewer("b");
    assert_eq!(opened.store.get(id, &other).await, Ok(None));
    assert_eq!(opened.store.get(without, &other).await, Ok(None));
    assert_eq!(opened.store.request(id, &other).await, Ok(None));
    assert_eq!(opened.store.reply(id, &other).await, Ok(None));
    assert_eq!(opened.store.cancel(without, &other).await, Ok(None));
    assert_eq!(opened.store.retry(id, &other).await, Ok(None));
    assert_eq!(opened.store.remove(id, &other).await, Ok(Removal::NotFound));
    let visible = async |viewer: Viewer| {
        let page = opened.store.list(&JobFilter::default(), &viewer, None, 10).await;
        let jobs = page.expect("the store works").jobs;
        jobs.into_iter().map(|job| job.id).collect::<BTreeSet<JobId>>()
    };
    assert_eq!(visible(other.clone()).await, BTreeSet::new());
    assert_eq!(visible(viewer("a")).await, BTreeSet::from([id]));
    assert_eq!(visible(Viewer::All).await, BTreeSet::from([id, without]));
    assert!(
        opened
            .store
            .request(id, &viewer("a"))
            .await
            .is_ok_and(|request| request.is_some())
    );
    let retried = opened.store.retry(id, &viewer("a")).await;
    assert_eq!(retried, Ok(Some(Verdict::Applied(JobState::Queued))));
}

pub(in crate::job_stores) async fn lists_are_filtered_and_divided_into_pages(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let mut ids = Vec::new();
    for number in 0..7 {
        let new = NewJob {
            model: if number % 2 == 0 { "even" } else { "odd" }.to_owned(),
            label: (number >= 3).then(|| "late".to_owned()),
            ..job("x")
        };
        ids.push(store.submit(new).await.id);
        opened.clock.advance(Duration::from_millis(10));
    }
    opened
        .store
        .cancel(ids[4], &Viewer::All)
        .await
        .expect("the store works");
    let list = async |filter: JobFilter, cursor: Option<usize>, limit: u32| {
        let cursor = cursor.map(|position| ids[position]);
        let page = opened
            .store
            .list(&filter, &Viewer::All, cursor, limit)
            .await
            .expect("the store works");
        let position = |id: &JobId| {
            ids.iter()
                .position(|other| other == id)
                .expect("the job is one of these")
        };
        let positions: Vec<usize> = page.jobs.iter().map(|job| position(&job.id)).collect();
        (positions, page.next.as_ref().map(position))
    };
    let all = JobFilter::default();
    assert_eq!(list(all.clone(), None, 3).await, (vec![6, 5, 4], Some(4)));
    assert_eq!(list(all.clone(), Some(4), 3).await, (vec![3, 2, 1], Some(1)));
    assert_eq!(list(all.clone(), Some(1), 3).await, (vec![0], None));
    assert_eq!(list(all.clone(), None, 7).await.1, None, "exactly one page");
    let even = JobFilter {
        model: Some("even".to_owned()),
        ..all.clone()
    };
    assert_eq!(list(even.clone(), None, 9).await.0, [6, 4, 2, 0]);
    let late = JobFilter {
        label: Some("late".to_owned()),
        ..even
    };
    assert_eq!(list(late.clone(), None, 9).await.0, [6, 4]);
    let states = |states: &[JobState]| JobFilter {
        states: states.to_vec(),
        ..all.clone()
    };
    assert_eq!(list(states(&[JobState::Cancelled]), None, 9).await.0, [4]);
    let both = states(&[JobState::Cancelled, JobState::Queued]);
    assert_eq!(list(both, Some(5), 2).await, (vec![4, 3], Some(3)));

    let these = JobFilter {
        ids: Some([1, 4, 6].map(|position| ids[position]).to_vec()),
        ..all.clone()
    };
    assert_eq!(list(these.clone(), None, 9).await, (vec![6, 4, 1], None));
    let owner = Viewer::Owner(Owner::new("other"));
    let of_others = opened.store.list(&these, &owner, None, 9).await;
    assert_eq!(of_others.expect("the store works").jobs, []);
    let none = JobFilter {
        ids: Some(Vec::new()),
        ..all.clone()
    };
    assert_eq!(list(none, None, 9).await.0, [0; 0]);

    // A page continues after a job that was removed in the meantime.
    opened
        .store
        .remove(ids[4], &Viewer::All)
        .await
        .expect("the store works");
    assert_eq!(list(all, Some(4), 2).await.0, [3, 2]);
}

pub(in crate::job_stores) async fn statistics_count_jobs_by_model_and_state(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    store.succeeded(job("done")).await;
    let oldest = store
        .submit(NewJob {
            items: 3,
            ..job("old")
        })
        .await
        .created_at;
    opened.clock.advance(Duration::from_secs(60));
    store
        .submit(NewJob {
            items: 4,
            ..job(&"new".repeat(20_000))
        })
        .await;
    store
        .submit(NewJob {
            model: "other".to_owned(),
            ..job("x")
        })
        .await;
    let statistics = opened.store.statistics().await.expect("the store works");
    let mut queued = statistics
        .depths
        .iter()
        .filter(|depth| depth.state == JobState::Queued);
    let words = queued.find(|depth| depth.model == "words");
    let expected = Depth {
        model: "words".to_owned(),
        state: JobState::Queued,
        jobs: 2,
        items: 7,
        oldest,
    };
    assert_eq!(words, Some(&expected));
    let succeeded = statistics
        .depths
        .iter()
        .filter(|depth| depth.state == JobState::Succeeded);
    assert_eq!(succeeded.map(|depth| depth.jobs).sum::<u64>(), 1);
    assert_eq!(statistics.depths.len(), 3);
    assert!(statistics.stored_bytes > 60_000, "{statistics:?}");
    assert_eq!(statistics.pending_deliveries, 0);
}

pub(in crate::job_stores) async fn progress_is_kept_until_the_next_attempt(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let id = store
        .submit(NewJob {
            items: 10,
            ..job("a")
        })
        .await
        .id;
    let claimed = store.start_one().await;
    let other = store.submit(job("other")).await.id;
    let record = async |claimed: &ClaimedJob, items_done| {
        let (id, fence) = (claimed.record.id, claimed.fence);
        let other = Progress {
            id: other,
            fence,
            items_done,
        };
        let progress = Progress { id, ..other };
        let recorded = opened.store.progress(vec![other, progress]).await;
        recorded.expect("the store works");
        store.get(id).await.items_done
    };
    for (done, kept) in [(4, 4), (3, 4), (11, 10)] {
        assert_eq!(record(&claimed, done).await, kept, "it never decreases");
    }
    store.interrupt(&claimed).await;
    let again = store.start_one().await;
    assert_eq!(store.get(id).await.items_done, 0);
    assert_eq!(record(&claimed, 5).await, 0, "an old claim does not count");
    assert_eq!(record(&again, 2).await, 2);
    assert_eq!(store.get(other).await.items_done, 0, "it does not run");
}

pub(in crate::job_stores) async fn changes_are_announced(open: Open) {
    let opened = open(limits()).await;
    let store = Sure(&*opened.store);
    let mut changes = opened.store.changes();
    let id = store.succeeded(job("a")).await.id;
    let expected = [
        JobChange::Queued {
            model: "words".to_owned(),
        },
        JobChange::Started(id),
        JobChange::Ended(id, JobState::Succeeded),
    ];
    for expected in expected {
        // A store can announce at any time that it may have missed changes.
        let change = loop {
            match changes.recv().await {
                Ok(JobChange::Unknown) => {}
                other => break other,
            }
        };
        assert_eq!(change, Ok(expected));
    }
    let id = store.submit(job("b")).await.id;
    opened
        .store
        .cancel(id, &Viewer::All)
        .await
        .expect("the store works");
    let mut ended = false;
    while !ended {
        match changes.recv().await {
            Ok(change) => ended = change == JobChange::Ended(id, JobState::Cancelled),
            Err(RecvError::Lagged(_) | RecvError::Closed) => panic!("changes are missing"),
        }
    }
}
