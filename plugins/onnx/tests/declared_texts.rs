//! Tasks that take texts, with small models: the tensors that a text is converted to, and that padding and the other items of a
//! batch do not change a vector.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use common::{assert_close, declared_answers, load, numbers, onnx_runtime};
use plugin_sdk::serde_json::{Value as Json, json};
use plugin_sdk::testing::FailureKind;

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models");

/// Its tokens are 2, 114, 16, 43, 36, 37 and 3 for "the lake", and 2 and 3 for an empty text.
const TOKENIZER: &str = "../../../sentence-embeddings/tests/models/bge/tokenizer.json";

fn settings(model: &str, tokenizer: &str, task: &str) -> String {
    format!(
        "model = \"{model}.onnx\"\n[tasks.t]\ntokenizer = {{ file = \"{TOKENIZER}\"{tokenizer} }}\n{task}"
    )
}

fn vectors(settings: &str, texts: &[&str]) -> Option<Vec<Vec<f64>>> {
    let items: Vec<_> = texts.iter().map(|text| json!(text)).collect();
    let answers = declared_answers(settings, MODELS, &items)?;
    Some(
        answers
            .iter()
            .map(|answer| numbers(&answer["embedding"]))
            .collect(),
    )
}

#[test]
fn padding_to_a_fixed_length_has_no_part_in_a_vector() {
    for (pooling, lake, empty) in [
        ("mean", [251.0 / 7.0, 1.0], [2.5, 1.0]),
        ("cls", [2.0, 1.0], [2.0, 1.0]),
        ("max", [114.0, 1.0], [3.0, 1.0]),
    ] {
        let embedding = format!("embedding = {{ pooling = \"{pooling}\", normalize = false }}");
        let settings = settings("token_vectors", "", &embedding);
        for texts in [&["the lake"][..], &["the lake", "", "the lake"]] {
            let Some(vectors) = vectors(&settings, texts) else {
                return;
            };
            for (vector, text) in vectors.iter().zip(texts) {
                let expected = if text.is_empty() { empty } else { lake };
                assert_close(vector, &expected, 1e-5, pooling);
            }
        }
    }
}

#[test]
fn a_prefix_comes_before_every_text_and_longer_texts_are_truncated() {
    // The tokens are 2, 246, 55, 52, 1, 114, 16 and 3; there would be more without the limit of 8.
    let task = "embedding = { pooling = \"mean\", normalize = false }";
    let settings = settings("token_vectors", ", prefix = \"query: \"", task);
    let Some(vectors) = vectors(&settings, &["the lake"]) else {
        return;
    };
    assert_close(&vectors[0], &[489.0 / 8.0, 1.0], 1e-5, "vector");
}

#[test]
fn a_vector_of_the_whole_text_is_scaled_to_length_1_in_any_batch() {
    let (tokens, positions) = (251.0_f64, 21.0_f64);
    let length = tokens.hypot(positions);
    let settings = settings("text_vector", "", "embedding = {}");
    for texts in [&["the lake"][..], &["the lake", "", "the lake"]] {
        let Some(vectors) = vectors(&settings, texts) else {
            return;
        };
        assert_close(
            &vectors[0],
            &[tokens / length, positions / length],
            1e-6,
            "vector",
        );
        assert_eq!(vectors.first(), vectors.last());
    }
}

#[test]
fn a_task_that_declares_an_embedding_is_offered_as_one() {
    let Some(runtime) = onnx_runtime() else { return };
    let settings = settings("text_vector", "", "embedding = {}");
    let model = load(&format!("{runtime}\n{settings}"), MODELS).expect("the settings fit");
    let task = &model.manifest().tasks[0];
    assert!(task.embedding && !task.unbatched);
    assert_eq!(task.output.tensors[0].shape, [2]);
    model.check_examples();
}

#[test]
fn a_text_can_be_classified() {
    let settings = settings("text_vector", "", "labels = [\"tokens\", \"positions\"]");
    let Some(answers) = declared_answers(&settings, MODELS, &[json!("the lake")]) else {
        return;
    };
    let expected: Json = json!({"label": "tokens", "score": 251.0, "scores": [
        {"label": "tokens", "score": 251.0},
        {"label": "positions", "score": 21.0},
    ]});
    assert_eq!(answers, [expected]);
}

#[test]
fn settings_of_texts_that_do_not_fit_are_reported_for_their_key() {
    let Some(runtime) = onnx_runtime() else { return };
    for (settings, key, message) in [
        (
            settings("token_vectors", ", max_length = 9", ""),
            "tasks.t.tokenizer.max_length",
            "9, expected at most 8, which is what the model takes",
        ),
        (
            settings("text_vector", "", "embedding = { pooling = \"mean\" }"),
            "tasks.t.embedding.pooling",
            "output `vector` has one vector for each text, which needs no pooling",
        ),
        (
            settings("token_vectors", "", "image = { width = 8, height = 1 }"),
            "tasks.t.tokenizer",
            "a task takes images or texts",
        ),
    ] {
        let failure = load(&format!("{runtime}\n{settings}"), MODELS).expect_err(key);
        assert_eq!(
            (failure.kind, &*failure.key),
            (FailureKind::Settings, key),
            "{failure}"
        );
        assert!(failure.message.contains(message), "{failure}");
    }
}
