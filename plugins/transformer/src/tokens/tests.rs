use super::*;

/// Tokenizers of BERT, of XLM-RoBERTa and of MPNet.
const MODELS: [&str; 3] = ["bge", "multilingual", "mpnet"];

fn tokenizer(model: &str, max_length: usize, truncate: bool) -> Tokenizer {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sentence-embeddings/tests/models");
    let file = models.join(model).join("tokenizer.json");
    Tokenizer::load(&file, max_length, truncate, model == "bge").expect("the file is valid")
}

/// The tokens of whole texts, truncated by the library.
fn whole<'s>(tokenizer: &Tokenizer, input: impl Into<tokenizers::EncodeInput<'s>>) -> Vec<u32> {
    let mut library = tokenizer.inner.clone();
    let truncation = tokenizer.truncate.then(|| TruncationParams {
        max_length: tokenizer.max_length,
        direction: direction(tokenizer.from_left),
        ..TruncationParams::default()
    });
    library.with_truncation(truncation).expect("valid");
    let encoding = library.encode(input, true).expect("it can be tokenized");
    encoding.get_ids().to_vec()
}

/// The first tokens of the whole text.
fn of_whole(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    whole(tokenizer, tokenizer.lowercased(text).as_ref())
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
    let texts = long_texts();
    check_pairs(&tokenizer("multilingual", 32, true), &texts);
    // An odd number of tokens is left for both texts.
    check_pairs(&tokenizer("bge", 32, true), &texts[..10]);
}

fn check_pairs(tokenizer: &Tokenizer, texts: &[String]) {
    for (first, second) in texts.iter().zip(texts.iter().skip(5)) {
        for first in ["short", first] {
            let expected = whole(tokenizer, (first, second.as_str()));
            let tokens = tokenizer.pair(first, second).expect("it can be tokenized");
            assert_eq!(tokens.ids, expected, "{:.60} {:.60}", first, second);
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
    let expected = "the first 131072 of the 1048576 bytes of the text do not determine its first 16 tokens";
    assert!(error.message().starts_with(expected), "{}", error.message());
}

#[test]
fn truncation_can_keep_the_last_tokens() {
    let text = "one two three four five six seven eight nine ten";
    for model in MODELS {
        let right = tokenizer(model, 8, true);
        let left = tokenizer(model, 8, true).truncating_left(true);
        let expected = whole(&left, left.lowercased(text).as_ref());
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
        let pair = whole(&left, (&*left.lowercased(text), "a b"));
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
