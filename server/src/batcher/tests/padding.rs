//! Padding costs little if the time of batches is calibrated, in virtual time.

use super::memory::calibrated;
use super::*;
use crate::batcher::cost_model::{BatchShape, TaskCosts};

/// Number of items that wait whenever a batch is formed.
const WAITING: usize = 256;
const ITEMS: usize = 4096;

/// A text model on a CPU: seconds of a batch, and of each padded token.
const TIME: [f64; 4] = [5e-3, 0.0, 0.21e-3, 0.0];

/// Lengths of texts in tokens: lognormal, from 5 to 256, with a mean of about 40.
fn lengths() -> Vec<u64> {
    let mut state = 1_u64;
    let mut uniform = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let lengths = std::iter::repeat_with(move || {
        // The sum of twelve uniform numbers is almost normal.
        let normal = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        (3.35 + 0.85 * normal).exp() as u64
    });
    lengths
        .filter(|length| (5..=256).contains(length))
        .take(ITEMS)
        .collect()
}

fn seconds(items: usize, heaviest: u64) -> f64 {
    TIME[0] + TIME[2] * items as f64 * heaviest as f64
}

/// Time of batches of these lengths in this order, each as large as the limits permit.
fn in_order(lengths: &[u64], task: &TaskBatching) -> f64 {
    let (max_size, max_weight) = (
        task.max_batch_size.get(),
        task.max_batch_weight.unwrap_or(u64::MAX),
    );
    let (mut total, mut size, mut heaviest) = (0.0, 0, 0);
    for &length in lengths {
        let longest = length.max(heaviest);
        if size > 0 && (size == max_size || (size as u64 + 1) * longest > max_weight) {
            total += seconds(size, heaviest);
            (size, heaviest) = (0, 0);
        }
        size += 1;
        heaviest = length.max(heaviest);
    }
    total + seconds(size, heaviest)
}

/// Time of all batches while [`WAITING`] items wait, and the maximum number of batches that an item waited for beyond one for
/// each item that was older.
fn batched(lengths: &[u64], task: TaskBatching, costs: TaskCosts) -> (f64, usize) {
    let mut batcher = Batcher::new(vec![task]).with_costs(vec![costs]);
    let now = crate::clock::now();
    let mut pushed = 0;
    // Batches that had run, and older items that waited, when each item arrived.
    let mut arrivals = Vec::new();
    let (mut total, mut batches, mut excess) = (0.0, 0_usize, 0);
    loop {
        while pushed < lengths.len() && batcher.len() < WAITING {
            arrivals.push((batches, batcher.len()));
            batcher.push(Item {
                weight: lengths[pushed],
                ..item(pushed as u64, now, ())
            });
            pushed += 1;
        }
        let Next::Run(batch) = batcher.poll(now) else {
            return (total, excess);
        };
        for item in &batch.items {
            let (before, older) = arrivals[item.id.0 as usize];
            excess = excess.max((batches - before).saturating_sub(older));
        }
        batches += 1;
        let shape = BatchShape::of(batch.items.iter().map(|item| item.weight));
        total += seconds(batch.items.len(), shape.heaviest);
        batcher.abandon(batch.token);
    }
}

#[test]
fn batches_of_mixed_lengths_reach_nine_tenths_of_the_throughput_of_sorted_ones_and_no_item_starves() {
    let lengths = lengths();
    let mut sorted = lengths.clone();
    sorted.sort_unstable();
    for (max_batch_size, max_batch_weight) in
        [(32, Some(1024)), (32, Some(2048)), (32, None), (64, Some(1024))]
    {
        let task = TaskBatching {
            max_batch_weight,
            ..rules(GREEDY, max_batch_size)
        };
        let costs = TaskCosts {
            memory: None,
            time: Some(calibrated(WeightRule::Padded, TIME, 0.0)),
        };
        let (time, excess) = batched(&lengths, task, costs);
        let share = in_order(&sorted, &task) / time;
        assert!(share >= 0.9, "{share:.3} of sorted batches with {task:?}");
        assert_eq!(
            excess, 0,
            "an item waited for more batches than there were older items"
        );
        let fifo = in_order(&lengths, &rules(GREEDY, 32));
        assert!(
            fifo / time > 2.0,
            "{:.2} times FIFO batches with {task:?}",
            fifo / time
        );
    }
}

#[test]
fn equal_items_form_full_batches() {
    let task = rules(GREEDY, 8);
    for time in [TIME, [0.0, 0.0, 1e-3, 0.0], [1e-3, 0.0, 0.0, 0.0]] {
        let costs = TaskCosts {
            memory: None,
            time: Some(calibrated(WeightRule::Padded, time, 0.0)),
        };
        let mut scenario = Scenario::new(&[task]);
        scenario.batcher = Batcher::new(vec![task]).with_costs(vec![costs]);
        scenario.push_weights(&[10; 20]);
        assert_eq!(scenario.drained_sizes(), [8, 8, 4], "{time:?}");
    }
}

#[test]
fn a_short_item_shares_its_batch_with_short_ones_rather_than_with_older_long_ones() {
    let task = rules(GREEDY, 4);
    let costs = TaskCosts {
        memory: None,
        time: Some(calibrated(WeightRule::Padded, TIME, 0.0)),
    };
    let mut scenario = Scenario::new(&[task]);
    scenario.batcher = Batcher::new(vec![task]).with_costs(vec![costs]);
    scenario.push_weights(&[5, 250, 250, 250, 6, 6]);
    let expected = Step::Ran {
        task: 0,
        ids: vec![0, 4, 5],
        reason: DispatchReason::Enough,
        cost: 18,
    };
    assert_eq!(scenario.poll(), expected);
}
