//! The tasks: vectors of queries and passages, similarity of passages to a query, ranking of passages, scores of labels, and the
//! tokens of texts.

mod classify;
mod embed;
mod questions;
mod tokens;

use plugin_sdk::prelude::*;
use transformer::{Tokens, Truncation};

pub(crate) use classify::Classify;
pub(crate) use embed::{Embed, EmbedTokens, EmbedWords, TokenSource};
pub(crate) use questions::{Rerank, Similarity};
pub(crate) use tokens::{Decode, Tokenize};

use crate::SentenceEmbeddings;
use crate::model_spec::{Expansion, Prompts};

/// Default maximum number of tokens of a batch. Larger batches do not increase throughput, because nothing is padded.
const BATCH_TOKENS: u64 = 2048;

/// Default maximum number of texts of a batch. The limit of tokens matters more.
const BATCH_TEXTS: usize = 64;

/// Role of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Query,
    Passage,
    /// Neither of them.
    Text,
}

impl Role {
    /// "a query" or "a passage", and an example.
    fn phrases(self) -> (&'static str, &'static str) {
        match self {
            Self::Query => ("a query", "How tall is Mont Blanc?"),
            Self::Passage => ("a passage", "Mont Blanc rises 4806 m above sea level."),
            Self::Text => ("a text", "Mont Blanc rises 4806 m above sea level."),
        }
    }
}

/// The side of a text that truncation removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    Left,
    Right,
}

/// Returns how a text is truncated, as a client chose.
fn truncation(truncate: Option<bool>, direction: Option<Direction>) -> Truncation {
    Truncation {
        truncate,
        from_left: direction.map(|direction| direction == Direction::Left),
        max_length: None,
    }
}

/// Description of a task that is limited by the number of tokens.
fn info(description: String) -> TaskInfo {
    TaskInfo::new(description)
        .max_total_weight(BATCH_TOKENS)
        .max_batch_size(BATCH_TEXTS)
        .samples()
}

/// What clients can choose for a text.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TextParameters {
    /// Name of the prompt that is prepended to the text, as in the model directory. The default is that of the task.
    prompt_name: Option<String>,
    /// Whether texts that are too long are truncated. The default is the setting `truncate`.
    truncate: Option<bool>,
    /// The side of a text that truncation removes. The default is what the directory says.
    truncation_direction: Option<Direction>,
    /// The IDs of the tokens, including special tokens. The text must be empty then.
    token_ids: Option<Vec<u32>>,
}

/// How the texts of a task are tokenized.
pub(crate) struct TextReader {
    role: Role,
    prompts: Prompts,
    /// Whether pooling skips the tokens of prompts.
    skips_prompt: bool,
}

impl TextReader {
    pub(crate) fn new(role: Role, prompts: &Prompts, skips_prompt: bool) -> Self {
        Self {
            role,
            prompts: prompts.clone(),
            skips_prompt,
        }
    }

    fn default_prompt(&self) -> &str {
        match self.role {
            Role::Query => &self.prompts.query,
            Role::Passage => &self.prompts.passage,
            Role::Text => &self.prompts.text,
        }
    }

    /// Returns the prompt of this name, or the one of the role.
    pub(crate) fn prompt(&self, name: Option<&str>) -> Result<&str, ItemError> {
        match name {
            None => Ok(self.default_prompt()),
            Some(name) => self.named(name),
        }
    }

    /// Tokenizes a text with a prompt in front of it.
    pub(crate) fn read(
        &self,
        model: &SentenceEmbeddings,
        text: &str,
        parameters: TextParameters,
    ) -> Result<Tokens, ItemError> {
        let prompt = self.prompt(parameters.prompt_name.as_deref())?;
        let max_length = match self.role {
            Role::Query => self.prompts.query_length,
            Role::Passage => self.prompts.passage_length,
            Role::Text => None,
        };
        let truncation = Truncation {
            max_length,
            ..truncation(parameters.truncate, parameters.truncation_direction)
        };
        let mut tokens = match parameters.token_ids {
            None => model.tokenizer.truncated(prompt, text, truncation)?,
            Some(_) if !text.is_empty() => {
                return Err(ItemError::invalid(
                    "got both a text and `token_ids`, expected an empty text with `token_ids`",
                ));
            }
            Some(ids) if prompt.is_empty() => model.tokenizer.of_ids(ids, truncation)?,
            // The tokens of a prompt depend on what follows it.
            Some(ids) => {
                let text = model.tokenizer.decode(&ids, true)?;
                model.tokenizer.truncated(prompt, &text, truncation)?
            }
        };
        if self.skips_prompt && !prompt.is_empty() {
            tokens.skipped = model.tokenizer.prompt_length(prompt)?;
        }
        if let Some(expansion) = self.prompts.expansion.filter(|_| self.role == Role::Query) {
            expand(&mut tokens, expansion);
        }
        Ok(tokens)
    }

    fn named(&self, name: &str) -> Result<&str, ItemError> {
        let prompt = self.prompts.named.get(name).map(String::as_str);
        prompt.ok_or_else(|| {
            let known: Vec<_> = self
                .prompts
                .named
                .keys()
                .map(|name| format!("`{name}`"))
                .collect();
            let expected = match known.is_empty() {
                true => "none, because the model directory has no prompts".to_owned(),
                false => known.join(" or "),
            };
            ItemError::invalid(format_args!(
                "unknown prompt `{name}` in `prompt_name`: expected {expected}"
            ))
        })
    }

    /// Returns a text of about `weight` tokens.
    pub(crate) fn sample(&self, model: &SentenceEmbeddings, weight: u64) -> Option<String> {
        model.tokenizer.sample(self.default_prompt(), weight)
    }
}

/// Appends tokens to a query.
fn expand(tokens: &mut Tokens, expansion: Expansion) {
    let added = expansion.length.saturating_sub(tokens.len());
    tokens.ids.extend(std::iter::repeat_n(expansion.token, added));
    tokens.types.extend(std::iter::repeat_n(0, added));
    if !expansion.attend {
        tokens.unattended = added;
    }
}

/// Rejects a score that JSON cannot express.
fn finite(score: f32) -> Result<f32, ItemError> {
    match score.is_finite() {
        true => Ok(score),
        false => Err(ItemError::fault(format_args!("a score is {score}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_that_is_not_finite_is_an_error() {
        assert_eq!(finite(0.5).ok(), Some(0.5));
        for score in [f32::NAN, f32::INFINITY] {
            assert!(finite(score).is_err(), "{score}");
        }
    }
}
