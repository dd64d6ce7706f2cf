//! Properties that hold for any sequence of calls.
//!
//! A run is compared with a plain list of the items that should be queued, which does not use the batcher's bookkeeping.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const TASKS: usize = 2;

#[derive(Clone, Copy, Debug)]
enum Op {
    Push {
        task: usize,
        priority: Priority,
        weight: u64,
        group: u64,
        age: u64,
        preparation: u64,
        patience: Option<u64>,
    },
    /// Cancels the n-th of what is held.
    Cancel(usize),
    Poll,
    TakeExpired,
    Advance(u64),
    Complete,
}

fn op(weights: impl Strategy<Value = u64>, groups: u64) -> impl Strategy<Value = Op> {
    let class = prop::sample::select(lane::CLASSES.to_vec());
    let push = (
        0..TASKS,
        class,
        weights,
        0..groups,
        0..3_u64,
        0..20_u64,
        prop::option::weighted(0.3, 0..30_u64),
    )
        .prop_map(
            |(task, priority, weight, group, age, preparation, patience)| Op::Push {
                task,
                priority,
                weight,
                group,
                age,
                preparation,
                patience,
            },
        );
    prop_oneof![
        8 => push,
        1 => any::<usize>().prop_map(Op::Cancel),
        4 => Just(Op::Poll),
        1 => Just(Op::TakeExpired),
        2 => (0..10_u64).prop_map(Op::Advance),
        1 => Just(Op::Complete),
    ]
}

fn task_rules(policies: Vec<Policy>) -> impl Strategy<Value = TaskBatching> {
    let rule = prop::sample::select(vec![WeightRule::Padded, WeightRule::Sum]);
    (
        prop::sample::select(policies),
        1..6_usize,
        prop::option::of(0..40_u64),
        rule,
    )
        .prop_map(
            |(policy, max_batch_size, max_batch_weight, weight_rule)| TaskBatching {
                max_batch_weight,
                weight_rule,
                ..rules(policy, max_batch_size)
            },
        )
}

fn two_tasks(policies: &[Policy]) -> impl Strategy<Value = Vec<TaskBatching>> {
    prop::collection::vec(task_rules(policies.to_vec()), TASKS)
}

const EAGER: [Policy; 2] = [Policy::Greedy, Policy::Off];
const ANY: [Policy; 5] = [
    Policy::Adaptive {
        max_delay: Duration::from_millis(5),
    },
    Policy::Greedy,
    Policy::Off,
    Policy::Fixed {
        max_delay: Duration::from_millis(5),
    },
    Policy::Fixed {
        max_delay: Duration::ZERO,
    },
];

const BATCH_TAKES: Duration = Duration::from_millis(7);

/// A batcher beside a plain account of what it ought to hold.
struct Account {
    tasks: Vec<TaskBatching>,
    batcher: Batcher<()>,
    now: Instant,
    submitted: u64,
    held: BTreeMap<ItemId, Item<()>>,
    /// Batches in a row that left the oldest item of a lower class waiting.
    passed_over: u32,
    free_since: Option<Instant>,
    running: Tokens,
}

impl Account {
    fn new(tasks: Vec<TaskBatching>) -> Self {
        // Ages are taken off the clock, so it starts late enough.
        let now = crate::clock::now() + ms(1000);
        let batcher = Batcher::new(tasks.clone());
        Account {
            tasks,
            batcher,
            now,
            submitted: 0,
            held: BTreeMap::new(),
            passed_over: 0,
            free_since: None,
            running: Tokens::default(),
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Push {
                task,
                priority,
                weight,
                group,
                age,
                preparation,
                patience,
            } => {
                let id = ItemId(self.submitted);
                self.submitted += 1;
                let ready = self.now - ms(age);
                let arrived = ready - ms(preparation);
                let deadline = patience.map(|patience| self.now + ms(patience));
                let item = Item {
                    id,
                    task,
                    priority,
                    weight,
                    group,
                    arrived,
                    ready,
                    deadline,
                    payload: (),
                };
                self.held.insert(id, item.clone());
                self.batcher.push(item);
            }
            Op::Cancel(nth) => {
                let id = self
                    .held
                    .keys()
                    .nth(nth % self.held.len().max(1))
                    .copied()
                    .unwrap_or(ItemId(u64::MAX));
                let cancelled = self.batcher.cancel(id).map(|item| item.id);
                assert_eq!(cancelled, self.held.remove(&id).map(|item| item.id));
            }
            Op::Poll => {
                self.poll();
            }
            Op::TakeExpired => {
                for item in self.batcher.take_expired(self.now) {
                    assert!(self.is_expired(&item));
                    assert!(
                        self.held.remove(&item.id).is_some(),
                        "{:?} was handed back twice",
                        item.id
                    );
                }
                assert!(
                    !self.held.values().any(|item| self.is_expired(item)),
                    "an expired item was kept"
                );
            }
            Op::Advance(millis) => self.now += ms(millis),
            Op::Complete => {
                let Some(token) = self.running.0.pop() else {
                    return;
                };
                self.free_since = Some(self.now);
                let outcome = BatchOutcome {
                    started: self.now - BATCH_TAKES,
                    finished: self.now,
                    succeeded: true,
                };
                self.batcher.complete(token, outcome);
            }
        }
        self.check_counts();
    }

    /// Polls, checks what comes of it, and says whether a batch ran.
    fn poll(&mut self) -> bool {
        let mut live: Vec<Item<()>> = self
            .held
            .values()
            .filter(|item| !self.is_expired(item))
            .cloned()
            .collect();
        match self.batcher.poll(self.now) {
            Next::Run(batch) => {
                self.take_infeasible();
                live.retain(|item| self.held.contains_key(&item.id));
                self.check_batch(&batch, &live);
                self.check_turn(&batch, &live);
                self.running.0.push(batch.token);
                true
            }
            Next::WaitUntil(until) => {
                assert!(until > self.now, "a wait that is over already");
                let waits = |item: &&Item<()>| {
                    matches!(
                        self.tasks[item.task].policy,
                        Policy::Adaptive { .. } | Policy::Fixed { .. }
                    )
                };
                // Background items are left open with the requests that they could join, or for clients that return.
                live.retain(|item| item.priority != Priority::Background);
                assert!(
                    live.iter().all(|item| waits(&item)),
                    "an item of a task that does not wait was left"
                );
                for item in live.iter().filter(waits) {
                    let latest = match self.tasks[item.task].policy {
                        Policy::Adaptive { max_delay } => {
                            item.ready.max(self.free_since.unwrap_or(item.ready)) + max_delay
                        }
                        Policy::Fixed { max_delay } => item.ready + max_delay,
                        Policy::Greedy | Policy::Off => continue,
                    };
                    assert!(until <= latest, "{item:?} waits for longer than its delay");
                    assert!(
                        item.deadline.is_none_or(|deadline| until < deadline),
                        "{item:?} waits to expire"
                    );
                }
                false
            }
            Next::WaitForMemory => unreachable!("memory is not shared in this test"),
            Next::Idle => {
                assert!(live.is_empty(), "idle while {live:?} waited");
                false
            }
        }
    }

    /// Called when a batch runs. Items are set aside before their deadline only if they cannot be answered in time.
    fn take_infeasible(&mut self) {
        for item in self.batcher.take_expired(self.now) {
            if !self.is_expired(&item) {
                let deadline = item.deadline.expect("it was set aside for its deadline");
                assert!(deadline < self.now + BATCH_TAKES, "{item:?} had a chance");
            }
            self.held.remove(&item.id).expect("it is handed back once");
        }
    }

    fn check_batch(&mut self, batch: &Batch<()>, live: &[Item<()>]) {
        let rules = &self.tasks[batch.task];
        let oldest = &batch.items[0];
        let heaviest = batch.items.iter().map(|item| item.weight).max().unwrap_or(0);
        let cost = match rules.weight_rule {
            WeightRule::Padded => heaviest * batch.items.len() as u64,
            WeightRule::Sum => batch.items.iter().map(|item| item.weight).sum(),
        };
        assert_eq!(batch.cost, cost);
        assert!(batch.items.len() <= rules.max_batch_size.get());
        assert!(
            batch.items.len() == 1 || rules.max_batch_weight.is_none_or(|max| cost <= max),
            "{batch:?}"
        );
        assert!(batch.items.len() == 1 || rules.policy != Policy::Off);
        assert!(batch.items.is_sorted_by_key(|item| (item.arrived, item.id)));
        for item in &batch.items {
            assert_eq!((item.task, item.group), (batch.task, oldest.group));
            assert!(!self.is_expired(item), "an expired item ran");
            assert!(
                self.held.remove(&item.id).is_some(),
                "{:?} ran though it was not queued",
                item.id
            );
        }
        let left = || live.iter().filter(|item| self.held.contains_key(&item.id));
        for ran in &batch.items {
            let overtaken = left().find(|item| {
                (item.task, item.group, item.priority, item.weight)
                    == (ran.task, ran.group, ran.priority, ran.weight)
                    && (item.arrived, item.id) < (ran.arrived, ran.id)
            });
            assert!(overtaken.is_none(), "{ran:?} overtook {overtaken:?}");
        }
    }

    /// While a lower class waits, and no task leaves batches open, its oldest item is in every eighth batch at least.
    fn check_turn(&mut self, batch: &Batch<()>, live: &[Item<()>]) {
        if self
            .tasks
            .iter()
            .any(|task| matches!(task.policy, Policy::Adaptive { .. } | Policy::Fixed { .. }))
        {
            return;
        }
        let live = || live.iter().filter(|item| item.priority != Priority::Background);
        if batch.reason == DispatchReason::Background {
            return;
        }
        let top = live().map(|item| item.priority).min();
        let lower = live().filter(|item| Some(item.priority) > top);
        let oldest = lower
            .min_by_key(|item| (item.arrived, item.id))
            .map(|item| item.id);
        let served = oldest.is_none_or(|oldest| batch.items.iter().any(|item| item.id == oldest));
        self.passed_over = if served { 0 } else { self.passed_over + 1 };
        assert!(self.passed_over < 8, "a lower class was passed over eight times");
    }

    fn check_counts(&self) {
        assert_eq!(self.batcher.len(), self.held.len());
        assert_eq!(self.batcher.is_empty(), self.held.is_empty());
        for task in 0..TASKS {
            let held = self.held.values().filter(|item| item.task == task).count();
            assert_eq!(self.batcher.len_of(task), held);
        }
        assert_eq!(
            self.batcher.next_deadline(),
            self.held.values().filter_map(|item| item.deadline).min()
        );
    }

    fn is_expired(&self, item: &Item<()>) -> bool {
        item.deadline.is_some_and(|deadline| deadline <= self.now)
    }

    /// Lets time pass until everything has run or expired, and sees that nothing is left.
    fn finish(mut self) {
        while !self.held.is_empty() {
            self.apply(Op::TakeExpired);
            if !self.poll() {
                self.apply(Op::Advance(5));
            }
        }
        self.check_counts();
        assert!(matches!(self.batcher.poll(self.now), Next::Idle));
    }
}

proptest! {
    #[test]
    fn every_item_runs_or_is_handed_back_exactly_once_within_every_limit(
        tasks in two_tasks(&ANY),
        ops in prop::collection::vec(op(0..50_u64, 3), 1..150),
    ) {
        let mut account = Account::new(tasks);
        for op in ops {
            account.apply(op);
        }
        account.finish();
    }

    #[test]
    fn a_free_worker_never_idles_and_no_class_starves_where_nothing_waits(
        tasks in two_tasks(&EAGER),
        ops in prop::collection::vec(op(1..4_u64, 2), 1..300),
    ) {
        let mut account = Account::new(tasks);
        for op in ops {
            account.apply(op);
        }
        account.finish();
    }

    #[test]
    fn equal_items_of_a_task_run_in_order_of_arrival(
        size in 1..6_usize,
        ages in prop::collection::vec(0..50_u64, 1..60),
    ) {
        let mut batcher = Batcher::new(vec![rules(Policy::Greedy, size)]);
        let now = crate::clock::now() + ms(1000);
        for (id, age) in (0..).zip(&ages) {
            batcher.push(plain_item(id, 1, now - ms(*age)));
        }
        let mut order = Vec::new();
        while let Next::Run(batch) = batcher.poll(now) {
            order.extend(batch.items.iter().map(|item| (item.arrived, item.id)));
            batcher.abandon(batch.token);
        }
        prop_assert_eq!(order.len(), ages.len());
        prop_assert!(order.is_sorted());
    }

    #[test]
    fn a_padded_batch_is_the_largest_that_fits_and_of_those_the_least_padded(
        weights in prop::collection::vec(0..20_u64, 1..10),
        size in 1..6_usize,
        max_batch_weight in prop::option::of(0..60_u64),
    ) {
        let mut batcher = Batcher::new(vec![TaskBatching { max_batch_weight, ..rules(Policy::Greedy, size) }]);
        let now = crate::clock::now();
        for (id, weight) in (0..).zip(&weights) {
            batcher.push(plain_item(id, *weight, now));
        }
        let Next::Run(batch) = batcher.poll(now) else { panic!("greedy runs what is queued") };
        batcher.abandon(batch.token);
        prop_assert_eq!(batch.items[0].id, ItemId(0), "the oldest is in the batch");

        // Every set of items with the oldest in it.
        let best = (0..1_u32 << (weights.len() - 1)).filter_map(|others| {
            let chosen = |nth: usize| nth == 0 || others >> (nth - 1) & 1 == 1;
            let chosen: Vec<u64> = (0..weights.len()).filter(|nth| chosen(*nth)).map(|nth| weights[nth]).collect();
            let (count, padding, cost) = measure(&chosen);
            let fits = count == 1 || (count <= size && max_batch_weight.is_none_or(|max| cost <= max));
            fits.then_some((count, std::cmp::Reverse(padding)))
        }).max();
        let (count, padding, _) = measure(&batch.items.iter().map(|item| item.weight).collect::<Vec<_>>());
        prop_assert_eq!(Some((count, std::cmp::Reverse(padding))), best);
    }
}

/// Count, padding and cost of a padded batch.
fn measure(weights: &[u64]) -> (usize, u64, u64) {
    let cost = weights
        .iter()
        .max()
        .map_or(0, |heaviest| heaviest * weights.len() as u64);
    (weights.len(), cost - weights.iter().sum::<u64>(), cost)
}

fn plain_item(id: u64, weight: u64, arrived: Instant) -> Item<()> {
    Item {
        weight,
        ..item(id, arrived, ())
    }
}
