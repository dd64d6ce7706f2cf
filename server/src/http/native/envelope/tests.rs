use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

const LIMITS: BodyLimits = BodyLimits { items: 4, depth: 16 };

fn native(body: &str) -> Result<Split<'_>, RequestError> {
    split(body.as_bytes(), LIMITS)
}

#[test]
fn items_are_slices_of_the_body() {
    let split = native(r#" {"inputs": [ "a" , {"b":[1, 2]},null], "parameters": {"k": 1}} "#)
        .expect("the request is valid");
    assert_eq!(split.form, Form::List);
    assert_eq!(split.items, [r#""a""#, r#"{"b":[1, 2]}"#, "null"]);
    assert_eq!(split.parameters, Some(r#"{"k": 1}"#));

    let split = native(r#"{"input":[1,2]}"#).expect("the request is valid");
    assert_eq!((split.form, split.items), (Form::Single, vec!["[1,2]"]));
}

#[test]
fn an_invalid_body_is_rejected_with_the_reason() {
    let message = |body: &str| native(body).expect_err("the request is invalid").to_string();
    let cases = [
        (
            "",
            "malformed request body: the body is empty; expected an object with `inputs` (an array) or `input`",
        ),
        (
            "[1]",
            "malformed request body: got an array, expected an object with `inputs` (an array) or `input` at line 1 column 0",
        ),
        (
            "{\n\"inputs\": [1,]}",
            "malformed request body: trailing comma at line 2 column 14",
        ),
        (
            "{\"inputs\":[NaN]}",
            "malformed request body: expected a JSON value at line 1 column 12",
        ),
        (
            "{\"inputs\":[1]} x",
            "malformed request body: unexpected characters after the document at line 1 column 16",
        ),
        (
            "{\"inputs\":\"a\"}",
            "malformed request body: got \"a\", expected an array of items for `inputs` at line 1 column 13",
        ),
        ("{\"inputs\":[]}", "`inputs` has no items; expected at least one"),
        (
            "{\"inputs\":[1,2,3,4,5]}",
            "`inputs` has too many items: expected at most 4 per request",
        ),
        ("{}", "missing member `inputs` (an array) or `input`"),
        (
            "{\"input\":1,\"inputs\":[1]}",
            "both `inputs` and `input` are present; send one of them",
        ),
        ("{\"input\":1,\"input\":2}", "duplicate member `input`"),
        (
            "{\"inptus\":[1]}",
            "unknown member `inptus`, did you mean `inputs`?; expected one of inputs, input, parameters",
        ),
        (
            "{\"input\":1,\"parameters\":3}",
            "malformed request body: `parameters`: expected an object at line 1 column 26",
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(message(body), expected, "for {body}");
    }
}

#[test]
fn invalid_utf8_is_rejected_with_its_offset() {
    let error = split(b"{\"input\":\"\xff\"}", LIMITS);
    assert_eq!(error, Err(RequestError::NotUtf8 { offset: 10 }));
}

#[test]
fn nesting_is_limited_without_recursion() {
    let nested = |levels: usize| format!("{{\"input\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    assert!(native(&nested(15)).is_ok());
    let deep = RequestError::TooDeep {
        offset: 24,
        limit: 16,
    };
    assert_eq!(native(&nested(16)), Err(deep.clone()));
    assert_eq!(native(&nested(1_000_000)), Err(deep));
    assert!(native(&format!("{{\"input\":\"{}\\\"[\"}}", "[".repeat(1000))).is_ok());
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        (-1e9f64..1e9).prop_map(Json::from),
        ".*".prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::btree_map(".{0,4}", inner, 0..6)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn splitting_is_equivalent_to_parsing_a_tree(items in prop::collection::vec(any_json(), 1..5), pretty: bool) {
        let document = json!({"inputs": items});
        let text = if pretty { format!("{document:#}") } else { document.to_string() };
        let split = native(&text).expect("the request is valid");
        let read: Vec<Json> = split
            .items
            .iter()
            .map(|item| serde_json::from_str(item).expect("an item is JSON"))
            .collect();
        let tree: Json = serde_json::from_str(&text).expect("the document is JSON");
        prop_assert_eq!(Json::from(read), tree["inputs"].clone());
    }

    #[test]
    fn splitting_never_panics(body: Vec<u8>) {
        let _ = split(&body, LIMITS);
    }

    #[test]
    fn a_truncated_body_is_rejected(items in prop::collection::vec(any_json(), 1..5), cut: prop::sample::Index) {
        let text = json!({"inputs": items}).to_string();
        let cut = cut.index(text.len());
        prop_assert!(split(&text.as_bytes()[..cut], LIMITS).is_err());
    }
}
