//! Compares small models of all supported networks, heads and modules with sentence-transformers and transformers.
//! `reference/architectures.py` generates them with random weights.

#[allow(dead_code, reason = "each test file uses a part of it")]
mod common;

use common::{assert_close, load, models, numbers, reference_json, vector};
use plugin_sdk::serde_json::{Value as Json, json};
use plugin_sdk::testing::{Failure, Harness};
use sentence_embeddings::SentenceEmbeddings;

fn model(name: &str) -> Harness<SentenceEmbeddings> {
    let folder = models().join("architectures").join(name);
    load(json!({"folder": folder}), 2).unwrap_or_else(|failure| panic!("{name}: {failure}"))
}

fn list(value: &Json) -> &[Json] {
    value.as_array().expect("a list")
}

/// Checks the results of a task for all texts: each text alone, and all in one batch.
fn check(
    name: &str,
    task: &str,
    texts: &[Json],
    got: impl Fn(Result<Json, Failure>) -> Vec<f64>,
    expected: &[Vec<f64>],
) {
    let model = model(name);
    model.check_examples();
    let together = model.predict(task, texts);
    for ((text, together), expected) in texts.iter().zip(together).zip(expected) {
        let alone = got(model.predict(task, std::slice::from_ref(text)).remove(0));
        let what = format!("{name}, {task}, {text:.40}");
        assert_close(&alone, expected, &format!("{what}, alone"));
        assert_close(&got(together), expected, &format!("{what}, in a batch"));
    }
}

fn check_vectors(name: &str) {
    let reference = reference_json("architectures.json");
    let texts = list(&reference["texts"]);
    for task in ["query", "passage"] {
        let expected = list(&reference["expected"][name][task]);
        assert_eq!(expected.len(), texts.len());
        let expected: Vec<_> = expected.iter().map(numbers).collect();
        check(name, task, texts, vector, &expected);
    }
}

#[test]
fn roberta_matches_the_reference() {
    check_vectors("roberta");
}

#[test]
fn distilbert_matches_the_reference() {
    check_vectors("distilbert");
}

#[test]
fn mpnet_matches_the_reference() {
    check_vectors("mpnet");
}

#[test]
fn albert_matches_the_reference() {
    check_vectors("albert");
}

#[test]
fn modernbert_matches_the_reference() {
    check_vectors("modernbert");
    check_vectors("modernbert_biased");
}

#[test]
fn nomic_matches_the_reference() {
    check_vectors("nomic");
}

#[test]
fn gte_matches_the_reference() {
    check_vectors("gte");
}

#[test]
fn gte_with_scaled_positions_matches_the_reference() {
    check_vectors("gte_ntk");
}

#[test]
fn qwen3_matches_the_reference() {
    check_vectors("qwen3");
}

#[test]
fn qwen2_matches_the_reference() {
    check_vectors("qwen2");
}

#[test]
fn mistral_with_a_window_and_scaled_positions_matches_the_reference() {
    check_vectors("mistral");
}

#[test]
fn llama_with_biases_matches_the_reference() {
    check_vectors("llama");
}

#[test]
fn a_decoder_that_attends_to_all_tokens_matches_the_reference() {
    check_vectors("bidirectional");
}

#[test]
fn modules_after_pooling_match_the_reference() {
    check_vectors("modules");
}

#[test]
fn all_kinds_of_pooling_that_skip_the_prompt_match_the_reference() {
    check_vectors("poolings");
}

/// Returns all numbers of a sparse vector.
fn dense(outcome: Result<Json, Failure>) -> Vec<f64> {
    let mut numbers = vec![0.0; 120];
    let outcome = outcome.expect("computed");
    let mut last = None;
    for word in list(&outcome) {
        let index = word["index"].as_u64().expect("an index");
        assert!(last.is_none_or(|last| last < index), "{outcome}");
        last = Some(index);
        numbers[index as usize] = word["value"].as_f64().expect("a number");
    }
    numbers
}

#[test]
fn sparse_vectors_match_the_reference() {
    let reference = reference_json("architectures.json");
    for network in ["bert", "distilbert", "roberta", "mpnet", "albert", "modernbert"] {
        let name = format!("sparse_{network}");
        let expected = list(&reference["expected"][&name]["query"]);
        let expected: Vec<_> = expected.iter().map(numbers).collect();
        check(&name, "query", list(&reference["texts"]), dense, &expected);
    }
}

#[test]
fn the_vectors_of_tokens_match_the_reference() {
    let reference = reference_json("architectures.json");
    let vectors = |outcome: Result<Json, Failure>| numbers(&outcome.expect("computed")["embeddings"]);
    for name in ["tokens", "tokens_expanded", "tokens_attended"] {
        for task in ["query", "passage"] {
            let expected = list(&reference["expected"][name][task]);
            let expected: Vec<_> = expected.iter().map(numbers).collect();
            check(name, task, list(&reference["texts"]), vectors, &expected);
        }
    }
}

/// Returns the raw scores of the labels, in the order of the network.
fn raw_scores(model: &Harness<SentenceEmbeddings>, items: &[Json], labels: &[&str]) -> Vec<Vec<f64>> {
    let outcomes = model.predict_with("classify", items, &json!({"raw_scores": true}));
    let in_order = |outcome: Result<Json, Failure>| {
        let scored = outcome.expect("computed");
        let scores = list(&scored)
            .iter()
            .map(|scored| scored["score"].as_f64().expect("a number"));
        let scores: Vec<_> = scores.collect();
        assert!(scores.is_sorted_by(|one, other| one >= other), "{scored}");
        let of_label = |label: &&str| {
            let found = list(&scored).iter().find(|scored| scored["label"] == *label);
            found.expect("all labels")["score"].as_f64().expect("a number")
        };
        labels.iter().map(of_label).collect()
    };
    outcomes.into_iter().map(in_order).collect()
}

#[test]
fn the_scores_of_labels_match_the_reference() {
    let reference = reference_json("architectures.json");
    for network in [
        "bert",
        "distilbert",
        "roberta",
        "mpnet",
        "albert",
        "modernbert",
        "nomic",
        "gte",
        "qwen3",
    ] {
        let name = format!("labels_{network}");
        let model = model(&name);
        model.check_examples();
        let labels: &[&str] = match network {
            // The default of transformers.
            "distilbert" => &["LABEL_0", "LABEL_1"],
            _ => &["lake", "mountain", "city"],
        };
        let expected = &reference["expected"][&name];
        for (items, expected) in [("texts", &expected["texts"]), ("pairs", &expected["pairs"])] {
            let items = list(&reference[items]);
            let together = raw_scores(&model, items, labels);
            for ((item, together), expected) in items.iter().zip(together).zip(list(expected)) {
                let alone = raw_scores(&model, std::slice::from_ref(item), labels).remove(0);
                assert_close(&alone, &numbers(expected), &format!("{name}, {item:.40}, alone"));
                assert_close(
                    &together,
                    &numbers(expected),
                    &format!("{name}, {item:.40}, in a batch"),
                );
            }
        }
    }
}

#[test]
fn scores_are_probabilities_of_one_label_or_of_each() {
    for (name, sigmoid) in [("labels_bert", false), ("labels_roberta", true)] {
        let model = model(name);
        let items = [json!("the lake is deep")];
        let raw = raw_scores(&model, &items, &["lake", "mountain", "city"]).remove(0);
        let sum: f64 = raw.iter().map(|raw| raw.exp()).sum();
        let mut expected: Vec<_> = match sigmoid {
            true => raw.iter().map(|raw| 1.0 / (1.0 + (-raw).exp())).collect(),
            false => raw.iter().map(|raw| raw.exp() / sum).collect(),
        };
        expected.sort_by(|one, other| other.total_cmp(one));
        let scored = model.predict("classify", &items).remove(0).expect("computed");
        let got: Vec<_> = list(&scored)
            .iter()
            .map(|scored| scored["score"].as_f64().expect("a number"))
            .collect();
        assert_close(&got, &expected, name);
    }
}

#[test]
fn clients_choose_prompts_normalization_and_truncation() {
    let (model, reference) = (model("nomic"), reference_json("architectures.json"));
    let text = &reference["texts"][0];
    let with = |parameters: Json| {
        let outcome = model
            .predict_with("passage", std::slice::from_ref(text), &parameters)
            .remove(0);
        outcome.map(|output| numbers(&output["embedding"]))
    };
    let expected = numbers(&reference["expected"]["nomic"]["query"][0]);
    assert_close(
        &with(json!({"prompt_name": "query"})).expect("computed"),
        &expected,
        "by name",
    );
    let unscaled = with(json!({"prompt_name": "query", "normalize": false})).expect("computed");
    let length = unscaled.iter().map(|number| number * number).sum::<f64>().sqrt();
    assert!((length - 1.0).abs() > 0.01, "{length}");
    let scaled: Vec<_> = unscaled.iter().map(|number| number / length).collect();
    assert_close(&scaled, &expected, "scaled");
    let failure = with(json!({"prompt_name": "question"})).expect_err("unknown prompt");
    assert_eq!(
        failure.message,
        "unknown prompt `question` in `prompt_name`: expected `document` or `query` or `topic`"
    );

    let long = json!("lake ".repeat(30) + &"deep ".repeat(40));
    let of_long = |parameters: Json| {
        let outcome = model
            .predict_with("query", std::slice::from_ref(&long), &parameters)
            .remove(0);
        outcome.map(|output| numbers(&output["embedding"]))
    };
    let failure = of_long(json!({"truncate": false})).expect_err("too long");
    assert!(
        failure.message.ends_with("tokens, expected at most 64"),
        "{failure}"
    );
    let right = of_long(json!({})).expect("computed");
    assert_eq!(
        of_long(json!({"truncation_direction": "right"})).expect("computed"),
        right
    );
    let left = of_long(json!({"truncation_direction": "left"})).expect("computed");
    assert!(
        left.iter()
            .zip(&right)
            .any(|(one, other)| (one - other).abs() > 0.01)
    );
}
