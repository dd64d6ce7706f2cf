//! Tokenization with the `tokenizer.json` of a model directory.

use std::fmt::Display;
use std::fs;
use std::path::Path;

use plugin_sdk::{ItemError, LoadError};
use tokenizers::{EncodeInput, Encoding, TruncationParams};

use crate::files::file_error;

/// The word of texts with a requested number of tokens.
const WORD: &str = "a";

/// Maximum number of attempts to reach a number of tokens.
const MAX_ATTEMPTS: usize = 8;

/// The tokens of one text or of a pair of texts. At least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// IDs in the vocabulary, including special tokens.
    pub ids: Vec<u32>,
    /// Token types: 0 for the first text, and 1 for the second if the model distinguishes them.
    pub types: Vec<u32>,
}

#[allow(clippy::len_without_is_empty, reason = "there is always at least one")]
impl Tokens {
    /// Creates the tokens of a single text from their IDs.
    pub fn of_one_text(ids: Vec<u32>) -> Self {
        let types = vec![0; ids.len()];
        Self { ids, types }
    }

    /// Returns the number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }
}

/// Splits texts into tokens.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    padding: u32,
    max_length: usize,
    lowercase: bool,
}

impl Tokenizer {
    /// Loads the file `tokenizer.json`. Texts with more than `max_length` tokens are truncated if `truncate` is true, and rejected
    /// otherwise. If `lowercase` is true, texts are converted to lower case first.
    ///
    /// # Errors
    /// The file cannot be used. The error names the setting `folder`.
    pub fn load(file: &Path, max_length: usize, truncate: bool, lowercase: bool) -> Result<Self, LoadError> {
        let unusable = |error: &dyn Display| file_error(file, &format!("cannot be used: {error}"));
        let definition = fs::read(file).map_err(|error| unusable(&error))?;
        Self::read(&definition, max_length, truncate, lowercase).map_err(|error| unusable(&error))
    }

    /// Like [`load`](Self::load), from the content of the file.
    ///
    /// # Errors
    /// The content cannot be used.
    pub fn read(
        definition: &[u8],
        max_length: usize,
        truncate: bool,
        lowercase: bool,
    ) -> Result<Self, LoadError> {
        let unusable = |error: tokenizers::Error| LoadError::new(error);
        let mut inner = tokenizers::Tokenizer::from_bytes(definition).map_err(unusable)?;
        let padding = inner.get_padding().map(|padding| padding.pad_id);
        let padding = padding.or_else(|| inner.token_to_id("[PAD]"));
        let padding = padding.or_else(|| inner.token_to_id("<pad>"));
        // The file can specify truncation and padding, which the reference implementations override as well.
        inner.with_padding(None);
        let truncation = truncate.then(|| TruncationParams {
            max_length,
            ..TruncationParams::default()
        });
        inner.with_truncation(truncation).map_err(unusable)?;
        Ok(Self {
            inner,
            padding: padding.unwrap_or(0),
            max_length,
            lowercase,
        })
    }

    /// Returns the size of the vocabulary: all IDs are less than this.
    pub fn vocabulary(&self) -> usize {
        self.inner
            .get_vocab(true)
            .into_values()
            .max()
            .map_or(0, |id| id as usize + 1)
    }

    /// Returns the ID of the padding token, for networks with a fixed length. 0 if the file does not specify one.
    pub fn padding(&self) -> u32 {
        self.padding
    }

    /// Returns the maximum number of tokens of a text.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Tokenizes a text.
    ///
    /// # Errors
    /// It has too many tokens, or none.
    pub fn text(&self, text: &str) -> Result<Tokens, ItemError> {
        if self.lowercase {
            return self.encode(text.to_lowercase().into());
        }
        self.encode(text.into())
    }

    /// Returns a text that has about `count` tokens after `prefix`, including special tokens, for measuring. `None` if a text
    /// cannot have that many.
    pub fn sample(&self, prefix: &str, count: u64) -> Option<String> {
        let count = usize::try_from(count)
            .ok()
            .filter(|count| *count <= self.max_length)?;
        let text_of = |words: usize| vec![WORD; words.max(1)].join(" ");
        let mut words = count;
        // Each word is one token in most vocabularies, and special tokens are added once, so this ends after two steps.
        for _ in 0..MAX_ATTEMPTS {
            let text = text_of(words);
            let tokens = self
                .inner
                .encode_fast(format!("{prefix}{text}"), true)
                .ok()?
                .len();
            let next = (words + count).saturating_sub(tokens).max(1);
            if next == words {
                return Some(text);
            }
            words = next;
        }
        Some(text_of(words))
    }

    /// Tokenizes a pair of texts. Truncation removes tokens of the longer text first.
    ///
    /// # Errors
    /// Same as [`text`](Self::text).
    pub fn pair(&self, first: &str, second: &str) -> Result<Tokens, ItemError> {
        if self.lowercase {
            return self.encode((first.to_lowercase(), second.to_lowercase()).into());
        }
        self.encode((first, second).into())
    }

    fn encode(&self, input: EncodeInput<'_>) -> Result<Tokens, ItemError> {
        let encoding: Encoding = self
            .inner
            .encode_fast(input, true)
            .map_err(|error| ItemError::invalid(format_args!("cannot tokenize the text: {error}")))?;
        let (count, limit) = (encoding.len(), self.max_length);
        if count > limit {
            return Err(ItemError::invalid(format_args!(
                "the text has {count} tokens, expected at most {limit}"
            )));
        }
        if count == 0 {
            return Err(ItemError::invalid(
                "the text has no tokens, expected at least one",
            ));
        }
        Ok(Tokens {
            ids: encoding.get_ids().to_vec(),
            types: encoding.get_type_ids().to_vec(),
        })
    }
}
