use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only deserialized")]
struct Person {
    name: String,
    age: u8,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "only deserialized")]
struct Point(f32, f32);

#[derive(Debug, Deserialize)]
struct Nothing;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "only deserialized")]
enum Color {
    Red,
    Mixed(u8, u8),
    Named { name: String },
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind")]
#[allow(dead_code, reason = "only deserialized")]
enum Tagged {
    Circle { radius: f64 },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
#[allow(dead_code, reason = "only deserialized")]
enum Either {
    Number(u8),
    List(Vec<u8>),
}

fn message_of<T: DeserializeOwned + std::fmt::Debug>(document: &str) -> String {
    message(&serde_json::from_str::<T>(document).expect_err(document))
}

#[test]
fn mismatches_are_described_in_json_terms() {
    for (message, expected) in [
        (message_of::<Person>("[]"), "got an array, expected an object"),
        (
            message_of::<Person>("[\"Ada\"]"),
            "got an array, expected an object",
        ),
        (
            message_of::<Color>(r#"{"named": []}"#),
            "got an array, expected an object",
        ),
        (message_of::<Person>("5"), "got 5, expected an object"),
        (message_of::<Person>("\"Ada\""), "got \"Ada\", expected an object"),
        (message_of::<Person>("null"), "got null, expected an object"),
        (message_of::<Person>("{}"), "missing field `name`"),
        (
            message_of::<Person>(r#"{"nam": 1}"#),
            "unknown field `nam`, expected `name` or `age`",
        ),
        (
            message_of::<usize>("-1"),
            "got -1, expected a non-negative integer",
        ),
        (
            message_of::<usize>("1.5"),
            "got 1.5, expected a non-negative integer",
        ),
        (
            message_of::<u8>("256"),
            "got 256, expected an integer from 0 to 255",
        ),
        (message_of::<i32>("true"), "got true, expected an integer"),
        (
            message_of::<NonZeroU32>("0"),
            "got 0, expected a positive integer",
        ),
        (message_of::<f32>("[1]"), "got an array, expected a number"),
        (
            message_of::<bool>("{}"),
            "got an object, expected `true` or `false`",
        ),
        (
            message_of::<char>("\"ab\""),
            "got \"ab\", expected a string of one character",
        ),
        (message_of::<()>("1"), "got 1, expected null"),
        (message_of::<Nothing>("1"), "got 1, expected null"),
        (message_of::<Vec<u8>>("{}"), "got an object, expected an array"),
        (
            message_of::<BTreeMap<String, u8>>("[]"),
            "got an array, expected an object",
        ),
        (
            message_of::<(u8, u8)>("[1]"),
            "got 1 element, expected an array of 2 elements",
        ),
        (
            message_of::<[u8; 3]>("[]"),
            "got 0 elements, expected an array of 3 elements",
        ),
        (message_of::<Point>("{}"), "got an object, expected an array"),
        (
            message_of::<Point>("[1.0]"),
            "got 1 element, expected an array of 2 elements",
        ),
        (
            message_of::<Color>("\"blue\""),
            "got \"blue\", expected one of \"red\", \"mixed\", \"named\"",
        ),
        (
            message_of::<Color>(r#"{"mixed": {}}"#),
            "got an object, expected an array",
        ),
        (
            message_of::<Color>(r#"{"named": 1}"#),
            "got 1, expected an object",
        ),
        (message_of::<Tagged>("5"), "got 5, expected an object"),
        (
            message_of::<Either>("true"),
            "the value matches none of the accepted forms",
        ),
    ] {
        assert_eq!(message, expected);
    }
}

#[test]
fn errors_of_parsed_values_have_the_same_messages() {
    let message_of_value =
        |value: serde_json::Value| message(&serde_json::from_value::<Color>(value).expect_err("not a color"));
    assert_eq!(
        message_of_value(serde_json::json!(5)),
        "got 5, expected a string or an object"
    );
    assert_eq!(
        message_of_value(serde_json::json!(null)),
        "got null, expected a string or an object"
    );
}

#[test]
fn quoted_strings_are_shortened_and_escaped() {
    let long = format!("\"{}\"", "x".repeat(500));
    let message = message_of::<u8>(&long);
    assert!(message.chars().count() < 120, "{message}");
    assert_eq!(
        message_of::<u8>(r#"", expected u8\" and""#),
        r#"got ", expected u8\" and", expected a non-negative integer"#
    );
}

#[test]
fn syntax_errors_avoid_parser_terms() {
    for (document, expected) in [
        ("", "the document ends where a value is expected"),
        ("[1", "the document ends within an array"),
        ("trux", "expected `true`, `false` or `null`"),
        ("[1] 2", "unexpected characters after the document"),
        (r#""\q""#, "invalid escape in a string"),
        (
            r#""\ud800""#,
            "an escape in a string is one half of a surrogate pair",
        ),
        (
            r#""\ud800\n""#,
            "an escape in a string is one half of a surrogate pair",
        ),
        (
            r#""\ud800\u0041""#,
            "an escape in a string is one half of a surrogate pair",
        ),
        ("\"\n\"", "a control character in a string is not escaped"),
    ] {
        assert_eq!(message_of::<serde_json::Value>(document), expected, "{document}");
    }
    let error = serde_json::from_str::<Vec<u8>>("[1,\n \"a\"]").expect_err("a string among numbers");
    assert_eq!(
        message_with_position(&error),
        "got \"a\", expected a non-negative integer at line 2 column 4"
    );
}

#[test]
fn custom_messages_are_unchanged() {
    for custom in [
        "expected a data URI such as `data:image/png;base64,…`",
        "not base64: invalid padding",
        "`name` is empty",
    ] {
        assert_eq!(rewrite(custom), custom);
    }
}
