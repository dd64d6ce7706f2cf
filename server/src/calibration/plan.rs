//! Decides which batches are measured, and in which order. Pure: results in, the next step out. Time is an argument.
//!
//! # Order
//! 1. Batches of one item, with every available weight from the lightest to the heaviest, until a limit is reached.
//! 2. Up to [`MAX_WEIGHTS`] of these weights are combined with batch sizes that double. Batches get larger within a pass,
//!    since a process may keep the memory of the largest batch so far.
//! 3. Further passes repeat the cells whose uncertainty is not small yet. Repeating in passes, rather than immediately, makes
//!    slow changes of the machine part of the uncertainty.
//!
//! # Limits
//! A cell is measured only if its predicted memory is within the budget and its predicted time within the remaining time.
//! The prediction is that of a fitted cost model. It is at most the extrapolation from any smaller cell: with nonnegative
//! coefficients, a batch with `r` times the items and `s` times the weight costs at most `r·s²` times as much. After an
//! out-of-memory error, neither the cell nor a larger one is measured again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::batcher::cost_model::{BatchShape, CostModel, Sample};
use crate::batching::WeightRule;

/// Maximum number of weights that are combined with batch sizes.
const MAX_WEIGHTS: usize = 6;

/// Maximum number of passes.
const MAX_PASSES: u32 = 6;

/// Minimum number of measurements of a cell's memory and time.
const MIN_MEMORY_RUNS: usize = 2;
const MIN_TIME_RUNS: usize = 3;

/// Uncertainty below which a cell is complete: the range of its memory and the standard error of its time, relative to the
/// mean.
const SMALL_UNCERTAINTY: f64 = 0.05;

/// Range of the memory in bytes that counts as small in any case: less than a process's own noise.
const SMALL_RANGE: f64 = (1 << 20) as f64;

/// Maximum fraction of the time for one cell.
const MAX_TIME_OF_CELL: f64 = 0.25;

/// A batch to measure: a number of items, of which the heaviest has this weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Number of items.
    pub items: u64,
    /// Weight of the heaviest item.
    pub weight: u64,
}

impl Cell {
    /// The shape of a batch whose items all have the weight.
    pub fn uniform(self) -> BatchShape {
        BatchShape::uniform(self.items, self.weight)
    }

    /// Whether a batch of `self` is at least as large as one of `other` in every respect.
    fn covers(self, other: Self) -> bool {
        self.items >= other.items && self.weight >= other.weight
    }

    /// The order within a pass.
    fn size(self) -> (u64, u64) {
        (self.items.saturating_mul(self.weight), self.weight)
    }
}

/// A measured cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Number of items.
    pub items: u64,
    /// The greatest weight.
    pub heaviest: u64,
    /// The sum of the weights.
    pub sum: u64,
    /// The sum of the squares of the weights.
    pub sum_of_squares: f64,
    /// Measured memory in bytes, above the idle process.
    pub memory_bytes: Vec<f64>,
    /// Measured time in seconds.
    pub seconds: Vec<f64>,
}

impl Point {
    /// The shape of the batch.
    pub fn shape(&self) -> BatchShape {
        BatchShape {
            items: self.items,
            heaviest: self.heaviest,
            sum: self.sum,
            sum_of_squares: self.sum_of_squares,
        }
    }
}

/// Why a cell was not measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// Its predicted memory exceeds the budget.
    Budget,
    /// Memory ran out in this batch or a smaller one. The text says how.
    OutOfMemory(String),
    /// There was no time left for it.
    Time,
    /// The model failed for another reason.
    Failed(String),
}

/// A cell that was not measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedCell {
    /// The cell.
    #[serde(flatten)]
    pub cell: Cell,
    /// The reason.
    pub reason: SkipReason,
}

/// What limits the cells of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// How weights add up.
    pub(super) rule: WeightRule,
    /// Maximum number of items in a batch.
    pub(super) max_items: u64,
    /// Maximum of `items × weight` for batches of several items.
    pub(super) max_cost: u64,
    /// Maximum memory of a batch in bytes.
    pub(super) budget: u64,
    /// Maximum time for all measurements.
    pub(super) max_time: Duration,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Measure the memory of a batch.
    Memory(Cell),
    /// Measure the time of a batch.
    Time(Cell),
    /// Prepare for smaller batches than the last one: a process that keeps memory has to be replaced.
    StartPass,
    /// All measurements are complete, or the time is over.
    Done,
}

/// How far the measurements are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PlanProgress {
    /// The fraction that is complete.
    pub(super) fraction: f64,
    /// Estimated time left.
    pub(super) remaining: Duration,
}

/// The measurements of one task.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    limits: Limits,
    cells: Vec<CellState>,
    /// Whether the batches of several items have been added.
    has_grid: bool,
    pass: u32,
    /// Index of the current cell.
    position: usize,
    /// Whether the memory of the current cell has been measured in this pass.
    memory_measured: bool,
}

#[derive(Clone, Debug)]
struct CellState {
    cell: Cell,
    shape: BatchShape,
    memory: Vec<f64>,
    seconds: Vec<f64>,
    skipped: Option<SkipReason>,
}

impl CellState {
    fn new(cell: Cell) -> Self {
        Self {
            cell,
            shape: cell.uniform(),
            memory: Vec::new(),
            seconds: Vec::new(),
            skipped: None,
        }
    }

    fn is_measured(&self) -> bool {
        !self.memory.is_empty() && !self.seconds.is_empty()
    }

    fn is_complete(&self) -> bool {
        self.memory.len() >= MIN_MEMORY_RUNS
            && self.seconds.len() >= MIN_TIME_RUNS
            && range(&self.memory) <= SMALL_RANGE.max(SMALL_UNCERTAINTY * mean(&self.memory))
            && standard_error(&self.seconds) <= SMALL_UNCERTAINTY * mean(&self.seconds)
    }
}

impl Plan {
    /// `weights` are the weights of the available items.
    pub(super) fn new(limits: Limits, mut weights: Vec<u64>) -> Self {
        weights.sort_unstable();
        weights.dedup();
        let single = |weight: &u64| {
            CellState::new(Cell {
                items: 1,
                weight: *weight,
            })
        };
        Self {
            limits,
            cells: weights.iter().map(single).collect(),
            has_grid: false,
            pass: 0,
            position: 0,
            memory_measured: false,
        }
    }

    /// The next step, `elapsed` after the first one.
    pub(super) fn next(&mut self, elapsed: Duration) -> Step {
        loop {
            let is_over = elapsed >= self.limits.max_time && self.cells.iter().any(CellState::is_measured);
            if is_over {
                self.skip_rest();
                return Step::Done;
            }
            if let Some(state) = self.cells.get(self.position) {
                if state.skipped.is_some() || (self.pass > 0 && state.is_complete() && !self.memory_measured)
                {
                    self.position += 1;
                    continue;
                }
                let cell = state.cell;
                if self.memory_measured {
                    return Step::Time(cell);
                }
                match self.reason_to_skip(cell, elapsed) {
                    Some(reason) if !state.is_measured() => {
                        self.cells[self.position].skipped = Some(reason);
                        continue;
                    }
                    // There is no time to repeat it.
                    Some(_) => {
                        self.position += 1;
                        continue;
                    }
                    None => return Step::Memory(cell),
                }
            }
            if !self.has_grid {
                self.add_grid();
                return Step::StartPass;
            }
            self.pass += 1;
            let is_open = |state: &CellState| state.skipped.is_none() && !state.is_complete();
            if self.pass >= MAX_PASSES || !self.cells.iter().any(is_open) {
                return Step::Done;
            }
            self.cells.sort_by_key(|state| state.cell.size());
            self.position = 0;
            return Step::StartPass;
        }
    }

    /// Records the memory of the batch that the last [`Step::Memory`] named. Its time counts only as an estimate.
    pub(super) fn memory_measured(&mut self, shape: BatchShape, bytes: f64) {
        if let Some(state) = self.cells.get_mut(self.position) {
            state.shape = shape;
            state.memory.push(bytes);
            self.memory_measured = true;
        }
    }

    /// Records the time of the batch that the last [`Step::Time`] named.
    pub(super) fn time_measured(&mut self, time: Duration) {
        if let Some(state) = self.cells.get_mut(self.position) {
            state.seconds.push(time.as_secs_f64());
            self.memory_measured = false;
            self.position += 1;
        }
    }

    /// Records that memory ran out in the batch of the last step.
    pub(super) fn ran_out_of_memory(&mut self, how: &str) {
        let Some(failed) = self.cells.get(self.position).map(|state| state.cell) else {
            return;
        };
        let reason = SkipReason::OutOfMemory(how.to_owned());
        for state in self.cells.iter_mut().filter(|state| state.cell.covers(failed)) {
            state.skipped = Some(reason.clone());
        }
        self.memory_measured = false;
        self.position += 1;
    }

    /// Records that the batch of the last step failed for another reason. Other batches are still measured.
    pub(super) fn failed(&mut self, reason: &str) {
        if let Some(state) = self.cells.get_mut(self.position) {
            state.skipped = Some(SkipReason::Failed(reason.to_owned()));
        }
        self.memory_measured = false;
        self.position += 1;
    }

    /// The batches that were measured.
    pub(super) fn points(&self) -> Vec<Point> {
        let measured = self.cells.iter().filter(|state| state.is_measured());
        let mut points: Vec<Point> = measured
            .filter(|state| {
                !matches!(
                    state.skipped,
                    Some(SkipReason::OutOfMemory(_) | SkipReason::Failed(_))
                )
            })
            .map(|state| Point {
                items: state.shape.items,
                heaviest: state.shape.heaviest,
                sum: state.shape.sum,
                sum_of_squares: state.shape.sum_of_squares,
                memory_bytes: state.memory.clone(),
                seconds: state.seconds.clone(),
            })
            .collect();
        points.sort_by_key(|point| (point.heaviest, point.items));
        points
    }

    /// The batches that were not measured.
    pub(super) fn skipped(&self) -> Vec<SkippedCell> {
        let skipped = |state: &CellState| {
            Some(SkippedCell {
                cell: state.cell,
                reason: state.skipped.clone()?,
            })
        };
        self.cells.iter().filter_map(skipped).collect()
    }

    /// Whether the time was over before the memory of any batch exceeded `noise`, below which batches cannot be told apart.
    pub(super) fn ended_within(&self, noise: f64) -> bool {
        let mut memory = self.cells.iter().flat_map(|state| &state.memory);
        let is_short_of_time = |state: &CellState| state.skipped == Some(SkipReason::Time);
        let ended_early = !self.has_grid || self.cells.iter().any(is_short_of_time);
        ended_early && memory.all(|bytes| *bytes <= noise)
    }

    /// How far the measurements are, `elapsed` after the first one.
    pub(super) fn progress(&self, elapsed: Duration) -> PlanProgress {
        let runs = |state: &CellState| MIN_TIME_RUNS.saturating_sub(state.seconds.len()) as f64;
        let seconds = |state: &CellState| self.predict_seconds(state.cell).unwrap_or(0.0);
        let open = self.cells.iter().filter(|state| state.skipped.is_none());
        let mut remaining: f64 = open.map(|state| 2.0 * runs(state) * seconds(state)).sum();
        let most = self.limits.max_time.saturating_sub(elapsed).as_secs_f64();
        if !self.has_grid {
            // Batches of several items take most of the time.
            remaining = remaining.max(most / 2.0);
        }
        let remaining = remaining.min(most);
        let done = elapsed.as_secs_f64();
        PlanProgress {
            fraction: done / (done + remaining).max(f64::MIN_POSITIVE),
            remaining: Duration::from_secs_f64(remaining),
        }
    }

    /// Adds the batches of several items.
    fn add_grid(&mut self) {
        self.has_grid = true;
        let measured = self.cells.iter().filter(|state| state.is_measured());
        let weights: Vec<u64> = measured.map(|state| state.cell.weight).collect();
        let mut cells = Vec::new();
        for weight in spread(&weights, MAX_WEIGHTS) {
            let sizes = std::iter::successors(Some(2_u64), |items| items.checked_mul(2));
            let fits = |items: &u64| {
                *items <= self.limits.max_items && items.saturating_mul(weight) <= self.limits.max_cost
            };
            cells.extend(sizes.take_while(fits).map(|items| Cell { items, weight }));
        }
        cells.sort_by_key(|cell| cell.size());
        self.position = self.cells.len();
        self.cells.extend(cells.into_iter().map(CellState::new));
    }

    /// Marks the cells that have not been measured.
    fn skip_rest(&mut self) {
        for state in &mut self.cells {
            if !state.is_measured() {
                state.skipped.get_or_insert(SkipReason::Time);
            }
        }
    }

    fn reason_to_skip(&self, cell: Cell, elapsed: Duration) -> Option<SkipReason> {
        let memory = self.predict_memory(cell);
        if memory.is_some_and(|memory| memory > self.limits.budget as f64) {
            return Some(SkipReason::Budget);
        }
        let max_time = self.limits.max_time.as_secs_f64();
        let left = max_time - elapsed.as_secs_f64();
        // One run for the memory, and one for the time.
        let seconds = 2.0 * self.predict_seconds(cell)?;
        (seconds > left.min(max_time * MAX_TIME_OF_CELL)).then_some(SkipReason::Time)
    }

    fn predict_memory(&self, cell: Cell) -> Option<f64> {
        self.predict(cell, |state| &state.memory)
    }

    fn predict_seconds(&self, cell: Cell) -> Option<f64> {
        self.predict(cell, |state| &state.seconds)
    }

    fn predict(&self, cell: Cell, values: impl Fn(&CellState) -> &[f64]) -> Option<f64> {
        let known = || self.cells.iter().filter(|state| !values(state).is_empty());
        let extrapolated = known()
            .filter(|state| cell.covers(state.cell))
            .map(|state| {
                let items = cell.items as f64 / state.cell.items as f64;
                let weight = cell.weight as f64 / state.cell.weight as f64;
                mean(values(state)) * items * weight.powi(2)
            })
            .reduce(f64::min)?;
        let samples: Vec<Sample> = known()
            .map(|state| Sample {
                shape: state.shape,
                measured: mean(values(state)),
            })
            .collect();
        let model = CostModel::fit(self.limits.rule, &samples).ok();
        let fitted = model.and_then(|model| model.predict(&cell.uniform()).ok());
        Some(fitted.map_or(extrapolated, |fitted| fitted.expected.min(extrapolated)))
    }
}

/// Up to `count` of these values, including the first and the last, with about equal ratios. `values` is sorted.
pub(super) fn spread(values: &[u64], count: usize) -> Vec<u64> {
    let (Some(first), Some(last)) = (values.first(), values.last()) else {
        return Vec::new();
    };
    if values.len() <= count {
        return values.to_vec();
    }
    let log = |value: u64| (value as f64).max(1.0).ln();
    let (low, high) = (log(*first), log(*last));
    let mut chosen: Vec<u64> = (0..count)
        .filter_map(|nth| {
            let wanted = low + (high - low) * nth as f64 / (count - 1) as f64;
            let distance = |value: u64| (log(value) - wanted).abs();
            values
                .iter()
                .copied()
                .min_by(|a, b| distance(*a).total_cmp(&distance(*b)))
        })
        .collect();
    chosen.dedup();
    chosen
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn range(values: &[f64]) -> f64 {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    high - low
}

/// Standard error of the mean.
fn standard_error(values: &[f64]) -> f64 {
    let (count, mean) = (values.len() as f64, mean(values));
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (count - 1.0).max(1.0) / count.max(1.0)).sqrt()
}

#[cfg(test)]
mod tests;
