//! The rules of batching, one sentence each, in virtual time.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use super::*;
use crate::batching::{Policy, WeightRule};

const GREEDY: Policy = Policy::Greedy;

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn rules(policy: Policy, max_batch_size: usize) -> TaskBatching {
    TaskBatching {
        policy,
        max_batch_size: NonZeroUsize::new(max_batch_size).expect("tests use sizes above zero"),
        max_batch_weight: None,
        weight_rule: WeightRule::Padded,
    }
}

fn fixed(millis: u64) -> Policy {
    Policy::Fixed {
        max_delay: ms(millis),
    }
}

fn weighing(policy: Policy, weight_rule: WeightRule, max_batch_weight: u64) -> TaskBatching {
    TaskBatching {
        max_batch_weight: Some(max_batch_weight),
        weight_rule,
        ..rules(policy, 8)
    }
}

/// A batcher, and a clock that only a test moves. Items are named 0, 1, 2, … as they are pushed.
struct Scenario {
    batcher: Batcher<()>,
    start: Instant,
    now: Instant,
    pushed: u64,
}

/// What a test says of an item; the rest is as plain as can be.
#[derive(Clone, Copy, Default)]
struct Spec {
    task: usize,
    priority: Priority,
    weight: u64,
    group: u64,
    deadline: Option<Duration>,
}

#[derive(Debug, PartialEq)]
enum Step {
    Ran {
        task: usize,
        ids: Vec<u64>,
        reason: DispatchReason,
        cost: u64,
    },
    WaitUntil(Duration),
    Idle,
}

impl Scenario {
    fn new(tasks: &[TaskBatching]) -> Self {
        let start = crate::clock::now();
        Scenario {
            batcher: Batcher::new(tasks.to_vec()),
            start,
            now: start,
            pushed: 0,
        }
    }

    /// Moves the clock to `millis` after the start.
    fn at(&mut self, millis: u64) -> &mut Self {
        self.now = self.start + ms(millis);
        self
    }

    fn push(&mut self, spec: Spec) -> ItemId {
        let id = ItemId(self.pushed);
        self.pushed += 1;
        self.batcher.push(Item {
            id,
            task: spec.task,
            priority: spec.priority,
            weight: spec.weight,
            group: spec.group,
            arrived: self.now,
            deadline: spec.deadline.map(|after| self.start + after),
            payload: (),
        });
        id
    }

    fn push_all(&mut self, count: usize, spec: Spec) -> &mut Self {
        for _ in 0..count {
            self.push(spec);
        }
        self
    }

    fn push_weights(&mut self, weights: &[u64]) -> &mut Self {
        for &weight in weights {
            self.push(Spec {
                weight,
                ..Spec::default()
            });
        }
        self
    }

    fn poll(&mut self) -> Step {
        match self.batcher.poll(self.now) {
            Next::Run(Batch {
                task,
                items,
                reason,
                cost,
            }) => Step::Ran {
                task,
                ids: items.iter().map(|item| item.id.0).collect(),
                reason,
                cost,
            },
            Next::WaitUntil(until) => Step::WaitUntil(until - self.start),
            Next::Idle => Step::Idle,
        }
    }

    /// The ids of the batches that run now, one after the other.
    fn drain(&mut self) -> Vec<Vec<u64>> {
        std::iter::from_fn(|| match self.poll() {
            Step::Ran { ids, .. } => Some(ids),
            Step::WaitUntil(_) | Step::Idle => None,
        })
        .collect()
    }

    fn drained_sizes(&mut self) -> Vec<usize> {
        self.drain().iter().map(Vec::len).collect()
    }
}

fn ran(ids: impl IntoIterator<Item = u64>, reason: DispatchReason) -> Step {
    Step::Ran {
        task: 0,
        ids: ids.into_iter().collect(),
        reason,
        cost: 0,
    }
}

#[test]
fn requests_of_eleven_and_three_run_as_eight_and_six_and_an_image_request_beside_them_runs_alone() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 8), rules(GREEDY, 8)]);
    scenario.push_all(11, Spec::default());
    scenario.push_all(
        5,
        Spec {
            task: 1,
            ..Spec::default()
        },
    );
    scenario.push_all(3, Spec::default());
    let batches = scenario.drain();
    let expected = [
        (0..8).collect::<Vec<_>>(),
        vec![8, 9, 10, 16, 17, 18],
        (11..16).collect(),
    ];
    assert_eq!(batches, expected);
}

#[test]
fn twelve_items_with_a_maximum_of_four_run_as_exactly_three_full_batches() {
    let mut scenario = Scenario::new(&[rules(fixed(50), 4)]);
    scenario.push_all(12, Spec::default());
    for first in [0, 4, 8] {
        assert_eq!(scenario.poll(), ran(first..first + 4, DispatchReason::Full));
    }
    assert_eq!(scenario.poll(), Step::Idle);
}

#[test]
fn items_of_different_groups_never_share_a_batch() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 8)]);
    for group in [1, 2, 1, 2] {
        scenario.push(Spec {
            group,
            ..Spec::default()
        });
    }
    assert_eq!(scenario.drain(), [[0, 2], [1, 3]]);
}

#[test]
fn a_group_behind_many_items_of_another_still_fills_its_batch() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 4)]);
    scenario.push(Spec {
        group: 2,
        ..Spec::default()
    });
    scenario.push_all(
        1000,
        Spec {
            group: 1,
            ..Spec::default()
        },
    );
    scenario.push_all(
        3,
        Spec {
            group: 2,
            ..Spec::default()
        },
    );
    assert_eq!(scenario.poll(), ran([0, 1001, 1002, 1003], DispatchReason::Full));
}

#[test]
fn an_item_pushed_while_the_worker_is_busy_joins_the_next_batch() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 8)]);
    scenario.push_all(1, Spec::default());
    scenario.poll();
    scenario.at(1).push_all(2, Spec::default());
    scenario.at(9).push_all(1, Spec::default());
    assert_eq!(scenario.at(10).poll(), ran([1, 2, 3], DispatchReason::Idle));
}

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
fn a_batch_that_leaves_a_heavy_item_behind_does_not_wait_for_lighter_ones() {
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
fn a_summed_batch_costs_the_weights_of_its_items_together() {
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
fn alternating_weights_are_grouped_without_a_limit_too_where_items_are_padded() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 2)]);
    scenario.push_weights(&[10, 100, 10, 100]);
    assert_eq!(scenario.drain(), [[0, 2], [1, 3]]);
}

#[test]
fn summed_weights_are_taken_in_order_leaving_out_what_does_not_fit() {
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
    let mut scenario = Scenario::new(&[rules(GREEDY, 1)]);
    scenario.push(Spec {
        priority: Priority::Low,
        ..Spec::default()
    });
    scenario.push(Spec {
        priority: Priority::Normal,
        ..Spec::default()
    });
    scenario.push_all(
        30,
        Spec {
            priority: Priority::High,
            ..Spec::default()
        },
    );
    let order = scenario.drain().concat();
    assert_eq!((order[7], order[15]), (0, 1));
    assert!(order[..7].iter().all(|id| *id >= 2));
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

#[test]
fn an_expired_item_never_runs_and_is_handed_back_once() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 8)]);
    scenario.push_all(
        1,
        Spec {
            deadline: Some(ms(5)),
            ..Spec::default()
        },
    );
    scenario.push_all(
        1,
        Spec {
            deadline: Some(ms(6)),
            ..Spec::default()
        },
    );
    assert_eq!(scenario.batcher.next_deadline(), Some(scenario.start + ms(5)));
    assert_eq!(scenario.at(5).poll(), ran([1], DispatchReason::Idle));
    assert_eq!(scenario.poll(), Step::Idle);
    assert_eq!((scenario.batcher.len(), scenario.batcher.len_of(0)), (1, 1));
    let expired = scenario.batcher.take_expired(scenario.now);
    assert_eq!(expired.iter().map(|item| item.id.0).collect::<Vec<_>>(), [0]);
    assert!(scenario.batcher.is_empty());
    assert_eq!(scenario.batcher.next_deadline(), None);
}

#[test]
fn a_cancelled_item_leaves_nothing_behind() {
    let mut scenario = Scenario::new(&[rules(GREEDY, 8)]);
    let queued = scenario.push(Spec {
        deadline: Some(ms(50)),
        ..Spec::default()
    });
    let expired = scenario.push(Spec {
        deadline: Some(ms(1)),
        ..Spec::default()
    });
    let run = scenario.push(Spec {
        group: 1,
        priority: Priority::High,
        ..Spec::default()
    });
    assert!(matches!(scenario.at(2).poll(), Step::Ran { .. }));
    assert!(scenario.batcher.cancel(run).is_none());
    assert!(scenario.batcher.cancel(expired).is_some());
    assert!(scenario.batcher.cancel(queued).is_some());
    assert!(scenario.batcher.cancel(queued).is_none());
    assert!(scenario.batcher.is_empty());
    assert_eq!(scenario.batcher.len_of(0), 0);
    assert_eq!(scenario.batcher.next_deadline(), None);
    assert!(scenario.batcher.take_expired(scenario.now).is_empty());
    assert_eq!(scenario.poll(), Step::Idle);
}

#[test]
fn queued_items_stay_and_obey_new_rules_after_a_change() {
    let mut scenario = Scenario::new(&[rules(fixed(50), 8)]);
    scenario.push_all(5, Spec::default());
    assert_eq!(scenario.poll(), Step::WaitUntil(ms(50)));
    scenario.batcher.reconfigure(vec![rules(GREEDY, 3)]);
    assert_eq!(scenario.drained_sizes(), [3, 2]);
}

#[test]
fn every_dispatch_reason_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<_> =
        DispatchReason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(names.len(), DispatchReason::ALL.len());
}
