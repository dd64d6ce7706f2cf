//! Pairs of texts. Truncation removes tokens of the longer text first, as `longest_first` of transformers does.
//!
//! # The longer text
//! Truncation keeps all tokens of a text that has at most half of the tokens that fit. Otherwise, each text keeps half of them. If
//! their number is odd, the text that has more tokens as a whole keeps one more; the second text, if both have the same number.
//! Only this choice depends on the number of tokens of a whole text. If only the beginning of a text has been tokenized, it is
//! compared with the other text as far as necessary: a text has more than `n` tokens if a beginning of it determines `n + 1` of
//! them.

use plugin_sdk::ItemError;

use super::{Encoded, MIN_BEGINNING, Tokenizer, Tokens, Truncation, check_size, direction, words_after};

impl Tokenizer {
    /// Tokenizes a pair of texts. Truncation removes tokens of the longer text first.
    ///
    /// # Errors
    /// Same as [`text`](Self::text), and if both texts are too long to find the longer one.
    pub fn pair(&self, first: &str, second: &str) -> Result<Tokens, ItemError> {
        self.truncated_pair(first, second, Truncation::default())
    }

    /// Tokenizes a pair of texts, and handles long texts as a client chose.
    ///
    /// # Errors
    /// Same as [`pair`](Self::pair).
    pub fn truncated_pair(
        &self,
        first: &str,
        second: &str,
        truncation: Truncation,
    ) -> Result<Tokens, ItemError> {
        let (truncate, from_left) = self.choices(truncation);
        let limit = self.limit(truncation);
        // Truncation keeps fewer tokens of each text of a pair than of a single text.
        let encode = |text| match from_left && truncate {
            true => self.encode_end("", text, limit),
            false => self.encode_beginning("", text, limit),
        };
        let (mut first, mut second) = (encode(first)?, encode(second)?);
        if truncate {
            let kept = self.kept(&first, &second, limit)?;
            first.encoding.truncate(kept.0, 0, direction(from_left));
            second.encoding.truncate(kept.1, 0, direction(from_left));
        }
        second.encoding.set_type_ids(vec![1; second.encoding.len()]);
        let is_whole = first.is_whole && second.is_whole;
        let encoding = self.with_special_tokens(first.encoding, Some(second.encoding))?;
        self.tokens(&encoding, is_whole, limit)
    }

    /// Like [`pair`](Self::pair), but rejects a pair that would be truncated.
    ///
    /// # Errors
    /// Same as [`pair`](Self::pair), and if the pair has too many tokens.
    pub fn whole_pair(&self, first: &str, second: &str) -> Result<Tokens, ItemError> {
        let truncation = Truncation {
            truncate: Some(false),
            ..Truncation::default()
        };
        self.truncated_pair(first, second, truncation).map_err(|error| {
            ItemError::invalid(format_args!(
                "{}; set `truncate` to true, or shorten the query and the passage",
                error.message()
            ))
        })
    }

    /// Numbers of tokens that truncation keeps of both texts.
    fn kept(
        &self,
        first: &Encoded<'_>,
        second: &Encoded<'_>,
        limit: usize,
    ) -> Result<(usize, usize), ItemError> {
        let budget = self.budget(true, limit);
        // A beginning has at least as many tokens as fit.
        let lengths = (first.encoding.len(), second.encoding.len());
        let (half, rest) = (budget / 2, budget - budget / 2);
        Ok(if lengths.0 + lengths.1 <= budget {
            lengths
        } else if lengths.0 <= half {
            (lengths.0, budget - lengths.0)
        } else if lengths.1 <= half {
            (budget - lengths.1, lengths.1)
        } else if half < rest && self.is_longer(first, second, limit)? {
            (rest, half)
        } else {
            (half, rest)
        })
    }

    /// Whether the first text has more tokens than the second.
    fn is_longer(&self, first: &Encoded<'_>, second: &Encoded<'_>, limit: usize) -> Result<bool, ItemError> {
        let counts_first = first.is_whole || !second.is_whole && first.text.len() <= second.text.len();
        let (counted, other) = match counts_first {
            true => (first, second),
            false => (second, first),
        };
        let count = match counted.is_whole {
            true => counted.encoding.len(),
            false => self.count(counted.text, limit)?,
        };
        // The first text is longer if the second one does not have as many tokens, or if it has more than the second one.
        let least = if counts_first { count } else { count + 1 };
        let has_least = match other.has_at_least(least) {
            Some(has_least) => has_least,
            None => {
                let first_size = counted.text.len().saturating_mul(2).max(MIN_BEGINNING);
                let sizes = (first_size, Self::max_beginning(limit));
                let more = self.encode_beginning_of("", other.text, least, sizes)?;
                // A beginning determines that number of tokens.
                !more.is_whole || more.encoding.len() >= least
            }
        };
        Ok(has_least != counts_first)
    }

    /// Number of tokens of a whole text, without special tokens.
    fn count(&self, text: &str, limit: usize) -> Result<usize, ItemError> {
        let when = "if both texts of a pair are truncated, so that the longer one can be found";
        check_size(text, Self::max_beginning(limit), when)?;
        Ok(self.encode_end("", text, limit)?.encoding.len())
    }
}

impl Encoded<'_> {
    /// Whether the whole text has at least `count` tokens. `None` if its beginning does not determine that.
    fn has_at_least(&self, count: usize) -> Option<bool> {
        match self.is_whole {
            true => Some(self.encoding.len() >= count),
            false => words_after(&self.encoding, count)
                .filter(|words| *words >= 2)
                .map(|_| true),
        }
    }
}
