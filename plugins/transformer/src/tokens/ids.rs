//! The IDs of tokens that clients send and receive.

use plugin_sdk::ItemError;

use super::{Tokenizer, Tokens, Truncation, check_size, invalid, with_prompt};

/// A token of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextToken {
    pub id: u32,
    /// The part of the text, or the name of a special token.
    pub text: String,
    /// Bytes of the text from which the token was made. `None` for a special token that was added to the text.
    pub range: Option<(usize, usize)>,
}

impl Tokenizer {
    /// Tokenizes a whole text with a prompt in front of it, and returns where its tokens are in both together.
    ///
    /// # Errors
    /// The text is too long to be tokenized as a whole.
    pub fn text_tokens(
        &self,
        prompt: &str,
        text: &str,
        add_special_tokens: bool,
    ) -> Result<Vec<TextToken>, ItemError> {
        check_size(text, Self::max_beginning(self.max_length), "to return its tokens")?;
        let whole = with_prompt(prompt, text);
        let encoding = self.inner.encode(&*self.lowercased(&whole), add_special_tokens);
        let encoding = encoding.map_err(|error| invalid(&error))?;
        let original = self.lowercase.then(|| original_ranges(&whole));
        let token = |index: usize| {
            let id = encoding.get_ids()[index];
            if encoding.get_special_tokens_mask()[index] == 1 {
                let text = encoding.get_tokens()[index].clone();
                return TextToken {
                    id,
                    text,
                    range: None,
                };
            }
            let (start, stop) = encoding.get_offsets()[index];
            let (start, stop) = match &original {
                Some(original) => in_original(original, start, stop),
                None => (start, stop),
            };
            // A token of a byte-level tokenizer can be a part of a character.
            let bytes = whole.as_bytes().get(start..stop).unwrap_or_default();
            TextToken {
                id,
                text: String::from_utf8_lossy(bytes).into_owned(),
                range: Some((start, stop)),
            }
        };
        Ok((0..encoding.len()).map(token).collect())
    }

    /// Converts IDs to a text, with or without special tokens.
    ///
    /// # Errors
    /// There are no IDs, or one is not in the vocabulary.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, ItemError> {
        self.check_ids(ids)?;
        let text = self.inner.decode(ids, skip_special_tokens);
        text.map_err(|error| ItemError::invalid(format_args!("cannot decode the token IDs: {error}")))
    }

    /// Uses the IDs of a whole sequence, with special tokens, as a client sent them. Truncation keeps the first or the last ones.
    ///
    /// # Errors
    /// There are no IDs, or too many, or one is not in the vocabulary.
    pub fn of_ids(&self, mut ids: Vec<u32>, truncation: Truncation) -> Result<Tokens, ItemError> {
        self.check_ids(&ids)?;
        let (truncate, from_left) = self.choices(truncation);
        let (count, limit) = (ids.len(), self.limit(truncation));
        match (count.saturating_sub(limit), truncate, from_left) {
            (0, ..) => {}
            (excess, true, true) => drop(ids.drain(..excess)),
            (_, true, false) => ids.truncate(limit),
            (_, false, _) => {
                return Err(ItemError::invalid(format_args!(
                    "there are {count} token IDs, expected at most {limit}"
                )));
            }
        }
        Ok(Tokens::of_one_text(ids))
    }

    fn check_ids(&self, ids: &[u32]) -> Result<(), ItemError> {
        if ids.is_empty() {
            return Err(ItemError::invalid(
                "there are no token IDs, expected at least one",
            ));
        }
        match ids.iter().find(|id| self.inner.id_to_token(**id).is_none()) {
            None => Ok(()),
            Some(id) => Err(ItemError::invalid(format_args!(
                "unknown token ID {id}, expected an ID of the model's vocabulary, which are less than {}",
                self.vocabulary
            ))),
        }
    }
}

/// For each byte of a text in lower case, the bytes of the character from which it was made.
fn original_ranges(text: &str) -> Vec<(usize, usize)> {
    let ranges = text.char_indices().flat_map(|(start, character)| {
        // The forms of a final sigma have the same length.
        let length = character.to_lowercase().map(char::len_utf8).sum();
        std::iter::repeat_n((start, start + character.len_utf8()), length)
    });
    ranges.collect()
}

/// Converts a range of bytes of a text in lower case.
fn in_original(ranges: &[(usize, usize)], start: usize, stop: usize) -> (usize, usize) {
    let begin = match ranges.get(start) {
        Some((begin, _)) => *begin,
        None => ranges.last().map_or(0, |(_, end)| *end),
    };
    let end = stop.checked_sub(1).and_then(|last| ranges.get(last));
    (begin, end.map_or(begin, |(_, end)| begin.max(*end)))
}
