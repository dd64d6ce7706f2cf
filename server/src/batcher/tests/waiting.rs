//! When a batch stays open, and what closes it.

use super::*;

#[test]
fn a_single_item_runs_immediately_under_greedy() {
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
fn a_fixed_delay_is_counted_from_when_the_first_item_was_ready() {
    let mut scenario = Scenario::new(&[rules(fixed(5), 8)]);
    scenario.at(1).push_all(1, Spec::default());
    scenario.at(4).push_all(1, Spec::default());
    assert_eq!(scenario.at(4).poll(), Step::WaitUntil(ms(6)));
    assert_eq!(scenario.at(6).poll(), ran([0, 1], DispatchReason::Delay));
}

#[test]
fn a_long_preparation_is_not_a_part_of_a_fixed_delay() {
    let mut scenario = Scenario::new(&[rules(fixed(5), 8)]);
    scenario.at(20).push(Spec {
        preparation: ms(20),
        ..Spec::default()
    });
    assert_eq!(scenario.poll(), Step::WaitUntil(ms(25)));
    // An older item whose preparation took longer joins the batch and does not prolong the delay.
    scenario.at(24).push(Spec {
        preparation: ms(24),
        ..Spec::default()
    });
    assert_eq!(scenario.poll(), Step::WaitUntil(ms(25)));
    assert_eq!(scenario.at(25).poll(), ran([0, 1], DispatchReason::Delay));
}

#[test]
fn the_delay_of_a_fixed_batch_is_counted_anew_after_its_first_item_was_cancelled() {
    let mut scenario = Scenario::new(&[rules(fixed(5), 8)]);
    let first = scenario.at(1).push(Spec::default());
    scenario.at(3).push(Spec::default());
    assert_eq!(scenario.poll(), Step::WaitUntil(ms(6)));
    scenario.batcher.cancel(first);
    assert_eq!(scenario.poll(), Step::WaitUntil(ms(8)));
}

#[test]
fn an_item_whose_delay_passed_while_the_worker_was_busy_runs_immediately() {
    let mut scenario = Scenario::new(&[rules(fixed(5), 8)]);
    scenario.push_all(1, Spec::default());
    assert_eq!(scenario.at(20).poll(), ran([0], DispatchReason::Delay));
}

#[test]
fn a_batch_that_fills_before_its_delay_runs_immediately() {
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
fn a_batch_runs_immediately_if_a_deadline_would_pass_while_it_waits() {
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
fn a_batch_of_another_task_runs_while_a_task_waits() {
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
fn a_full_batch_of_another_group_runs_while_a_group_waits() {
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
fn queued_items_follow_the_new_rules_after_a_change() {
    let mut scenario = Scenario::new(&[rules(fixed(50), 8)]);
    scenario.push_all(5, Spec::default());
    assert_eq!(scenario.poll(), Step::WaitUntil(ms(50)));
    scenario.batcher.reconfigure(vec![rules(GREEDY, 3)]);
    assert_eq!(scenario.drained_sizes(), [3, 2]);
}
