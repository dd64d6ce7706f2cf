//! Predictable tasks about texts, for the protocols that look for a task by what it is declared to do. Each word is a token.

use plugin_sdk::prelude::*;

use crate::Misbehave;

/// Number of words that truncation keeps.
const MAX_WORDS: usize = 4;

/// The side of a text that truncation removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Left,
    Right,
}

/// Parameters of the task `embed`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct EmbeddingParameters {
    /// Prompt that is counted with the text.
    prompt_name: Option<String>,
    /// Whether more than four words are truncated or rejected. The default is to do neither.
    truncate: Option<bool>,
    /// The side that truncation removes.
    truncation_direction: Option<Direction>,
    /// Accepted and ignored: the vector is never normalized.
    normalize: Option<bool>,
    /// IDs in place of the text: the number of letters is their sum, and the number of words their count.
    token_ids: Option<Vec<u32>>,
}

/// Computes predictable embeddings: the number of letters and words of a text, and 0.5, or NaN if a word is `nan`.
pub(crate) struct Embed;

impl PreparedTask<Misbehave> for Embed {
    type Input = Text;
    type Output = Tensor;
    type Prepared = [f32; 3];

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Counts letters and words.")
            .embedding()
            .parameters::<EmbeddingParameters>()
            .output_tensor(TensorInfo::new("embedding", DType::Fp32, &[3]))
            .example(json!("to be"))
    }

    fn prepare(&self, model: &Misbehave, item: Item<&str>) -> Result<Prepared<[f32; 3]>, ItemError> {
        let parameters: EmbeddingParameters = item.parameters()?;
        if let Some(ids) = parameters.token_ids {
            let vector = [ids.iter().map(|id| *id as f32).sum(), ids.len() as f32, 0.5];
            return Ok(Prepared::new(vector).weight(ids.len() as u64));
        }
        let text = match &parameters.prompt_name {
            Some(prompt) => format!("{prompt} {}", item.value),
            None => item.value.to_owned(),
        };
        let text = match parameters.truncate {
            Some(truncate) => truncated(&text, truncate, parameters.truncation_direction)?,
            None => text,
        };
        let words = text.split_whitespace().count();
        let letters = text.chars().count();
        let is_nan = model.settings.nan_embeddings || text.split_whitespace().any(|word| word == "nan");
        let last = if is_nan { f32::NAN } else { 0.5 };
        Ok(Prepared::new([letters as f32, words as f32, last]).weight(words as u64))
    }

    fn predict(&self, _model: &Misbehave, batch: Batch<&[f32; 3]>) -> BatchResult<TensorOutput> {
        batch.map(|vector| TensorOutput::new("embedding", &[3], vector.to_vec()))
    }
}

fn truncated(text: &str, truncate: bool, direction: Option<Direction>) -> Result<String, ItemError> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match (words.len() > MAX_WORDS, truncate, direction) {
        (false, ..) => Ok(text.to_owned()),
        (true, false, _) => Err(ItemError::invalid(format_args!(
            "the text has {} words, expected at most {MAX_WORDS}",
            words.len()
        ))),
        (true, true, Some(Direction::Left)) => Ok(words[words.len() - MAX_WORDS..].join(" ")),
        (true, true, _) => Ok(words[..MAX_WORDS].join(" ")),
    }
}

/// An element of a sparse embedding.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Element {
    index: usize,
    value: f32,
}

/// Computes sparse embeddings: the number of letters of each word, and 0.5.
pub(crate) struct Sparse;

impl PreparedTask<Misbehave> for Sparse {
    type Input = Text;
    type Output = Json<Vec<Element>>;
    type Prepared = Vec<usize>;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Counts the letters of each word.")
            .sparse_embedding()
            .example(json!("to be"))
    }

    fn prepare(&self, _model: &Misbehave, item: Item<&str>) -> Result<Prepared<Vec<usize>>, ItemError> {
        Ok(Prepared::new(letters(item.value)))
    }

    fn predict(&self, _model: &Misbehave, batch: Batch<&Vec<usize>>) -> BatchResult<Vec<Element>> {
        batch.map(|letters| {
            letters
                .iter()
                .map(|index| Element {
                    index: *index,
                    value: 0.5,
                })
                .collect()
        })
    }
}

/// Computes vectors of tokens: the number of letters of each word, and 1.
pub(crate) struct TokenVectors;

impl PreparedTask<Misbehave> for TokenVectors {
    type Input = Text;
    type Output = Tensor;
    type Prepared = Vec<usize>;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Counts the letters of each word, as vectors.")
            .token_embeddings()
            .output_tensor(TensorInfo::new("embeddings", DType::Fp32, &[-1, 2]))
            .example(json!("to be"))
    }

    fn prepare(&self, _model: &Misbehave, item: Item<&str>) -> Result<Prepared<Vec<usize>>, ItemError> {
        Ok(Prepared::new(letters(item.value)))
    }

    fn predict(&self, _model: &Misbehave, batch: Batch<&Vec<usize>>) -> BatchResult<TensorOutput> {
        batch.map(|letters| {
            let vectors: Vec<f32> = letters
                .iter()
                .flat_map(|letters| [*letters as f32, 1.0])
                .collect();
            TensorOutput::new("embeddings", &[letters.len(), 2], vectors)
        })
    }
}

fn letters(text: &str) -> Vec<usize> {
    text.split_whitespace().map(|word| word.chars().count()).collect()
}

/// A text, or a pair of texts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum TextOrPair {
    Text(String),
    Pair([String; 2]),
}

/// A label and its score.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Scored {
    label: &'static str,
    score: f32,
}

/// Parameters of the task `classify`.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct ClassificationParameters {
    /// Whether scores are counts rather than shares.
    raw_scores: bool,
}

/// Scores the labels `letters` and `words` by their number, or by their share.
pub(crate) struct Classify;

impl PreparedTask<Misbehave> for Classify {
    type Input = Json<TextOrPair>;
    type Output = Json<Vec<Scored>>;
    type Prepared = [f32; 2];

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Scores letters and words.")
            .classifier()
            .parameters::<ClassificationParameters>()
            .example(json!("to be"))
    }

    fn prepare(&self, _model: &Misbehave, item: Item<TextOrPair>) -> Result<Prepared<[f32; 2]>, ItemError> {
        let text = match &item.value {
            TextOrPair::Text(text) => text.clone(),
            TextOrPair::Pair(pair) => pair.join(" "),
        };
        let parameters: ClassificationParameters = item.parameters()?;
        let (letters, words) = (
            text.chars().count() as f32,
            text.split_whitespace().count() as f32,
        );
        let scale = if parameters.raw_scores {
            1.0
        } else {
            letters + words
        };
        Ok(Prepared::new([words / scale, letters / scale]))
    }

    fn predict(&self, _model: &Misbehave, batch: Batch<&[f32; 2]>) -> BatchResult<Vec<Scored>> {
        batch.map(|[words, letters]| {
            let scored = |label, score| Scored { label, score };
            vec![scored("words", *words), scored("letters", *letters)]
        })
    }
}

/// A token of a text.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Token {
    id: usize,
    text: String,
    special: bool,
    start: Option<usize>,
    stop: Option<usize>,
}

/// Parameters of the task `tokenize`.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct TokenizerParameters {
    /// Whether there is a token in front of the text.
    add_special_tokens: bool,
}

/// Splits a text into words. The ID of each is its number of letters.
pub(crate) struct Tokenize;

impl PreparedTask<Misbehave> for Tokenize {
    type Input = Text;
    type Output = Json<Vec<Token>>;
    type Prepared = (String, bool);

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Splits a text into words.")
            .tokenizer()
            .parameters::<TokenizerParameters>()
            .example(json!("to be"))
    }

    fn prepare(&self, _model: &Misbehave, item: Item<&str>) -> Result<Prepared<(String, bool)>, ItemError> {
        let parameters: TokenizerParameters = item.parameters()?;
        Ok(Prepared::new((
            item.value.to_owned(),
            parameters.add_special_tokens,
        )))
    }

    fn predict(&self, _model: &Misbehave, batch: Batch<&(String, bool)>) -> BatchResult<Vec<Token>> {
        batch.map(|(text, adds_special)| {
            let special = Token {
                id: 0,
                text: "[CLS]".to_owned(),
                special: true,
                start: None,
                stop: None,
            };
            let words = text.split_whitespace().map(|word| {
                let start = word.as_ptr() as usize - text.as_ptr() as usize;
                Token {
                    id: word.chars().count(),
                    text: word.to_owned(),
                    special: false,
                    start: Some(start),
                    stop: Some(start + word.len()),
                }
            });
            adds_special.then_some(special).into_iter().chain(words).collect()
        })
    }
}

/// Parameters of the task `decode`.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct DetokenizerParameters {
    /// Whether the token with the ID 0 is omitted.
    skip_special_tokens: bool,
}

/// Writes a word of as many `x` as each ID says.
pub(crate) struct Decode;

impl PreparedTask<Misbehave> for Decode {
    type Input = Json<Vec<usize>>;
    type Output = Text;
    type Prepared = String;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Writes words of the letter x.")
            .detokenizer()
            .parameters::<DetokenizerParameters>()
            .example(json!([2, 2]))
    }

    fn prepare(&self, _model: &Misbehave, item: Item<Vec<usize>>) -> Result<Prepared<String>, ItemError> {
        let parameters: DetokenizerParameters = item.parameters()?;
        if let Some(id) = item.value.iter().find(|id| **id > 100) {
            return Err(ItemError::invalid(format_args!(
                "unknown token {id}, expected at most 100"
            )));
        }
        let words = item.value.iter().filter_map(|id| match id {
            0 => (!parameters.skip_special_tokens).then(|| "[CLS]".to_owned()),
            id => Some("x".repeat(*id)),
        });
        Ok(Prepared::new(words.collect::<Vec<_>>().join(" ")))
    }

    fn predict(&self, _model: &Misbehave, batch: Batch<&String>) -> BatchResult<String> {
        batch.map(|text| text.clone())
    }
}
