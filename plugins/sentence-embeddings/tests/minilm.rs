//! Compares all-MiniLM-L6-v2 with sentence-transformers on 200 sentences.

#[allow(dead_code, reason = "each test file uses a part of it")]
mod common;

use common::{assert_close, load, minilm, numbers, reference, reference_json, vector};
use plugin_sdk::serde_json::{Value as Json, json};
use plugin_sdk::testing::Harness;
use sentence_embeddings::SentenceEmbeddings;

const WIDTH: usize = 384;

fn model(threads: u32) -> Option<Harness<SentenceEmbeddings>> {
    let folder = minilm()?;
    Some(load(json!({"folder": folder}), threads).expect("the model loads"))
}

fn texts() -> Vec<Json> {
    let texts = &reference_json("minilm.json")["texts"];
    texts.as_array().expect("a list").clone()
}

fn expected() -> Vec<Vec<f64>> {
    let file = std::fs::read(reference("minilm.f32")).expect("read the reference");
    let (numbers, _) = file.as_chunks::<4>();
    let numbers: Vec<_> = numbers
        .iter()
        .map(|bytes| f64::from(f32::from_le_bytes(*bytes)))
        .collect();
    numbers.chunks_exact(WIDTH).map(<[f64]>::to_vec).collect()
}

/// Embeds the texts with these indexes in one batch and compares each with the reference.
fn check(model: &Harness<SentenceEmbeddings>, task: &str, indexes: &[usize]) {
    let (texts, expected) = (texts(), expected());
    let items: Vec<_> = indexes.iter().map(|index| texts[*index].clone()).collect();
    for (outcome, index) in model.predict(task, &items).into_iter().zip(indexes) {
        assert_close(&vector(outcome), &expected[*index], &format!("text {index}"));
    }
}

#[test]
fn two_hundred_sentences_in_one_batch_match_the_reference() {
    let all: Vec<_> = (0..200).collect();
    assert_eq!(texts().len(), 200);
    let Some(model) = model(2) else { return };
    check(&model, "query", &all);
}

#[test]
fn results_do_not_depend_on_the_batch() {
    let Some(model) = model(2) else { return };
    for index in (0..200).step_by(7) {
        check(&model, "passage", &[index]);
    }
    let shuffled: Vec<_> = (0..200).map(|index| index * 67 % 200).collect();
    for (count, start) in [(2, 0), (3, 2), (8, 5), (31, 13), (64, 44)] {
        check(&model, "query", &shuffled[start..start + count]);
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let some: Vec<_> = (0..200).step_by(5).collect();
    for threads in [1, 3] {
        let Some(model) = model(threads) else { return };
        check(&model, "query", &some);
    }
}

#[test]
fn the_weight_of_an_item_is_its_number_of_tokens() {
    let Some(model) = model(1) else { return };
    let tokens = numbers(&reference_json("minilm.json")["tokens"]);
    for (text, tokens) in texts().iter().zip(tokens) {
        let cost = model.prepare("query", text).expect("every text is accepted");
        assert_eq!(cost.weight as f64, tokens, "{text}");
    }
}

#[test]
fn similar_sentences_have_higher_scores() {
    let Some(model) = model(1) else { return };
    let outcome = model
        .predict(
            "similarity",
            &[json!({
                "query": "How tall is Mont Blanc?",
                "passages": ["The lake is 310 m deep.", "Mont Blanc rises 4806 m above sea level."],
            })],
        )
        .remove(0);
    let scores = numbers(&outcome.expect("computed")["scores"]);
    assert!(scores[1] > 0.7 && scores[0] < 0.4, "{scores:?}");
}
