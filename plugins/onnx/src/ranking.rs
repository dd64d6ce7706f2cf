//! From a row of scores to labels: what makes a task a classifier. It knows nothing of tensors or of the runtime.

use std::fs;

use plugin_sdk::{ItemError, LoadContext, LoadError};
use schemars::JsonSchema;
use serde::Serialize;

use crate::settings::{Activation, Labels};

/// How many labels are answered, if the settings do not say.
const TOP_K: usize = 5;

/// The labels of one item, best first.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Classification {
    /// The label with the highest score.
    label: String,
    /// Its score.
    score: f32,
    /// The best labels with their scores, best first.
    scores: Vec<Score>,
}

/// One label with its score.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
struct Score {
    label: String,
    score: f32,
}

/// Names the elements of a row of scores.
#[derive(Debug)]
pub(crate) struct Ranking {
    labels: Vec<String>,
    top_k: usize,
    activation: Activation,
}

impl Ranking {
    /// `key` is that of the task.
    pub(crate) fn new(
        labels: Labels,
        top_k: Option<usize>,
        activation: Option<Activation>,
        context: &LoadContext,
        key: &str,
    ) -> Result<Self, LoadError> {
        let blame = |message: String| LoadError::setting(format_args!("{key}.labels"), message);
        let labels = match labels {
            Labels::List(labels) => labels,
            Labels::File(path) => {
                let path = context.path(path);
                let text = fs::read_to_string(&path)
                    .map_err(|error| blame(format!("`{}` cannot be read: {error}", path.display())))?;
                text.trim_end()
                    .lines()
                    .map(|line| line.trim().to_owned())
                    .collect()
            }
        };
        if labels.is_empty() {
            return Err(blame(
                "there are none, expected one for each element of the output".to_owned(),
            ));
        }
        let top_k = top_k.unwrap_or(TOP_K.min(labels.len()));
        if top_k > labels.len() {
            let message = format!(
                "{top_k}, expected at most {}, which is how many labels there are",
                labels.len()
            );
            return Err(LoadError::setting(format_args!("{key}.top_k"), message));
        }
        Ok(Self {
            labels,
            top_k,
            activation: activation.unwrap_or_default(),
        })
    }

    /// How many labels there are.
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// How many are answered.
    pub(crate) fn top_k(&self) -> usize {
        self.top_k
    }

    /// Ranks one row, which has a score for each label.
    pub(crate) fn rank(&self, scores: &[f32]) -> Result<Classification, ItemError> {
        let scores = match self.activation {
            Activation::None => scores.to_vec(),
            Activation::Softmax => softmax(scores),
        };
        if let Some(index) = scores.iter().position(|score| !score.is_finite()) {
            let (label, score) = (&self.labels[index], scores[index]);
            return Err(ItemError::fault(format_args!(
                "the model scored label `{label}` with {score}"
            )));
        }
        let mut order: Vec<_> = (0..scores.len()).collect();
        // Stable: of equal scores the first label wins.
        order.sort_by(|one, other| scores[*other].total_cmp(&scores[*one]));
        let best: Vec<_> = order[..self.top_k]
            .iter()
            .map(|index| Score {
                label: self.labels[*index].clone(),
                score: scores[*index],
            })
            .collect();
        Ok(Classification {
            label: best[0].label.clone(),
            score: best[0].score,
            scores: best,
        })
    }
}

/// The largest score is subtracted first, so that no power overflows.
fn softmax(scores: &[f32]) -> Vec<f32> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<_> = scores.iter().map(|score| (score - largest).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}
