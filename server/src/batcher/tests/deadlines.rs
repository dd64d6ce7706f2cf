//! Items that cannot be answered in time.

use super::*;

/// A batcher for batches of two at most, which has seen that they take 10 ms.
fn knowing_that_batches_take_ten_ms() -> Scenario {
    let mut scenario = Scenario::new(&[rules(GREEDY, 2)]);
    scenario.at(10);
    for size in [1, 2] {
        scenario.batcher.completed(Completion {
            task: 0,
            size,
            cost: 0,
            started: scenario.start,
            finished: scenario.now,
            succeeded: true,
        });
    }
    scenario
}

fn until(millis: u64) -> Spec {
    Spec {
        deadline: Some(ms(millis)),
        ..Spec::default()
    }
}

fn given_up(scenario: &mut Scenario) -> Vec<u64> {
    let given_up = scenario.batcher.take_expired(scenario.now);
    given_up.iter().map(|item| item.id.0).collect()
}

#[test]
fn who_cannot_be_answered_in_time_leaves_the_place_to_others() {
    let mut scenario = knowing_that_batches_take_ten_ms();
    for deadline in [12, 30, 30] {
        scenario.push(until(deadline));
    }
    assert_eq!(scenario.poll(), ran([1, 2], DispatchReason::Full));
    assert_eq!(given_up(&mut scenario), [0], "at once, not at the deadline");
    assert!(scenario.batcher.is_empty());
}

#[test]
fn who_cannot_be_answered_in_time_runs_all_the_same_where_nobody_wants_the_place() {
    let mut scenario = knowing_that_batches_take_ten_ms();
    for deadline in [12, 30] {
        scenario.push(until(deadline));
    }
    assert_eq!(scenario.poll(), ran([0, 1], DispatchReason::Full));
    assert_eq!(given_up(&mut scenario), [0; 0]);
}

#[test]
fn only_as_many_are_given_up_as_a_full_batch_can_spare() {
    let mut scenario = knowing_that_batches_take_ten_ms();
    for deadline in [14, 12, 13] {
        scenario.push(until(deadline));
    }
    assert_eq!(scenario.poll(), ran([0, 2], DispatchReason::Full));
    assert_eq!(given_up(&mut scenario), [1]);
}

#[test]
fn a_batch_may_be_faster_than_usual_so_a_close_deadline_is_a_chance() {
    let mut scenario = knowing_that_batches_take_ten_ms();
    for deadline in [19, 30, 30] {
        scenario.push(until(deadline));
    }
    assert_eq!(scenario.poll(), ran([0, 1], DispatchReason::Full));
    assert_eq!(given_up(&mut scenario), [0; 0]);
}
