//! Decodes token ids of `cl100k_base`, the vocabulary of OpenAI's embedding models, in which clients of OpenAI send texts.
//!
//! Decoding needs only the bytes of each token, and not the ranks by which texts are split. `cl100k_base/tokens.bin` therefore
//! contains the length of each token as one byte, and then the bytes of all tokens, in the order of their ids. It is created from
//! the [file that OpenAI publishes][published] under the MIT license, and a test compares it with the digest of that file.
//!
//! The table takes 0.7 MiB of the executable, and 0.4 MB of a compressed package. A crate that also splits texts would take
//! ten times as much, since it contains the other vocabularies as well.
//!
//! [published]: https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken

/// The ids of special tokens, which represent these texts.
const SPECIAL: [(u32, &str); 5] = [
    (100_257, "<|endoftext|>"),
    (100_258, "<|fim_prefix|>"),
    (100_259, "<|fim_middle|>"),
    (100_260, "<|fim_suffix|>"),
    (100_276, "<|endofprompt|>"),
];

/// Number of tokens that are not special.
const COUNT: usize = 100_256;

static TABLE: &[u8] = include_bytes!("cl100k_base/tokens.bin");

/// Number of tokens between two offsets that are known without adding lengths.
const STRIDE: usize = 32;

static OFFSETS: [u32; COUNT.div_ceil(STRIDE)] = offsets();

/// The offset of every [`STRIDE`]th token.
const fn offsets() -> [u32; COUNT.div_ceil(STRIDE)] {
    let table = include_bytes!("cl100k_base/tokens.bin");
    let mut offsets = [0; COUNT.div_ceil(STRIDE)];
    let (mut id, mut offset) = (0, COUNT as u32);
    while id < COUNT {
        if id % STRIDE == 0 {
            offsets[id / STRIDE] = offset;
        }
        offset += table[id] as u32;
        id += 1;
    }
    offsets
}

/// Returns the bytes of a token, which may be a part of a character. `None` if the vocabulary does not have the id.
pub fn token(id: u32) -> Option<&'static [u8]> {
    let index = id as usize;
    if index >= COUNT {
        let special = SPECIAL.iter().find(|(special, _)| *special == id);
        return special.map(|(_, text)| text.as_bytes());
    }
    let first = index - index % STRIDE;
    let before: usize = TABLE[first..index]
        .iter()
        .map(|length| usize::from(*length))
        .sum();
    let start = OFFSETS[index / STRIDE] as usize + before;
    Some(&TABLE[start..start + usize::from(TABLE[index])])
}

/// Returns the text of tokens. Invalid UTF-8 is replaced, as OpenAI's library does.
///
/// # Errors
/// The first id that the vocabulary does not have.
pub fn decode(ids: &[u32]) -> Result<String, u32> {
    let mut bytes = Vec::new();
    for &id in ids {
        bytes.extend_from_slice(token(id).ok_or(id)?);
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// Returns the maximum size of the text of tokens in bytes. Unknown ids count as nothing.
pub fn max_decoded_size(ids: &[u32]) -> usize {
    // A replacement character has three bytes, and can replace a single one.
    ids.iter()
        .filter_map(|id| token(*id))
        .map(|token| 3 * token.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::digest::Digest;

    #[test]
    fn the_table_is_that_of_the_published_file() {
        let lines = (0..COUNT as u32).map(|id| {
            let token = token(id).expect("the id is in the vocabulary");
            format!("{} {id}\n", STANDARD.encode(token))
        });
        let file: String = lines.collect();
        let digest = Digest::of(file.as_bytes()).to_string();
        assert_eq!(
            digest,
            "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
        );
        assert_eq!(
            max_decoded_size(&(0..COUNT as u32).collect::<Vec<_>>()),
            3 * (TABLE.len() - COUNT)
        );
    }

    #[test]
    fn tokens_become_texts() {
        // As OpenAI's library splits these texts.
        assert_eq!(decode(&[9906, 1917]), Ok("Hello world".to_owned()));
        assert_eq!(decode(&[]), Ok(String::new()));
        assert_eq!(decode(&[100_257]), Ok("<|endoftext|>".to_owned()));
        // The first of the two tokens of a character.
        assert_eq!(decode(&[9468]), Ok("\u{fffd}".to_owned()));
        for unknown in [100_256, 100_261, 100_277, u32::MAX] {
            assert_eq!(decode(&[9906, unknown]), Err(unknown));
        }
    }
}
