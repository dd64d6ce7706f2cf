//! Classification by models that compute a label and the scores of all labels, in the form written by exporters for scikit-learn,
//! XGBoost and LightGBM: two tensors, or a tensor and a sequence of maps (`ZipMap`).

use plugin_sdk::manifest::ValueManifest;
use plugin_sdk::prelude::*;
use plugin_sdk::{AnyOutput, DType, Output};

use super::Origin;
use super::answer::{Answer, PlannedTask, json};
use crate::network::{MapPart, TensorSpec};
use crate::plan::BatchMode;
use crate::ranking::{Classification, Selection, read_labels};
use crate::runtime::Computed;
use crate::settings::{ClassificationSettings, TaskSettings};
use crate::values::Values;

/// Builds a classification from the outputs of a task, which are given by index.
pub(super) struct Classifier {
    label: Option<usize>,
    scores: usize,
    names: Names,
    selection: Selection,
}

/// The labels that the scores belong to.
enum Names {
    /// In the order of the scores.
    Known(Vec<String>),
    /// The keys of the maps, given by the index of their output.
    Keys(usize),
}

/// Builds the classifier that `classification` configures. Takes the settings that it uses out of `settings`.
pub(super) fn choose(
    written: &ClassificationSettings,
    settings: &mut TaskSettings,
    task: PlannedTask<'_>,
) -> Result<Classifier, LoadError> {
    let PlannedTask {
        plan,
        shapes,
        keys,
        context,
    } = task;
    let blame = |key: &str, message: String| LoadError::setting(keys.of(key, true), message);
    if plan.mode == BatchMode::Unbatched {
        let message = "requires a model whose inputs and outputs have a batch dimension".to_owned();
        return Err(blame("classification", message));
    }
    let specs = &plan.outputs;
    let label = output(specs, written.label.as_deref(), is_label)
        .map_err(|message| blame("classification.label", message))?;
    let scores = output(specs, written.scores.as_deref(), is_scores)
        .map_err(|message| blame("classification.scores", message))?;
    let Some(scores) = scores else {
        let message = format!("the task has no output of scores, found {}", list(specs));
        return Err(blame("classification.scores", message));
    };
    let key_spec = |spec: &TensorSpec| spec.index == specs[scores].index && spec.map == Some(MapPart::Keys);
    let map_keys = specs
        .iter()
        .position(key_spec)
        .filter(|_| specs[scores].map.is_some());
    let width = shapes.map(|shapes| shapes[scores].iter().product::<usize>());
    let names = match (settings.labels.take(), map_keys) {
        (Some(_), Some(_)) => {
            let message = "are not for maps, whose keys are the labels".to_owned();
            return Err(blame("labels", message));
        }
        (None, Some(keys)) => Names::Keys(keys),
        (Some(labels), None) => Names::Known(read_labels(labels, context, &keys.of("labels", true))?),
        (None, None) => Names::Known(plan.network.class_names().map(<[_]>::to_vec).ok_or_else(|| {
            let name = &specs[scores].name;
            let message = format!("the file does not name the classes of output `{name}`: set `labels`");
            blame("classification", message)
        })?),
    };
    if let (Names::Known(names), Some(width)) = (&names, width)
        && names.len() != width
    {
        let (count, name) = (names.len(), &specs[scores].name);
        let message = format!("{count} labels, expected {width}: output `{name}` has that many elements");
        return Err(blame("labels", message));
    }
    Ok(Classifier {
        label,
        scores,
        names,
        selection: Selection {
            top_k: settings.top_k.take().map(usize::from),
            activation: settings.activation.take().unwrap_or_default(),
            score_threshold: settings.score_threshold.take(),
        },
    })
}

/// The output with this name or, without a name, the first output of the right kind.
fn output(
    specs: &[TensorSpec],
    name: Option<&str>,
    is_right: fn(&TensorSpec) -> bool,
) -> Result<Option<usize>, String> {
    let Some(name) = name else {
        return Ok(specs.iter().position(is_right));
    };
    let index = specs.iter().position(|spec| spec.name == name);
    let index =
        index.ok_or_else(|| format!("the task has no output `{name}`, expected one of {}", list(specs)))?;
    match is_right(&specs[index]) {
        true => Ok(Some(index)),
        false => Err(format!(
            "output `{name}` is {}, which has no such values",
            specs[index].dtype.name()
        )),
    }
}

fn list(specs: &[TensorSpec]) -> String {
    let names: Vec<_> = specs.iter().map(|spec| format!("`{}`", spec.name)).collect();
    names.join(", ")
}

fn is_label(spec: &TensorSpec) -> bool {
    let is_number = matches!(
        spec.dtype,
        DType::Int64 | DType::Int32 | DType::Bool | DType::Bytes
    );
    is_number && spec.map.is_none() && !spec.sequence
}

fn is_scores(spec: &TensorSpec) -> bool {
    let is_number = matches!(spec.dtype, DType::Fp32 | DType::Fp64);
    is_number && spec.map != Some(MapPart::Keys) && !spec.sequence
}

impl Answer for Classifier {
    fn manifest(&self) -> ValueManifest {
        <Json<Classification> as Output>::manifest()
    }

    fn describe(&self) -> String {
        "Answers the label, and the best labels with their scores.".to_owned()
    }

    fn answer(&self, outputs: Vec<Computed>, _origin: &Origin) -> Result<AnyOutput, ItemError> {
        let find = |index: usize| outputs.iter().find(|computed| computed.output == index);
        let values = |index: usize| find(index).map(|computed| computed.values.clone());
        let scores = values(self.scores).and_then(Values::into_floats);
        let names = match &self.names {
            Names::Known(names) => Some(names.clone()),
            Names::Keys(keys) => values(*keys).and_then(Values::into_texts),
        };
        let label = match self.label {
            Some(label) => match values(label).and_then(Values::into_texts).as_deref() {
                Some([label]) => Some(label.clone()),
                _ => return Err(ItemError::fault("the model did not compute one label")),
            },
            None => None,
        };
        match (names, scores) {
            (Some(names), Some(scores)) if names.len() == scores.len() && !names.is_empty() => {
                json(&self.selection.rank(&names, scores, label)?)
            }
            (names, scores) => {
                let counts = (
                    scores.map_or(0, |scores| scores.len()),
                    names.map_or(0, |names| names.len()),
                );
                Err(ItemError::fault(format_args!(
                    "the model computed {} scores, expected {}, one for each label",
                    counts.0, counts.1
                )))
            }
        }
    }
}
