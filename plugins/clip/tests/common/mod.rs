//! Helpers of the tests: loading models and images, and comparing numbers.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clip::Clip;
use plugin_sdk::serde_json::{self, Value as Json, json};
use plugin_sdk::testing::{self, Failure, Harness};

/// Maximum difference from transformers.
const TOLERANCE: f64 = 1e-5;

/// Returns the directory of the small models.
pub(crate) fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models")
}

/// Loads a model. Paths in the settings are relative to the directory of the small models.
pub(crate) fn load(settings: Json) -> Result<Harness<Clip>, Failure> {
    Harness::load_with(settings, models(), 1, 2)
}

/// Loads a small model without scaling its vectors.
pub(crate) fn plain(folder: &str) -> Harness<Clip> {
    load(json!({"folder": folder, "normalize": false})).expect("the model loads")
}

/// Returns the reference, computed by transformers.
pub(crate) fn reference() -> Json {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/reference.json");
    let text = std::fs::read_to_string(file).expect("read the reference");
    serde_json::from_str(&text).expect("valid JSON")
}

/// Returns a test image as base64.
pub(crate) fn base64(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/images")
        .join(name);
    BASE64_STANDARD.encode(std::fs::read(file).expect("read a test image"))
}

/// Returns a test image as an item of the task `image`.
pub(crate) fn image(name: &str) -> Json {
    json!({"b64": base64(name)})
}

/// Returns the elements of a list.
pub(crate) fn list(value: &Json) -> &[Json] {
    value.as_array().expect("a list")
}

/// Returns the numbers of a list.
pub(crate) fn numbers(value: &Json) -> Vec<f64> {
    let number = |value: &Json| value.as_f64().expect("a number");
    list(value).iter().map(number).collect()
}

/// Returns the numbers of a vector in an output.
pub(crate) fn vector(outcome: &Result<Json, Failure>) -> Vec<f64> {
    let answer = outcome.as_ref().unwrap_or_else(|failure| panic!("{failure}"));
    numbers(&answer["embedding"])
}

/// Asserts that two slices have the same length and that their elements differ by at most the tolerance.
#[track_caller]
pub(crate) fn assert_close(got: &[f64], expected: &[f64], what: &str) {
    testing::assert_close(got, expected, TOLERANCE, what);
}
