//! Tests of the plugin, without a server.

use plugin_sdk::prelude::*;
use plugin_sdk::testing::{FailureKind, Harness};
use template::Template;

fn template(settings: plugin_sdk::serde_json::Value) -> Harness<Template> {
    Harness::load(settings).expect("valid settings")
}

#[test]
fn all_examples_succeed() {
    template(json!({})).check_examples();
}

#[test]
fn texts_are_echoed_unchanged() {
    let texts = [json!("Grüße, Ada"), json!("")];
    assert_eq!(template(json!({})).predict("echo", &texts), texts.map(Ok));
}

#[test]
fn short_words_are_not_counted() {
    let outputs = template(json!({"shortest_word": 3})).predict("stats", &[json!({"text": "to be or not"})]);
    assert_eq!(
        outputs,
        [Ok(json!({"words": 1, "characters": 12, "longest": "not"}))]
    );
}

#[test]
fn an_invalid_item_does_not_affect_others() {
    let outputs = template(json!({})).predict(
        "stats",
        &[json!({"text": ""}), json!({"text": 5}), json!({"text": "a"})],
    );
    let failures: Vec<_> = outputs.iter().map(|output| output.as_ref().err()).collect();
    let [Some(empty), Some(number), None] = &failures[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(empty.kind, FailureKind::InvalidInput);
    assert_eq!(number.message, "`text`: got 5, expected a string");
}

#[test]
fn an_error_names_the_invalid_setting() {
    let failure = Harness::<Template>::load(json!({"shortest_word": 1000})).expect_err("too large");
    assert_eq!(
        (failure.kind, &*failure.key),
        (FailureKind::Settings, "shortest_word")
    );
    let failure = Harness::<Template>::load(json!({"shortest": 1})).expect_err("no such setting");
    assert_eq!(failure.key, "shortest");
}

#[test]
fn loading_is_logged() {
    let logs = template(json!({})).logs();
    assert_eq!(logs[0].message, "test counts words of at least 0 letters");
}
