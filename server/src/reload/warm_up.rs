//! The warm-up: a model runs its own examples before it serves, so that no client waits for what happens only once.

use plugin_abi::manifest::{TaskManifest, Trial};

use crate::batching::DeclaredLimits;
use crate::codec::decode_example;
use crate::config::ModelSettings;
use crate::error::ItemError;
use crate::isolation::WarmUpError;
use crate::model::{BatchError, BatchItem, Health, Model, OutputSink, SinkStatus};
use crate::registry::TaskTrial;
use crate::values::{ItemInput, Tensor, Value};

/// What a warm-up has shown of a model that may serve.
#[derive(Clone, Debug, Default)]
pub(super) struct WarmedUp {
    /// The failures of examples.
    pub(super) failures: Vec<WarmUpError>,
    /// The outcome for each task.
    pub(super) trials: Vec<TaskTrial>,
}

/// Of a model that is not warmed up.
pub(super) fn without_warm_up(tasks: &[TaskManifest]) -> WarmedUp {
    let reason = "`warm_up` is false";
    let trial = |task| TaskTrial::of(task, TaskTrial::Untried { reason });
    WarmedUp {
        failures: Vec::new(),
        trials: tasks.iter().map(trial).collect(),
    }
}

/// Runs an example of every task as a batch of one and, if batches are allowed, as a batch of two. If an example fails, the
/// next one is tried. Returns the failures of examples that do not keep the model from serving: it rejects the input, which
/// may not suit the operator's settings although these are valid, or its plugin has reported that it computes nothing without
/// input of the right kind.
///
/// # Errors
/// The first failure, if no task of the model has computed anything; or that of a task that failed with every example, other
/// than by rejecting it.
pub(super) fn warm_up(model: &dyn Model, settings: &ModelSettings) -> Result<WarmedUp, WarmUpError> {
    let mut warmed_up = WarmedUp::default();
    let mut excused = false;
    for (index, task) in model.manifest().tasks.iter().enumerate() {
        let WarmedUp { failures, trials } = &mut warmed_up;
        let mut outcome = TaskTrial::Untried {
            reason: "the task has no example",
        };
        excused |= matches!(task.trial, Some(Trial::Failed { .. }));
        let limits = settings.task(&task.name, &DeclaredLimits::from(&task.limits));
        let most = limits.batching.max_batch_size.get().min(2);
        let mut fault = None;
        for (number, example) in task.examples.iter().enumerate() {
            let run = decode_example(task, example)
                .map_err(Failed::from)
                .and_then(|input| (1..=most).try_for_each(|size| run_once(model, index, task, &input, size)));
            let Err(failed) = run else {
                (outcome, fault) = (TaskTrial::Succeeded, None);
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
            if let TaskTrial::Untried { .. } = outcome {
                let reason = format!("example {}: {}", failure.example, failure.reason);
                outcome = TaskTrial::Failed { reason };
            }
            failures.push(failure);
        }
        if let Some(fault) = fault {
            return Err(fault);
        }
        trials.push(TaskTrial::of(task, outcome));
    }
    let succeeded = warmed_up.trials.contains(&TaskTrial::Succeeded);
    match warmed_up.failures.first() {
        Some(first) if !succeeded && !excused => Err(first.clone()),
        _ => Ok(warmed_up),
    }
}

/// Why an example failed.
struct Failed {
    reason: String,
    /// The model rejected the input.
    rejected: bool,
}

impl From<ItemError> for Failed {
    fn from(error: ItemError) -> Self {
        Self {
            rejected: matches!(error, ItemError::Invalid(_) | ItemError::Unsupported(_)),
            reason: error.to_string(),
        }
    }
}

impl From<BatchError> for Failed {
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
) -> Result<(), Failed> {
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
    let mut outcomes = WarmUpSink {
        items: size,
        answered: 0,
        failure: None,
    };
    model.predict_batch(0, index, &items, &mut outcomes)?;
    match outcomes {
        WarmUpSink {
            failure: Some(failure),
            ..
        } => Err(failure.into()),
        WarmUpSink { answered, items, .. } if answered != items => Err(Failed {
            reason: format!("{answered} outcomes for a batch of {items} items"),
            rejected: false,
        }),
        _ => Ok(()),
    }
}

/// Counts outcomes and keeps the first failure.
struct WarmUpSink {
    items: usize,
    answered: usize,
    failure: Option<ItemError>,
}

impl OutputSink for WarmUpSink {
    fn emit(&mut self, _index: usize, _value: Value, more: bool) -> SinkStatus {
        self.answered += usize::from(!more);
        SinkStatus::Accepted
    }

    fn emit_batch(&mut self, _tensors: Vec<Tensor>) -> SinkStatus {
        self.answered += self.items;
        SinkStatus::Accepted
    }

    fn fail(&mut self, _index: usize, error: ItemError) -> SinkStatus {
        self.failure.get_or_insert(error);
        self.answered += 1;
        SinkStatus::Accepted
    }
}
