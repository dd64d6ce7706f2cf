use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(30);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn submitted(max_attempts: u32) -> Lifecycle {
    Lifecycle::submitted(max_attempts, None, None, at(0))
}

/// Applies events that must all change the job, one second apart.
fn after(job: Lifecycle, events: &[Event]) -> Lifecycle {
    let mut job = job;
    for (second, event) in (1..).zip(events) {
        job = job.apply(*event, at(second)).expect("the event is possible").next;
    }
    job
}

const CLAIM: Event = Event::Claim { lease: LEASE };
const FIRST: Fence = Fence(1);

#[test]
fn a_job_is_claimed_started_and_succeeds() {
    let job = after(
        submitted(3),
        &[CLAIM, Event::BeginAttempt(FIRST), Event::Succeed(FIRST)],
    );
    let expected = Lifecycle {
        state: JobState::Succeeded,
        attempts: 1,
        fence: FIRST,
        started_at: Some(at(2)),
        finished_at: Some(at(3)),
        ..submitted(3)
    };
    assert_eq!(job, expected);
}

#[test]
fn a_claim_that_is_returned_or_lost_before_the_attempt_costs_nothing() {
    let claimed = after(submitted(1), &[CLAIM]);
    for (event, time) in [
        (Event::Release(FIRST), at(2)),
        (Event::Interrupt(FIRST), at(2)),
        (Event::HolderLost, at(2)),
        (Event::Tick, at(31)),
    ] {
        let next = claimed.apply(event, time).expect("the claim ends").next;
        assert_eq!(
            (next.state, next.attempts, next.lease_until),
            (JobState::Queued, 0, None),
            "{event:?}"
        );
    }
    assert_eq!(
        claimed.apply(Event::Tick, at(30)),
        Err(Rejection::Unchanged),
        "the lease ends at 31 s"
    );
}

#[test]
fn an_attempt_without_an_outcome_is_repeated_until_the_job_is_a_dead_letter() {
    let mut job = submitted(2);
    for (attempt, state) in [(1, JobState::Queued), (2, JobState::DeadLetter)] {
        let fence = Fence(attempt);
        job = after(job, &[CLAIM, Event::BeginAttempt(fence), Event::Interrupt(fence)]);
        assert_eq!((job.state, u64::from(job.attempts)), (state, attempt));
    }
    let retried = job
        .apply(Event::Retry, at(100))
        .expect("a dead letter can be retried")
        .next;
    assert_eq!(
        (retried.state, retried.attempts, retried.finished_at),
        (JobState::Queued, 0, None)
    );
    assert!(
        retried.fence > job.fence,
        "the outcome of the retry differs from that of the dead letter"
    );
}

#[test]
fn only_a_dead_letter_can_be_retried() {
    let cancelled = after(submitted(3), &[Event::Cancel]);
    let failed = after(submitted(3), &[CLAIM, Event::Fail(FIRST)]);
    for (job, state) in [
        (submitted(3), JobState::Queued),
        (cancelled, JobState::Cancelled),
        (failed, JobState::Failed),
    ] {
        assert_eq!(job.apply(Event::Retry, at(9)), Err(Rejection::State(state)));
    }
}

#[test]
fn a_rejected_input_fails_the_job_at_once_and_costs_no_attempt() {
    let job = after(submitted(3), &[CLAIM, Event::Fail(FIRST)]);
    assert_eq!((job.state, job.attempts), (JobState::Failed, 0));
}

#[test]
fn a_result_of_a_server_that_lost_its_lease_is_rejected() {
    let lost = after(submitted(3), &[CLAIM, Event::BeginAttempt(FIRST)]);
    let lost = lost.apply(Event::Tick, at(60)).expect("the lease is over").next;
    assert_eq!(lost.apply(Event::Succeed(FIRST), at(61)), Err(Rejection::Fenced));
    let again = lost.apply(CLAIM, at(61)).expect("the job is queued").next;
    for late in [
        Event::Succeed(FIRST),
        Event::Fail(FIRST),
        Event::Interrupt(FIRST),
        Event::BeginAttempt(FIRST),
    ] {
        assert_eq!(again.apply(late, at(62)), Err(Rejection::Fenced), "{late:?}");
    }
}

#[test]
fn a_renewed_lease_lasts_from_the_renewal() {
    let renew = Event::Renew {
        fence: FIRST,
        lease: LEASE,
    };
    let job = after(submitted(3), &[CLAIM]);
    let job = job.apply(renew, at(20)).expect("the lease is renewed").next;
    assert_eq!(job.apply(Event::Tick, at(49)), Err(Rejection::Unchanged));
    assert!(job.apply(Event::Tick, at(50)).is_ok());
}

#[test]
fn a_job_expires_if_it_waits_longer_than_its_time_to_live_and_not_while_it_runs() {
    let job = Lifecycle::submitted(3, Some(10 * SECOND), None, at(0));
    let state =
        |job: Lifecycle, event, time| job.apply(event, at(time)).map(|transition| transition.next.state);
    assert_eq!(state(job, Event::Tick, 9), Err(Rejection::Unchanged));
    assert_eq!(state(job, Event::Tick, 10), Ok(JobState::Expired));
    assert_eq!(state(job, CLAIM, 10), Ok(JobState::Expired));
    let claimed = after(job, &[CLAIM]);
    assert_eq!(state(claimed, Event::Tick, 10), Ok(JobState::Expired));
    assert_eq!(
        state(claimed, Event::BeginAttempt(FIRST), 10),
        Ok(JobState::Expired)
    );
    let running = after(claimed, &[Event::BeginAttempt(FIRST)]);
    assert_eq!(state(running, Event::Tick, 30), Err(Rejection::Unchanged));
    assert_eq!(state(running, Event::Succeed(FIRST), 30), Ok(JobState::Succeeded));
    // It would have to wait again.
    assert_eq!(state(running, Event::Interrupt(FIRST), 30), Ok(JobState::Expired));
}

#[test]
fn a_retried_job_can_wait_as_long_as_a_new_one() {
    let job = Lifecycle::submitted(1, Some(10 * SECOND), Some(at(5)), at(0));
    let job = job.apply(CLAIM, at(5)).expect("the job is due").next;
    let job = after(job, &[Event::BeginAttempt(FIRST), Event::Interrupt(FIRST)]);
    let retried = job
        .apply(Event::Retry, at(1000))
        .expect("a dead letter can be retried")
        .next;
    assert_eq!((retried.expires_at, retried.not_before), (Some(at(1010)), None));
}

#[test]
fn a_job_is_not_claimed_before_its_time() {
    let job = Lifecycle::submitted(3, None, Some(at(100)), at(0));
    assert_eq!(job.apply(CLAIM, at(99)), Err(Rejection::NotDue));
    assert!(job.apply(CLAIM, at(100)).is_ok());
}

/// Something that happens, seen by servers that remember the fences of their claims.
#[derive(Clone, Debug)]
enum Action {
    Claim,
    /// An event of the holder of one of the claims, by its position.
    Holder(usize, fn(Fence) -> Event),
    Other(Event),
}

fn renew(fence: Fence) -> Event {
    Event::Renew { fence, lease: LEASE }
}

fn action() -> impl Strategy<Value = Action> {
    let holder = prop_oneof![
        4 => Just(Event::BeginAttempt as fn(Fence) -> Event),
        2 => Just(Event::Succeed as fn(Fence) -> Event),
        1 => Just(Event::Fail as fn(Fence) -> Event),
        2 => Just(Event::Interrupt as fn(Fence) -> Event),
        1 => Just(Event::Release as fn(Fence) -> Event),
        1 => Just(Event::Progress as fn(Fence) -> Event),
        1 => Just(renew as fn(Fence) -> Event),
    ];
    prop_oneof![
        4 => Just(Action::Claim),
        8 => (0_usize..3, holder).prop_map(|(claim, event)| Action::Holder(claim, event)),
        2 => Just(Action::Other(Event::Tick)),
        1 => Just(Action::Other(Event::HolderLost)),
        1 => Just(Action::Other(Event::Retry)),
        1 => prop::bool::weighted(0.2).prop_map(|cancel| Action::Other(if cancel { Event::Cancel } else { Event::Tick })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn the_invariants_hold_for_any_events_at_any_times(
        max_attempts in 1_u32..4,
        ttl in prop::option::of(1_u64..200),
        not_before in prop::option::of(0_u64..100),
        // Clocks can jump in both directions.
        actions in prop::collection::vec((action(), -20_i64..40), 1..60),
    ) {
        let mut time = 1000_u64;
        let ttl = ttl.map(Duration::from_secs);
        let mut job = Lifecycle::submitted(max_attempts, ttl, not_before.map(|seconds| at(1000 + seconds)), at(time));
        let mut fences = Vec::new();
        let mut results = 0;
        let mut begun = 0;
        for (action, passed) in actions {
            time = time.saturating_add_signed(passed);
            let event = match action {
                Action::Claim => CLAIM,
                // The latest claims, so that a part of the events comes from servers that lost theirs.
                Action::Holder(age, event) => {
                    let claim = fences.len().checked_sub(age + 1).and_then(|position| fences.get(position));
                    event(claim.copied().unwrap_or_default())
                }
                Action::Other(event) => event,
            };
            let before = job;
            let Ok(transition) = job.apply(event, at(time)) else { continue };
            job = transition.next;

            let fence = match event {
                Event::BeginAttempt(fence) | Event::Succeed(fence) | Event::Fail(fence) | Event::Interrupt(fence)
                | Event::Release(fence) | Event::Progress(fence) | Event::Renew { fence, .. } => Some(fence),
                _ => None,
            };
            prop_assert!(fence.is_none_or(|fence| fence == before.fence && before.lease_until.is_some()), "a fenced server");
            prop_assert!(!before.state.is_final() || event == Event::Retry && before.state == JobState::DeadLetter);
            prop_assert!(job.attempts <= max_attempts);
            prop_assert!(job.fence >= before.fence);
            prop_assert!(job.state != JobState::Running || job.lease_until.is_some());
            prop_assert!(!job.state.is_final() || job.lease_until.is_none() && job.finished_at.is_some());
            match job.state {
                JobState::Succeeded => prop_assert!(job.attempts >= 1 && before.state == JobState::Running),
                JobState::DeadLetter => prop_assert_eq!(job.attempts, max_attempts),
                _ => {}
            }
            if event == CLAIM && job.state == JobState::Queued {
                prop_assert!(job.fence > before.fence && before.lease_until.is_none());
                fences.push(job.fence);
            }
            if event == Event::Retry {
                begun = 0;
            }
            begun += u32::from(job.state == JobState::Running && before.state == JobState::Queued);
            prop_assert_eq!(job.attempts, begun, "each attempt that began is counted, and nothing else");
            results += u32::from(matches!(job.state, JobState::Succeeded | JobState::Failed) && !before.state.is_final());
            prop_assert!(results <= 1, "more than one result");
        }

        // A job that has not ended can still run, or has waited too long.
        if !job.state.is_final() {
            let far = at(time + 100_000);
            if let Ok(transition) = job.apply(Event::Tick, far) {
                job = transition.next;
            }
            if !job.state.is_final() {
                let claimed = job.apply(CLAIM, far).expect("the job is queued, and due").next;
                let fence = claimed.fence;
                let running = claimed.apply(Event::BeginAttempt(fence), far).expect("the claim is new").next;
                let ended = running.apply(Event::Succeed(fence), far).expect("the attempt has begun").next;
                prop_assert_eq!(ended.state, JobState::Succeeded);
            } else {
                prop_assert!(matches!(job.state, JobState::Expired | JobState::DeadLetter));
            }
        }
    }
}
