//! What follows from measured batches: the quality of the fits, safe batches, and suggested settings. Pure.

use super::measure::TaskMeasurement;
use super::plan::{Cell, Point};
use crate::batcher::cost_model::{Coefficient, CostModel};

/// Maximum batch size that is considered.
const MAX_ITEMS: u64 = 1 << 16;

/// The knee is the smallest batch with at least this fraction of the maximum throughput.
const KNEE: f64 = 0.95;

/// A fit and its errors.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// The coefficients `c0` to `c3`.
    pub coefficients: [Coefficient; 4],
    /// The fraction of the variance that the model explains.
    pub r_squared: f64,
    /// Number of measurements.
    pub measurements: usize,
    /// Median and maximum of the residuals, relative to the measurements.
    pub median_residual: f64,
    /// See `median_residual`.
    pub max_residual: f64,
    /// The safety margin of the bound, relative to the prediction.
    pub margin: f64,
}

/// The largest batches of items of one weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SafeBatch {
    /// The weight.
    pub weight: u64,
    /// Maximum number of items whose predicted bound is within the budget. 0 if a single item exceeds it. `None` if the
    /// memory does not limit it.
    pub safe: Option<u64>,
    /// Number of items at which the throughput stops growing, within the measured batches.
    pub knee: Option<u64>,
}

/// Suggested settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// `max_batch_size` of the task.
    pub max_batch_size: u64,
    /// `max_batch_weight` of the task. `None` if all items have the same weight.
    pub max_batch_weight: Option<u64>,
    /// `workers` of the model.
    pub workers: u64,
}

/// What follows from the measurements of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The fit of the memory, in bytes.
    pub memory: Option<Fit>,
    /// The fit of the time, in seconds.
    pub time: Option<Fit>,
    /// The largest batches, by weight.
    pub batches: Vec<SafeBatch>,
    /// Suggested settings.
    pub suggestion: Suggestion,
}

impl Summary {
    /// `budget` is the memory for all batches that run at the same time, in bytes, and `cores` the number of cores that the
    /// model's workers share.
    pub fn of(task: &TaskMeasurement, budget: u64, cores: u64) -> Self {
        let batches: Vec<SafeBatch> = weights(&task.points)
            .into_iter()
            .map(|weight| SafeBatch {
                weight,
                safe: largest_safe(task.costs.memory.as_ref(), weight, budget),
                knee: knee(task, weight),
            })
            .collect();
        Self {
            memory: task
                .costs
                .memory
                .as_ref()
                .map(|model| fit(model, &task.points, |point| &point.memory_bytes)),
            time: task
                .costs
                .time
                .as_ref()
                .map(|model| fit(model, &task.points, |point| &point.seconds)),
            suggestion: suggest(task, &batches, budget, cores),
            batches,
        }
    }
}

fn fit(model: &CostModel, points: &[Point], values: fn(&Point) -> &[f64]) -> Fit {
    let mut residuals: Vec<f64> = points
        .iter()
        .flat_map(|point| {
            let expected = model
                .predict(&point.shape())
                .map_or(f64::NAN, |predicted| predicted.expected);
            let residual = move |measured: &f64| (measured - expected).abs() / measured.abs().max(1e-12);
            values(point).iter().map(residual).collect::<Vec<_>>()
        })
        .filter(|residual| residual.is_finite())
        .collect();
    residuals.sort_unstable_by(f64::total_cmp);
    Fit {
        coefficients: model.coefficients(),
        r_squared: model.r_squared(),
        measurements: residuals.len(),
        median_residual: residuals.get(residuals.len() / 2).copied().unwrap_or(0.0),
        max_residual: residuals.last().copied().unwrap_or(0.0),
        margin: model.margin(),
    }
}

/// The measured weights, in order.
fn weights(points: &[Point]) -> Vec<u64> {
    let mut weights: Vec<u64> = points.iter().map(|point| point.heaviest).collect();
    weights.sort_unstable();
    weights.dedup();
    weights
}

/// The largest batch of items of this weight whose bound is within the budget.
fn largest_safe(memory: Option<&CostModel>, weight: u64, budget: u64) -> Option<u64> {
    let memory = memory?;
    let is_safe = |items: u64| {
        let predicted = memory.predict(&Cell { items, weight }.uniform());
        predicted.ok().map(|predicted| predicted.bound <= budget as f64)
    };
    if is_safe(MAX_ITEMS)? {
        return None;
    }
    // The bound grows with the number of items.
    let (mut low, mut high) = (0, MAX_ITEMS);
    while low + 1 < high {
        let middle = low.midpoint(high);
        if is_safe(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(low)
}

/// The smallest measured batch size with almost the maximum throughput for this weight.
fn knee(task: &TaskMeasurement, weight: u64) -> Option<u64> {
    let time = task.costs.time.as_ref()?;
    let sizes: Vec<u64> = task
        .points
        .iter()
        .filter(|point| point.heaviest == weight)
        .map(|point| point.items)
        .collect();
    let throughput = |items: u64| {
        let predicted = time.predict(&Cell { items, weight }.uniform()).ok()?;
        (predicted.expected > 0.0).then(|| items as f64 / predicted.expected)
    };
    let most = sizes
        .iter()
        .filter_map(|items| throughput(*items))
        .reduce(f64::max)?;
    sizes
        .into_iter()
        .filter(|items| throughput(*items).is_some_and(|rate| rate >= KNEE * most))
        .min()
}

fn suggest(task: &TaskMeasurement, batches: &[SafeBatch], budget: u64, cores: u64) -> Suggestion {
    let largest = |weight: u64| {
        let sizes = task.points.iter().filter(|point| point.heaviest == weight);
        sizes.map(|point| point.items).max().unwrap_or(1)
    };
    // The size that is worth it, as far as it is safe.
    let wanted = |batch: &SafeBatch| {
        let size = batch.knee.unwrap_or_else(|| largest(batch.weight));
        size.min(batch.safe.unwrap_or(u64::MAX)).max(1)
    };
    let max_batch_size = batches.iter().map(wanted).max().unwrap_or(1);
    let max_batch_weight = (batches.len() > 1).then(|| {
        let worth = batches
            .iter()
            .map(|batch| wanted(batch).saturating_mul(batch.weight));
        let safe = batches
            .iter()
            .filter_map(|batch| Some(batch.safe?.max(1).saturating_mul(batch.weight)));
        worth.max().unwrap_or(1).min(safe.min().unwrap_or(u64::MAX))
    });
    Suggestion {
        max_batch_size,
        max_batch_weight,
        workers: workers(task, batches, wanted, budget, cores),
    }
}

/// The number of workers that use all cores, as far as their batches fit into the budget at the same time.
fn workers(
    task: &TaskMeasurement,
    batches: &[SafeBatch],
    wanted: impl Fn(&SafeBatch) -> u64,
    budget: u64,
    cores: u64,
) -> u64 {
    let used = task.cores_used.round().max(1.0) as u64;
    let by_cores = (cores / used).max(1);
    let bound = |batch: &SafeBatch| {
        let cell = Cell {
            items: wanted(batch),
            weight: batch.weight,
        };
        let memory = task.costs.memory.as_ref()?.predict(&cell.uniform()).ok()?;
        Some(memory.bound)
    };
    let heaviest = batches.iter().filter_map(bound).fold(0.0, f64::max);
    let by_memory = if heaviest > 0.0 {
        (budget as f64 / heaviest) as u64
    } else {
        u64::MAX
    };
    by_cores.min(by_memory).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::batcher::cost_model::{Sample, TaskCosts};
    use crate::batching::WeightRule;

    const MIB: f64 = 1024.0 * 1024.0;

    /// A task whose memory and time follow these coefficients exactly, measured with these weights.
    fn task(memory: [f64; 4], time: [f64; 4], weights: &[u64]) -> TaskMeasurement {
        let cost = |coefficients: [f64; 4], cell: Cell| {
            let (items, weight) = (cell.items as f64, cell.weight as f64);
            coefficients[0]
                + items * (coefficients[1] + weight * (coefficients[2] + weight * coefficients[3]))
        };
        let cells = weights.iter().flat_map(|weight| {
            [1, 2, 4, 8, 16, 32].map(|items| Cell {
                items,
                weight: *weight,
            })
        });
        let points: Vec<Point> = cells
            .map(|cell| Point {
                items: cell.items,
                heaviest: cell.weight,
                sum: cell.items * cell.weight,
                sum_of_squares: (cell.items * cell.weight * cell.weight) as f64,
                memory_bytes: vec![cost(memory, cell)],
                seconds: vec![cost(time, cell)],
            })
            .collect();
        let model = |values: fn(&Point) -> &[f64]| {
            let sample = |point: &Point| Sample {
                shape: point.shape(),
                measured: values(point)[0],
            };
            let samples: Vec<Sample> = points.iter().map(sample).collect();
            Some(CostModel::fit(WeightRule::Padded, &samples).expect("there are enough samples"))
        };
        TaskMeasurement {
            weight_rule: WeightRule::Padded,
            costs: TaskCosts {
                memory: model(|point| &point.memory_bytes),
                time: model(|point| &point.seconds),
            },
            not_fitted: BTreeMap::new(),
            cores_used: 1.0,
            points,
            skipped: Vec::new(),
            checks: Vec::new(),
        }
    }

    #[test]
    fn safe_batches_shrink_with_the_weight_and_match_the_model() {
        // 10 MiB and 1 MiB for each item and unit of weight.
        let task = task(
            [10.0 * MIB, 0.0, MIB, 0.0],
            [1e-3, 1e-3, 0.0, 0.0],
            &[1, 8, 64, 200],
        );
        let summary = Summary::of(&task, 138 << 20, 4);
        let safe: Vec<_> = summary.batches.iter().map(|batch| batch.safe).collect();
        assert_eq!(safe, [Some(127), Some(15), Some(1), Some(0)]);
        let memory = summary.memory.expect("it was fitted");
        assert!(
            memory.r_squared > 0.999 && memory.max_residual < 1e-6,
            "{memory:?}"
        );
    }

    #[test]
    fn the_knee_is_where_throughput_stops_growing() {
        // A fixed cost of 8 items: 32 items have 80 % of the limit, and 16 have 67 %.
        let steep = task([MIB, MIB, 0.0, 0.0], [8e-3, 1e-3, 0.0, 0.0], &[1]);
        assert_eq!(Summary::of(&steep, 1 << 30, 4).suggestion.max_batch_size, 32);
        // Without a fixed cost, batches gain nothing.
        let flat = task([MIB, MIB, 0.0, 0.0], [0.0, 1e-3, 0.0, 0.0], &[1]);
        assert_eq!(Summary::of(&flat, 1 << 30, 4).suggestion.max_batch_size, 1);
    }

    #[test]
    fn suggestions_are_within_the_budget_at_every_weight() {
        let task = task(
            [MIB, 0.0, 0.1 * MIB, 0.001 * MIB],
            [1e-2, 1e-4, 1e-6, 0.0],
            &[1, 10, 100, 400],
        );
        let budget = 256 << 20;
        let summary = Summary::of(&task, budget, 8);
        let limit = summary.suggestion.max_batch_weight.expect("the weights differ");
        let memory = task.costs.memory.as_ref().expect("it was fitted");
        for weight in [1, 10, 100, 400] {
            let items = (limit / weight).min(summary.suggestion.max_batch_size).max(1);
            let bound = memory
                .predict(&Cell { items, weight }.uniform())
                .expect("known")
                .bound;
            assert!(
                bound <= budget as f64,
                "{items} items of weight {weight}: {bound}"
            );
        }
    }

    #[test]
    fn workers_use_the_cores_that_one_batch_leaves_idle_and_fit_into_the_budget() {
        let mut task = task([64.0 * MIB, 0.0, 0.0, 0.0], [1e-3, 1e-3, 0.0, 0.0], &[1]);
        assert_eq!(Summary::of(&task, 1 << 40, 4).suggestion.workers, 4);
        assert_eq!(Summary::of(&task, 130 << 20, 4).suggestion.workers, 2);
        task.cores_used = 3.9;
        assert_eq!(Summary::of(&task, 1 << 40, 4).suggestion.workers, 1);
    }

    #[test]
    fn memory_that_was_not_fitted_limits_nothing() {
        let mut task = task([MIB, MIB, 0.0, 0.0], [1e-3, 1e-3, 0.0, 0.0], &[1]);
        task.costs.memory = None;
        let summary = Summary::of(&task, 1, 4);
        assert_eq!(summary.batches[0].safe, None);
        assert_eq!(summary.memory, None);
    }
}
