//! Items whose deadline passes or cannot be met.

use proptest::prelude::*;

use super::*;

const POLICIES: [Policy; 4] = [
    Policy::Adaptive {
        max_delay: Duration::from_millis(10),
    },
    Policy::Fixed {
        max_delay: Duration::from_millis(10),
    },
    Policy::Greedy,
    Policy::Off,
];

/// A batcher for batches of up to two items, which has learned that they take 10 ms.
fn scenario_with_batches_of_ten_ms() -> Scenario {
    let mut scenario = Scenario::new(&[rules(GREEDY, 2)]);
    scenario.at(10).learn_batches_of_ten_ms();
    scenario
}

fn until(millis: u64) -> Spec {
    Spec {
        deadline: Some(ms(millis)),
        ..Spec::default()
    }
}

fn set_aside(scenario: &mut Scenario) -> Vec<u64> {
    let set_aside = scenario.batcher.take_expired(scenario.now);
    set_aside.iter().map(|item| item.id.0).collect()
}

#[test]
fn an_item_that_cannot_be_answered_in_time_leaves_its_place_to_others_immediately() {
    let mut scenario = scenario_with_batches_of_ten_ms();
    for deadline in [12, 30, 30] {
        scenario.push(until(deadline));
    }
    assert_eq!(scenario.poll(), ran([1, 2], DispatchReason::Full));
    assert_eq!(set_aside(&mut scenario), [0], "at once, not at the deadline");
    assert!(scenario.batcher.is_empty());
}

#[test]
fn an_item_that_cannot_be_answered_in_time_runs_if_no_other_item_needs_its_place() {
    let mut scenario = scenario_with_batches_of_ten_ms();
    for deadline in [12, 30] {
        scenario.push(until(deadline));
    }
    assert_eq!(scenario.poll(), ran([0, 1], DispatchReason::Full));
    assert_eq!(set_aside(&mut scenario), [0; 0]);
}

#[test]
fn only_as_many_items_are_set_aside_as_a_full_batch_can_spare() {
    let mut scenario = scenario_with_batches_of_ten_ms();
    for deadline in [14, 12, 13] {
        scenario.push(until(deadline));
    }
    assert_eq!(scenario.poll(), ran([0, 2], DispatchReason::Full));
    assert_eq!(set_aside(&mut scenario), [1]);
}

#[test]
fn an_item_that_a_faster_batch_than_usual_could_answer_in_time_runs() {
    let mut scenario = scenario_with_batches_of_ten_ms();
    for deadline in [19, 30, 30] {
        scenario.push(until(deadline));
    }
    assert_eq!(scenario.poll(), ran([0, 1], DispatchReason::Full));
    assert_eq!(set_aside(&mut scenario), [0; 0]);
}

#[test]
fn items_of_other_groups_with_earlier_deadlines_hide_none_that_cannot_be_answered_in_time() {
    let mut scenario = scenario_with_batches_of_ten_ms();
    for deadline in [12, 30, 30] {
        scenario.push(until(deadline));
    }
    let others = Spec {
        group: 1,
        ..until(11)
    };
    scenario.push_all(1000, others);
    assert_eq!(scenario.poll(), ran([1, 2], DispatchReason::Full));
    assert_eq!(set_aside(&mut scenario), [0]);
}

/// How many items were answered in time, and how many were set aside before their deadline.
#[derive(Debug, PartialEq)]
struct Answered {
    in_time: usize,
    infeasible: usize,
}

/// One worker runs a batch of each of the sizes in `before`, then `items` items with a deadline of `deadline` ms, in
/// batches that take `time` ms.
fn answer(
    task: TaskBatching,
    before: &[usize],
    items: usize,
    deadline: u64,
    time: impl Fn(usize) -> u64,
) -> Answered {
    let mut scenario = Scenario::new(&[task]);
    let mut now = 0;
    let mut answered = Answered {
        in_time: 0,
        infeasible: 0,
    };
    let spec = |deadline| Spec {
        weight: 1,
        deadline,
        ..Spec::default()
    };
    let requests = before
        .iter()
        .map(|size| (*size, None))
        .chain([(items, Some(deadline))]);
    for (items, deadline) in requests {
        let deadline = deadline.map(|deadline| ms(now + deadline));
        scenario.at(now).push_all(items, spec(deadline));
        while !scenario.batcher.is_empty() {
            let step = scenario.at(now).poll();
            let set_aside = scenario.batcher.take_expired(scenario.now);
            let early = |item: &&Item<()>| item.deadline > Some(scenario.now);
            answered.infeasible += set_aside.iter().filter(early).count();
            match step {
                Step::Ran { ids, .. } => {
                    let started = scenario.now;
                    now += time(ids.len());
                    let finished = scenario.at(now).now;
                    let token = scenario.running.0.pop().expect("a batch runs");
                    let outcome = BatchOutcome {
                        started,
                        finished,
                        succeeded: true,
                    };
                    scenario.batcher.complete(token, outcome);
                    if deadline.is_some_and(|deadline| ms(now) <= deadline) {
                        answered.in_time += ids.len();
                    }
                }
                Step::WaitUntil(until) => {
                    now = u64::try_from(until.as_millis())
                        .expect("a short wait")
                        .max(now + 1)
                }
                Step::Idle => assert!(scenario.batcher.is_empty()),
            }
        }
    }
    answered
}

#[test]
fn all_items_that_can_be_answered_are_answered_although_their_batches_are_larger_than_any_before() {
    for policy in POLICIES {
        let expected = match policy {
            // Two batches of one item. The third starts in time to be tried, and the others are set aside.
            Policy::Off => Answered {
                in_time: 2,
                infeasible: 61,
            },
            _ => Answered {
                in_time: 64,
                infeasible: 0,
            },
        };
        let answered = answer(rules(policy, 32), &[1], 64, 2600, |_| 1000);
        assert_eq!(answered, expected, "{policy:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The reference answers items in order of arrival and sets none aside.
    #[test]
    fn setting_infeasible_items_aside_never_costs_an_answer(
        policy in prop::sample::select(vec![GREEDY, Policy::Off, fixed(10)]),
        (fixed, each) in (1..1000_u64, 0..100_u64),
        before in prop::collection::vec(1..40_usize, 0..6),
        (max, items) in (1..40_usize, 1..200_usize),
        deadline in 20..6000_u64,
    ) {
        let time = |size: usize| fixed + each * size as u64;
        let answered = answer(rules(policy, max), &before, items, deadline, time);
        let max = if policy == Policy::Off { 1 } else { max };
        let (mut in_time, mut now) = (0, 0);
        while in_time < items {
            let size = max.min(items - in_time);
            // A policy may wait for up to 10 ms before a batch that is not full.
            now += time(size) + if size < max { 11 } else { 0 };
            if now > deadline {
                break;
            }
            in_time += size;
        }
        prop_assert!(answered.in_time >= in_time, "{answered:?}, {in_time} in order");
    }
}
