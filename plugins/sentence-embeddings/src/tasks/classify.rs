//! Scores of labels.

use plugin_sdk::Output;
use plugin_sdk::manifest::ValueManifest;
use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::Value as JsonValue;
use transformer::Tokens;

use super::{Direction, finite, info, truncation};
use crate::SentenceEmbeddings;
use crate::labels::Labels;

/// A text, or a pair of texts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a text, or an array of two texts")]
pub(crate) enum TextOrPair {
    /// A text.
    Text(String),
    /// A pair of texts, for models that were trained on pairs.
    Pair([String; 2]),
}

/// Parameters of a classification.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct ClassificationParameters {
    /// Whether scores are those of the network rather than probabilities.
    raw_scores: bool,
    /// Whether texts that are too long are truncated. The default is the setting `truncate`.
    truncate: Option<bool>,
    /// The side of a text that truncation removes. The default is what the directory says.
    truncation_direction: Option<Direction>,
}

/// A label and its score.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Scored {
    label: String,
    score: f32,
}

/// The declaration of the output, with the names of the labels in the order of the network.
fn output(labels: &[String]) -> ValueManifest {
    let mut output = <Json<Vec<Scored>> as Output>::manifest();
    let is_unique = |(index, label): (usize, &String)| !labels[..index].contains(label);
    if labels.iter().enumerate().all(is_unique) {
        output.schema["items"]["properties"]["label"]["enum"] = json!(labels);
    }
    output
}

/// Task that computes a score for each label.
pub(crate) struct Classify(pub(crate) Labels);

impl PreparedTask<SentenceEmbeddings> for Classify {
    type Input = Json<TextOrPair>;
    /// All labels, best first.
    type Output = Json<Vec<Scored>>;
    type Prepared = Tokens;

    fn describe(&self) -> TaskInfo {
        info("Computes the scores of all labels for a text or a pair of texts, best first.".to_owned())
            .classifier()
            .default_task()
            .parameters::<ClassificationParameters>()
            .output(output(&self.0.names))
            .example(json!("How tall is Mont Blanc?"))
    }

    fn prepare(
        &self,
        model: &SentenceEmbeddings,
        item: Item<TextOrPair>,
    ) -> Result<Prepared<Tokens>, ItemError> {
        let parameters: ClassificationParameters = item.parameters()?;
        let truncation = truncation(parameters.truncate, parameters.truncation_direction);
        let tokens = match &item.value {
            TextOrPair::Text(text) => model.tokenizer.truncated("", text, truncation)?,
            TextOrPair::Pair([first, second]) => model.tokenizer.truncated_pair(first, second, truncation)?,
        };
        let weight = tokens.len() as u64;
        Ok(Prepared::new(tokens).weight(weight))
    }

    fn predict(&self, model: &SentenceEmbeddings, batch: Batch<&Tokens>) -> BatchResult<Vec<Scored>> {
        let labels = &self.0;
        let scores = model.encoder.logits(&batch, labels.names.len(), batch.worker())?;
        let mut scores = scores.into_iter();
        batch.try_map_with(|_, parameters: ClassificationParameters| {
            let mut scores = scores.next().unwrap_or_default();
            if !parameters.raw_scores {
                labels.function.apply(&mut scores);
            }
            let scored = labels.names.iter().zip(scores).map(|(label, score)| {
                Ok(Scored {
                    label: label.clone(),
                    score: finite(score)?,
                })
            });
            let mut scored = scored.collect::<Result<Vec<_>, ItemError>>()?;
            // The sort is stable, so labels with equal scores keep their order.
            scored.sort_by(|one, other| other.score.total_cmp(&one.score));
            Ok(scored)
        })
    }

    fn sample(&self, model: &SentenceEmbeddings, weight: u64) -> Option<JsonValue> {
        model.tokenizer.sample("", weight).map(|text| json!(text))
    }
}
