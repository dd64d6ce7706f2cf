use tokenizers::TruncationParams;
use tokenizers::utils::truncation::truncate_encodings;

use super::*;

/// Tokenizers of BERT, of XLM-RoBERTa and of MPNet.
const MODELS: [&str; 3] = ["bge", "multilingual", "mpnet"];

fn tokenizer(model: &str, max_length: usize, truncate: bool) -> Tokenizer {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sentence-embeddings/tests/models");
    let file = models.join(model).join("tokenizer.json");
    Tokenizer::load(&file, max_length, truncate, model == "bge").expect("the file is valid")
}

/// The tokens of whole texts, truncated by the library. It is not told to truncate them while it tokenizes, because some of its
/// versions then compare only a part of each text.
fn whole(tokenizer: &Tokenizer, first: &str, second: Option<&str>) -> Vec<u32> {
    let encode = |text: &str| {
        let encoding = tokenizer.inner.encode(text, false);
        encoding.expect("it can be tokenized")
    };
    let params = TruncationParams {
        max_length: match tokenizer.truncate {
            true => tokenizer.budget(second.is_some(), tokenizer.max_length),
            false => usize::MAX,
        },
        direction: direction(tokenizer.from_left),
        ..TruncationParams::default()
    };
    let (first, second) =
        truncate_encodings(encode(first), second.map(encode), &params).expect("they can be truncated");
    let encoding = tokenizer.with_special_tokens(first, second);
    encoding.expect("special tokens are added").get_ids().to_vec()
}

/// The first tokens of the whole text.
fn of_whole(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    whole(tokenizer, &tokenizer.lowercased(text), None)
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
    let texts: Vec<String> = long_texts()
        .iter()
        .map(|text| text[..text.floor_char_boundary(4_000)].to_owned())
        .collect();
    check_pairs(&tokenizer("multilingual", 32, true), &texts);
    // An odd number of tokens is left for both texts.
    check_pairs(&tokenizer("bge", 32, true), &texts[..10]);
}

fn check_pairs(tokenizer: &Tokenizer, texts: &[String]) {
    for (first, second) in texts.iter().zip(texts.iter().skip(5)) {
        for first in ["short", first] {
            let expected = whole(tokenizer, first, Some(second));
            let tokens = tokenizer.pair(first, second).expect("it can be tokenized");
            assert_eq!(tokens.ids, expected, "{:.60} {:.60}", first, second);
        }
    }
}

/// If an odd number of tokens is left for both texts, the one with more tokens as a whole keeps one more.
#[test]
fn the_longer_text_of_a_pair_is_found_by_all_of_its_tokens() {
    let mut random = 7u32;
    let mut next = |limit: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as usize % limit
    };
    let words = [
        "lake",
        "Mont",
        "internationalization",
        "3.10",
        "don't",
        "模型",
        "ΟΔΥΣΣΕΥΣ",
        "a",
    ];
    let mut text = |count: usize| {
        let words = (0..count).map(|_| words[next(words.len())]);
        words.collect::<Vec<_>>().join(" ")
    };
    // The tokenizer of BERT adds three tokens to a pair, and that of MPNet four.
    for (model, max_length) in [("bge", 32), ("mpnet", 33)] {
        let right = tokenizer(model, max_length, true);
        let left = tokenizer(model, max_length, true).truncating_left(true);
        let lowercase = |text: &str| right.lowercased(text).into_owned();
        // A few words, so that one text is whole; the same number in both; and texts of which only the beginnings are tokenized.
        for counts in [(20, 30), (40, 40), (41, 40), (60, 500), (300, 301), (300, 300)] {
            for _ in 0..2 {
                let (first, second) = (text(counts.0), text(counts.1));
                for (one, other) in [(&first, &second), (&second, &first)] {
                    for tokenizer in [&right, &left] {
                        let expected = whole(tokenizer, &lowercase(one), Some(&lowercase(other)));
                        let tokens = tokenizer.pair(one, other).expect("it can be tokenized");
                        assert_eq!(tokens.ids, expected, "{model} {counts:?} {one:.40} {other:.40}");
                    }
                }
            }
        }
    }
    let tokenizer = tokenizer("bge", 32, true);
    let error = tokenizer
        .pair(&"word ".repeat(100_000), &"words ".repeat(100_000))
        .expect_err("too long to be compared");
    assert_eq!(
        error.message(),
        "the text has 500000 bytes, expected at most 131072 if both texts of a pair are truncated, so that the longer one can \
         be found"
    );
    // One that is shorter is found, however long the other one is.
    let expected = tokenizer.pair(&"word ".repeat(100), &"words ".repeat(200));
    let tokens = tokenizer.pair(&"word ".repeat(100), &"words ".repeat(200_000));
    assert_eq!(tokens.expect("tokenized").ids, expected.expect("tokenized").ids);
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
    let expected = "the first 131072 of the 1048576 bytes of the text do not determine its first 16 tokens";
    assert!(error.message().starts_with(expected), "{}", error.message());
}

#[test]
fn truncation_can_keep_the_last_tokens() {
    let text = "one two three four five six seven eight nine ten";
    for model in MODELS {
        let right = tokenizer(model, 8, true);
        let left = tokenizer(model, 8, true).truncating_left(true);
        let expected = whole(&left, &left.lowercased(text), None);
        assert_eq!(left.text(text).expect("tokenized").ids, expected);
        assert_ne!(right.text(text).expect("tokenized").ids, expected);
        let chosen = Truncation {
            from_left: Some(true),
            ..Truncation::default()
        };
        assert_eq!(
            right.truncated("", text, chosen).expect("tokenized").ids,
            expected
        );
        let pair = whole(&left, &left.lowercased(text), Some("a b"));
        assert_eq!(left.pair(text, "a b").expect("tokenized").ids, pair);
    }
    let left = tokenizer("bge", 8, true).truncating_left(true);
    let error = left.text(&"word ".repeat(100_000)).expect_err("it is too long");
    assert_eq!(
        error.message(),
        "the text has 500000 bytes, expected at most 131072 if its first tokens are removed"
    );
}

#[test]
fn the_length_of_a_prompt_excludes_the_special_token_after_it() {
    let tokenizer = tokenizer("bge", 64, true);
    let prompt = tokenizer.prompt_length("lake: ").expect("tokenized");
    let whole = tokenizer.text("lake: deep").expect("tokenized");
    assert_eq!(
        tokenizer.text("lake: ").expect("tokenized").ids[..prompt],
        whole.ids[..prompt]
    );
    assert!(prompt < whole.len() - 1);
}

#[test]
fn tokens_are_the_parts_of_the_text_from_which_they_were_made() {
    let tokenizer = tokenizer("bge", 64, true);
    // The lower case of this letter has more bytes.
    let text = "İ Lake, deep";
    let tokens = tokenizer.text_tokens("In ", text, true).expect("tokenized");
    let whole = format!("In {text}");
    let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
    assert_eq!(ids, tokenizer.text(&whole).expect("tokenized").ids);
    let (first, last) = (&tokens[0], &tokens[tokens.len() - 1]);
    assert_eq!((first.text.as_str(), first.range), ("[CLS]", None));
    assert_eq!((last.text.as_str(), last.range), ("[SEP]", None));
    let parts: Vec<&str> = tokens[1..tokens.len() - 1]
        .iter()
        .map(|token| {
            let (start, stop) = token.range.expect("a part of the text");
            assert_eq!(token.text, whole[start..stop], "{token:?}");
            &whole[start..stop]
        })
        .collect();
    assert_eq!(parts.concat(), whole.replace(' ', ""));
    let without = tokenizer.text_tokens("In ", text, false).expect("tokenized");
    assert_eq!(without, tokens[1..tokens.len() - 1]);
    let error = tokenizer.text_tokens("", &"a ".repeat(100_000), true);
    assert_eq!(
        error.expect_err("too long").message(),
        "the text has 200000 bytes, expected at most 131072 to return its tokens"
    );
}

#[test]
fn ids_are_decoded_and_used_as_they_are() {
    let tokenizer = tokenizer("bge", 10, true);
    let ids = tokenizer.text("lake lake").expect("tokenized").ids;
    // The file of this small model has no decoder, which would join the parts of words.
    let decoded = |skip| tokenizer.decode(&ids, skip).expect("decoded");
    assert_eq!(decoded(true).replace(" ##", ""), "lake lake");
    assert_eq!(decoded(false).replace(" ##", ""), "[CLS] lake lake [SEP]");
    let used = |ids: &[u32], truncate, from_left| {
        let truncation = Truncation {
            truncate: Some(truncate),
            from_left: Some(from_left),
            max_length: None,
        };
        tokenizer
            .of_ids(ids.to_vec(), truncation)
            .map(|tokens| tokens.ids)
    };
    assert_eq!(used(&ids, false, false).expect("used"), ids);
    let long: Vec<u32> = (5..19).collect();
    assert_eq!(used(&long, true, false).expect("used"), long[..10]);
    assert_eq!(used(&long, true, true).expect("used"), long[4..]);
    let unknown = u32::try_from(tokenizer.vocabulary()).expect("a small vocabulary");
    let message = format!(
        "unknown token ID {unknown}, expected an ID of the model's vocabulary, which are less than {unknown}"
    );
    for (ids, message) in [
        (&long[..], "there are 14 token IDs, expected at most 10"),
        (&[], "there are no token IDs, expected at least one"),
        (&[unknown], &message),
    ] {
        assert_eq!(used(ids, false, false).expect_err("rejected").message(), message);
    }
    assert_eq!(
        tokenizer
            .decode(&[unknown], true)
            .expect_err("rejected")
            .message(),
        message
    );
}
