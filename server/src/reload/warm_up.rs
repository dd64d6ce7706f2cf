//! The warm-up: runs the model's examples before it serves, so that no request waits for one-time initialization.

use plugin_abi::manifest::{TaskManifest, Trial};

use crate::batching::DeclaredLimits;
use crate::codec::decode_example;
use crate::config::ModelSettings;
use crate::error::ItemError;
use crate::isolation::WarmUpError;
use crate::model::{BatchError, BatchItem, FiniteEmbeddings, Health, Model, OutcomeCheck};
use crate::registry::TaskTrial;
use crate::values::ItemInput;

/// The result of the warm-up of a model that can serve.
#[derive(Clone, Debug, Default)]
pub(super) struct WarmUpOutcome {
    /// Examples that failed.
    pub(super) failures: Vec<WarmUpError>,
    /// The outcome of each task.
    pub(super) trials: Vec<TaskTrial>,
}

/// The result for a model with `warm_up = false`.
pub(super) fn skipped_warm_up(tasks: &[TaskManifest]) -> WarmUpOutcome {
    let reason = "`warm_up` is false";
    let trial = |task| TaskTrial::of(task, TaskTrial::Untried { reason });
    WarmUpOutcome {
        failures: Vec::new(),
        trials: tasks.iter().map(trial).collect(),
    }
}

/// Runs an example of every task as a batch of one and, if the limits allow it, as a batch of two. If an example fails, the
/// next one is tried.
///
/// The returned failures do not keep the model from serving: either the model rejected the input, which may not suit the
/// operator's settings although these are valid, or the plugin has reported that it computes nothing without suitable input.
///
/// # Errors
/// The first failure, if no task of the model computed anything, or if every example of a task failed and at least one of
/// them failed for another reason than its input.
pub(super) fn warm_up(model: &dyn Model, settings: &ModelSettings) -> Result<WarmUpOutcome, WarmUpError> {
    let mut outcome = WarmUpOutcome::default();
    let mut plugin_reported_failure = false;
    for (index, task) in model.manifest().tasks.iter().enumerate() {
        let WarmUpOutcome { failures, trials } = &mut outcome;
        let mut trial = TaskTrial::Untried {
            reason: "the task has no example",
        };
        plugin_reported_failure |= matches!(task.trial, Some(Trial::Failed { .. }));
        let limits = settings.task(&task.name, &DeclaredLimits::from(&task.limits));
        let max_size = limits.batching.max_batch_size.get().min(2);
        let mut fault = None;
        for (number, example) in task.examples.iter().enumerate() {
            let run = decode_example(task, example)
                .map_err(ExampleFailure::from)
                .and_then(|input| {
                    (1..=max_size).try_for_each(|size| run_once(model, index, task, &input, size))
                });
            let Err(failed) = run else {
                (trial, fault) = (TaskTrial::Succeeded, None);
                break;
            };
            let failure = WarmUpError {
                task: task.name.clone(),
                example: number + 1,
                reason: failed.reason,
            };
            if model.health() != Health::Ready {
                return Err(failure);
            }
            if !failed.rejected && !matches!(task.trial, Some(Trial::Failed { .. })) {
                fault.get_or_insert(failure.clone());
            }
            if let TaskTrial::Untried { .. } = trial {
                let reason = format!("example {}: {}", failure.example, failure.reason);
                trial = TaskTrial::Failed { reason };
            }
            failures.push(failure);
        }
        if let Some(fault) = fault {
            return Err(fault);
        }
        trials.push(TaskTrial::of(task, trial));
    }
    let succeeded = outcome.trials.contains(&TaskTrial::Succeeded);
    match outcome.failures.first() {
        Some(first) if !succeeded && !plugin_reported_failure => Err(first.clone()),
        _ => Ok(outcome),
    }
}

/// Why an example failed.
struct ExampleFailure {
    reason: String,
    /// Whether the model rejected the input.
    rejected: bool,
}

impl From<ItemError> for ExampleFailure {
    fn from(error: ItemError) -> Self {
        Self {
            rejected: matches!(error, ItemError::Invalid(_) | ItemError::Unsupported(_)),
            reason: error.to_string(),
        }
    }
}

impl From<BatchError> for ExampleFailure {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Failed(error) => error.into(),
            error => Self {
                reason: error.to_string(),
                rejected: false,
            },
        }
    }
}

fn run_once(
    model: &dyn Model,
    index: usize,
    task: &TaskManifest,
    input: &ItemInput,
    size: usize,
) -> Result<(), ExampleFailure> {
    let prepared = if task.prepares {
        let prepare = |_| model.prepare(index, input);
        (0..size).map(prepare).collect::<Result<Vec<_>, _>>()?
    } else {
        Vec::new()
    };
    let items: Vec<BatchItem<'_>> = (0..size)
        .map(|item| BatchItem {
            input,
            prepared: prepared.get(item),
        })
        .collect();
    let mut outcomes = OutcomeCheck::new(size);
    match task.embedding {
        true => model.predict_batch(0, index, &items, &mut FiniteEmbeddings(&mut outcomes))?,
        false => model.predict_batch(0, index, &items, &mut outcomes)?,
    }
    Ok(outcomes.finish()?)
}
