use proptest::prelude::*;

use super::*;

fn by_count(max_items: usize, full_batch: f64) -> ServiceEstimate {
    ServiceEstimate {
        max_items,
        max_cost: None,
        pace: Pace::ByCount {
            smallest: (1.0, full_batch / 2.0),
            full_batch,
        },
        error: 0.0,
    }
}

fn items(items: usize) -> Backlog {
    Backlog {
        items,
        weight: items as u64,
    }
}

type Task = (Option<ServiceEstimate>, Backlog);

/// The workload of these tasks, with workers that are busy for this many seconds.
fn workload(tasks: &[Task], busy: &[f64]) -> Workload {
    let tasks = tasks.iter().map(|&(service, ahead)| TaskLoad { service, ahead });
    Workload::new(
        tasks.collect(),
        Preparation::default(),
        busy.iter().map(|seconds| Duration::from_secs_f64(*seconds)),
    )
}

fn wait(tasks: &[Task], busy: &[f64]) -> Option<f64> {
    let wait = workload(tasks, busy).expected_wait();
    wait.map(|wait| wait.as_secs_f64())
}

#[test]
fn an_item_waits_for_the_full_batches_ahead_and_for_the_one_that_runs() {
    let task = Some(by_count(32, 2.0));
    assert_eq!(wait(&[(task, items(0))], &[0.0]), Some(0.0));
    assert_eq!(wait(&[(task, items(31))], &[0.0]), Some(0.0));
    assert_eq!(wait(&[(task, items(32))], &[0.0]), Some(2.0));
    assert_eq!(wait(&[(task, items(320))], &[0.0]), Some(20.0));
    assert_eq!(wait(&[(task, items(0))], &[1.5]), Some(1.5));
    assert_eq!(wait(&[(task, items(320))], &[1.5]), Some(21.5));
}

#[test]
fn workers_take_the_batches_ahead_in_turn() {
    let task = Some(by_count(32, 2.0));
    assert_eq!(wait(&[(task, items(32))], &[0.0, 0.0]), Some(0.0));
    assert_eq!(wait(&[(task, items(64))], &[0.0, 0.0]), Some(2.0));
    assert_eq!(wait(&[(task, items(3200))], &[0.0, 0.0]), Some(100.0));
    // In any order: the next batch runs on the worker that is free first.
    let busy = [1.75, 0.25];
    assert_eq!(wait(&[(task, items(0))], &busy), Some(0.25));
    assert_eq!(wait(&[(task, items(32))], &busy), Some(1.75));
    assert_eq!(wait(&[(task, items(64))], &busy), Some(2.25));
    // The other worker is busy for so long that it takes none of them.
    assert_eq!(wait(&[(task, items(32))], &[0.25, 100.0]), Some(2.25));
}

#[test]
fn tasks_share_the_workers() {
    let tasks = [
        (Some(by_count(32, 2.0)), items(64)),
        (Some(by_count(1, 0.5)), items(3)),
    ];
    assert_eq!(wait(&tasks, &[0.0]), Some(5.5));
}

#[test]
fn weights_are_waited_for_if_the_cost_predicts_the_time() {
    let task = ServiceEstimate {
        max_items: 32,
        max_cost: Some(1000),
        pace: Pace::ByCost {
            per_batch: 0.5,
            per_unit: 0.001,
        },
        error: 0.0,
    };
    let ahead = Backlog {
        items: 10,
        weight: 4000,
    };
    // Four batches, of which the item could join a fifth.
    assert_eq!(wait(&[(Some(task), ahead)], &[0.0]), Some(4.0 * 0.5 + 3.2));
    assert_eq!(task.batch_time(4, 500), Duration::from_secs(1));
}

#[test]
fn the_time_between_two_batches_is_waited_for_as_well() {
    let task = by_count(32, 2.0).with_turnaround(Duration::from_millis(250));
    assert_eq!(wait(&[(Some(task), items(320))], &[0.0]), Some(22.5));
}

#[test]
fn an_item_heavier_than_the_limit_counts_as_one_batch() {
    let mut task = by_count(32, 2.0);
    task.max_cost = Some(10);
    let ahead = Backlog {
        items: 1,
        weight: 1_000_000,
    };
    assert_eq!(wait(&[(Some(task), ahead)], &[0.0]), Some(2.0));
}

#[test]
fn a_wait_is_unknown_until_a_batch_has_run() {
    assert_eq!(wait(&[(None, items(10))], &[0.0]), None);
    assert_eq!(wait(&[(None, items(0))], &[0.0]), Some(0.0));
    let tasks = [(None, items(10)), (Some(by_count(1, 1.0)), items(2))];
    assert_eq!(wait(&tasks, &[0.0]), Some(2.0));
}

#[test]
fn a_wait_is_at_most_a_day() {
    let task = by_count(1, f64::MAX);
    let day = 24.0 * 60.0 * 60.0;
    assert_eq!(wait(&[(Some(task), items(usize::MAX))], &[0.0]), Some(day));
}

#[test]
fn an_item_waits_for_the_preparations_ahead_and_its_own() {
    let (service, second) = (Some(by_count(32, 2.0)), Duration::from_secs(1));
    let loaded = |ahead| {
        let preparation = Preparation {
            wait: 10 * second,
            each: second,
        };
        let task = TaskLoad {
            service,
            ahead: items(ahead),
        };
        Workload::new(vec![task], preparation, [Duration::ZERO])
    };
    assert_eq!(loaded(64).expected_wait(), Some(10 * second));
    assert_eq!(loaded(320).expected_wait(), Some(20 * second));
    // Three items are prepared after 13 s, and their batch takes two, with a reserve of less than a second.
    assert!(loaded(64).admits(0, 3, 16 * second));
    assert!(!loaded(64).admits(0, 4, 16 * second));
}

fn admits(task: Task, busy: &[f64], items: usize, within: f64) -> bool {
    workload(&[task], busy).admits(0, items, Duration::from_secs_f64(within))
}

#[test]
fn a_request_is_admitted_if_its_last_item_can_be_answered_in_time() {
    let task = (Some(by_count(32, 2.0)), items(64));
    // Two batches, the one of the item, and a reserve of 2.5 × 0.04 × 2 × √(3 + 9 / 15).
    assert!(admits(task, &[1.0], 1, 7.4));
    assert!(!admits(task, &[1.0], 1, 7.3));
    assert!(admits(task, &[1.0], 32, 7.4));
    // The last of these items needs another batch.
    assert!(!admits(task, &[1.0], 33, 9.0));
    assert!(admits(task, &[1.0], 33, 9.5));
}

#[test]
fn a_request_that_joins_others_in_the_next_batch_needs_the_time_of_that_batch() {
    // A batch of one item takes a second, a full one two seconds.
    let task = (Some(by_count(33, 2.0)), items(1));
    assert!(admits(task, &[0.5], 16, 2.0));
    assert!(!admits(task, &[0.5], 16, 1.9));
    let first = (Some(by_count(33, 2.0)), items(0));
    assert!(admits(first, &[0.5], 16, 0.5));
    assert!(!admits(first, &[0.5], 16, 0.4));
}

#[test]
fn a_request_that_no_other_delays_is_admitted_whatever_its_deadline() {
    let task = (Some(by_count(32, 2.0)), items(0));
    assert!(admits(task, &[0.0], 1000, 0.001));
    assert!(admits(task, &[5.0, 0.0], 1000, 0.001));
}

#[test]
fn a_request_that_even_an_idle_model_cannot_answer_completely_is_judged_by_its_first_item() {
    let task = (Some(by_count(32, 2.0)), items(32));
    // Alone, it takes 64 s.
    assert!(admits(task, &[1.0], 1024, 5.4));
    assert!(!admits(task, &[1.0], 1024, 5.2));
}

#[test]
fn a_request_is_admitted_as_long_as_nothing_is_known() {
    assert!(admits((None, items(1_000_000)), &[0.0], 1, 0.001));
}

#[test]
fn the_reserve_grows_with_the_variation_of_service_times_and_the_next_batch_can_always_be_filled() {
    let mut service = by_count(32, 1.0);
    service.error = 0.1;
    let long = (Some(service), items(32 * 9));
    // Ten batches, and 2.5 × 0.1 × √(10 + 100 / 15).
    assert!(!admits(long, &[0.001], 1, 10.9));
    assert!(admits(long, &[0.001], 1, 11.1));
    let next = |ahead| (Some(service), items(ahead));
    // Hardly any of 2.5 × 0.1 × √(1 + 1 / 15).
    assert!(admits(next(1), &[0.001], 31, 1.02));
    // Half of 2.5 × 0.1 × √(1 + 1 / 15).
    assert!(!admits(next(16), &[0.001], 16, 1.12));
    assert!(admits(next(16), &[0.001], 16, 1.14));
}

fn pace() -> impl Strategy<Value = Pace> {
    prop_oneof![
        (0.0..10.0, 0.0..1.0).prop_map(|(full_batch, part)| Pace::ByCount {
            smallest: (1.0, full_batch * part),
            full_batch
        }),
        (0.0..10.0, 0.0..0.1).prop_map(|(per_batch, per_unit)| Pace::ByCost { per_batch, per_unit }),
    ]
}

proptest! {
    #[test]
    fn a_wait_never_falls_if_items_or_weight_are_added_nor_rises_if_a_worker_is(
        pace in pace(),
        max_items in 1..100_usize,
        max_cost in prop::option::of(1..10_000_u64),
        busy in prop::collection::vec(0.0..10.0, 1..8),
        (items, weight) in (0..5000_usize, 0..1_000_000_u64),
        (more_items, more_weight) in (0..100_usize, 0..10_000_u64),
    ) {
        // The more batches there are of the same cost, the better several workers share it.
        let busy = match pace {
            Pace::ByCount { .. } => busy,
            Pace::ByCost { .. } => busy[..1].to_vec(),
        };
        let task = Some(ServiceEstimate { max_items, max_cost, pace, error: 0.1 });
        let seconds = |items, weight, busy: &[f64]| {
            wait(&[(task, Backlog { items, weight })], busy).expect("the task is known")
        };
        let before = seconds(items, weight, &busy);
        prop_assert!(seconds(items + more_items, weight + more_weight, &busy) >= before - 1e-6);
        let idle = vec![0.0; busy.len() + 1];
        prop_assert!(seconds(items, weight, &idle) <= before + 1e-6);
    }

    #[test]
    fn a_request_that_is_admitted_is_admitted_with_a_later_deadline_and_with_fewer_items_ahead(
        pace in pace(),
        (max_items, own) in (1..100_usize, 1..200_usize),
        busy in prop::collection::vec(0.0..10.0, 1..2),
        ahead in 0..5000_usize,
        (within, more) in (0.0..100.0, 0.0..10.0),
        fewer in 0..100_usize,
    ) {
        let task = Some(ServiceEstimate { max_items, max_cost: None, pace, error: 0.1 });
        let alone = admits((task, items(0)), &busy, own, within);
        prop_assert!(alone || !admits((task, items(ahead)), &busy, own, within));
        if admits((task, items(ahead)), &busy, 1, within) {
            prop_assert!(admits((task, items(ahead)), &busy, 1, within + more));
            prop_assert!(admits((task, items(ahead.saturating_sub(fewer))), &busy, 1, within + 1e-6));
        }
    }
}
