//! Comparison of embedding vectors with reference files.

use serde_json::Value as Json;

use super::plugins::repository;

/// Maximum difference from another implementation, which can add in a different order.
const TOLERANCE: f64 = 1e-5;

/// Reads a reference file, given by its path in the repository.
pub(crate) fn reference(path: &str) -> Json {
    let text = std::fs::read_to_string(repository().join(path)).expect("read the reference");
    serde_json::from_str(&text).expect("it is JSON")
}

#[track_caller]
pub(crate) fn list(value: &Json) -> &Vec<Json> {
    value.as_array().expect("it is a list")
}

#[track_caller]
pub(crate) fn assert_close(got: &Json, expected: &Json, what: &str) {
    let (got, expected) = (list(got), list(expected));
    assert_eq!(got.len(), expected.len(), "{what}");
    for (got, expected) in got.iter().zip(expected) {
        let difference = got.as_f64().expect("a number") - expected.as_f64().expect("a number");
        assert!(difference.abs() <= TOLERANCE, "{what}: {got} and {expected}");
    }
}
