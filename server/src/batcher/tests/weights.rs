//! How weights decide which items share a batch.

use super::*;

#[test]
fn a_batch_that_no_further_weight_fits_runs_before_its_delay() {
    for (rule, weights, expected_cost) in [
        (WeightRule::Padded, [40, 50], 100),
        (WeightRule::Sum, [40, 60], 100),
        (WeightRule::Padded, [30, 40], 80),
    ] {
        let mut scenario = Scenario::new(&[weighing(fixed(5), rule, 100)]);
        scenario.push_weights(&weights);
        let expected = Step::Ran {
            task: 0,
            ids: vec![0, 1],
            reason: DispatchReason::Weight,
            cost: expected_cost,
        };
        assert_eq!(scenario.poll(), expected, "{rule:?} {weights:?}");
    }
}

#[test]
fn a_batch_into_which_a_waiting_item_does_not_fit_runs_immediately() {
    let mut scenario = Scenario::new(&[weighing(fixed(5), WeightRule::Padded, 100)]);
    scenario.push_weights(&[10, 60]);
    assert_eq!(
        scenario.poll(),
        Step::Ran {
            task: 0,
            ids: vec![0],
            reason: DispatchReason::Weight,
            cost: 10
        }
    );
    assert_eq!(
        scenario.poll(),
        Step::Ran {
            task: 0,
            ids: vec![1],
            reason: DispatchReason::Weight,
            cost: 60
        }
    );
}

#[test]
fn a_padded_batch_costs_its_count_times_its_heaviest_item() {
    let mut scenario = Scenario::new(&[weighing(GREEDY, WeightRule::Padded, 1000)]);
    scenario.push_weights(&[10, 30, 20]);
    assert_eq!(
        scenario.poll(),
        Step::Ran {
            task: 0,
            ids: vec![0, 1, 2],
            reason: DispatchReason::Idle,
            cost: 90
        }
    );
}

#[test]
fn a_summed_batch_costs_the_sum_of_the_weights() {
    let mut scenario = Scenario::new(&[weighing(GREEDY, WeightRule::Sum, 1000)]);
    scenario.push_weights(&[10, 30, 20]);
    assert_eq!(
        scenario.poll(),
        Step::Ran {
            task: 0,
            ids: vec![0, 1, 2],
            reason: DispatchReason::Idle,
            cost: 60
        }
    );
}

#[test]
fn an_item_heavier_than_the_limit_runs_alone() {
    for rule in [WeightRule::Padded, WeightRule::Sum] {
        let mut scenario = Scenario::new(&[weighing(GREEDY, rule, 100)]);
        scenario.push_weights(&[500, 10, 500, 10, u64::MAX]);
        assert_eq!(
            scenario.drain(),
            [vec![0], vec![1, 3], vec![2], vec![4]],
            "{rule:?}"
        );
    }
}

#[test]
fn alternating_weights_are_grouped_rather_than_run_one_by_one() {
    let mut scenario = Scenario::new(&[weighing(GREEDY, WeightRule::Padded, 200)]);
    scenario.push_weights(&[10, 100, 10, 100]);
    assert_eq!(scenario.drain(), [[0, 2], [1, 3]]);
}

#[test]
fn alternating_weights_of_padded_items_are_grouped_without_a_weight_limit_as_well() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 2)]);
    scenario.push_weights(&[10, 100, 10, 100]);
    assert_eq!(scenario.drain(), [[0, 2], [1, 3]]);
}

#[test]
fn summed_weights_run_in_order_except_those_that_do_not_fit() {
    let mut scenario = Scenario::new(&[weighing(GREEDY, WeightRule::Sum, 100)]);
    scenario.push_weights(&[40, 70, 40, 20, 20]);
    assert_eq!(scenario.drain(), [vec![0, 2, 3], vec![1, 4]]);
}

#[test]
fn equal_weights_run_in_order_of_arrival() {
    let mut scenario = Scenario::new(&[weighing(GREEDY, WeightRule::Padded, 30)]);
    scenario.push_weights(&[10; 7]);
    assert_eq!(scenario.drain(), [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
}

#[test]
fn an_item_that_keeps_being_left_out_runs_when_it_is_the_oldest() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 2)]);
    scenario.push_weights(&[10, 100, 10, 10]);
    assert_eq!(
        scenario.poll(),
        Step::Ran {
            task: 0,
            ids: vec![0, 2],
            reason: DispatchReason::Full,
            cost: 20
        }
    );
    scenario.push_weights(&[10, 10]);
    assert_eq!(
        scenario.poll(),
        Step::Ran {
            task: 0,
            ids: vec![1, 3],
            reason: DispatchReason::Full,
            cost: 200
        }
    );
}

#[test]
fn similar_weights_are_searched_only_within_the_window() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 2)]);
    scenario
        .push_weights(&[10])
        .push_weights(&[100; 64])
        .push_weights(&[10]);
    assert_eq!(scenario.drain()[0], [0, 1]);
}
