//! Who goes first: arrivals, tasks and classes.

use super::*;

#[test]
fn an_item_submitted_late_takes_the_place_of_its_arrival() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 1)]);
    scenario.at(5).push_all(1, Spec::default());
    scenario.at(2).push_all(1, Spec::default());
    assert_eq!(scenario.at(6).drain(), [[1], [0]]);
}

#[test]
fn a_higher_class_overtakes_and_spare_room_goes_to_the_others_in_order() {
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
fn a_lower_class_of_another_task_gets_its_turn_as_well() {
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
