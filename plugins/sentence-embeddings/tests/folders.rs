//! Compares small models of all supported kinds with sentence-transformers. `reference/make.py` generates them with random
//! weights.

#[allow(dead_code, reason = "each test file uses a part of it")]
mod common;

use std::fs;

use common::{ModelCopy, assert_close, load, numbers, reference_json, vector};
use plugin_sdk::serde_json::{Value as Json, json};
use plugin_sdk::testing::{Failure, FailureKind, Harness};
use sentence_embeddings::SentenceEmbeddings;

fn model(folder: &str) -> Harness<SentenceEmbeddings> {
    load(json!({"folder": folder}), 2).expect("the model loads")
}

fn question(reference: &Json) -> Json {
    json!({"query": reference["query"], "passages": reference["passages"]})
}

fn vectors(outcomes: Vec<Result<Json, Failure>>) -> Vec<f64> {
    outcomes.into_iter().flat_map(vector).collect()
}

/// Compares all tasks of an embedding model.
fn check_embeddings(folder: &str) {
    let (model, reference) = (model(folder), reference_json("small.json"));
    model.check_examples();
    let expected = &reference["expected"][folder];
    let texts = reference["texts"].as_array().expect("a list");
    for task in ["query", "passage"] {
        let got = vectors(model.predict(task, texts));
        assert_close(&got, &numbers(&expected[task]), &format!("{folder}, {task}"));
    }
    let similar = model.predict("similarity", &[question(&reference)]).remove(0);
    let similar = similar.expect("computed");
    assert_close(
        &numbers(&similar["scores"]),
        &numbers(&expected["similarity"]),
        folder,
    );
}

/// Compares the task of a cross-encoder.
fn check_ranking(folder: &str) {
    let (model, reference) = (model(folder), reference_json("small.json"));
    model.check_examples();
    let ranking = model.predict("rerank", &[question(&reference)]).remove(0);
    let ranking = ranking.expect("computed");
    let results = ranking["results"].as_array().expect("a list");
    let expected = numbers(&reference["expected"][folder]["scores"]);
    let mut sorted = expected.clone();
    sorted.sort_by(|one, other| other.total_cmp(one));
    let got: Vec<_> = results
        .iter()
        .flat_map(|result| numbers(&json!([result["score"]])))
        .collect();
    assert_close(&got, &sorted, &format!("{folder}, sorted"));
    let mut in_order = vec![f64::NAN; expected.len()];
    for (result, score) in results.iter().zip(got) {
        let index = result["index"].as_u64().expect("an index");
        in_order[index as usize] = score;
    }
    assert_close(&in_order, &expected, &format!("{folder}, by index"));
}

#[test]
fn bert_with_prompts_and_mean_pooling_matches_the_reference() {
    check_embeddings("e5");
}

#[test]
fn bert_with_cls_pooling_and_dot_product_matches_the_reference() {
    check_embeddings("bge");
}

#[test]
fn roberta_with_subwords_and_max_pooling_matches_the_reference() {
    check_embeddings("multilingual");
}

#[test]
fn weights_in_half_precision_match_the_reference() {
    check_embeddings("half");
}

#[test]
fn a_network_in_an_onnx_file_matches_the_reference() {
    check_embeddings("mpnet");
}

#[test]
fn a_bert_cross_encoder_matches_the_reference() {
    check_ranking("cross");
}

#[test]
fn a_roberta_cross_encoder_matches_the_reference() {
    check_ranking("cross_multilingual");
}

#[test]
fn settings_take_precedence_over_the_model_directory() {
    let reference = reference_json("small.json");
    let text = &reference["texts"][5];
    let settings =
        json!({"folder": "e5", "prompts": {"query": "passage: "}, "pooling": "mean", "normalize": true});
    let model = load(settings, 1).expect("the model loads");
    let got = vectors(model.predict("query", std::slice::from_ref(text)));
    assert_close(
        &got,
        &numbers(&reference["expected"]["e5"]["passage"][5]),
        "the prompt",
    );

    let plain = json!({"folder": "e5", "prompts": {"query": "passage: "}, "normalize": false});
    let plain = load(plain, 1).expect("the model loads");
    let vector = vectors(plain.predict("query", std::slice::from_ref(text)));
    let length = vector.iter().map(|value| value * value).sum::<f64>().sqrt();
    assert!(
        (length - 1.0).abs() > 0.1,
        "expected an unnormalized vector, got length {length}"
    );
    let scaled: Vec<_> = vector.iter().map(|value| value / length).collect();
    assert_close(&scaled, &got, "the direction");
}

#[test]
fn long_texts_are_truncated_or_rejected_depending_on_the_settings() {
    let text = json!("word ".repeat(100));
    let cut = load(json!({"folder": "e5", "max_length": 10}), 1).expect("the model loads");
    assert_eq!(cut.prepare("query", &text).expect("truncated").weight, 10);
    let strict =
        load(json!({"folder": "e5", "max_length": 10, "truncate": false}), 1).expect("the model loads");
    let failure = strict.prepare("query", &text).expect_err("too long");
    assert_eq!(failure.kind, FailureKind::InvalidInput);
    assert!(
        failure.message.ends_with("tokens, expected at most 10"),
        "{}",
        failure.message
    );
}

#[test]
fn the_number_of_passages_is_limited() {
    let model = load(json!({"folder": "e5", "max_passages": 2}), 1).expect("the model loads");
    for (passages, message) in [
        (json!([]), "`passages` is empty, expected at least one"),
        (
            json!(["a", "b", "c"]),
            "`passages` has 3 texts, expected at most 2",
        ),
    ] {
        let question = json!({"query": "a", "passages": passages});
        let failure = model
            .prepare("similarity", &question)
            .expect_err("invalid passages");
        assert_eq!(failure.message, message);
    }
}

#[test]
fn errors_name_the_setting_at_fault() {
    let problem = |settings: Json| {
        let failure = load(settings, 1).expect_err("invalid settings");
        (failure.key, failure.message)
    };
    let (key, message) = problem(json!({"folder": "absent"}));
    assert_eq!(key, "folder");
    assert!(message.ends_with("/absent` is not a directory"), "{message}");

    let (key, message) = problem(json!({"folder": "e5", "max_length": 67}));
    assert_eq!(key, "max_length");
    assert_eq!(
        message,
        "got 67, expected at most 66, the number of positions of the model"
    );

    let (key, message) = problem(json!({"folder": "e5", "weights": "model.bin"}));
    assert_eq!(key, "weights");
    assert!(message.starts_with("file with weights not found"), "{message}");

    let (key, _) = problem(json!({"folder": "cross", "normalize": true}));
    assert_eq!(key, "normalize");

    let (key, message) = problem(json!({"folder": "mpnet", "weights": "../e5/model.safetensors"}));
    assert_eq!(key, "folder");
    assert!(
        message.contains("it has no tensor `encoder.layer.0.attention.attn.q.weight`"),
        "{message}"
    );

    let (key, message) = problem(json!({"folder": "e5", "weights": "../multilingual/model.safetensors"}));
    assert_eq!(key, "folder");
    assert!(
        message.contains("has the shape") && message.contains("expected"),
        "{message}"
    );
}

/// Returns the error of loading a copy of a small model in which `from` is replaced by `to` in `file`.
fn load_error(folder: &str, file: &str, from: &str, to: &str) -> String {
    let copy = ModelCopy::of(folder);
    let path = copy.path().join(file);
    let text = fs::read_to_string(&path).expect("read the file");
    assert!(text.contains(from), "{file} has no `{from}`");
    fs::write(&path, text.replace(from, to)).expect("write the file");
    copy.load_error()
}

#[test]
fn unsupported_features_are_errors_that_name_them() {
    for (folder, file, from, to, reason) in [
        (
            "e5",
            "modules.json",
            ".Normalize",
            ".CNN",
            "has the module `sentence_transformers.base.modules.normalize.CNN`, expected Transformer, MLMTransformer, Pooling",
        ),
        (
            "e5",
            "modules.json",
            ".Pooling",
            ".SpladePooling",
            "has the unknown key `include_prompt` with the value true",
        ),
        (
            "e5",
            "1_Pooling/config.json",
            "\"mean\"",
            "\"median\"",
            "has `pooling_mode` \"median\", expected cls, max, mean",
        ),
        (
            "e5",
            "config.json",
            "\"gelu\"",
            "\"mish\"",
            "has `hidden_act` \"mish\", expected gelu, gelu_new",
        ),
        (
            "e5",
            "config.json",
            "\"model_type\": \"bert\"",
            "\"model_type\": \"t5\"",
            "has `model_type` \"t5\", expected bert, roberta, xlm-roberta, camembert, distilbert",
        ),
        (
            "e5",
            "config.json",
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 1",
            "it has the tensor `encoder.layer.1.attention.output.LayerNorm.bias`, but `config.json` describes no part that uses it",
        ),
        (
            "e5",
            "config.json",
            "\"num_attention_heads\": 4",
            "\"num_attention_heads\": 5",
            "has `hidden_size` 32, expected a multiple of `num_attention_heads` 5",
        ),
        (
            "e5",
            "config.json",
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 3",
            "it has no tensor `encoder.layer.2",
        ),
        (
            "e5",
            "config.json",
            "\"intermediate_size\": 64",
            "\"intermediate_size\": 32",
            "has the shape [64, 32], expected [32, 32]",
        ),
        (
            "cross",
            "config.json",
            "linear.Identity",
            "activation.Tanh",
            "expected Sigmoid, Identity or Softmax, not `torch.nn.modules.activation.Tanh`",
        ),
    ] {
        let message = load_error(folder, file, from, to);
        assert!(message.contains(reason), "{message}");
    }
}
