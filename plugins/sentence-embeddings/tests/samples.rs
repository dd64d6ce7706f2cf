//! Items of a requested weight, with which the server measures batches.

#[allow(dead_code, reason = "each test file uses a part of it")]
mod common;

use common::load;
use plugin_sdk::serde_json::{Value as Json, json};
use plugin_sdk::testing::Harness;
use sentence_embeddings::SentenceEmbeddings;

/// Asserts that the items have exactly these weights, and that they share a batch.
#[track_caller]
fn check(model: &Harness<SentenceEmbeddings>, task: &str, weights: &[u64]) {
    let samples: Vec<Json> = weights
        .iter()
        .map(|weight| {
            model
                .sample(task, *weight)
                .expect(task)
                .expect("there is such an item")
        })
        .collect();
    let stated = samples
        .iter()
        .map(|sample| model.prepare(task, sample).expect("a valid item").weight);
    assert_eq!(stated.collect::<Vec<_>>(), weights, "{task}");
    for outcome in model.predict(task, &samples) {
        outcome.expect("it can be computed");
    }
}

#[test]
fn texts_have_the_requested_number_of_tokens_including_those_of_the_prompt() {
    let model = load(json!({"folder": "e5"}), 1).expect("the model loads");
    for task in ["query", "passage"] {
        check(&model, task, &[20, 33, 64]);
        assert_eq!(
            model.sample(task, 65),
            Ok(None),
            "{task}: longer texts are truncated"
        );
        let lightest = model.sample(task, 1).expect(task).expect("the shortest text");
        let weight = model.prepare(task, &lightest).expect("a valid item").weight;
        assert!((3..20).contains(&weight), "{task}: {weight}");
    }
}

#[test]
fn questions_have_the_requested_number_of_tokens_in_all_of_their_texts() {
    let model = load(json!({"folder": "e5"}), 1).expect("the model loads");
    check(&model, "similarity", &[60, 200, 1000]);
    let model = load(json!({"folder": "cross"}), 1).expect("the model loads");
    check(&model, "rerank", &[30, 200, 1000]);
    assert_eq!(model.sample("rerank", 1 << 40), Ok(None));
}
