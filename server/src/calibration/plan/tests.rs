//! Plans against known models, without processes and in virtual time.

use super::*;

const MIB: f64 = 1024.0 * 1024.0;

/// A model with known costs, and the clock of its measurements.
struct Bench {
    /// Coefficients of the memory in bytes and of the time in seconds, for padded items.
    memory: [f64; 4],
    time: [f64; 4],
    /// Memory at which a batch fails.
    available: f64,
    elapsed: Duration,
    runs: Vec<(Cell, bool)>,
    passes: usize,
    /// Relative noise of the time, which alternates from pass to pass.
    noise: f64,
}

fn cost(coefficients: [f64; 4], cell: Cell) -> f64 {
    let (items, weight) = (cell.items as f64, cell.weight as f64);
    let features = [1.0, items, items * weight, items * weight * weight];
    coefficients.iter().zip(features).map(|(c, f)| c * f).sum()
}

impl Bench {
    fn new() -> Self {
        Self {
            memory: [8.0 * MIB, 64.0 * 1024.0, 2048.0, 8.0],
            time: [1e-3, 1e-4, 1e-6, 1e-9],
            available: f64::INFINITY,
            elapsed: Duration::ZERO,
            runs: Vec::new(),
            passes: 0,
            noise: 0.0,
        }
    }

    fn run(&mut self, plan: &mut Plan) {
        for _ in 0..100_000 {
            match plan.next(self.elapsed) {
                Step::Memory(cell) => self.measure(plan, cell, true),
                Step::Time(cell) => self.measure(plan, cell, false),
                Step::StartPass => self.passes += 1,
                Step::Done => return,
            }
        }
        panic!("the plan does not end");
    }

    fn measure(&mut self, plan: &mut Plan, cell: Cell, memory: bool) {
        let sign = if self.passes.is_multiple_of(2) { 1.0 } else { -1.0 };
        let seconds = cost(self.time, cell) * (1.0 + sign * self.noise);
        self.runs.push((cell, memory));
        self.elapsed += Duration::from_secs_f64(seconds);
        let bytes = cost(self.memory, cell);
        if bytes > self.available {
            plan.ran_out_of_memory("it was killed");
        } else if memory {
            plan.memory_measured(cell.uniform(), bytes);
        } else {
            plan.time_measured(Duration::from_secs_f64(seconds));
        }
    }

    fn largest(&self) -> f64 {
        let costs = self.runs.iter().map(|(cell, _)| cost(self.memory, *cell));
        costs.fold(0.0, f64::max)
    }
}

fn limits() -> Limits {
    Limits {
        rule: WeightRule::Padded,
        max_items: 64,
        max_cost: 1 << 20,
        budget: 1 << 40,
        max_time: Duration::from_secs(60),
    }
}

fn weights() -> Vec<u64> {
    (0..10).map(|exponent| 1 << exponent).collect()
}

fn fit(plan: &Plan, values: impl Fn(&Point) -> &[f64]) -> CostModel {
    let samples: Vec<Sample> = plan
        .points()
        .iter()
        .flat_map(|point| {
            let shape = point.shape();
            values(point)
                .iter()
                .map(move |measured| Sample {
                    shape,
                    measured: *measured,
                })
                .collect::<Vec<_>>()
        })
        .collect();
    CostModel::fit(WeightRule::Padded, &samples).expect("there are enough samples")
}

#[test]
fn the_cells_determine_every_coefficient() {
    let (mut bench, mut plan) = (Bench::new(), Plan::new(limits(), weights()));
    bench.run(&mut plan);
    for (model, truth) in [
        (fit(&plan, |point| &point.memory_bytes), bench.memory),
        (fit(&plan, |point| &point.seconds), bench.time),
    ] {
        for (coefficient, expected) in model.coefficients().iter().zip(truth) {
            assert!(coefficient.is_identifiable);
            let relative = (coefficient.value - expected).abs() / expected;
            assert!(relative < 0.01, "{} {expected}", coefficient.value);
        }
    }
    assert_eq!(plan.skipped(), []);
}

#[test]
fn batches_get_larger_within_a_pass() {
    let (mut bench, mut plan) = (Bench::new(), Plan::new(limits(), weights()));
    let mut last = (0, 0);
    loop {
        match plan.next(bench.elapsed) {
            Step::Memory(cell) => {
                assert!(cell.size() > last, "{cell:?} after {last:?}");
                last = cell.size();
                bench.measure(&mut plan, cell, true);
            }
            Step::Time(cell) => bench.measure(&mut plan, cell, false),
            Step::StartPass => last = (0, 0),
            Step::Done => return,
        }
    }
}

#[test]
fn no_batch_exceeds_the_budget_and_the_largest_one_comes_close() {
    for mebibytes in [20, 100, 1000] {
        let budget = mebibytes << 20;
        let (mut bench, mut plan) = (Bench::new(), Plan::new(Limits { budget, ..limits() }, weights()));
        bench.run(&mut plan);
        assert!(bench.largest() <= budget as f64 * 1.001, "{mebibytes} MiB");
        if mebibytes < 1000 {
            assert!(bench.largest() >= budget as f64 * 0.4, "{mebibytes} MiB");
            let over_budget = |skipped: &SkippedCell| skipped.reason == SkipReason::Budget;
            assert!(plan.skipped().iter().any(over_budget));
        }
    }
}

#[test]
fn after_an_out_of_memory_error_no_larger_batch_is_tried() {
    let (mut bench, mut plan) = (Bench::new(), Plan::new(limits(), weights()));
    bench.available = 60.0 * MIB;
    bench.run(&mut plan);
    let failed: Vec<Cell> = bench
        .runs
        .iter()
        .map(|(cell, _)| *cell)
        .filter(|cell| cost(bench.memory, *cell) > bench.available)
        .collect();
    assert!(!failed.is_empty());
    for (index, cell) in failed.iter().enumerate() {
        for earlier in &failed[..index] {
            assert!(!cell.covers(*earlier), "{cell:?} after {earlier:?}");
        }
    }
    for point in plan.points() {
        let cell = Cell {
            items: point.items,
            weight: point.heaviest,
        };
        assert!(cost(bench.memory, cell) <= bench.available);
    }
    let reason = SkipReason::OutOfMemory("it was killed".to_owned());
    assert!(plan.skipped().iter().all(|skipped| skipped.reason == reason));
}

#[test]
fn noisy_cells_are_repeated_more_often_than_others() {
    let runs = |noise| {
        let (mut bench, mut plan) = (Bench::new(), Plan::new(limits(), weights()));
        bench.noise = noise;
        bench.run(&mut plan);
        bench.runs.len()
    };
    assert!(runs(0.5) > runs(0.0) * 3 / 2, "{} {}", runs(0.5), runs(0.0));
}

#[test]
fn the_measurements_end_in_time_and_cover_the_grid_before_they_repeat() {
    let (mut bench, max_time) = (Bench::new(), Duration::from_secs(4));
    bench.time = [0.05, 1e-3, 1e-6, 1e-9];
    bench.noise = 0.5;
    let mut plan = Plan::new(Limits { max_time, ..limits() }, weights());
    bench.run(&mut plan);
    assert!(
        bench.elapsed < max_time + Duration::from_secs(1),
        "{:?}",
        bench.elapsed
    );
    let sizes: Vec<u64> = plan.points().iter().map(|point| point.items).collect();
    assert!(sizes.contains(&2), "{sizes:?}");
}

#[test]
fn a_task_with_equal_weights_is_measured_by_batch_size() {
    let (mut bench, mut plan) = (Bench::new(), Plan::new(limits(), vec![1, 1]));
    bench.run(&mut plan);
    let sizes: Vec<u64> = plan.points().iter().map(|point| point.items).collect();
    assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 64]);
}

#[test]
fn the_limits_of_the_task_limit_the_cells() {
    let limits = Limits {
        max_items: 8,
        max_cost: 256,
        ..limits()
    };
    let (mut bench, mut plan) = (Bench::new(), Plan::new(limits, weights()));
    bench.run(&mut plan);
    for point in plan.points() {
        assert!(point.items <= 8);
        assert!(point.items == 1 || point.sum <= 256, "{point:?}");
    }
}

#[test]
fn weights_are_spread_with_equal_ratios() {
    assert!(spread(&[], 3).is_empty());
    assert_eq!(spread(&[5, 7], 3), [5, 7]);
    assert_eq!(spread(&[1, 2, 4, 8, 16], 3), [1, 4, 16]);
    assert_eq!(spread(&weights(), MAX_WEIGHTS), [1, 4, 16, 32, 128, 512]);
}

#[test]
fn the_progress_starts_at_zero_and_ends_near_one() {
    let (mut bench, mut plan) = (Bench::new(), Plan::new(limits(), weights()));
    assert_eq!(plan.progress(Duration::ZERO).fraction, 0.0);
    bench.run(&mut plan);
    let end = plan.progress(bench.elapsed);
    assert!(end.fraction > 0.9, "{end:?}");
}

#[test]
fn memory_that_is_lost_in_noise_when_the_time_is_over_is_recognized() {
    for (max_time, noise, expected) in [
        (60, 16.0 * MIB, false),
        (60, 1e12, false),
        (1, 1e12, true),
        (1, 8.0 * MIB, false),
    ] {
        let mut bench = Bench {
            time: [0.05, 0.0, 0.0, 0.0],
            ..Bench::new()
        };
        let limits = Limits {
            max_time: Duration::from_secs(max_time),
            ..limits()
        };
        let mut plan = Plan::new(limits, weights());
        bench.run(&mut plan);
        assert_eq!(plan.ended_within(noise), expected, "{max_time} s, {noise} bytes");
    }
}
