//! When a batch stays open, and what closes it.

use super::*;

#[test]
fn a_lone_item_runs_at_once_under_greedy() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 8)]);
    scenario.push_all(1, Spec::default());
    assert_eq!(scenario.poll(), ran([0], DispatchReason::Idle));
    assert_eq!(scenario.poll(), Step::Idle);
}

#[test]
fn one_item_runs_at_a_time_when_batching_is_off() {
    let mut scenario = Scenario::new(&[rules(Policy::Off, 8)]);
    scenario.push_all(3, Spec::default());
    for id in 0..3 {
        assert_eq!(scenario.poll(), ran([id], DispatchReason::Off));
    }
}

#[test]
fn a_fixed_delay_is_counted_from_the_arrival_of_the_first_item() {
    let mut scenario = Scenario::new(&[rules(fixed(5), 8)]);
    scenario.at(1).push_all(1, Spec::default());
    scenario.at(4).push_all(1, Spec::default());
    assert_eq!(scenario.at(4).poll(), Step::WaitUntil(ms(6)));
    assert_eq!(scenario.at(6).poll(), ran([0, 1], DispatchReason::Delay));
}

#[test]
fn an_item_that_waited_out_its_delay_behind_a_busy_worker_runs_at_once() {
    let mut scenario = Scenario::new(&[rules(fixed(5), 8)]);
    scenario.push_all(1, Spec::default());
    assert_eq!(scenario.at(20).poll(), ran([0], DispatchReason::Delay));
}

#[test]
fn a_batch_that_fills_before_its_delay_runs_at_once() {
    let mut scenario = Scenario::new(&[rules(fixed(5), 2)]);
    scenario.push_all(1, Spec::default());
    assert_eq!(scenario.poll(), Step::WaitUntil(ms(5)));
    scenario.at(1).push_all(1, Spec::default());
    assert_eq!(scenario.poll(), ran([0, 1], DispatchReason::Full));
}

#[test]
fn a_delay_too_long_for_the_clock_waits_for_a_full_batch() {
    let mut scenario = Scenario::new(&[rules(
        Policy::Fixed {
            max_delay: Duration::MAX,
        },
        2,
    )]);
    scenario.push_all(1, Spec::default());
    assert!(matches!(scenario.poll(), Step::WaitUntil(_)));
    scenario.push_all(1, Spec::default());
    assert_eq!(scenario.poll(), ran([0, 1], DispatchReason::Full));
}

#[test]
fn an_item_whose_deadline_would_pass_by_waiting_takes_its_batch_along_now() {
    let mut scenario = Scenario::new(&[rules(fixed(5), 8)]);
    scenario.push_all(1, Spec::default());
    scenario.push_all(
        1,
        Spec {
            deadline: Some(ms(6)),
            ..Spec::default()
        },
    );
    assert_eq!(scenario.poll(), Step::WaitUntil(ms(5)));
    scenario.at(1).push_all(
        1,
        Spec {
            deadline: Some(ms(4)),
            ..Spec::default()
        },
    );
    assert_eq!(scenario.poll(), ran([0, 1, 2], DispatchReason::Deadline));
}

#[test]
fn a_task_that_waits_lets_a_task_that_is_ready_run() {
    let mut scenario = Scenario::new(&[rules(fixed(5), 8), rules(GREEDY, 8)]);
    scenario.push_all(1, Spec::default());
    scenario.at(1).push_all(
        1,
        Spec {
            task: 1,
            ..Spec::default()
        },
    );
    let image = Step::Ran {
        task: 1,
        ids: vec![1],
        reason: DispatchReason::Idle,
        cost: 0,
    };
    assert_eq!(scenario.poll(), image);
    assert_eq!(scenario.poll(), Step::WaitUntil(ms(5)));
}

#[test]
fn a_group_that_waits_lets_a_full_group_run() {
    let mut scenario = Scenario::new(&[rules(fixed(5), 2)]);
    scenario.push(Spec {
        group: 1,
        priority: Priority::High,
        ..Spec::default()
    });
    scenario.push_all(
        2,
        Spec {
            group: 2,
            ..Spec::default()
        },
    );
    assert_eq!(scenario.poll(), ran([1, 2], DispatchReason::Full));
}

#[test]
fn waiting_ends_with_the_earliest_of_all_delays() {
    let mut scenario = Scenario::new(&[rules(fixed(50), 8), rules(fixed(5), 8)]);
    scenario.push_all(1, Spec::default());
    scenario.at(10).push_all(
        1,
        Spec {
            task: 1,
            ..Spec::default()
        },
    );
    assert_eq!(scenario.poll(), Step::WaitUntil(ms(15)));
}

#[test]
fn queued_items_stay_and_obey_new_rules_after_a_change() {
    let mut scenario = Scenario::new(&[rules(fixed(50), 8)]);
    scenario.push_all(5, Spec::default());
    assert_eq!(scenario.poll(), Step::WaitUntil(ms(50)));
    scenario.batcher.reconfigure(vec![rules(GREEDY, 3)]);
    assert_eq!(scenario.drained_sizes(), [3, 2]);
}
