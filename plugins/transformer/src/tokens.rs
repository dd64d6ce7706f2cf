//! Tokenization with the `tokenizer.json` of a model directory.
//!
//! # Long texts
//! Tokenizing takes about a microsecond and 150 bytes of memory per byte of a text, but truncation keeps only the first tokens.
//! Therefore only the beginning of a long text is tokenized. Its first tokens are those of the whole text if a complete word
//! follows them: tokenizers split a text into words from left to right, and tokenize each word independently. In a text
//! without word boundaries, the first tokens must be the same for two beginnings of different lengths. A text whose beginning
//! has too few tokens to decide this is rejected.

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
    truncate: bool,
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
            truncate,
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
    /// It has too many tokens, or none, or it is too long to find its first tokens.
    pub fn text(&self, text: &str) -> Result<Tokens, ItemError> {
        self.text_after("", text)
    }

    /// Tokenizes a text with a prompt in front of it.
    ///
    /// # Errors
    /// Same as [`text`](Self::text).
    pub fn text_after(&self, prompt: &str, text: &str) -> Result<Tokens, ItemError> {
        let (beginning, encoding) = self.encode_beginning(prompt, text)?;
        self.tokens(&encoding, beginning.len() == text.len())
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
        // Truncation keeps fewer tokens of each text of a pair than of a single text.
        let (first, second) = (self.relevant(first)?, self.relevant(second)?);
        let input = match self.lowercase {
            true => (first.to_lowercase(), second.to_lowercase()).into(),
            false => (first, second).into(),
        };
        self.tokens(&self.encode(input)?, true)
    }

    /// Like [`pair`](Self::pair), but rejects a pair that would be truncated.
    ///
    /// # Errors
    /// Same as [`pair`](Self::pair), and if the pair has too many tokens.
    pub fn whole_pair(&self, first: &str, second: &str) -> Result<Tokens, ItemError> {
        let is_beginning =
            self.relevant(first)?.len() < first.len() || self.relevant(second)?.len() < second.len();
        let input = match self.lowercase {
            true => (first.to_lowercase(), second.to_lowercase()).into(),
            false => (first, second).into(),
        };
        let too_long = || {
            ItemError::invalid(format_args!(
                "the query and the passage have more than {} tokens together; set `truncate` to true, or shorten them",
                self.max_length
            ))
        };
        if is_beginning {
            return Err(too_long());
        }
        let encoding = self.encode(input)?;
        match encoding.get_overflowing().is_empty() {
            true => self.tokens(&encoding, true),
            false => Err(too_long()),
        }
    }

    /// The beginning of a text that has all tokens that are kept of it.
    fn relevant<'t>(&self, text: &'t str) -> Result<&'t str, ItemError> {
        match text.len() <= self.first_beginning() {
            true => Ok(text),
            false => Ok(self.encode_beginning("", text)?.0),
        }
    }

    fn first_beginning(&self) -> usize {
        self.max_length
            .saturating_mul(BYTES_PER_TOKEN)
            .saturating_add(MIN_BEGINNING)
    }

    /// Tokenizes as much of a text as is necessary to find its first tokens, and returns that part of the text as well.
    fn encode_beginning<'t>(&self, prompt: &str, text: &'t str) -> Result<(&'t str, Encoding), ItemError> {
        let mut size = self.first_beginning();
        let max_size = size.max(MAX_BEGINNING);
        let mut before: Option<Vec<u32>> = None;
        loop {
            let beginning = &text[..text.floor_char_boundary(size)];
            let whole = match self.lowercase {
                true => format!("{prompt}{beginning}").to_lowercase(),
                false => format!("{prompt}{beginning}"),
            };
            if beginning.len() == text.len() {
                return Ok((beginning, self.encode(whole.into())?));
            }
            // Unlike `encode_fast`, this returns the words of the tokens.
            let encoding = self.inner.encode(whole, true).map_err(|error| invalid(&error))?;
            let kept = &encoding.get_ids()[..encoding.len().min(self.max_length)];
            if let Some(words) = self.words_after(&encoding) {
                let is_same = before.as_deref() == Some(kept);
                if words >= 2 || is_same {
                    return Ok((beginning, encoding));
                }
                before = Some(kept.to_vec());
            }
            if size >= max_size {
                return Err(ItemError::invalid(format_args!(
                    "the first {size} of the {} bytes of the text do not determine its first {} tokens; expected a text of \
                     at most {size} bytes, or with more words",
                    text.len(),
                    self.max_length
                )));
            }
            size = size.saturating_mul(GROWTH).min(max_size);
        }
    }

    /// Number of words that begin after the last token that is kept; `None` if all tokens are kept. The last of these words may be
    /// incomplete.
    fn words_after(&self, encoding: &Encoding) -> Option<u32> {
        let last = |words: &[Option<u32>]| words.iter().flatten().max().copied();
        let (kept, all) = match self.truncate {
            true => {
                let rest = encoding.get_overflowing();
                let all = rest.iter().filter_map(|part| last(part.get_word_ids())).max();
                (last(encoding.get_word_ids()), all)
            }
            false => {
                let words = encoding.get_word_ids();
                let (kept, rest) = words.split_at(words.len().min(self.max_length));
                (last(kept), last(rest))
            }
        };
        Some(all?.saturating_sub(kept.unwrap_or(0)))
    }

    fn encode(&self, input: EncodeInput<'_>) -> Result<Encoding, ItemError> {
        self.inner
            .encode_fast(input, true)
            .map_err(|error| invalid(&error))
    }

    /// The tokens of a text, of which `encoding` is the whole or the beginning.
    fn tokens(&self, encoding: &Encoding, is_whole: bool) -> Result<Tokens, ItemError> {
        let (count, limit) = (encoding.len(), self.max_length);
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
            types: encoding.get_type_ids().to_vec(),
        })
    }
}

fn invalid(error: &tokenizers::Error) -> ItemError {
    ItemError::invalid(format_args!("cannot tokenize the text: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokenizers of BERT, of XLM-RoBERTa and of MPNet.
    const MODELS: [&str; 3] = ["bge", "multilingual", "mpnet"];

    fn tokenizer(model: &str, max_length: usize, truncate: bool) -> Tokenizer {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sentence-embeddings/tests/models");
        let file = models.join(model).join("tokenizer.json");
        Tokenizer::load(&file, max_length, truncate, model == "bge").expect("the file is valid")
    }

    /// The first tokens of the whole text.
    fn of_whole(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        let text = if tokenizer.lowercase {
            text.to_lowercase()
        } else {
            text.to_owned()
        };
        let encoding = tokenizer.encode(text.into()).expect("it can be tokenized");
        encoding.get_ids().to_vec()
    }

    /// Long texts of many kinds.
    fn long_texts() -> Vec<String> {
        let repeated = |part: &str| part.repeat(40_000 / part.len());
        let mut texts: Vec<String> = [
            "The lake is 310 m deep. ",
            "don't; e.g. (see p. 4)\n\n",
            "模型的推理服务器，批处理。",
            "ひらがなとカタカナ",
            "e\u{301}\u{308}a\u{30a} ΟΔΥΣΣΕΥΣ ",
            "👩‍👩‍👧‍👦🇫🇷 ",
            "a",
            "ab",
            "0123456789abcdef",
            "word\t \u{a0}\u{3000}",
            "สวัสดีชาวโลก",
            "!?",
        ]
        .map(repeated)
        .into();
        // The parts mixed, starting with each of them.
        for start in 0..texts.len() {
            let mixed = (0..40).map(|nth| {
                let text = &texts[(start + nth * 7) % 12];
                &text[..text.floor_char_boundary(40 + 37 * nth)]
            });
            let mixed: String = mixed.collect();
            texts.push(mixed);
        }
        texts
    }

    #[test]
    fn the_first_tokens_of_a_long_text_are_those_of_the_whole_text() {
        for model in MODELS {
            for max_length in [8, 64] {
                let tokenizer = tokenizer(model, max_length, true);
                for text in long_texts() {
                    let expected = of_whole(&tokenizer, &text);
                    match tokenizer.text(&text) {
                        Ok(tokens) => assert_eq!(tokens.ids, expected, "{model} {max_length} {:.60}", text),
                        // One long word, of which too few tokens are kept.
                        Err(error) => assert!(expected.len() < max_length, "{model} {:.60} {error}", text),
                    }
                }
            }
        }
    }

    #[test]
    fn the_tokens_of_a_pair_of_long_texts_are_those_of_the_whole_texts() {
        let tokenizer = tokenizer("multilingual", 32, true);
        let texts = long_texts();
        for (first, second) in texts.iter().zip(texts.iter().skip(5)) {
            for first in ["short", first] {
                let whole = tokenizer.encode((first, second.as_str()).into()).expect("a pair");
                let tokens = tokenizer.pair(first, second).expect("it can be tokenized");
                assert_eq!(tokens.ids, whole.get_ids(), "{:.60} {:.60}", first, second);
            }
        }
    }

    #[test]
    fn a_long_text_is_rejected_if_it_must_not_be_truncated() {
        let tokenizer = tokenizer("bge", 16, false);
        let error = tokenizer
            .text(&"word ".repeat(100_000))
            .expect_err("it is too long");
        assert_eq!(
            error.message(),
            "the text has more than 16 tokens, expected at most 16"
        );
        let error = tokenizer.text(&"word ".repeat(20)).expect_err("it is too long");
        assert_eq!(error.message(), "the text has 62 tokens, expected at most 16");
    }

    #[test]
    fn a_long_text_with_hardly_any_tokens_is_rejected() {
        let tokenizer = tokenizer("bge", 16, true);
        let error = tokenizer
            .text(&" ".repeat(1 << 20))
            .expect_err("there are no words");
        let expected =
            "the first 131072 of the 1048576 bytes of the text do not determine its first 16 tokens";
        assert!(error.message().starts_with(expected), "{}", error.message());
    }
}
