//! Helpers for the tests of this plugin: loading models as the server does, and comparing numbers.

pub(crate) mod graph;

use std::path::{Path, PathBuf};
use std::process::Command;

use onnx::Onnx;
use plugin_sdk::serde_json::{self, Value as Json, json};
use plugin_sdk::testing::{Failure, Harness};

/// The repository's `config` directory.
pub(crate) fn config_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config")
}

/// Loads a model with settings in TOML. Their paths are relative to `base_dir`.
pub(crate) fn load(settings: &str, base_dir: impl Into<PathBuf>) -> Result<Harness<Onnx>, Failure> {
    let settings: Json = toml::from_str(settings).expect("the settings of a test are TOML");
    Harness::load_with(settings, base_dir, 1, 1)
}

/// A file as an item with base64 data.
pub(crate) fn bytes_item(data: &[u8], media_type: &str) -> Json {
    use base64::Engine;
    json!({"b64": base64::prelude::BASE64_STANDARD.encode(data), "media_type": media_type})
}

/// The numbers of a nested JSON array, in order.
pub(crate) fn numbers(value: &Json) -> Vec<f64> {
    match value {
        Json::Array(values) => values.iter().flat_map(numbers).collect(),
        Json::Number(number) => vec![number.as_f64().expect("a number of JSON")],
        other => panic!("{other} is not an array of numbers"),
    }
}

/// Asserts that two lists of numbers have the same length and that no pair differs by more than `tolerance`.
pub(crate) fn assert_close(got: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: number of elements");
    let worst = got
        .iter()
        .zip(expected)
        .map(|(one, other)| (one - other).abs())
        .fold(0.0, f64::max);
    assert!(
        worst <= tolerance,
        "{what}: differs by {worst}, expected at most {tolerance}"
    );
}

/// Reads a JSON file.
pub(crate) fn read_json(path: impl AsRef<Path>) -> Json {
    let text = std::fs::read_to_string(path).expect("the file is part of the repository");
    serde_json::from_str(&text).expect("the file is JSON")
}

/// Settings for ONNX Runtime from a Python environment. `None` if it is not installed.
pub(crate) fn onnx_runtime() -> Option<String> {
    let named = std::env::var_os("INFERENCE_TEST_PYTHON");
    let python = named.map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let found = Command::new(&python)
        .args(["-c", "import sys, onnxruntime; print(sys.prefix)"])
        .output();
    match found {
        Ok(output) if output.status.success() => {
            let prefix = String::from_utf8(output.stdout).expect("the path is UTF-8");
            Some(format!(
                "runtime = \"ort\"\nort = {{ python = \"{}\" }}",
                prefix.trim()
            ))
        }
        _ => {
            let required = std::env::var("INFERENCE_TEST_TOOLS").is_ok_and(|value| value == "required");
            let what = format!("{} has no module onnxruntime", python.display());
            assert!(!required, "{what}, and INFERENCE_TEST_TOOLS=required");
            eprintln!(
                "note: NOT TESTED, since {what}; install it with pip, or name another Python in INFERENCE_TEST_PYTHON"
            );
            None
        }
    }
}

/// The directory of the models of the README's examples, which `tests/install` fetches. If it is missing, this prints a note and
/// returns `None`, or panics if `INFERENCE_TEST_TOOLS=required` is set.
pub(crate) fn example_models() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    let directory = cache
        .expect("there is a home directory")
        .join("inference-server/models/onnx-examples");
    if directory.join("tokenizer.json").exists() {
        return Some(directory);
    }
    let missing = format!("{} does not exist: run `tests/install`", directory.display());
    let required = std::env::var("INFERENCE_TEST_TOOLS").is_ok_and(|value| value == "required");
    assert!(!required, "{missing}");
    eprintln!("note: NOT TESTED: {missing}");
    None
}

/// The answers of the task `t` in ONNX Runtime to `items`, which share batches if possible. `None` if it is not installed.
pub(crate) fn declared_answers(settings: &str, models: &str, items: &[Json]) -> Option<Vec<Json>> {
    let settings = format!("{}\n{settings}", onnx_runtime()?);
    let model = load(&settings, models).unwrap_or_else(|failure| panic!("{settings}\n{failure}"));
    let answer = |outcome: Result<Json, _>| outcome.unwrap_or_else(|failure| panic!("{settings}\n{failure}"));
    Some(model.predict("t", items).into_iter().map(answer).collect())
}

/// Asserts that two values are equal, including shapes. Numbers may differ by 1e-4, absolute or relative to the expected number.
pub(crate) fn assert_same(got: &Json, expected: &Json, what: &str) {
    match (got, expected) {
        (Json::Array(got), Json::Array(expected)) => {
            assert_eq!(got.len(), expected.len(), "{what}: number of elements");
            got.iter()
                .zip(expected)
                .for_each(|(got, expected)| assert_same(got, expected, what));
        }
        (Json::Object(got), Json::Object(expected)) => {
            assert_eq!(got.len(), expected.len(), "{what}: number of outputs");
            for (name, expected) in expected {
                assert_same(&got[name], expected, &format!("{what}, output {name}"));
            }
        }
        (Json::Number(got), Json::Number(expected)) => {
            let (got, expected) = (
                got.as_f64().expect("a number"),
                expected.as_f64().expect("a number"),
            );
            let tolerance = 1e-4 * expected.abs().max(1.0);
            assert!(
                (got - expected).abs() <= tolerance,
                "{what}: {got}, expected {expected}"
            );
        }
        _ => assert_eq!(got, expected, "{what}"),
    }
}
