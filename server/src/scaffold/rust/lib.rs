//! Classifies texts as positive, negative or neutral. Replace the lists of words with your model.

#![forbid(unsafe_code)]

use std::collections::HashSet;

use plugin_sdk::prelude::*;

/// `[models.settings]` in models.toml.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Words of positive texts.
    positive: HashSet<String>,
    /// Words of negative texts.
    negative: HashSet<String>,
}

/// The loaded model. A real one holds its weights here.
pub struct Sentiment {
    positive: HashSet<String>,
    negative: HashSet<String>,
}

impl Model for Sentiment {
    type Settings = Settings;

    /// Is called once. Load the weights of your model here.
    fn load(settings: Settings, _context: &LoadContext) -> Result<Self, LoadError> {
        let Settings { positive, negative } = settings;
        if positive.is_empty() {
            return Err(LoadError::setting("positive", "expected at least one word"));
        }
        Ok(Self { positive, negative })
    }

    fn tasks() -> Tasks<Self> {
        Tasks::new().add("classify", Classify)
    }
}

/// The task `classify`, from text to JSON.
struct Classify;

#[derive(Serialize, JsonSchema)]
struct Class {
    label: String,
    score: f64,
}

impl Task<Sentiment> for Classify {
    type Input = Text;
    type Output = Json<Class>;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Classifies texts as positive, negative or neutral.")
            .example(json!("what a lovely day"))
            .max_batch_size(64)
    }

    /// Receives a batch, with texts of different requests, and returns one outcome for each text.
    fn predict(&self, model: &Sentiment, batch: Batch<&str>) -> BatchResult<Class> {
        batch.try_map(|text| model.classify(text))
    }
}

impl Sentiment {
    /// Fails if there are no words. Only this item of the batch fails then.
    fn classify(&self, text: &str) -> Result<Class, ItemError> {
        let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
        if words.is_empty() {
            return Err(ItemError::invalid("the text is empty"));
        }
        let count = |list: &HashSet<String>| words.iter().filter(|word| list.contains(*word)).count() as f64;
        let score = (count(&self.positive) - count(&self.negative)) / words.len() as f64;
        let label = match score {
            score if score > 0.0 => "positive",
            score if score < 0.0 => "negative",
            _ => "neutral",
        };
        Ok(Class {
            label: label.to_owned(),
            score,
        })
    }
}

export_model!(Sentiment);
