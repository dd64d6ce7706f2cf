//! The warm-up: a model runs its own examples before it serves, so that no client waits for what happens only once.

use plugin_abi::manifest::TaskManifest;

use super::load::DecodeExample;
use crate::batching::DeclaredLimits;
use crate::config::ModelSettings;
use crate::error::ItemError;
use crate::isolation::WarmUpError;
use crate::model::{BatchItem, Model, OutputSink, SinkStatus};
use crate::protocol::{ItemInput, Tensor, Value};

/// Runs the first example of every task as a batch of one and, where batches are allowed, as a batch of two.
pub(super) fn warm_up(
    decode_example: DecodeExample,
    model: &dyn Model,
    settings: &ModelSettings,
) -> Result<(), WarmUpError> {
    for (index, task) in model.manifest().tasks.iter().enumerate() {
        let Some(example) = task.examples.first() else {
            continue;
        };
        let fail = |reason: String| WarmUpError {
            task: task.name.clone(),
            reason,
        };
        let limits = settings.task(&task.name, &DeclaredLimits::from(&task.limits));
        let input = decode_example(task, example).map_err(|error| fail(format!("its example: {error}")))?;
        for size in 1..=limits.batching.max_batch_size.get().min(2) {
            run_once(model, index, task, &input, size).map_err(fail)?;
        }
    }
    Ok(())
}

fn run_once(
    model: &dyn Model,
    index: usize,
    task: &TaskManifest,
    input: &ItemInput,
    size: usize,
) -> Result<(), String> {
    let prepared = if task.prepares {
        let prepare = |_| model.prepare(index, input).map_err(|error| error.to_string());
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
    model
        .predict_batch(0, index, &items, &mut outcomes)
        .map_err(|error| error.to_string())?;
    match outcomes {
        WarmUpSink {
            failure: Some(failure),
            ..
        } => Err(failure),
        WarmUpSink { answered, items, .. } if answered != items => {
            Err(format!("{answered} outcomes for a batch of {items} items"))
        }
        _ => Ok(()),
    }
}

/// Counts outcomes and keeps the first failure.
struct WarmUpSink {
    items: usize,
    answered: usize,
    failure: Option<String>,
}

impl OutputSink for WarmUpSink {
    fn emit(&mut self, _index: usize, _value: Value, more: bool) -> SinkStatus {
        self.answered += usize::from(!more);
        SinkStatus::Taken
    }

    fn emit_batch(&mut self, _tensors: Vec<Tensor>) -> SinkStatus {
        self.answered += self.items;
        SinkStatus::Taken
    }

    fn fail(&mut self, _index: usize, error: ItemError) -> SinkStatus {
        self.failure.get_or_insert(error.to_string());
        self.answered += 1;
        SinkStatus::Taken
    }
}
