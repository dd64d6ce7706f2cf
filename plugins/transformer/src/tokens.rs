//! Tokenization with the `tokenizer.json` of a model directory.
//!
//! # Long texts
//! Tokenizing takes about a microsecond and 150 bytes of memory per byte of a text, but truncation keeps only the first tokens.
//! Therefore only the beginning of a long text is tokenized. Its first tokens are those of the whole text if a complete word
//! follows them: tokenizers split a text into words from left to right, and tokenize each word independently. In a text
//! without word boundaries, the first tokens must be the same for two beginnings of different lengths. A text whose beginning
//! has too few tokens to decide this is rejected. If truncation keeps the last tokens instead, a long text is rejected.
//!
//! `pairs` tokenizes pairs of texts, and `ids` converts between texts and the IDs that clients send and receive.

mod ids;
mod pairs;

use std::borrow::Cow;
use std::fmt::Display;
use std::fs;
use std::path::Path;

use plugin_sdk::{ItemError, LoadError};
use tokenizers::{Encoding, PostProcessor, TruncationDirection};

pub use self::ids::TextToken;
use crate::files::file_error;

/// The word of texts with a requested number of tokens.
const WORD: &str = "a";

/// Maximum number of attempts to reach a number of tokens.
const MAX_ATTEMPTS: usize = 8;

/// Bytes of a text that are tokenized first, for each token that is kept, and in addition. Few texts have more bytes per token.
const BYTES_PER_TOKEN: usize = 16;
const MIN_BEGINNING: usize = 1024;

/// Factor by which the beginning of a text grows if it has too few tokens.
const GROWTH: usize = 8;

/// Maximum number of bytes of a text that are tokenized.
const MAX_BEGINNING: usize = 128 << 10;

/// The tokens of one text or of a pair of texts. At least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// IDs in the vocabulary, including special tokens.
    pub ids: Vec<u32>,
    /// Token types: 0 for the first text, and 1 for the second if the model distinguishes them.
    pub types: Vec<u32>,
    /// Number of first tokens that pooling skips.
    pub skipped: usize,
    /// Number of last tokens that no token attends to.
    pub unattended: usize,
}

#[allow(clippy::len_without_is_empty, reason = "there is always at least one")]
impl Tokens {
    /// Creates the tokens of a single text from their IDs.
    pub fn of_one_text(ids: Vec<u32>) -> Self {
        let types = vec![0; ids.len()];
        Self {
            ids,
            types,
            skipped: 0,
            unattended: 0,
        }
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
    /// All IDs are less than this.
    vocabulary: usize,
    max_length: usize,
    truncate: bool,
    lowercase: bool,
    /// Whether truncation removes the first tokens rather than the last ones.
    from_left: bool,
    /// Whether the network distinguishes the second text of a pair.
    with_types: bool,
}

/// How texts that are too long are handled, if a client chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Truncation {
    /// Whether they are truncated rather than rejected.
    pub truncate: Option<bool>,
    /// Whether the first tokens are removed rather than the last ones.
    pub from_left: Option<bool>,
    /// Maximum number of tokens, at most that of the tokenizer.
    pub max_length: Option<usize>,
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
        let direction = inner.get_truncation().map(|truncation| truncation.direction);
        // The file can specify truncation and padding. The reference implementations use only the direction of it.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(unusable)?;
        let last = inner.get_vocab(true).into_values().max();
        Ok(Self {
            vocabulary: last.map_or(0, |id| id as usize + 1),
            inner,
            padding: padding.unwrap_or(0),
            max_length,
            truncate,
            lowercase,
            from_left: matches!(direction, Some(TruncationDirection::Left)),
            with_types: true,
        })
    }

    /// Sets which tokens truncation removes: the first ones, or the last ones.
    #[must_use]
    pub fn truncating_left(mut self, from_left: bool) -> Self {
        self.from_left = from_left;
        self
    }

    /// Sets whether the second text of a pair has a separate token type. The default is what the tokenizer file specifies.
    #[must_use]
    pub fn with_types(mut self, with_types: bool) -> Self {
        self.with_types = with_types;
        self
    }

    /// Returns the size of the vocabulary: all IDs are less than this.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Returns the ID of the padding token, for networks with a fixed length. 0 if the file does not specify one.
    pub fn padding(&self) -> u32 {
        self.padding
    }

    /// Returns the maximum number of tokens of a text.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Returns the ID of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Returns the token with an ID.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Returns the number of tokens of a prompt at the beginning of a text, including special tokens in front of it.
    ///
    /// # Errors
    /// The prompt cannot be tokenized.
    pub fn prompt_length(&self, prompt: &str) -> Result<usize, ItemError> {
        let tokens = self.text(prompt)?;
        let specials = self.inner.get_added_tokens_decoder();
        let last = tokens.ids.last().and_then(|id| specials.get(id));
        Ok(tokens.len() - usize::from(last.is_some_and(|token| token.special)))
    }

    /// Tokenizes a text.
    ///
    /// # Errors
    /// It has too many tokens, or none, or it is too long to find its first tokens.
    pub fn text(&self, text: &str) -> Result<Tokens, ItemError> {
        self.text_after("", text)
    }

    /// Tokenizes a text with a prompt in front of it.
    ///
    /// # Errors
    /// Same as [`text`](Self::text).
    pub fn text_after(&self, prompt: &str, text: &str) -> Result<Tokens, ItemError> {
        self.truncated(prompt, text, Truncation::default())
    }

    /// Tokenizes a text with a prompt in front of it, and handles long texts as a client chose.
    ///
    /// # Errors
    /// Same as [`text`](Self::text).
    pub fn truncated(&self, prompt: &str, text: &str, truncation: Truncation) -> Result<Tokens, ItemError> {
        let (truncate, from_left) = self.choices(truncation);
        let limit = self.limit(truncation);
        let Encoded {
            is_whole,
            mut encoding,
            ..
        } = match from_left && truncate {
            true => self.encode_end(prompt, text, limit)?,
            false => self.encode_beginning(prompt, text, limit)?,
        };
        if truncate {
            encoding.truncate(self.budget(false, limit), 0, direction(from_left));
        }
        let encoding = self.with_special_tokens(encoding, None)?;
        self.tokens(&encoding, is_whole, limit)
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

    /// Whether long texts are truncated, and whether truncation removes their first tokens.
    fn choices(&self, truncation: Truncation) -> (bool, bool) {
        (
            truncation.truncate.unwrap_or(self.truncate),
            truncation.from_left.unwrap_or(self.from_left),
        )
    }

    /// Returns the maximum number of tokens.
    fn limit(&self, truncation: Truncation) -> usize {
        truncation
            .max_length
            .map_or(self.max_length, |limit| limit.min(self.max_length))
    }

    /// Returns the number of tokens that truncation keeps, without special tokens.
    fn budget(&self, is_pair: bool, limit: usize) -> usize {
        let special = self.inner.get_post_processor();
        limit.saturating_sub(special.map_or(0, |processor| processor.added_tokens(is_pair)))
    }

    /// Number of bytes of a text that are tokenized first to find `limit` tokens.
    fn first_beginning(limit: usize) -> usize {
        limit
            .saturating_mul(BYTES_PER_TOKEN)
            .saturating_add(MIN_BEGINNING)
    }

    /// Maximum number of bytes of a text that are tokenized.
    fn max_beginning(limit: usize) -> usize {
        Self::first_beginning(limit).max(MAX_BEGINNING)
    }

    fn lowercased<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.lowercase {
            true => text.to_lowercase().into(),
            false => text.into(),
        }
    }

    /// Tokenizes as much of a text as is necessary to find its first `limit` tokens.
    fn encode_beginning<'t>(
        &self,
        prompt: &str,
        text: &'t str,
        limit: usize,
    ) -> Result<Encoded<'t>, ItemError> {
        let sizes = (Self::first_beginning(limit), Self::max_beginning(limit));
        self.encode_beginning_of(prompt, text, limit, sizes)
    }

    /// Like [`encode_beginning`](Self::encode_beginning), with the number of bytes of the first beginning and the maximum.
    fn encode_beginning_of<'t>(
        &self,
        prompt: &str,
        text: &'t str,
        limit: usize,
        (first_size, max_size): (usize, usize),
    ) -> Result<Encoded<'t>, ItemError> {
        let mut size = first_size.min(max_size);
        let mut before: Option<Vec<u32>> = None;
        loop {
            let beginning = &text[..text.floor_char_boundary(size)];
            let encoded = |encoding, is_whole| Encoded {
                text,
                is_whole,
                encoding,
            };
            let prompted = with_prompt(prompt, beginning);
            let whole = self.lowercased(&prompted);
            if beginning.len() == text.len() {
                let encoding = self.inner.encode_fast(&*whole, false);
                return encoding
                    .map(|encoding| encoded(encoding, true))
                    .map_err(|error| invalid(&error));
            }
            // Unlike `encode_fast`, this returns the words of the tokens.
            let encoding = self
                .inner
                .encode(&*whole, false)
                .map_err(|error| invalid(&error))?;
            let kept = &encoding.get_ids()[..encoding.len().min(limit)];
            if let Some(words) = words_after(&encoding, limit) {
                let is_same = before.as_deref() == Some(kept);
                if words >= 2 || is_same {
                    return Ok(encoded(encoding, false));
                }
                before = Some(kept.to_vec());
            }
            if size >= max_size {
                return Err(ItemError::invalid(format_args!(
                    "the first {size} of the {} bytes of the text do not determine its first {limit} tokens; expected a text \
                     of at most {size} bytes, or with more words",
                    text.len()
                )));
            }
            size = size.saturating_mul(GROWTH).min(max_size);
        }
    }

    /// Tokenizes a whole text, whose last tokens are kept.
    fn encode_end<'t>(&self, prompt: &str, text: &'t str, limit: usize) -> Result<Encoded<'t>, ItemError> {
        check_size(
            text,
            Self::max_beginning(limit),
            "if its first tokens are removed",
        )?;
        let whole = with_prompt(prompt, text);
        let encoding = self.inner.encode_fast(&*self.lowercased(&whole), false);
        Ok(Encoded {
            text,
            is_whole: true,
            encoding: encoding.map_err(|error| invalid(&error))?,
        })
    }

    fn with_special_tokens(&self, encoding: Encoding, pair: Option<Encoding>) -> Result<Encoding, ItemError> {
        self.inner
            .post_process(encoding, pair, true)
            .map_err(|error| invalid(&error))
    }

    /// The tokens of a text, of which `encoding` is the whole or the beginning.
    fn tokens(&self, encoding: &Encoding, is_whole: bool, limit: usize) -> Result<Tokens, ItemError> {
        let count = encoding.len();
        if count > limit {
            let more = if is_whole { "" } else { "more than " };
            let count = if is_whole { count } else { limit };
            return Err(ItemError::invalid(format_args!(
                "the text has {more}{count} tokens, expected at most {limit}"
            )));
        }
        if count == 0 {
            return Err(ItemError::invalid(
                "the text has no tokens, expected at least one",
            ));
        }
        Ok(Tokens {
            ids: encoding.get_ids().to_vec(),
            types: match self.with_types {
                true => encoding.get_type_ids().to_vec(),
                false => vec![0; count],
            },
            skipped: 0,
            unattended: 0,
        })
    }
}

/// The tokens of a text or of its beginning, without special tokens.
struct Encoded<'t> {
    /// The whole text.
    text: &'t str,
    /// Whether the tokens are those of the whole text.
    is_whole: bool,
    encoding: Encoding,
}

/// Rejects a text that is too long to be tokenized as a whole.
fn check_size(text: &str, max_size: usize, when: &str) -> Result<(), ItemError> {
    match text.len() <= max_size {
        true => Ok(()),
        false => Err(ItemError::invalid(format_args!(
            "the text has {} bytes, expected at most {max_size} {when}",
            text.len()
        ))),
    }
}

fn with_prompt<'t>(prompt: &str, text: &'t str) -> Cow<'t, str> {
    match prompt.is_empty() {
        true => text.into(),
        false => format!("{prompt}{text}").into(),
    }
}

/// Number of words that begin after the first `limit` tokens; `None` if there are no more tokens. The last of these words may be
/// incomplete.
fn words_after(encoding: &Encoding, limit: usize) -> Option<u32> {
    let last = |words: &[Option<u32>]| words.iter().flatten().max().copied();
    let words = encoding.get_word_ids();
    let (kept, rest) = words.split_at(words.len().min(limit));
    Some(last(rest)?.saturating_sub(last(kept).unwrap_or(0)))
}

fn direction(from_left: bool) -> TruncationDirection {
    match from_left {
        true => TruncationDirection::Left,
        false => TruncationDirection::Right,
    }
}

fn invalid(error: &tokenizers::Error) -> ItemError {
    ItemError::invalid(format_args!("cannot tokenize the text: {error}"))
}

#[cfg(test)]
mod tests;
