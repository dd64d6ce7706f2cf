//! Declared tasks with the models of real packages (`fetch-examples`), compared with the results of the packages themselves
//! (`tasks/reference.json`, which `tasks/make.py` writes).

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{assert_close, bytes_item, example_models, load, numbers, onnx_runtime, read_json};
use onnx::Onnx;
use plugin_sdk::serde_json::{Value as Json, json};
use plugin_sdk::testing::{FailureKind, Harness};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tasks")
}

fn reference() -> Json {
    read_json(directory().join("reference.json"))
}

fn picture(name: &str) -> Json {
    let data = fs::read(directory().join(name)).expect("the picture is part of the repository");
    bytes_item(&data, "image/png")
}

/// Loads the model in each runtime that is installed. Empty if the models are missing. The embedded runtime may reject a model,
/// but must not compute wrong results.
fn loaded(settings: &str) -> Vec<(&'static str, Harness<Onnx>)> {
    let Some(models) = example_models() else {
        return Vec::new();
    };
    let mut loaded = Vec::new();
    if let Some(runtime) = onnx_runtime() {
        let model = load(&format!("{runtime}\n{settings}"), &models);
        loaded.push(("ort", model.unwrap_or_else(|failure| panic!("{failure}"))));
    }
    match load(&format!("runtime = \"rten\"\n{settings}"), &models) {
        Ok(model) => loaded.push(("rten", model)),
        Err(failure) => assert_eq!(failure.key, "model", "{failure}"),
    }
    loaded
}

const BARCODES: &str = r#"
model = "barcodes.onnx"

[tasks.detect]
detection = {}
labels = [
    "qr", "micro_qr", "aztec", "data_matrix", "pdf417", "code_128", "code_39", "code_93", "ean_13", "ean_8", "upc_a", "upc_e",
    "gs1_databar", "other_1d",
]
image = { width = 640, height = 640, fit = "letterbox", position = "top-left", fill = 114 }
"#;

#[test]
fn a_detector_finds_what_its_package_finds_in_pixels_of_the_original_image() {
    let expected = reference()["codes"]["detections"].clone();
    let expected = expected.as_array().expect("it is a list");
    assert_eq!(expected.len(), 2);
    // Only in ONNX Runtime, because the network is slow.
    let (Some(runtime), Some(models)) = (onnx_runtime(), example_models()) else {
        return;
    };
    let model = load(&format!("{runtime}\n{BARCODES}"), models).expect("the model loads");
    let outcome = model.predict("detect", &[picture("codes.png")]).remove(0);
    let outcome = outcome.expect("an image is computed");
    let detections = outcome["detections"].as_array().expect("it is a list");
    assert_eq!(detections.len(), expected.len(), "{detections:?}");
    for (got, expected) in detections.iter().zip(expected) {
        assert_eq!(got["label"], expected["label"]);
        let score = |detection: &Json| vec![detection["score"].as_f64().expect("a number")];
        assert_close(&score(got), &score(expected), 0.02, "score");
        // Resizing differs slightly, and the package rounds sizes down.
        assert_close(&numbers(&got["box"]), &numbers(&expected["box"]), 1.5, "box");
    }
}

const LINE: &str = r#"
model = "text-line.onnx"

[tasks.read]
text = { dictionary = { metadata = "character" }, space = true }
image = { width = "proportional", min_width = 320, height = 48, channels = "bgr", scale = [-1, 1], resize = "linear", fill = 127.5 }
"#;

#[test]
fn lines_of_text_are_read_as_their_package_reads_them() {
    let reference = reference();
    let expected = reference["lines"].as_object().expect("it is an object");
    let items: Vec<_> = expected.keys().map(|name| picture(name)).collect();
    for (runtime, model) in loaded(LINE) {
        for (outcome, (name, expected)) in model.predict("read", &items).into_iter().zip(expected) {
            let outcome = outcome.unwrap_or_else(|failure| panic!("{runtime}, {name}: {failure}"));
            assert_eq!(outcome["text"], expected["text"], "{runtime}, {name}");
            let score = |reading: &Json| vec![reading["score"].as_f64().expect("a number")];
            assert_close(&score(&outcome), &score(expected), 5e-3, name);
        }
    }
}

const ORIENTATION: &str = r#"
model = "text-orientation.onnx"

[tasks.classify]
labels = ["0", "180"]
image = { width = 192, height = 48, fit = "height", channels = "bgr", scale = [-1, 1], resize = "linear", fill = 127.5 }
"#;

#[test]
fn lines_of_text_are_classified_as_their_package_classifies_them() {
    let reference = reference();
    let expected = reference["orientations"].as_object().expect("it is an object");
    let items: Vec<_> = expected.keys().map(|name| picture(name)).collect();
    for (runtime, model) in loaded(ORIENTATION) {
        for (outcome, (name, expected)) in model.predict("classify", &items).into_iter().zip(expected) {
            let outcome = outcome.unwrap_or_else(|failure| panic!("{runtime}, {name}: {failure}"));
            assert_eq!(outcome["label"], expected["label"], "{runtime}, {name}");
            let score = |classified: &Json| vec![classified["score"].as_f64().expect("a number")];
            assert_close(&score(&outcome), &score(expected), 1e-3, name);
        }
    }
}

const MINILM: &str = r#"
model = "minilm.onnx"

[tasks.embed]
tokenizer = { file = "tokenizer.json", max_length = 256 }
embedding = { pooling = "mean" }
"#;

#[test]
fn texts_are_embedded_as_onnxruntime_does_in_any_batch() {
    let reference = reference();
    let texts = reference["texts"].as_array().expect("it is a list");
    let vectors: Vec<_> = texts.iter().map(|text| numbers(&text["embedding"])).collect();
    // Each text occurs twice, the second time in reverse order, so that texts of the same length share a batch.
    let order: Vec<_> = (0..texts.len()).chain((0..texts.len()).rev()).collect();
    let items: Vec<_> = order.iter().map(|index| texts[*index]["text"].clone()).collect();
    for (runtime, model) in loaded(MINILM) {
        for (outcome, index) in model.predict("embed", &items).into_iter().zip(&order) {
            let outcome = outcome.unwrap_or_else(|failure| panic!("{runtime}: {failure}"));
            assert_close(&numbers(&outcome["embedding"]), &vectors[*index], 1e-4, runtime);
        }
        let alone = model.predict("embed", &items[1..2]).remove(0);
        let alone = alone.unwrap_or_else(|failure| panic!("{runtime}: {failure}"));
        assert_close(&numbers(&alone["embedding"]), &vectors[1], 1e-4, runtime);
    }
}

#[test]
fn a_longer_text_is_rejected_if_the_settings_say_so() {
    let settings = MINILM.replace("max_length = 256", "max_length = 8, truncate = false");
    for (_, model) in loaded(&settings) {
        let outcomes = model.predict(
            "embed",
            &[json!("How tall is Mont Blanc?"), json!("word ".repeat(9))],
        );
        assert!(outcomes[0].is_ok());
        let failure = outcomes[1]
            .as_ref()
            .expect_err("it has more than 8 tokens")
            .to_string();
        assert!(failure.contains("11 tokens, expected at most 8"), "{failure}");
    }
}

/// Settings that do not match the models, with the key and a part of the message of the expected error.
const WRONG: &[(&str, &str, &str, &str, &str)] = &[
    (
        LINE,
        ", space = true",
        "",
        "tasks.read.text.dictionary",
        "6623 characters and the blank, expected 6625 classes",
    ),
    (
        LINE,
        "metadata = \"character\"",
        "metadata = \"chars\"",
        "tasks.read.text.dictionary.metadata",
        "it has `character`",
    ),
    (
        LINE,
        "min_width = 320,",
        "fit = \"stretch\",",
        "tasks.read.image.fit",
        "with a proportional width, expected \"height\"",
    ),
    (
        LINE,
        "[tasks.read]",
        "[tasks.read]\nlabels = [\"a\"]",
        "tasks.read.labels",
        "another kind of answer",
    ),
    (
        LINE,
        "[tasks.read]",
        "[tasks.read]\nembedding = {}",
        "tasks.read.embedding",
        "has `text` as well",
    ),
    (
        MINILM,
        "pooling = \"mean\"",
        "",
        "tasks.embed.embedding.pooling",
        "output `last_hidden_state` has a vector for each token",
    ),
    (
        MINILM,
        "tokenizer = { file = \"tokenizer.json\", max_length = 256 }",
        "",
        "tasks.embed.embedding",
        "requires `tokenizer`",
    ),
];

#[test]
fn settings_that_do_not_fit_the_model_are_reported_for_their_key() {
    let (Some(runtime), Some(models)) = (onnx_runtime(), example_models()) else {
        return;
    };
    for (settings, from, to, key, message) in WRONG {
        assert!(settings.contains(from), "{from}");
        let settings = settings.replace(from, to);
        let Err(failure) = load(&format!("{runtime}\n{settings}"), &models) else {
            panic!("{key}: expected an error");
        };
        assert_eq!(
            (failure.kind, &*failure.key),
            (FailureKind::Settings, *key),
            "{failure}"
        );
        assert!(failure.message.contains(message), "{key}: {failure}");
    }
}
