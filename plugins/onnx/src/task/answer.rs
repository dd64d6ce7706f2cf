//! Kinds of answers. A task returns either the tensors that the model computes or an [`Answer`] derived from them, such as
//! labels. To add a kind, implement [`Answer`] and select it in [`choose`], based on the settings.

use plugin_sdk::manifest::ValueManifest;
use plugin_sdk::prelude::*;
use plugin_sdk::{AnyOutput, DType, Output, serde_json};

use super::{Origin, Sample, classifier, declared};
use crate::plan::{BatchMode, Keys, Plan};
use crate::ranking::{Classification, Ranking, Selection};
use crate::runtime::Computed;
use crate::settings::TaskSettings;

/// Converts the outputs of the model for one item into an answer.
pub(crate) trait Answer: Send + Sync {
    /// Kind and schema of the answers.
    fn manifest(&self) -> ValueManifest;

    /// A sentence for the task's documentation: "Answers …".
    fn describe(&self) -> String;

    /// Builds the answer for the item from `origin`. `outputs` are those of the task, in order and without a batch dimension. If
    /// the task is unbatched, they are passed exactly as the model computed them.
    ///
    /// # Errors
    /// The outputs do not match the settings.
    fn answer(&self, outputs: Vec<Computed>, origin: &Origin) -> Result<AnyOutput, ItemError>;

    /// Adds details of the answer to the description of the task.
    fn complete(&self, info: TaskInfo) -> TaskInfo {
        info
    }
}

/// A task whose plan is complete except for its answer.
#[derive(Clone, Copy)]
pub(crate) struct PlannedTask<'a> {
    pub(crate) plan: &'a Plan,
    /// Shapes of the outputs for one item, if they are known.
    pub(crate) shapes: Option<&'a [Vec<usize>]>,
    pub(crate) keys: &'a Keys<'a>,
    pub(crate) context: &'a LoadContext,
}

/// Returns the configured answer; `None` means that the task returns tensors.
pub(crate) fn choose(
    settings: &mut TaskSettings,
    task: PlannedTask<'_>,
) -> Result<Option<Box<dyn Answer>>, LoadError> {
    let declared = declared::choose(settings, task)?;
    if let Some(written) = settings.classification.take() {
        if declared.is_some() {
            let message = "a task has one kind of answer, but has `classification` as well";
            return Err(LoadError::setting(task.keys.of("classification", true), message));
        }
        let classifier = classifier::choose(&written, settings, task)?;
        return Ok(Some(Box::new(classifier)));
    }
    let ranking = ranking(settings, declared.is_some(), task)?;
    Ok(declared.or(ranking.map(|ranking| Box::new(ranking) as Box<dyn Answer>)))
}

fn ranking(
    settings: &mut TaskSettings,
    has_answer: bool,
    task: PlannedTask<'_>,
) -> Result<Option<Ranking>, LoadError> {
    let PlannedTask { keys, context, .. } = task;
    let top_k = settings.top_k.map(usize::from);
    let Some(labels) = settings.labels.take() else {
        for (written, key) in [
            (top_k.is_some(), "top_k"),
            (settings.activation.is_some(), "activation"),
            (settings.score_threshold.is_some(), "score_threshold"),
        ] {
            let message = match has_answer {
                true => "does not apply to the kind of answer that the task declares",
                false => "is for tasks with `labels`, which this one does not have",
            };
            if written {
                return Err(LoadError::setting(keys.of(key, true), message));
            }
        }
        return Ok(None);
    };
    if has_answer {
        let message = "are for classification and detection, but the task has another kind of answer";
        return Err(LoadError::setting(keys.of("labels", true), message));
    }
    let [output] = task.plan.outputs.as_slice() else {
        let names: Vec<_> = task.plan.outputs.iter().map(|spec| &*spec.name).collect();
        let message = format!(
            "labels need one output, but the task has {}: choose with `outputs`",
            names.join(", ")
        );
        return Err(LoadError::setting(keys.of("outputs", true), message));
    };
    if !matches!(output.dtype, DType::Fp32 | DType::Fp64) || output.sequence {
        let message = format!(
            "output `{}` is {}, expected a tensor of scores in FP32",
            output.name,
            if output.sequence {
                "a sequence"
            } else {
                output.dtype.name()
            }
        );
        return Err(LoadError::setting(keys.of("labels", true), message));
    }
    let ranking = Ranking::new(
        labels,
        Selection {
            top_k,
            activation: settings.activation.unwrap_or_default(),
            score_threshold: settings.score_threshold,
        },
        context,
        &keys.of("", true),
    )?;
    let width = task.shapes.map(|shapes| shapes[0].iter().product::<usize>());
    match width {
        Some(width) if width != ranking.len() => Err(LoadError::setting(
            keys.of("labels", true),
            format_args!(
                "{} labels, expected {width}: output `{}` has as many elements",
                ranking.len(),
                output.name
            ),
        )),
        _ => Ok(Some(ranking)),
    }
}

impl Answer for Ranking {
    fn manifest(&self) -> ValueManifest {
        <Json<Classification> as Output>::manifest()
    }

    fn describe(&self) -> String {
        format!("Answers the best {} of {} labels.", self.top_k(), self.len())
    }

    fn answer(&self, outputs: Vec<Computed>, _origin: &Origin) -> Result<AnyOutput, ItemError> {
        let scores = outputs.into_iter().next();
        let scores = scores.and_then(|scores| Some((scores.shape, scores.values.into_floats()?)));
        let Some((shape, scores)) = scores else {
            return Err(ItemError::fault("the model computed no scores"));
        };
        if scores.len() != self.len() {
            let labels = self.len();
            return Err(ItemError::fault(format_args!(
                "the model computed scores of the shape {shape:?}, expected one for each of {labels} labels"
            )));
        }
        json(&self.rank(&scores)?)
    }
}

/// Serializes an answer as JSON.
pub(crate) fn json<T: Serialize>(answer: &T) -> Result<AnyOutput, ItemError> {
    serde_json::to_string(answer)
        .map(AnyOutput::Json)
        .map_err(|error| ItemError::fault(format_args!("the answer cannot be written as JSON: {error}")))
}

/// Builds the answers for a batch. Each output has a row for each item.
pub(super) fn rows(plan: &Plan, computed: Vec<Computed>, samples: &[&Sample]) -> Outputs<AnyOutput> {
    let padding = plan.padding.as_ref().filter(|padding| padding.cuts());
    if plan.answer.is_none() && padding.is_none() {
        return Outputs::rows(tensors(plan, computed));
    }
    let row = |(row, sample): (usize, &&Sample)| {
        let rows = computed.iter().map(|computed| computed.row(row, samples.len()));
        let row = match padding {
            None => rows.collect(),
            Some(padding) => {
                let lengths = padding.lengths(sample).map_err(ItemError::fault)?;
                rows.map(|row| padding.cut(row, &lengths)).collect()
            }
        };
        match &plan.answer {
            Some(answer) => answer.answer(row, &sample.1),
            None => Ok(AnyOutput::Tensors(tensors(plan, row))),
        }
    };
    samples.iter().enumerate().map(row).collect()
}

/// Builds the answer for an item that was computed alone.
pub(super) fn single(
    plan: &Plan,
    mut computed: Vec<Computed>,
    origin: &Origin,
) -> Result<AnyOutput, ItemError> {
    if plan.mode != BatchMode::Unbatched {
        // The batch dimension is 1: `compute_rows` has checked it.
        computed.iter_mut().for_each(|computed| {
            computed.shape.remove(0);
        });
    }
    match &plan.answer {
        Some(answer) => answer.answer(computed, origin),
        None => Ok(AnyOutput::Tensors(tensors(plan, computed))),
    }
}

fn tensors(plan: &Plan, computed: Vec<Computed>) -> Vec<TensorOutput> {
    let tensor = |computed: Computed| {
        let spec = &plan.outputs[computed.output];
        let name = match computed.position {
            Some(position) => format!("{}.{position}", spec.name),
            None => spec.name.clone(),
        };
        computed.values.answer(name, spec.dtype, &computed.shape)
    };
    computed.into_iter().map(tensor).collect()
}

impl Computed {
    /// Row `index` of `count` rows.
    pub(crate) fn row(&self, index: usize, count: usize) -> Self {
        let length = self.values.len() / count.max(1);
        Self {
            output: self.output,
            position: self.position,
            shape: self.shape[1..].to_vec(),
            values: self.values.slice(index * length..(index + 1) * length),
        }
    }
}
