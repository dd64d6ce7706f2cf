//! Runs the batches of a plan on a model, and fits cost models to their memory and time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use plugin_abi::manifest::TaskManifest;
use serde::{Deserialize, Serialize};

use super::file::MemorySource;
use super::items::{Items, ItemsError};
use super::plan::{Cell, Limits, Plan, Point, SkipReason, SkippedCell, Step};
use super::session::{MIN_BATCH_BYTES, MeasuredProcess, ProcessError, Session};
use crate::batcher::cost_model::{BatchShape, CostModel, FitError, Sample, TaskCosts};
use crate::batching::WeightRule;
use crate::clock;
use crate::error::ItemError;
use crate::model::{BatchError, BatchItem, OutcomeCheck, PreparedItem};
use crate::values::ItemInput;

/// Time for which short batches are repeated in one measurement.
const REPEAT_TIME: Duration = Duration::from_millis(20);

/// Maximum number of repetitions in one measurement.
const MAX_REPEATS: usize = 10;

/// Seed of the random batches that check a fit.
const CHECK_SEED: u64 = 7;

/// Maximum number of random batches that are drawn for each one that is suitable.
const MAX_DRAWS: usize = 100;

/// Why the batches of a task could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The process cannot be started or measured.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// There are no items.
    #[error(transparent)]
    Items(#[from] ItemsError),
    /// A batch failed for another reason than memory.
    #[error("task `{task}`: a batch of {items} items of weight {weight} failed: {reason}")]
    Batch {
        /// Name of the task.
        task: String,
        /// Number of items.
        items: u64,
        /// Weight of the heaviest.
        weight: u64,
        /// The error.
        reason: String,
    },
    /// No batch fits.
    #[error("task `{task}`: not even a batch of one item of weight {weight} fits into memory: {reason}")]
    NothingFits {
        /// Name of the task.
        task: String,
        /// The smallest weight.
        weight: u64,
        /// How memory ran out.
        reason: String,
    },
}

/// How the batches of one task are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasureOptions {
    /// How the weights of the items add up.
    pub rule: WeightRule,
    /// Maximum number of items in a batch.
    pub max_items: u64,
    /// Maximum of `items × weight` for batches of several items.
    pub max_cost: u64,
    /// Maximum memory of a batch, above the idle process, in bytes.
    pub budget: u64,
    /// Maximum time for all measurements of the task.
    pub max_time: Duration,
    /// Number of random batches with which the fit is checked.
    pub checks: usize,
}

/// How far the measurements of a task are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// The batch that is about to be measured.
    pub cell: Cell,
    /// The fraction that is complete.
    pub fraction: f64,
    /// Estimated time left.
    pub remaining: Duration,
}

/// The measured batches of one task, and the cost models that were fitted to them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskMeasurement {
    /// How the weights of the items add up.
    pub weight_rule: WeightRule,
    /// The fitted models.
    pub costs: TaskCosts,
    /// Why there is no model of the memory, or of the time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_fitted: BTreeMap<String, String>,
    /// Average number of cores that a batch uses.
    pub cores_used: f64,
    /// The batches that were measured.
    pub points: Vec<Point>,
    /// The batches that were not.
    pub skipped: Vec<SkippedCell>,
    /// Random batches that were not used for the fit, and what was predicted for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
}

/// A random batch whose memory was predicted and measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Number of items.
    pub items: u64,
    /// The greatest weight.
    pub heaviest: u64,
    /// The sum of the weights.
    pub sum: u64,
    /// The expected memory in bytes.
    pub expected_bytes: f64,
    /// The predicted bound of the memory in bytes.
    pub bound_bytes: f64,
    /// The measured memory in bytes.
    pub measured_bytes: f64,
}

impl TaskMeasurement {
    /// Fits models to measured batches.
    fn of(rule: WeightRule, plan: &Plan, source: MemorySource, cores_used: f64) -> Self {
        let points = plan.points();
        let mut not_fitted = BTreeMap::new();
        let least_memory = match source {
            MemorySource::Model => 0.0,
            MemorySource::Process => MIN_BATCH_BYTES as f64,
        };
        let mut fit = |what: &str, minimum: f64, values: fn(&Point) -> &[f64]| {
            let samples: Vec<Sample> = points
                .iter()
                .flat_map(|point| {
                    let sample = |measured: &f64| Sample {
                        shape: point.shape(),
                        measured: *measured,
                    };
                    values(point).iter().map(sample).collect::<Vec<_>>()
                })
                .collect();
            let fitted = CostModel::fit_above(minimum, rule, &samples);
            let reason = match fitted.as_ref().err() {
                Some(FitError::Zero) => "batches need less memory than can be measured".to_owned(),
                Some(error) => error.to_string(),
                None => return fitted.ok(),
            };
            not_fitted.insert(what.to_owned(), reason);
            None
        };
        let mut costs = TaskCosts {
            memory: fit("memory", least_memory, |point| &point.memory_bytes),
            time: fit("time", 0.0, |point| &point.seconds),
        };
        if source == MemorySource::Process && plan.ended_within(least_memory) {
            // The fit would predict that larger batches need no more memory.
            costs.memory = None;
            let reason = "every measured batch needs less than 16 MiB, which is the least that can be told apart, and there was no \
                          time for larger ones: allow more time";
            not_fitted.insert("memory".to_owned(), reason.to_owned());
        }
        Self {
            weight_rule: rule,
            costs,
            not_fitted,
            cores_used,
            points,
            skipped: plan.skipped(),
            checks: Vec::new(),
        }
    }
}

/// Measures the batches of the task with this index, and fits cost models to them.
///
/// # Errors
/// The process cannot be started or measured, there are no items, or a batch fails for another reason than memory.
pub fn measure_task<P: MeasuredProcess>(
    session: &mut Session<'_, P>,
    index: usize,
    items: &Items,
    options: MeasureOptions,
    report: &mut dyn FnMut(Progress),
) -> Result<TaskMeasurement, MeasureError> {
    let task = session.model().manifest().tasks[index].clone();
    let limits = Limits {
        rule: options.rule,
        max_items: options.max_items,
        max_cost: options.max_cost,
        budget: options.budget,
        max_time: options.max_time,
    };
    let mut run = TaskRun {
        session,
        index,
        task: &task,
        items,
        started: clock::now(),
        cpu: Duration::ZERO,
        wall: Duration::ZERO,
    };
    let mut plan = Plan::new(limits, items.weights());
    // Creating the items may have left memory behind, which would count toward the first batches.
    run.session.replace_if_it_keeps_memory()?;
    loop {
        let elapsed = run.started.elapsed();
        let step = plan.next(elapsed);
        if let Step::Memory(cell) | Step::Time(cell) = step {
            let progress = plan.progress(elapsed);
            report(Progress {
                cell,
                fraction: progress.fraction,
                remaining: progress.remaining,
            });
        }
        match step {
            Step::Memory(cell) => match run.memory(cell)? {
                Run::Measured((shape, bytes)) => plan.memory_measured(shape, bytes as f64),
                Run::OutOfMemory(how) => run.ran_out(&mut plan, cell, &how)?,
                Run::Failed(reason) => plan.failed(&reason),
            },
            Step::Time(cell) => match run.time(cell)? {
                Run::Measured(time) => plan.time_measured(time),
                Run::OutOfMemory(how) => run.ran_out(&mut plan, cell, &how)?,
                Run::Failed(reason) => plan.failed(&reason),
            },
            Step::StartPass => run.session.replace_if_it_keeps_memory()?,
            Step::Done if plan.points().is_empty() => return Err(run.nothing_measured(&plan)),
            Step::Done => {
                let cores_used = run.cpu.as_secs_f64() / run.wall.as_secs_f64().max(1e-9);
                let source = run.session.memory_source();
                let mut measurement = TaskMeasurement::of(options.rule, &plan, source, cores_used);
                if let Some(memory) = measurement.costs.memory.as_ref() {
                    measurement.checks = run.check(memory, &measurement.points, options)?;
                }
                return Ok(measurement);
            }
        }
    }
}

/// The result of a batch.
enum Run<T> {
    Measured(T),
    /// The text says how memory ran out.
    OutOfMemory(String),
    /// The model failed for another reason.
    Failed(String),
}

/// Why a batch has no result.
enum Failure {
    OutOfMemory(String),
    Other(String),
}

impl<T> From<Failure> for Run<T> {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::OutOfMemory(how) => Self::OutOfMemory(how),
            Failure::Other(reason) => Self::Failed(reason),
        }
    }
}

/// The measurements of one task.
struct TaskRun<'r, 's, P> {
    session: &'r mut Session<'s, P>,
    index: usize,
    task: &'r TaskManifest,
    items: &'r Items,
    started: Instant,
    /// CPU time and time of the timed batches.
    cpu: Duration,
    wall: Duration,
}

impl<P: MeasuredProcess> TaskRun<'_, '_, P> {
    /// Measures the memory of a batch.
    fn memory(&mut self, cell: Cell) -> Result<Run<(BatchShape, u64)>, MeasureError> {
        self.memory_of(&self.items.batch(cell.items, cell.weight))
    }

    fn memory_of(&mut self, batch: &[(&ItemInput, u64)]) -> Result<Run<(BatchShape, u64)>, MeasureError> {
        let prepared = self.prepare(batch)?;
        self.session.start_measurement()?;
        if let Err(failure) = self.predict(batch, &prepared) {
            return Ok(failure.into());
        }
        let bytes = self.session.added_memory()?;
        let shape = BatchShape::of(batch.iter().map(|(_, weight)| *weight));
        Ok(Run::Measured((shape, bytes)))
    }

    /// Measures random batches within the measured range, from the smallest to the largest.
    fn check(
        &mut self,
        memory: &CostModel,
        points: &[Point],
        options: MeasureOptions,
    ) -> Result<Vec<Check>, MeasureError> {
        let items = self.items;
        let largest = points.iter().map(|point| point.items).max().unwrap_or(1);
        let largest_sum = points.iter().map(|point| point.sum).max().unwrap_or(1);
        // The model may fail for heavier items.
        let heaviest = points.iter().map(|point| point.heaviest).max().unwrap_or(1);
        let mut random = fastrand::Rng::with_seed(CHECK_SEED);
        let mut batches = Vec::new();
        for _ in 0..options.checks.saturating_mul(MAX_DRAWS) {
            if batches.len() == options.checks {
                break;
            }
            // Small batches are as frequent as large ones.
            let size = (largest as f64).powf(random.f64()).round() as u64;
            let batch = items.random_batch(size.max(1), &mut random);
            let shape = BatchShape::of(batch.iter().map(|(_, weight)| *weight));
            let is_measured = points.iter().any(|point| point.shape() == shape);
            let cost = shape.items.saturating_mul(shape.heaviest);
            let Ok(predicted) = memory.predict(&shape) else {
                continue;
            };
            let fits =
                predicted.bound <= options.budget as f64 && cost <= largest_sum && shape.heaviest <= heaviest;
            if fits && !is_measured {
                batches.push((predicted, shape, batch));
            }
        }
        batches.sort_by(|(one, ..), (other, ..)| one.expected.total_cmp(&other.expected));
        self.session.replace_if_it_keeps_memory()?;
        let mut checks = Vec::with_capacity(batches.len());
        for (predicted, shape, batch) in batches {
            match self.memory_of(&batch)? {
                Run::Measured((_, bytes)) => checks.push(Check {
                    items: shape.items,
                    heaviest: shape.heaviest,
                    sum: shape.sum,
                    expected_bytes: predicted.expected,
                    bound_bytes: predicted.bound,
                    measured_bytes: bytes as f64,
                }),
                Run::OutOfMemory(reason) | Run::Failed(reason) => {
                    return Err(self.failed(shape.items, shape.heaviest, reason));
                }
            }
        }
        Ok(checks)
    }

    /// Measures the time of a batch: the median of several runs if they are short.
    fn time(&mut self, cell: Cell) -> Result<Run<Duration>, MeasureError> {
        let batch = self.items.batch(cell.items, cell.weight);
        let mut times = Vec::new();
        let mut total = Duration::ZERO;
        while times.is_empty() || (total < REPEAT_TIME && times.len() < MAX_REPEATS) {
            let prepared = self.prepare(&batch)?;
            let before = self.session.read_measurement()?;
            if let Err(failure) = self.predict(&batch, &prepared) {
                return Ok(failure.into());
            }
            let after = self.session.read_measurement()?;
            self.cpu += after.cpu_time.saturating_sub(before.cpu_time);
            self.wall += after.batch_time;
            total += after.batch_time;
            times.push(after.batch_time);
        }
        times.sort_unstable();
        Ok(Run::Measured(times[times.len() / 2]))
    }

    fn prepare(&self, batch: &[(&ItemInput, u64)]) -> Result<Vec<PreparedItem>, MeasureError> {
        if !self.task.prepares {
            return Ok(Vec::new());
        }
        let prepare = |(input, weight): &(&ItemInput, u64)| {
            let prepared = self.session.model().prepare(self.index, input);
            prepared.map_err(|error| self.failed(1, *weight, error.to_string()))
        };
        batch.iter().map(prepare).collect()
    }

    /// Runs a batch.
    fn predict(&self, batch: &[(&ItemInput, u64)], prepared: &[PreparedItem]) -> Result<(), Failure> {
        let items: Vec<BatchItem<'_>> = batch
            .iter()
            .enumerate()
            .map(|(nth, (input, _))| BatchItem {
                input,
                prepared: prepared.get(nth),
            })
            .collect();
        let mut outcomes = OutcomeCheck::new(items.len());
        let result = self
            .session
            .model()
            .predict_batch(0, self.index, &items, &mut outcomes);
        let error = match result {
            Ok(()) => outcomes.finish().err().map(BatchError::Failed),
            Err(error) => Some(error),
        };
        match error {
            None => Ok(()),
            Some(BatchError::OutOfMemory(how) | BatchError::Failed(ItemError::OutOfMemory(how))) => {
                Err(Failure::OutOfMemory(how))
            }
            // A process that cannot allocate memory aborts, or the kernel kills it.
            Some(BatchError::WorkerLost(how)) => Err(Failure::OutOfMemory(format!("the process {how}"))),
            Some(error) => Err(Failure::Other(error.to_string())),
        }
    }

    /// Records that memory ran out, and replaces the process, which may have been lost.
    fn ran_out(&mut self, plan: &mut Plan, cell: Cell, how: &str) -> Result<(), MeasureError> {
        plan.ran_out_of_memory(how);
        if plan.points().is_empty() {
            return Err(MeasureError::NothingFits {
                task: self.task.name.clone(),
                weight: cell.weight,
                reason: how.to_owned(),
            });
        }
        Ok(self.session.replace()?)
    }

    /// The error if no batch was measured: the failure of the first one.
    fn nothing_measured(&self, plan: &Plan) -> MeasureError {
        let skipped = plan.skipped();
        let failed = skipped.iter().find_map(|skipped| match &skipped.reason {
            SkipReason::Failed(reason) => Some((skipped.cell, reason.clone())),
            _ => None,
        });
        let smallest = skipped.first().map(|skipped| skipped.cell);
        let (cell, reason) = match (failed, smallest) {
            (Some(failed), _) => failed,
            (None, Some(cell)) => (cell, "it exceeds the budget".to_owned()),
            (None, None) => (Cell { items: 1, weight: 1 }, "there are no items".to_owned()),
        };
        self.failed(cell.items, cell.weight, reason)
    }

    fn failed(&self, items: u64, weight: u64, reason: String) -> MeasureError {
        MeasureError::Batch {
            task: self.task.name.clone(),
            items,
            weight,
            reason,
        }
    }
}
