//! Background items: what they may change for the items of requests, and what they get done.

use proptest::prelude::*;

use super::*;
use crate::batching::Slack;

const BACKGROUND: Spec = Spec {
    task: 0,
    priority: Priority::Background,
    weight: 0,
    group: 0,
    preparation: Duration::ZERO,
    deadline: None,
};

fn slack(share: f64, max_batch_size: usize) -> TaskBatching {
    TaskBatching {
        background_slack: Slack::of_share(share),
        ..rules(GREEDY, max_batch_size)
    }
}

/// Reports batches of these sizes that took this many milliseconds.
fn learn(scenario: &mut Scenario, batches: &[(usize, u64)]) {
    for (size, millis) in batches {
        scenario
            .batcher
            .observe(completion(*size, scenario.start, *millis));
    }
    scenario.at(1000);
}

fn size(step: Step) -> usize {
    match step {
        Step::Ran { ids, .. } => ids.len(),
        step => panic!("no batch runs: {step:?}"),
    }
}

#[test]
fn background_items_form_full_batches_if_no_requests_wait() {
    for policy in [GREEDY, fixed(50), rounds::ADAPTIVE] {
        let mut scenario = Scenario::new(&[rules(policy, 8)]);
        learn(&mut scenario, &[(4, 10)]);
        scenario.push_all(20, BACKGROUND);
        assert_eq!(scenario.drained_sizes(), [8, 8, 4], "{policy:?}");
    }
}

#[test]
fn the_first_batches_of_a_task_grow_until_they_are_full() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 8)]);
    scenario.push_all(40, BACKGROUND);
    let mut sizes = Vec::new();
    for _ in 0..6 {
        let items = size(scenario.poll());
        sizes.push(items);
        learn(&mut scenario, &[(items, 10)]);
    }
    assert_eq!(sizes, [1, 2, 4, 8, 8, 8]);
}

#[test]
fn they_fill_the_room_of_a_batch_as_far_as_the_slack_permits() {
    // 10 ms, and 1 ms for each item.
    let times = [(1, 11), (2, 12), (4, 14), (8, 18), (16, 26)];
    for (share, expected) in [(0.0, 2), (0.09, 3), (0.5, 8), (1.0, 14)] {
        let mut scenario = Scenario::new(&[slack(share, 16)]);
        learn(&mut scenario, &times);
        scenario.push_all(50, BACKGROUND).push_all(2, Spec::default());
        let step = scenario.poll();
        let Step::Ran { ids, reason, .. } = &step else {
            panic!("{step:?}");
        };
        assert_eq!(
            (ids.len(), *reason),
            (expected, DispatchReason::Idle),
            "slack {share}"
        );
        assert!(ids.contains(&50) && ids.contains(&51), "{ids:?}");
        assert_eq!(
            ids[0],
            if expected > 2 { 0 } else { 50 },
            "the oldest of them join"
        );
    }
}

#[test]
fn they_join_no_batch_whose_time_is_unknown() {
    let mut scenario = Scenario::new(&[slack(1.0, 16)]);
    scenario.push_all(50, BACKGROUND).push_all(2, Spec::default());
    assert_eq!(scenario.poll(), ran([50, 51], DispatchReason::Idle));
    // Only much larger batches are known.
    let mut scenario = Scenario::new(&[slack(1.0, 16)]);
    scenario.push_all(50, BACKGROUND);
    learn(&mut scenario, &[(16, 26)]);
    scenario.push_all(2, Spec::default());
    assert_eq!(scenario.poll(), ran([50, 51], DispatchReason::Idle));
}

#[test]
fn they_take_no_room_from_requests_of_any_class() {
    for priority in [Priority::High, Priority::Normal, Priority::Low] {
        let mut scenario = Scenario::new(&[slack(1.0, 4)]);
        learn(&mut scenario, &[(1, 10), (4, 10)]);
        scenario.push_all(50, BACKGROUND).push_all(
            6,
            Spec {
                priority,
                ..Spec::default()
            },
        );
        assert_eq!(scenario.poll(), ran(50..54, DispatchReason::Full));
        assert_eq!(
            size(scenario.poll()),
            4,
            "the other two, and two background items"
        );
        assert_eq!(scenario.batcher.background_len(), 48);
    }
}

#[test]
fn requests_run_before_background_items_that_have_waited_longer() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 1)]);
    scenario.push_all(2, BACKGROUND);
    scenario.at(500).push_all(2, Spec::default());
    assert_eq!(scenario.drain(), [[2], [3], [0], [1]]);
}

#[test]
fn a_batch_of_requests_that_stays_open_is_not_closed_by_background_items() {
    let mut scenario = Scenario::new(&[rules(fixed(50), 8)]);
    scenario.push_all(50, BACKGROUND).push_all(2, Spec::default());
    assert_eq!(scenario.poll(), Step::WaitUntil(ms(50)));
    assert_eq!(
        scenario.at(50).poll(),
        ran([50, 51], DispatchReason::Delay),
        "nothing is known about larger batches"
    );
}

#[test]
fn a_deadline_of_a_request_limits_what_joins_its_batch() {
    let mut scenario = Scenario::new(&[slack(1.0, 16)]);
    learn(&mut scenario, &[(1, 11), (2, 12), (4, 14), (8, 18), (16, 26)]);
    scenario.push_all(50, BACKGROUND).push_all(
        2,
        Spec {
            deadline: Some(ms(1000 + 14)),
            ..Spec::default()
        },
    );
    assert_eq!(size(scenario.poll()), 4);
}

#[test]
fn groups_and_limits_apply_to_them() {
    let mut scenario = Scenario::new(&[TaskBatching {
        max_batch_weight: Some(12),
        ..slack(1.0, 8)
    }]);
    learn(&mut scenario, &[(1, 10), (8, 10)]);
    scenario.push_all(
        5,
        Spec {
            group: 1,
            ..BACKGROUND
        },
    );
    scenario.push_all(
        5,
        Spec {
            weight: 3,
            ..BACKGROUND
        },
    );
    scenario.push(Spec {
        weight: 2,
        ..Spec::default()
    });
    // Padded to 3 each, four fit.
    let step = scenario.poll();
    assert!(
        matches!(&step, Step::Ran { ids, cost: 12, .. } if *ids == [5, 6, 7, 10]),
        "{step:?}"
    );
}

#[test]
fn cancelled_and_expired_background_items_leave_nothing_behind() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 8)]);
    let cancelled = scenario.push(BACKGROUND);
    let expired = scenario.push(Spec {
        deadline: Some(ms(5)),
        ..BACKGROUND
    });
    assert_eq!(scenario.batcher.next_deadline(), Some(scenario.start + ms(5)));
    assert!(scenario.batcher.cancel(cancelled).is_some());
    let expired_now = scenario.batcher.take_expired(scenario.start + ms(5));
    assert_eq!(
        expired_now.iter().map(|item| item.id).collect::<Vec<_>>(),
        [expired]
    );
    assert!(scenario.batcher.is_empty());
    assert_eq!((scenario.batcher.len_of(0), scenario.poll()), (0, Step::Idle));
}

/// How often background items of another task ran in 40 rounds, in each of which a worker finds `requests` requests.
fn turns(requests: usize) -> Vec<u64> {
    let mut scenario = Scenario::new(&[rules(GREEDY, 8), rules(GREEDY, 8)]);
    for task in 0..2 {
        // 5 ms, whatever the size.
        for size in [1, 2, 4, 8] {
            scenario.batcher.observe(Completion {
                task,
                ..completion(size, scenario.start, 5)
            });
        }
    }
    scenario.push_all(
        3000,
        Spec {
            task: 1,
            ..BACKGROUND
        },
    );
    let mut alone = Vec::new();
    for round in 0..400 {
        scenario.at(5 * round).push_all(requests, Spec::default());
        match scenario.poll() {
            Step::Ran { task: 1, ids, .. } => {
                assert_eq!(ids.len(), 8, "a full batch");
                alone.push(round);
            }
            step => assert!(matches!(step, Step::Ran { task: 0, .. }), "{step:?}"),
        }
    }
    alone.retain(|round| *round >= 360);
    alone
}

/// A worker whose batches are mostly overhead always finds requests of the other task.
#[test]
fn background_items_of_another_task_have_their_turn_if_requests_leave_capacity() {
    let after = |alone: &[u64]| -> Vec<u64> { alone.windows(2).map(|pair| pair[1] - pair[0]).collect() };
    for (requests, expected) in [(1, 2), (4, 3)] {
        let batches = after(&turns(requests));
        assert!(
            batches.len() > 5 && batches.iter().all(|batches| *batches == expected),
            "{requests}: {batches:?}"
        );
    }
    assert_eq!(turns(8), [0; 0], "they use the whole capacity");
}

#[test]
fn they_have_no_turn_if_requests_fill_their_batches() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 8), rules(GREEDY, 8)]);
    scenario.push_all(
        100,
        Spec {
            task: 1,
            ..BACKGROUND
        },
    );
    scenario.push_all(9, Spec::default());
    for round in 0..50 {
        scenario.at(10 * round).push_all(8, Spec::default());
        let step = scenario.poll();
        assert!(matches!(step, Step::Ran { task: 0, .. }), "{round}: {step:?}");
    }
}

#[test]
fn one_of_several_workers_is_kept_for_requests_while_they_arrive() {
    let mut scenario = Scenario::new(&[]);
    scenario.batcher = Batcher::new(vec![rules(GREEDY, 4)]).with_workers(3);
    learn(&mut scenario, &[(1, 10), (4, 10)]);
    for _ in 0..2 {
        let request = scenario.push(Spec::default());
        scenario.batcher.cancel(request);
    }
    scenario.push_all(100, BACKGROUND);
    assert_eq!((size(scenario.poll()), size(scenario.poll())), (4, 4));
    assert_eq!(scenario.poll(), Step::Idle);
    assert_eq!(
        size(scenario.at(60_000).poll()),
        4,
        "requests have ceased to arrive"
    );
}

#[test]
fn batches_of_background_items_are_as_short_as_is_efficient_while_requests_arrive() {
    // 1 ms for each item, and nothing else: a batch of one is as efficient as any.
    let mut scenario = Scenario::new(&[rules(GREEDY, 32)]);
    learn(
        &mut scenario,
        &[(1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (32, 32)],
    );
    scenario.push_all(100, BACKGROUND);
    assert_eq!(size(scenario.poll()), 32, "no requests arrive");
    let request = scenario.push(Spec::default());
    scenario.batcher.cancel(request);
    assert_eq!(size(scenario.poll()), 1);
}

/// Whether the batches of requests are those that would have run without background items.
fn batches_of_requests(tasks: &[TaskBatching], ops: &[(u8, Spec)], with_background: bool) -> Vec<Vec<u64>> {
    let mut scenario = Scenario::new(tasks);
    let mut batches = Vec::new();
    for (millis, (op, spec)) in (0..).zip(ops) {
        scenario.at(millis);
        if spec.priority != Priority::Background || with_background {
            scenario.push(*spec);
        } else {
            // The names of the items remain the same.
            scenario.pushed += 1;
        }
        if *op > 0 {
            continue;
        }
        let Next::Run(batch) = scenario.batcher.poll(scenario.now) else {
            continue;
        };
        let of_requests: Vec<u64> = batch
            .items
            .iter()
            .filter(|item| item.priority != Priority::Background)
            .map(|item| item.id.0)
            .collect();
        if of_requests.is_empty() {
            // It was idle otherwise.
            scenario.batcher.abandon(batch.token);
        } else {
            assert!(batch.items.len() <= tasks[batch.task].max_batch_size.get());
            batches.push(of_requests);
            scenario.running.0.push(batch.token);
        }
    }
    batches
}

proptest! {
    /// As long as no batch ends, what is learned is the same.
    #[test]
    fn the_batches_of_requests_do_not_depend_on_background_items(
        sizes in prop::collection::vec(1..9_usize, 2),
        is_fixed in any::<bool>(),
        ops in prop::collection::vec((0..4_u8, 0..2_usize, 0..4_usize, 1..4_u64, 0..2_u64), 1..200),
    ) {
        let policy = if is_fixed { fixed(3) } else { GREEDY };
        let tasks: Vec<TaskBatching> = sizes.iter().map(|size| rules(policy, *size)).collect();
        let ops: Vec<(u8, Spec)> = ops
            .into_iter()
            .map(|(op, task, class, weight, group)| {
                let spec = Spec { task, priority: lane::CLASSES[class], weight, group, ..Spec::default() };
                (op, spec)
            })
            .collect();
        let with = batches_of_requests(&tasks, &ops, true);
        let without = batches_of_requests(&tasks, &ops, false);
        // Later ones can run after a turn of background items.
        prop_assert_eq!(&with[..with.len().min(1)], &without[..without.len().min(1)]);
    }
}
