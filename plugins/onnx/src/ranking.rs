//! Converts a row of scores to labels, for classification tasks. This module does not depend on tensors or on the runtime.

use std::fs;

use plugin_sdk::{ItemError, LoadContext, LoadError};
use schemars::JsonSchema;
use serde::Serialize;

use crate::settings::{Activation, Labels};

/// Default for the maximum number of labels to return.
const TOP_K: usize = 5;

/// The labels of one item, best first.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Classification {
    /// The label that the model chooses, or the one with the highest score.
    label: String,
    /// Its score.
    score: f32,
    /// The best labels with their scores, best first, without those below the threshold, if there is one.
    scores: Vec<Score>,
}

/// One label with its score.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
struct Score {
    label: String,
    score: f32,
}

/// Assigns labels to the elements of a row of scores.
#[derive(Debug)]
pub(crate) struct Ranking {
    labels: Vec<String>,
    selection: Selection,
}

/// Which labels to return, and with which scores.
#[derive(Debug)]
pub(crate) struct Selection {
    /// Maximum number of labels; [`TOP_K`] by default.
    pub(crate) top_k: Option<usize>,
    pub(crate) activation: Activation,
    /// Minimum score of the labels to return.
    pub(crate) score_threshold: Option<f32>,
}

impl Ranking {
    /// `key` is the key of the task in the settings.
    pub(crate) fn new(
        labels: Labels,
        selection: Selection,
        context: &LoadContext,
        key: &str,
    ) -> Result<Self, LoadError> {
        let labels = read_labels(labels, context, &format!("{key}.labels"))?;
        if let Some(top_k) = selection.top_k.filter(|top_k| *top_k > labels.len()) {
            let message = format!(
                "{top_k}, expected at most {}, which is how many labels there are",
                labels.len()
            );
            return Err(LoadError::setting(format_args!("{key}.top_k"), message));
        }
        Ok(Self { labels, selection })
    }

    /// Number of labels.
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Maximum number of labels to return.
    pub(crate) fn top_k(&self) -> usize {
        self.selection.top_k.unwrap_or(TOP_K).min(self.labels.len())
    }

    /// Ranks a row that has one score per label.
    pub(crate) fn rank(&self, scores: &[f32]) -> Result<Classification, ItemError> {
        self.selection.rank(&self.labels, scores.to_vec(), None)
    }
}

impl Selection {
    /// Ranks a row that has one score per label. `decided` is the label that the model chose, if it chooses one. It need not be
    /// the label with the highest score.
    pub(crate) fn rank(
        &self,
        labels: &[String],
        mut scores: Vec<f32>,
        decided: Option<String>,
    ) -> Result<Classification, ItemError> {
        self.activation.apply(&mut scores);
        if let Some(index) = scores.iter().position(|score| !score.is_finite()) {
            let (label, score) = (&labels[index], scores[index]);
            return Err(ItemError::fault(format_args!(
                "the model scored label `{label}` with {score}"
            )));
        }
        let mut order: Vec<_> = (0..scores.len()).collect();
        // The sort is stable: among equal scores, the first label wins.
        order.sort_by(|one, other| scores[*other].total_cmp(&scores[*one]));
        let score = |index: usize| Score {
            label: labels[index].clone(),
            score: scores[index],
        };
        let first = match decided {
            None => order[0],
            Some(decided) => labels.iter().position(|label| *label == decided).ok_or_else(|| {
                ItemError::fault(format_args!(
                    "the model chose `{decided}`, which is not one of its labels"
                ))
            })?,
        };
        let Score {
            label,
            score: highest,
        } = score(first);
        let is_above = |index: &usize| {
            self.score_threshold
                .is_none_or(|threshold| scores[*index] >= threshold)
        };
        let best = order
            .into_iter()
            .take(self.top_k.unwrap_or(TOP_K))
            .filter(is_above);
        Ok(Classification {
            label,
            score: highest,
            scores: best.map(score).collect(),
        })
    }
}

/// Reads the class names. `key` is the key of their setting.
pub(crate) fn read_labels(
    labels: Labels,
    context: &LoadContext,
    key: &str,
) -> Result<Vec<String>, LoadError> {
    let labels = match labels {
        Labels::List(labels) => labels,
        Labels::File(path) => {
            let path = context.path(path);
            let text = fs::read_to_string(&path).map_err(|error| {
                LoadError::setting(key, format_args!("`{}` cannot be read: {error}", path.display()))
            })?;
            text.trim_end()
                .lines()
                .map(|line| line.trim().to_owned())
                .collect()
        }
    };
    if labels.is_empty() {
        let message = "there are none, expected one for each element of the output";
        return Err(LoadError::setting(key, message));
    }
    Ok(labels)
}

impl Activation {
    /// Converts the model's output for one item to the scores to return.
    pub(crate) fn apply(self, scores: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Sigmoid => scores
                .iter_mut()
                .for_each(|score| *score = 1.0 / (1.0 + (-*score).exp())),
            Self::Softmax => {
                // The largest score is subtracted first so that `exp` cannot overflow.
                let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                scores
                    .iter_mut()
                    .for_each(|score| *score = (*score - largest).exp());
                let sum: f32 = scores.iter().sum();
                scores.iter_mut().for_each(|score| *score /= sum);
            }
        }
    }
}
