//! A minimal plugin with two tasks and one setting. Copy this directory to start your own.

#![forbid(unsafe_code)]

use plugin_sdk::prelude::*;

/// `[models.settings]` in the configuration.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Minimum number of letters of a word to be counted.
    #[serde(default)]
    shortest_word: usize,
}

/// The loaded model. A real plugin holds its weights here.
pub struct Template {
    shortest_word: usize,
}

impl Model for Template {
    type Settings = Settings;

    fn load(settings: Settings, context: &LoadContext) -> Result<Self, LoadError> {
        if settings.shortest_word > 100 {
            return Err(LoadError::setting("shortest_word", "expected at most 100"));
        }
        log::info!(
            "{} counts words of at least {} letters",
            context.model,
            settings.shortest_word
        );
        Ok(Self {
            shortest_word: settings.shortest_word,
        })
    }

    fn tasks() -> Tasks<Self> {
        Tasks::new().add("echo", Echo).add("stats", Stats)
    }
}

struct Echo;

impl Task<Template> for Echo {
    type Input = Text;
    type Output = Text;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Returns the text unchanged.").example(json!("to be or not to be"))
    }

    fn predict(&self, _model: &Template, batch: Batch<&str>) -> BatchResult<String> {
        batch.map(str::to_owned)
    }
}

struct Stats;

#[derive(Deserialize, JsonSchema)]
struct Document {
    text: String,
}

#[derive(Serialize, JsonSchema)]
struct Summary {
    words: usize,
    characters: usize,
    longest: String,
}

impl Task<Template> for Stats {
    type Input = Json<Document>;
    type Output = Json<Summary>;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Counts words and characters.")
            .example(json!({"text": "to be or not to be"}))
            .max_batch_size(64)
    }

    fn predict(&self, model: &Template, batch: Batch<Document>) -> BatchResult<Summary> {
        batch.try_map(|document| model.summarize(&document.text))
    }
}

impl Template {
    /// Fails if there are no words. Only this item of the batch fails then.
    fn summarize(&self, text: &str) -> Result<Summary, ItemError> {
        let words = || {
            text.split_whitespace()
                .filter(|word| word.chars().count() >= self.shortest_word)
        };
        let longest = words().max_by_key(|word| word.chars().count());
        let longest = longest
            .ok_or_else(|| ItemError::invalid("`text` has no words to count, expected at least one"))?;
        Ok(Summary {
            words: words().count(),
            characters: text.chars().count(),
            longest: longest.to_owned(),
        })
    }
}

export_model!(Template);
