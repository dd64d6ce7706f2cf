//! The tokens of texts: their IDs in place of texts, their vectors, and the tasks that convert between both.

#[allow(dead_code, reason = "each test file uses a part of it")]
mod common;

use common::{assert_close, load, numbers, reference_json, vector};
use plugin_sdk::serde_json::{Value as Json, json};
use plugin_sdk::testing::{Failure, Harness};
use sentence_embeddings::SentenceEmbeddings;

fn model(folder: &str) -> Harness<SentenceEmbeddings> {
    load(json!({"folder": folder}), 1).expect("the model loads")
}

fn run(
    model: &Harness<SentenceEmbeddings>,
    task: &str,
    item: Json,
    parameters: Json,
) -> Result<Json, Failure> {
    model.predict_with(task, &[item], &parameters).remove(0)
}

/// The IDs of the tokens of a text.
fn ids(model: &Harness<SentenceEmbeddings>, text: &str, parameters: Json) -> Json {
    let tokens = run(model, "tokenize", json!(text), parameters).expect("tokenized");
    let tokens = tokens.as_array().expect("a list").iter();
    tokens.map(|token| token["id"].clone()).collect()
}

#[test]
fn ids_of_a_whole_sequence_have_the_vector_of_its_text() {
    let reference = reference_json("small.json");
    for folder in ["bge", "mpnet", "multilingual"] {
        let model = model(folder);
        let texts = reference["texts"].as_array().expect("a list");
        for (index, text) in texts.iter().enumerate() {
            let ids = ids(&model, text.as_str().expect("a text"), json!({}));
            // Truncation of a text keeps the special tokens at its end, and that of IDs does not know them.
            let cost = model.prepare("passage", text).expect("every text is accepted");
            if ids.as_array().map(Vec::len) != usize::try_from(cost.weight).ok() {
                continue;
            }
            let outcome = run(&model, "passage", json!(""), json!({"token_ids": ids}));
            let expected = numbers(&reference["expected"][folder]["passage"][index]);
            assert_close(&vector(outcome), &expected, &format!("{folder}, text {index}"));
        }
    }
}

#[test]
fn a_prompt_is_tokenized_together_with_the_text_of_the_ids() {
    let model = model("e5");
    let ids = ids(&model, "lake", json!({"add_special_tokens": false}));
    // The file of this small model has no decoder, which would join the parts of words.
    let text = run(&model, "decode", ids.clone(), json!({})).expect("decoded");
    let expected = vector(run(&model, "query", text, json!({})));
    let got = vector(run(&model, "query", json!(""), json!({"token_ids": ids})));
    assert_close(&got, &expected, "with the prompt of queries");
}

#[test]
fn ids_are_rejected_if_they_are_unknown_or_beside_a_text() {
    let model = model("bge");
    for (text, ids, expected) in [
        ("lake", json!([5]), "got both a text and `token_ids`"),
        ("", json!([]), "there are no token IDs"),
        ("", json!([1_000_000]), "unknown token ID 1000000"),
    ] {
        let failure = run(&model, "query", json!(text), json!({"token_ids": ids})).expect_err("rejected");
        assert!(failure.message.starts_with(expected), "{failure}");
    }
}

#[test]
fn the_mean_of_the_vectors_of_tokens_is_the_vector_of_the_text() {
    let (model, reference) = (model("e5"), reference_json("small.json"));
    let texts = reference["texts"].as_array().expect("a list");
    for (prompt, task) in [("query", "query"), ("document", "passage")] {
        let outcomes = model.predict_with("token_vectors", texts, &json!({"prompt_name": prompt}));
        for (index, outcome) in outcomes.into_iter().enumerate() {
            let rows = outcome.expect("computed")["embeddings"].clone();
            let rows: Vec<Vec<f64>> = rows.as_array().expect("rows").iter().map(numbers).collect();
            let sums: Vec<f64> = (0..rows[0].len())
                .map(|column| rows.iter().map(|row| row[column]).sum())
                .collect();
            let length = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
            let mean: Vec<f64> = sums.iter().map(|sum| sum / length).collect();
            let expected = numbers(&reference["expected"]["e5"][task][index]);
            assert_close(&mean, &expected, &format!("{task}, text {index}"));
        }
    }
    let by_default = run(&model, "token_vectors", json!("lake"), json!({})).expect("computed");
    let unprompted = ids(&model, "lake", json!({}));
    assert_eq!(
        by_default["embeddings"].as_array().map(Vec::len),
        unprompted.as_array().map(Vec::len),
        "neither a query nor a passage"
    );
}

#[test]
fn prompts_of_the_settings_have_names_as_well() {
    let settings = json!({"folder": "bge", "prompts": {"query": "find: ", "passage": "read: "}});
    let model = load(settings, 1).expect("the model loads");
    let prompted = ids(&model, "lake", json!({"prompt_name": "query"}));
    assert_eq!(prompted, ids(&model, "find: lake", json!({})));
    assert_eq!(
        ids(&model, "lake", json!({"prompt_name": "passage"})),
        ids(&model, "read: lake", json!({}))
    );
}

#[test]
fn the_default_task_is_the_one_that_does_what_the_model_is_for() {
    for (folder, expected) in [
        ("bge", Some("passage")),
        ("e5", None),
        ("cross", Some("rerank")),
        ("architectures/labels_bert", Some("classify")),
        ("architectures/sparse_bert", Some("passage")),
    ] {
        let model = model(folder);
        let tasks = &model.manifest().tasks;
        let default = tasks.iter().find(|task| task.default);
        let name = default.map(|task| task.name.as_str());
        assert_eq!(name, expected, "{folder}");
        for task in ["tokenize", "decode"] {
            assert!(tasks.iter().any(|other| other.name == task), "{folder}");
        }
    }
}

#[test]
fn pairs_are_truncated_at_the_left_if_the_client_wants_that() {
    let model = model("cross");
    let (start, end) = ("lake ".repeat(100), "deep ".repeat(100));
    let score = |passage: &str, direction: &str| {
        let question = json!({"query": "How tall?", "passages": [passage]});
        let parameters = json!({"truncation_direction": direction, "raw_scores": true});
        let ranking = run(&model, "rerank", question, parameters).expect("ranked");
        numbers(&json!([ranking["results"][0]["score"]]))[0]
    };
    let both = format!("{start}{end}");
    assert_eq!(score(&both, "right"), score(&start, "right"));
    assert_eq!(score(&both, "left"), score(&end, "left"));
    assert!((score(&both, "left") - score(&both, "right")).abs() > 1e-6);
}
