//! Batches stay within their memory budget, in virtual time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::batcher::cost_model::{BatchShape, CostModel, Sample, TaskCosts};
use crate::batcher::memory_budget::{MemoryLimits, SharedBudget};
use crate::batcher::memory_ledger::{MemoryLedger, Owner, PATIENCE};
use crate::batcher::scheduler::{Command, Message, Payload, Scheduler};

/// Bytes of a padded or unpadded batch.
fn bytes(rule: WeightRule, [c0, c1, c2, c3]: [f64; 4], shape: &BatchShape) -> f64 {
    let (items, heaviest) = (shape.items as f64, shape.heaviest as f64);
    match rule {
        WeightRule::Padded => c0 + c1 * items + c2 * items * heaviest + c3 * items * heaviest * heaviest,
        WeightRule::Sum => c0 + c1 * items + c2 * shape.sum as f64 + c3 * shape.sum_of_squares,
    }
}

/// A model with these coefficients, fitted to batches that alternate around them by `noise`.
pub(super) fn calibrated(rule: WeightRule, coefficients: [f64; 4], noise: f64) -> CostModel {
    let mut shapes = Vec::new();
    for items in [1, 2, 3, 5, 8, 13] {
        for weight in [1, 2, 5, 11, 23] {
            shapes.push(BatchShape::of((0..items).map(|nth| weight + nth % 2)));
            shapes.push(BatchShape::of((0..items).map(|_| weight)));
        }
    }
    let samples: Vec<Sample> = shapes
        .iter()
        .enumerate()
        .map(|(nth, shape)| Sample {
            shape: *shape,
            measured: bytes(rule, coefficients, shape) * (1.0 + if nth % 2 == 0 { noise } else { -noise }),
        })
        .collect();
    CostModel::fit(rule, &samples).expect("the samples are valid")
}

/// 10 bytes for each item and unit of weight of a padded batch.
const PER_UNIT: [f64; 4] = [0.0, 0.0, 10.0, 0.0];

fn costs(coefficients: [f64; 4]) -> TaskCosts {
    TaskCosts {
        memory: Some(calibrated(WeightRule::Padded, coefficients, 0.0)),
        time: None,
    }
}

fn limited(task: TaskBatching, budget: u64) -> Scenario {
    let mut scenario = Scenario::new(&[task]);
    scenario.batcher = Batcher::new(vec![task]).with_costs(vec![costs(PER_UNIT)]);
    scenario
        .batcher
        .set_memory_limits(MemoryLimits::new(Some(budget), None, 1));
    scenario
}

#[test]
fn a_batch_contains_as_many_items_as_fit_into_the_budget_with_the_least_padding() {
    let mut scenario = limited(rules(GREEDY, 8), 125);
    scenario.push_weights(&[3, 12, 3, 3, 12]);
    let mut steps = std::iter::from_fn(|| match scenario.poll() {
        Step::Ran { ids, reason, .. } => Some((ids, reason)),
        Step::WaitUntil(_) | Step::Idle => None,
    });
    assert_eq!(steps.next(), Some((vec![0, 2, 3], DispatchReason::Memory)));
    // Each of these exceeds the budget together with another one.
    assert_eq!(steps.next(), Some((vec![1], DispatchReason::Memory)));
    assert_eq!(steps.next(), Some((vec![4], DispatchReason::Memory)));
}

#[test]
fn a_batch_that_no_further_item_fits_runs_before_its_delay() {
    let mut scenario = limited(rules(fixed(5), 8), 100);
    scenario.push_weights(&[3, 3]);
    assert_eq!(scenario.poll(), Step::WaitUntil(ms(5)));
    scenario.push_weights(&[3]);
    let expected = Step::Ran {
        task: 0,
        ids: vec![0, 1, 2],
        reason: DispatchReason::Memory,
        cost: 9,
    };
    assert_eq!(scenario.poll(), expected);
}

#[test]
fn the_other_limits_apply_as_well() {
    let mut scenario = limited(
        TaskBatching {
            max_batch_weight: Some(6),
            ..rules(GREEDY, 8)
        },
        1000,
    );
    scenario.push_weights(&[3, 3, 3]);
    assert_eq!(scenario.drained_sizes(), [2, 1]);
    let mut scenario = limited(rules(GREEDY, 2), 1000);
    scenario.push_weights(&[3, 3, 3]);
    assert_eq!(scenario.drained_sizes(), [2, 1]);
}

#[test]
fn policies_start_with_the_calibrated_time_of_a_batch() {
    let task = rules(GREEDY, 8);
    let time = calibrated(WeightRule::Padded, [5e-3, 1e-3, 0.0, 0.0], 0.0);
    let costs = TaskCosts {
        memory: None,
        time: Some(time),
    };
    assert_eq!(Batcher::<()>::new(vec![task]).service_estimate(0), None);
    let batcher = Batcher::<()>::new(vec![task]).with_costs(vec![costs]);
    let wait = |items| {
        let ahead = policy::Backlog {
            items,
            weight: items as u64,
        };
        let task = policy::TaskLoad {
            service: batcher.service_estimate(0),
            ahead,
        };
        let workload = policy::Workload::new(vec![task], policy::Preparation::default(), [Duration::ZERO]);
        let wait = workload.expected_wait();
        wait.map(|wait| (wait.as_secs_f64() * 1e3).round())
    };
    assert_eq!(wait(7), Some(0.0));
    assert_eq!(wait(8), Some(13.0));
    assert_eq!(wait(80), Some(130.0));
}

#[test]
fn an_item_whose_deadline_the_calibrated_time_exceeds_gives_its_place_to_another() {
    let task = rules(GREEDY, 1);
    let time = calibrated(WeightRule::Padded, [10e-3, 0.0, 0.0, 0.0], 0.0);
    let mut scenario = Scenario::new(&[task]);
    scenario.batcher = Batcher::new(vec![task]).with_costs(vec![TaskCosts {
        memory: None,
        time: Some(time),
    }]);
    for deadline in [5, 100] {
        scenario.push(Spec {
            weight: 1,
            deadline: Some(ms(deadline)),
            ..Spec::default()
        });
    }
    assert_eq!(scenario.drain(), [[1]]);
}

proptest! {
    #[test]
    fn no_batch_of_several_items_is_predicted_to_exceed_the_budget_and_no_item_is_left(
        weights in prop::collection::vec((1..40_u64, 0..3_usize), 1..120),
        coefficients in [0.0..50.0, 0.0..20.0, 0.0..5.0, 0.0..1.0],
        noise in 0.0..0.2,
        budget in 1..4000_u64,
        workers in 1..4_usize,
        max_batch_size in 1..40_usize,
        max_batch_weight in prop::option::of(1..400_u64),
        rules_of_task_and_model in (any::<bool>(), any::<bool>()),
    ) {
        let rule = |is_padded| if is_padded { WeightRule::Padded } else { WeightRule::Sum };
        let (of_task, of_model) = (rule(rules_of_task_and_model.0), rule(rules_of_task_and_model.1));
        // At least a byte for each batch, as a model that costs nothing cannot be fitted.
        let coefficients = [coefficients[0] + 1.0, coefficients[1], coefficients[2], coefficients[3]];
        let model = calibrated(of_model, coefficients, noise);
        let task = TaskBatching {
            max_batch_weight,
            weight_rule: of_task,
            ..rules(GREEDY, max_batch_size)
        };
        let costs = TaskCosts { memory: Some(model.clone()), time: None };
        let mut batcher = Batcher::new(vec![task]).with_costs(vec![costs]);
        batcher.set_memory_limits(MemoryLimits::new(Some(budget), None, workers));
        let now = crate::clock::now();
        for (id, (weight, class)) in (0..).zip(&weights) {
            batcher.push(Item {
                priority: lane::CLASSES[*class],
                weight: *weight,
                ..item(id, now, ())
            });
        }
        let mut left = weights.len();
        while let Next::Run(batch) = batcher.poll(now) {
            let shape = BatchShape::of(batch.items.iter().map(|item| item.weight));
            let bound = model.predict(&shape).map(|prediction| prediction.bound);
            if batch.items.len() > 1 {
                let bound = bound.expect("the samples determine every batch");
                prop_assert!(bound <= (budget / workers as u64) as f64, "{bound} {batch:?}");
            }
            prop_assert!(batch.token.memory() <= budget);
            prop_assert!(batch.items.len() <= max_batch_size);
            left -= batch.items.len();
            batcher.abandon(batch.token);
        }
        prop_assert_eq!(left, 0);
    }
}

/// An item that always runs.
#[derive(Clone, Copy, Debug)]
struct Runs;

impl Payload for Runs {
    fn is_queued(&self) -> bool {
        true
    }

    fn start(&mut self) -> bool {
        true
    }
}

/// The ledger of all models, and the models that have to be polled.
#[derive(Debug)]
struct Shared {
    ledger: MemoryLedger,
    woken: BTreeSet<Owner>,
}

/// The shared memory as one model sees it.
#[derive(Debug)]
struct Member {
    shared: Arc<Mutex<Shared>>,
    owner: Owner,
}

impl SharedBudget for Member {
    fn capacity(&self) -> u64 {
        self.shared.lock().expect("no test panics").ledger.capacity()
    }

    fn reserve(&mut self, bytes: u64, now: Instant) -> bool {
        let mut shared = self.shared.lock().expect("no test panics");
        let granted = shared.ledger.request(self.owner, bytes, now);
        if granted {
            let waiting: Vec<Owner> = shared.ledger.waiting().collect();
            shared.woken.extend(waiting);
        }
        granted
    }

    fn release(&mut self, bytes: u64) {
        let mut shared = self.shared.lock().expect("no test panics");
        let woken: Vec<Owner> = shared.ledger.release(bytes).collect();
        shared.woken.extend(woken);
    }

    fn withdraw(&mut self) {
        let mut shared = self.shared.lock().expect("no test panics");
        let woken: Vec<Owner> = shared.ledger.withdraw(self.owner).collect();
        shared.woken.extend(woken);
    }
}

/// A batch that runs until `ends`.
struct Running {
    tokens: Tokens,
    ends: Instant,
    owner: usize,
    worker: usize,
    weight: u64,
}

/// Several models that share memory. Every item weighs as many bytes as its weight, and runs alone.
struct World {
    shared: Arc<Mutex<Shared>>,
    models: Vec<Scheduler<Runs>>,
    /// Duration of the batches of each model.
    times: Vec<Duration>,
    running: Vec<Running>,
    now: Instant,
    pushed: u64,
    /// Owner and wait of each item that has started.
    waits: Vec<(usize, Duration)>,
}

impl World {
    /// Models with these numbers of workers and durations of batches.
    fn new(capacity: u64, models: &[(usize, Duration)]) -> Self {
        let shared = Arc::new(Mutex::new(Shared {
            ledger: MemoryLedger::new(capacity),
            woken: BTreeSet::new(),
        }));
        let mut world = World {
            models: Vec::new(),
            times: models.iter().map(|(_, time)| *time).collect(),
            shared,
            running: Vec::new(),
            now: crate::clock::now(),
            pushed: 0,
            waits: Vec::new(),
        };
        for (owner, (workers, _)) in models.iter().enumerate() {
            let member = Member {
                shared: world.shared.clone(),
                owner: owner as Owner,
            };
            let costs = vec![costs([0.0, 0.0, 1.0, 0.0])];
            let scheduler = Scheduler::new(vec![rules(GREEDY, 1)], *workers);
            let mut scheduler = scheduler.with_costs(costs, None, Some(Box::new(member)));
            for worker in 0..*workers {
                scheduler.handle(world.now, Message::WorkerAvailable(worker));
            }
            world.models.push(scheduler);
        }
        world
    }

    fn push(&mut self, owner: usize, weight: u64) {
        let item = Item {
            weight,
            ..item(self.pushed, self.now, Runs)
        };
        self.pushed += 1;
        self.models[owner].handle(self.now, Message::Arrival(item));
        self.poll(owner);
    }

    /// Polls a model, and those that it wakes.
    fn poll(&mut self, owner: usize) {
        let mut owners = BTreeSet::from([owner as Owner]);
        while let Some(owner) = owners.pop_first() {
            let owner = owner as usize;
            loop {
                let (worker, batch) = match self.models[owner].poll(self.now) {
                    Command::Start { worker, batch, .. } => (worker, batch),
                    Command::Release(..) => continue,
                    Command::Wait(_) => break,
                    other => panic!("nothing else happens in this test: {other:?}"),
                };
                self.waits.push((owner, self.now - batch.items[0].arrived));
                self.running.push(Running {
                    ends: self.now + self.times[owner],
                    owner,
                    worker,
                    tokens: Tokens(vec![batch.token]),
                    weight: batch.items[0].weight,
                });
            }
            let shared = &mut *self.shared.lock().expect("no test panics");
            assert!(shared.ledger.reserved() <= shared.ledger.capacity());
            owners.append(&mut shared.woken);
        }
    }

    /// Ends the batch that ends first. Returns its model and weight.
    fn step(&mut self) -> Option<(usize, u64)> {
        let first = (0..self.running.len()).min_by_key(|nth| self.running[*nth].ends)?;
        let Running {
            ends,
            owner,
            worker,
            mut tokens,
            weight,
        } = self.running.swap_remove(first);
        let started = ends - self.times[owner];
        self.now = ends;
        let outcome = BatchOutcome {
            started,
            finished: ends,
            succeeded: true,
        };
        let completed = Message::Completed {
            token: tokens.0.pop().expect("a running batch has a token"),
            outcome,
            out_of_memory: None,
        };
        self.models[owner].handle(self.now, completed);
        self.models[owner].handle(self.now, Message::WorkerAvailable(worker));
        self.poll(owner);
        Some((owner, weight))
    }
}

#[test]
fn batches_of_two_models_run_at_the_same_time_if_their_memory_fits() {
    let mut world = World::new(100, &[(1, ms(10)), (1, ms(10)), (1, ms(10))]);
    world.push(0, 60);
    world.push(1, 30);
    world.push(2, 20);
    assert_eq!(world.waits, [(0, ms(0)), (1, ms(0))]);
    world.step();
    assert_eq!(world.waits[2..], [(2, ms(10))]);
}

#[test]
fn a_large_batch_starts_although_smaller_ones_of_other_models_never_pause() {
    let time = ms(7);
    let mut world = World::new(1000, &[(1, ms(20)), (2, time), (2, time), (2, time)]);
    for owner in 1..4 {
        (0..3).for_each(|_| world.push(owner, 150));
    }
    world.step();
    let began = world.now;
    world.push(0, 950);
    while !world.waits.iter().any(|(owner, _)| *owner == 0) {
        let (owner, weight) = world.step().expect("batches run");
        world.push(owner, weight);
        assert!(world.now - began < Duration::from_secs(10), "it starves");
    }
    let (_, wait) = world
        .waits
        .iter()
        .find(|(owner, _)| *owner == 0)
        .expect("it started");
    assert!(
        *wait >= PATIENCE,
        "smaller batches start before it for a while: {wait:?}"
    );
    assert!(*wait <= PATIENCE + time, "{wait:?}");
}

#[test]
fn a_batch_that_exceeds_the_budget_of_the_server_is_limited_to_it() {
    let mut world = World::new(100, &[(1, ms(10)), (1, ms(10))]);
    world.push(0, 10);
    world.push(1, 5000);
    assert_eq!(world.waits.len(), 1);
    world.step();
    assert_eq!(world.waits.len(), 2, "it runs alone");
}

#[test]
fn a_model_whose_waiting_item_is_cancelled_lets_others_start() {
    let mut world = World::new(100, &[(1, ms(500)), (1, ms(10)), (1, ms(10))]);
    world.push(0, 60);
    world.push(1, 90);
    world.now += PATIENCE;
    world.push(2, 20);
    assert_eq!(world.waits.len(), 1, "it is the turn of model 1");
    world.models[1].handle(world.now, Message::Cancelled(1..2));
    world.poll(1);
    assert_eq!(world.waits.len(), 2);
}

proptest! {
    #[test]
    fn every_batch_starts_within_a_bounded_time(
        arrivals in prop::collection::vec((0..4_usize, 1..=100_u64), 1..60),
        capacity in 100..200_u64,
    ) {
        let times = [ms(5), ms(11), ms(23), ms(47)];
        let models: Vec<_> = times.iter().map(|time| (1, *time)).collect();
        let mut world = World::new(capacity, &models);
        for (owner, weight) in &arrivals {
            world.push(*owner, *weight);
        }
        while world.step().is_some() {}
        prop_assert_eq!(world.waits.len(), arrivals.len());
        // Every batch ahead could run alone, after the patience of its model.
        let bound = (PATIENCE + ms(47)) * arrivals.len() as u32;
        for (_, wait) in &world.waits {
            prop_assert!(*wait <= bound);
        }
        prop_assert_eq!(world.shared.lock().expect("no test panics").ledger.reserved(), 0);
    }
}
