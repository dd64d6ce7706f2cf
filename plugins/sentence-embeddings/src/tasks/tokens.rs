//! The tokens of texts, and texts of tokens.

use plugin_sdk::prelude::*;
use transformer::{TextToken, Tokenizer};

use super::{BATCH_TEXTS, Role, TextReader};
use crate::SentenceEmbeddings;
use crate::model_spec::Prompts;

/// A token of a text.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Token {
    id: u32,
    /// The part of the text, or the name of a special token.
    text: String,
    /// Whether it was added to the text.
    special: bool,
    /// Offset of its first byte in the text with its prompt.
    start: Option<usize>,
    /// Offset after its last byte.
    stop: Option<usize>,
}

impl From<TextToken> for Token {
    fn from(token: TextToken) -> Self {
        Self {
            id: token.id,
            text: token.text,
            special: token.range.is_none(),
            start: token.range.map(|(start, _)| start),
            stop: token.range.map(|(_, stop)| stop),
        }
    }
}

/// Parameters of the task `tokenize`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct TokenizerParameters {
    /// Whether the special tokens of the model are added.
    add_special_tokens: bool,
    /// Name of the prompt that is prepended to the text, as in the model directory.
    prompt_name: Option<String>,
}

impl Default for TokenizerParameters {
    fn default() -> Self {
        Self {
            add_special_tokens: true,
            prompt_name: None,
        }
    }
}

/// Task that splits a text into tokens. It is never truncated.
pub(crate) struct Tokenize(TextReader);

impl Tokenize {
    pub(crate) fn new(prompts: &Prompts) -> Self {
        Self(TextReader::new(Role::Text, prompts, false))
    }
}

impl PreparedTask<SentenceEmbeddings> for Tokenize {
    type Input = Text;
    type Output = Json<Vec<Token>>;
    type Prepared = Vec<Token>;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Splits a text into tokens, without truncation.")
            .tokenizer()
            .parameters::<TokenizerParameters>()
            .max_batch_size(BATCH_TEXTS)
            .example(json!("How tall is Mont Blanc?"))
    }

    fn prepare(
        &self,
        model: &SentenceEmbeddings,
        item: Item<&str>,
    ) -> Result<Prepared<Vec<Token>>, ItemError> {
        let parameters: TokenizerParameters = item.parameters()?;
        let prompt = self.0.prompt(parameters.prompt_name.as_deref())?;
        let tokens = model
            .tokenizer
            .text_tokens(prompt, item.value, parameters.add_special_tokens)?;
        Ok(Prepared::new(tokens.into_iter().map(Token::from).collect()))
    }

    fn predict(&self, _model: &SentenceEmbeddings, batch: Batch<&Vec<Token>>) -> BatchResult<Vec<Token>> {
        batch.map(|tokens| tokens.to_vec())
    }
}

/// Parameters of the task `decode`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct DetokenizerParameters {
    /// Whether special tokens are left out.
    skip_special_tokens: bool,
}

impl Default for DetokenizerParameters {
    fn default() -> Self {
        Self {
            skip_special_tokens: true,
        }
    }
}

/// Task that converts the IDs of tokens to a text.
pub(crate) struct Decode {
    example: Vec<u32>,
}

impl Decode {
    pub(crate) fn new(tokenizer: &Tokenizer) -> Self {
        let example = tokenizer.text("How tall is Mont Blanc?");
        Self {
            example: example.map(|tokens| tokens.ids).unwrap_or_default(),
        }
    }
}

impl PreparedTask<SentenceEmbeddings> for Decode {
    type Input = Json<Vec<u32>>;
    type Output = Text;
    type Prepared = String;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Converts the IDs of tokens to a text.")
            .detokenizer()
            .parameters::<DetokenizerParameters>()
            .max_batch_size(BATCH_TEXTS)
            .example(json!(self.example))
    }

    fn prepare(
        &self,
        model: &SentenceEmbeddings,
        item: Item<Vec<u32>>,
    ) -> Result<Prepared<String>, ItemError> {
        let parameters: DetokenizerParameters = item.parameters()?;
        let text = model
            .tokenizer
            .decode(&item.value, parameters.skip_special_tokens)?;
        Ok(Prepared::new(text))
    }

    fn predict(&self, _model: &SentenceEmbeddings, batch: Batch<&String>) -> BatchResult<String> {
        batch.map(|text| text.to_string())
    }
}
