//! From text to tokens, by the folder's own `tokenizer.json`. It knows nothing of what is computed from them.

use std::fmt::Display;
use std::fs;
use std::path::Path;

use plugin_sdk::{ItemError, LoadError};
use tokenizers::{EncodeInput, Encoding, TruncationParams};

use crate::files::blame;

/// The tokens of one text, or of a pair of texts, as the network takes them: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Ids in the vocabulary, special tokens included.
    pub ids: Vec<u32>,
    /// 0 for tokens of the first text, 1 for those of the second, where the model tells them apart.
    pub types: Vec<u32>,
}

#[allow(clippy::len_without_is_empty, reason = "there is always at least one")]
impl Tokens {
    /// Those of a single text, by their ids.
    pub fn of_one_text(ids: Vec<u32>) -> Self {
        let types = vec![0; ids.len()];
        Self { ids, types }
    }

    /// How many there are.
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
    /// Reads the file `tokenizer.json`. Texts beyond `max_length` tokens are cut if `truncate`, else refused; they are made lower
    /// case first if `lowercase`.
    ///
    /// # Errors
    /// The file cannot be used; the setting `folder` is to blame.
    pub fn load(file: &Path, max_length: usize, truncate: bool, lowercase: bool) -> Result<Self, LoadError> {
        let unusable = |error: &dyn Display| blame(file, &format!("cannot be used: {error}"));
        let definition = fs::read(file).map_err(|error| unusable(&error))?;
        Self::read(&definition, max_length, truncate, lowercase).map_err(|error| unusable(&error))
    }

    /// As [`load`](Self::load), from what is in the file.
    ///
    /// # Errors
    /// It cannot be used.
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
        // The file may fix a length and a padding of its own, which the reference overrides as well.
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

    /// The largest id and what it is not: ids are below this.
    pub fn vocabulary(&self) -> usize {
        self.inner
            .get_vocab(true)
            .into_values()
            .max()
            .map_or(0, |id| id as usize + 1)
    }

    /// The id of the token that pads texts to a fixed length, for networks that have one; 0 if the file does not say.
    pub fn padding(&self) -> u32 {
        self.padding
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// It has too many, or none.
    pub fn text(&self, text: &str) -> Result<Tokens, ItemError> {
        if self.lowercase {
            return self.encode(text.to_lowercase().into());
        }
        self.encode(text.into())
    }

    /// The tokens of a pair, cut from the longer text first.
    ///
    /// # Errors
    /// As [`text`](Self::text).
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
            .map_err(|error| ItemError::invalid(format_args!("the text cannot be tokenised: {error}")))?;
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
