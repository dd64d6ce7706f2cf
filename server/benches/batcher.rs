//! Overhead of the batcher per item, mostly while 10 000 items are queued.
//!
//! The column `item/s` counts items or calls: one million per second is one microsecond each.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use divan::Bencher;
use divan::counter::ItemsCount;
use inference_server::batcher::{Batch, BatchOutcome, Batcher, Item, ItemId, Next};
use inference_server::batching::{Policy, Priority, Slack, TaskBatching, WeightRule};
use inference_server::clock;

const QUEUED: u64 = 10_000;
const BATCH: usize = 32;

/// About as large as the payload of the engine.
type Payload = [u64; 8];

fn main() {
    divan::main();
}

fn rules(policy: Policy, max_batch_weight: Option<u64>, weight_rule: WeightRule) -> TaskBatching {
    let max_batch_size = NonZeroUsize::new(BATCH).expect("a batch has room");
    TaskBatching {
        policy,
        max_batch_size,
        max_batch_weight,
        weight_rule,
        background_slack: Slack::of_share(0.5),
    }
}

const ADAPTIVE: Policy = Policy::Adaptive {
    max_delay: Duration::from_millis(10),
};

fn greedy() -> TaskBatching {
    rules(Policy::Greedy, None, WeightRule::Padded)
}

/// Well-distributed numbers that are the same in every run.
fn scatter(n: u64) -> u64 {
    n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32
}

fn plain(id: u64, start: Instant) -> Item<Payload> {
    Item {
        id: ItemId(id),
        task: 0,
        priority: Priority::Normal,
        weight: 1,
        group: 0,
        arrived: start + Duration::from_micros(id),
        ready: start + Duration::from_micros(id),
        deadline: None,
        payload: [id; 8],
    }
}

fn with_deadline(id: u64, start: Instant) -> Item<Payload> {
    let deadline = Some(start + Duration::from_secs(60) + Duration::from_micros(scatter(id) % 1_000_000));
    Item {
        deadline,
        ..plain(id, start)
    }
}

fn with_weight(id: u64, start: Instant) -> Item<Payload> {
    Item {
        weight: 1 + scatter(id) % 512,
        ..plain(id, start)
    }
}

fn with_priority(id: u64, start: Instant) -> Item<Payload> {
    let priority = match scatter(id) % 3 {
        0 => Priority::High,
        1 => Priority::Normal,
        _ => Priority::Low,
    };
    Item {
        priority,
        ..plain(id, start)
    }
}

fn with_group(id: u64, start: Instant) -> Item<Payload> {
    Item {
        group: scatter(id) % 500,
        ..plain(id, start)
    }
}

fn with_its_own_group(id: u64, start: Instant) -> Item<Payload> {
    Item {
        group: id,
        ..plain(id, start)
    }
}

/// A batcher that always holds about 10 000 items.
struct Load {
    batcher: Batcher<Payload>,
    make: fn(u64, Instant) -> Item<Payload>,
    start: Instant,
    pushed: u64,
}

impl Load {
    fn new(rules: TaskBatching, make: fn(u64, Instant) -> Item<Payload>) -> Self {
        let mut load = Load {
            batcher: Batcher::new(vec![rules]),
            make,
            start: clock::now(),
            pushed: 0,
        };
        for _ in 0..QUEUED {
            load.push();
        }
        load
    }

    fn push(&mut self) {
        self.batcher.push((self.make)(self.pushed, self.start));
        self.pushed += 1;
    }

    /// Runs a batch in no time. Returns its items.
    fn poll(&mut self) -> Option<Vec<Item<Payload>>> {
        let now = self.start + Duration::from_micros(self.pushed);
        match self.batcher.poll(now) {
            Next::Run(Batch { items, token, .. }) => {
                let outcome = BatchOutcome {
                    started: now,
                    finished: now,
                    succeeded: true,
                };
                self.batcher.complete(token, outcome);
                Some(items)
            }
            Next::WaitUntil(_) | Next::WaitForMemory | Next::Idle => None,
        }
    }
}

/// Runs batches until 10 000 items have run, and pushes an item for each that ran.
fn run_through(bencher: Bencher, rules: TaskBatching, make: fn(u64, Instant) -> Item<Payload>) {
    bencher
        .counter(ItemsCount::new(QUEUED))
        .with_inputs(|| Load::new(rules, make))
        .bench_local_values(|mut load| {
            let mut ran = 0;
            while ran < QUEUED {
                let items = load.poll().expect("greedy runs what is queued");
                ran += items.len() as u64;
                for _ in &items {
                    load.push();
                }
            }
            load
        });
}

#[divan::bench]
fn push_and_poll_equal_items(bencher: Bencher) {
    run_through(bencher, greedy(), plain);
}

/// Compared with the greedy run: the cost of learning.
#[divan::bench]
fn push_and_poll_equal_items_under_adaptive(bencher: Bencher) {
    run_through(bencher, rules(ADAPTIVE, None, WeightRule::Padded), plain);
}

#[divan::bench]
fn push_and_poll_with_deadlines(bencher: Bencher) {
    run_through(bencher, greedy(), with_deadline);
}

#[divan::bench]
fn push_and_poll_mixed_priorities(bencher: Bencher) {
    run_through(bencher, greedy(), with_priority);
}

#[divan::bench]
fn push_and_poll_padded_weights(bencher: Bencher) {
    run_through(bencher, greedy(), with_weight);
}

#[divan::bench]
fn push_and_poll_padded_weights_under_a_limit(bencher: Bencher) {
    run_through(
        bencher,
        rules(Policy::Greedy, Some(16 * 512), WeightRule::Padded),
        with_weight,
    );
}

#[divan::bench]
fn push_and_poll_summed_weights_under_a_limit(bencher: Bencher) {
    run_through(
        bencher,
        rules(Policy::Greedy, Some(16 * 256), WeightRule::Sum),
        with_weight,
    );
}

/// Only the weight limits a batch.
#[divan::bench(args = [WeightRule::Padded, WeightRule::Sum])]
fn push_and_poll_under_a_weight_limit_alone(bencher: Bencher, rule: WeightRule) {
    let limited = rules(Policy::Greedy, Some(16 * 512), rule);
    run_through(
        bencher,
        TaskBatching {
            max_batch_size: NonZeroUsize::MAX,
            ..limited
        },
        with_weight,
    );
}

#[divan::bench]
fn push_and_poll_500_groups(bencher: Bencher) {
    run_through(bencher, greedy(), with_group);
}

#[divan::bench]
fn push_and_poll_each_item_a_group(bencher: Bencher) {
    run_through(bencher, greedy(), with_its_own_group);
}

/// Every push is followed by a poll that leaves the batch open until it is full.
#[divan::bench(args = [1, 32])]
fn poll_after_every_push_under_a_fixed_delay(bencher: Bencher, groups: u64) {
    let policy = Policy::Fixed {
        max_delay: Duration::from_secs(3600),
    };
    let empty = || Batcher::new(vec![rules(policy, None, WeightRule::Padded)]);
    let start = clock::now();
    bencher
        .counter(ItemsCount::new(QUEUED))
        .with_inputs(empty)
        .bench_local_values(|mut batcher| {
            for id in 0..QUEUED {
                batcher.push(Item {
                    group: scatter(id) % groups,
                    ..plain(id, start)
                });
                if let Next::Run(batch) = batcher.poll(start + Duration::from_micros(id)) {
                    batcher.abandon(batch.token);
                }
            }
            batcher
        });
}

/// The same for larger batches: the time per item must not grow with the number of items in the open batch.
#[divan::bench(args = [64, 1024, 16_384], sample_count = 10)]
fn poll_after_every_push_into_an_open_batch(bencher: Bencher, max_batch_size: u64) {
    let policy = Policy::Fixed {
        max_delay: Duration::from_secs(3600),
    };
    let rules = TaskBatching {
        max_batch_size: usize::try_from(max_batch_size)
            .ok()
            .and_then(NonZeroUsize::new)
            .expect("a batch has room"),
        ..rules(policy, None, WeightRule::Padded)
    };
    let start = clock::now();
    bencher
        .counter(ItemsCount::new(16_384_u64))
        .with_inputs(|| Batcher::new(vec![rules]))
        .bench_local_values(|mut batcher| {
            for id in 0..16_384 {
                batcher.push(with_weight(id, start));
                divan::black_box(batcher.poll(start + Duration::from_micros(id)));
            }
            batcher
        });
}

#[divan::bench]
fn cancel_in_any_order(bencher: Bencher) {
    let mut order: Vec<ItemId> = (0..QUEUED).map(ItemId).collect();
    order.sort_by_key(|id| scatter(id.0));
    let full = || Load::new(greedy(), with_deadline);
    bencher
        .counter(ItemsCount::new(QUEUED))
        .with_inputs(full)
        .bench_local_values(|mut load| {
            for id in &order {
                divan::black_box(load.batcher.cancel(*id));
            }
            load
        });
}

#[divan::bench]
fn expire_all(bencher: Bencher) {
    let full = || Load::new(greedy(), with_deadline);
    bencher
        .counter(ItemsCount::new(QUEUED))
        .with_inputs(full)
        .bench_local_values(|mut load| load.batcher.take_expired(load.start + Duration::from_secs(120)));
}
