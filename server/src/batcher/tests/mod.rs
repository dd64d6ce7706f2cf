//! The rules of batching in virtual time, one sentence each.

mod adaptive;
mod admission;
mod background;
mod deadlines;
mod expected_wait;
mod memory;
mod order;
mod padding;
mod properties;
mod rounds;
mod scheduler;
mod waiting;
mod weights;

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use super::*;
use crate::batching::{DispatchReason, Policy, WeightRule};

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
        background_slack: Slack::of_share(0.5),
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

/// An item of weight 1 that arrives now, without a deadline.
fn item<T>(id: u64, now: Instant, payload: T) -> Item<T> {
    Item {
        id: ItemId(id),
        task: 0,
        priority: Priority::Normal,
        weight: 1,
        group: 0,
        arrived: now,
        ready: now,
        deadline: None,
        payload,
    }
}

/// A batcher with a virtual clock. Items are named 0, 1, 2, … as they are pushed.
struct Scenario {
    batcher: Batcher<()>,
    start: Instant,
    now: Instant,
    pushed: u64,
    running: Tokens,
}

/// The tokens of batches that run until the test ends.
#[derive(Default)]
struct Tokens(Vec<BatchToken>);

impl Drop for Tokens {
    fn drop(&mut self) {
        self.0.drain(..).for_each(std::mem::forget);
    }
}

/// The properties of an item that a test sets.
#[derive(Clone, Copy, Default)]
struct Spec {
    task: usize,
    priority: Priority,
    weight: u64,
    group: u64,
    /// How long before it was pushed it arrived.
    preparation: Duration,
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

/// A batch of task 0 with items of weight 1 that took this many milliseconds and succeeded.
fn completion(size: usize, started: Instant, millis: u64) -> Completion {
    Completion {
        task: 0,
        size,
        background: 0,
        cost: size as u64,
        started,
        finished: started + ms(millis),
        succeeded: true,
    }
}

impl Scenario {
    fn new(tasks: &[TaskBatching]) -> Self {
        let start = crate::clock::now();
        Scenario {
            batcher: Batcher::new(tasks.to_vec()),
            start,
            now: start,
            pushed: 0,
            running: Tokens::default(),
        }
    }

    /// Reports batches of one and two items that ran from the start until now, 10 ms later.
    fn learn_batches_of_ten_ms(&mut self) {
        assert_eq!(self.now, self.start + ms(10));
        for size in [1, 2] {
            self.batcher.observe(Completion {
                cost: 0,
                ..completion(size, self.start, 10)
            });
        }
    }

    /// Moves the clock to `millis` after the start.
    fn at(&mut self, millis: u64) -> &mut Self {
        self.now = self.start + ms(millis);
        self
    }

    fn push(&mut self, spec: Spec) -> ItemId {
        let item = Item {
            task: spec.task,
            priority: spec.priority,
            weight: spec.weight,
            group: spec.group,
            arrived: self.now - spec.preparation,
            deadline: spec.deadline.map(|after| self.start + after),
            ..item(self.pushed, self.now, ())
        };
        let id = item.id;
        self.pushed += 1;
        self.batcher.push(item);
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
                token,
            }) => {
                self.running.0.push(token);
                Step::Ran {
                    task,
                    ids: items.iter().map(|item| item.id.0).collect(),
                    reason,
                    cost,
                }
            }
            Next::WaitUntil(until) => Step::WaitUntil(until - self.start),
            Next::WaitForMemory => unreachable!("memory is not shared in this test"),
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
