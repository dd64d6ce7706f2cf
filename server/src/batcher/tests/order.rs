//! The order of items: arrivals, tasks and classes.

use proptest::prelude::*;

use super::*;
use candidates::{ClassOrder, LOWER_CLASS_TURN};

#[test]
fn items_run_in_order_of_arrival_however_long_their_preparation_took() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 1)]);
    scenario.at(5).push(Spec::default());
    // Arrived after 2 ms.
    scenario.at(6).push(Spec {
        preparation: ms(4),
        ..Spec::default()
    });
    assert_eq!(scenario.drain(), [[1], [0]]);
}

#[test]
fn a_higher_class_leads_and_the_other_classes_fill_the_room_in_order() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 4)]);
    scenario.push_all(
        3,
        Spec {
            priority: Priority::Low,
            ..Spec::default()
        },
    );
    scenario.push_all(2, Spec::default());
    scenario.push_all(
        1,
        Spec {
            priority: Priority::High,
            ..Spec::default()
        },
    );
    assert_eq!(scenario.drain(), [vec![0, 3, 4, 5], vec![1, 2]]);
}

#[test]
fn a_higher_class_goes_first_among_tasks_too() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 4), rules(GREEDY, 4)]);
    scenario.push_all(1, Spec::default());
    scenario.at(1).push_all(
        1,
        Spec {
            task: 1,
            priority: Priority::High,
            ..Spec::default()
        },
    );
    assert_eq!(scenario.drain(), [[1], [0]]);
}

#[test]
fn the_task_whose_head_has_waited_longest_goes_first() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 2), rules(GREEDY, 2)]);
    scenario.push_all(
        2,
        Spec {
            task: 1,
            ..Spec::default()
        },
    );
    scenario.at(1).push_all(2, Spec::default());
    scenario.at(2).push_all(
        2,
        Spec {
            task: 1,
            ..Spec::default()
        },
    );
    assert_eq!(scenario.drain(), [[0, 1], [2, 3], [4, 5]]);
}

#[test]
fn two_tasks_under_constant_load_take_turns() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 4), rules(GREEDY, 4)]);
    let mut tasks = Vec::new();
    for round in 0..20 {
        scenario.at(round);
        scenario.push_all(8, Spec::default());
        scenario.push_all(
            8,
            Spec {
                task: 1,
                ..Spec::default()
            },
        );
        if let Step::Ran { task, ids, .. } = scenario.poll() {
            assert_eq!(ids.len(), 4);
            tasks.push(task);
        }
    }
    assert_eq!(tasks.iter().filter(|task| **task == 0).count(), 10);
}

#[test]
fn every_eighth_batch_is_led_by_the_lower_class_that_waited_longest() {
    for lower in [
        [Priority::Low, Priority::Normal],
        [Priority::Normal, Priority::Low],
    ] {
        let mut scenario = Scenario::new(&[rules(GREEDY, 1)]);
        for priority in lower {
            scenario.push_all(
                1,
                Spec {
                    priority,
                    ..Spec::default()
                },
            );
        }
        let high = Spec {
            priority: Priority::High,
            ..Spec::default()
        };
        scenario.push_all(30, high);
        let order = scenario.drain().concat();
        let turns: Vec<usize> = (0..order.len()).filter(|turn| order[*turn] < 2).collect();
        assert_eq!((turns, order[7], order[15]), (vec![7, 15], 0, 1), "{lower:?}");
    }
}

#[test]
fn a_lower_class_of_another_task_leads_every_eighth_batch_as_well() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 4), rules(GREEDY, 4)]);
    scenario.push_all(
        100,
        Spec {
            priority: Priority::High,
            ..Spec::default()
        },
    );
    scenario.push_all(
        1,
        Spec {
            task: 1,
            priority: Priority::Low,
            ..Spec::default()
        },
    );
    assert_eq!(scenario.drain()[7], [100]);
}

#[test]
fn the_turn_of_the_lower_classes_is_not_decided_by_an_item_that_cannot_be_answered_in_time() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 2)]);
    scenario.at(10).learn_batches_of_ten_ms();
    let of = |priority, group| Spec {
        priority,
        group,
        ..Spec::default()
    };
    scenario.push(of(Priority::Normal, 0));
    let low = scenario.push(of(Priority::Low, 1));
    scenario.push(of(Priority::Low, 0));
    for _ in 1..LOWER_CLASS_TURN {
        let high = scenario.push(of(Priority::High, 2));
        assert_eq!(scenario.poll(), ran([high.0], DispatchReason::Idle));
    }
    // Without this one, the highest class is Normal.
    scenario.push(Spec {
        deadline: Some(ms(12)),
        ..of(Priority::High, 0)
    });
    assert_eq!(scenario.poll(), ran([low.0], DispatchReason::Idle));
}

/// All heads that a poll considers, collected and sorted.
fn sorted_candidates(batcher: &Batcher<()>, order: ClassOrder) -> Vec<(u8, lane::Position)> {
    let mut candidates = Vec::new();
    for (index, task) in batcher.tasks.iter().enumerate() {
        for class in lane::CLASSES {
            let heads = std::iter::successors(batcher.queue.next_head(index, class, None), |head| {
                batcher.queue.next_head(index, class, Some(*head))
            });
            candidates.extend(
                heads
                    .take(task.max_considered())
                    .map(|head| (order.rank(class), head.place)),
            );
        }
    }
    candidates.sort_unstable();
    candidates
}

proptest! {
    #[test]
    fn candidates_are_considered_in_the_order_that_sorting_gives(
        policies in prop::collection::vec(prop::sample::select(vec![GREEDY, fixed(5)]), 1..4),
        items in prop::collection::vec((0..4_usize, 0..3_usize, 0..50_u64, 0..20_u64), 1..150),
        passed_over in 0..9_u32,
    ) {
        let tasks: Vec<TaskBatching> = policies.iter().map(|policy| rules(*policy, 8)).collect();
        let mut scenario = Scenario::new(&tasks);
        for (task, class, group, arrived) in items {
            scenario.at(arrived).push(Spec {
                task: task % tasks.len(),
                priority: lane::CLASSES[class],
                group,
                ..Spec::default()
            });
        }
        let batcher = &mut scenario.batcher;
        batcher.passed_over = passed_over;
        let order = batcher.order().expect("items wait");
        let expected = sorted_candidates(batcher, order);
        let mut considered = Vec::new();
        let mut previous = None;
        while let Some(candidate) = batcher.next_candidate(order, previous) {
            batcher.tasks[candidate.task].considered[candidate.class as usize] += 1;
            considered.push((order.rank(candidate.class), candidate.head.place));
            previous = Some(candidate);
        }
        prop_assert_eq!(considered, expected);
    }
}
