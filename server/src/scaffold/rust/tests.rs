//! Tests of the model through the binary interface of the server, without a server.

use my_model::Sentiment;
use plugin_sdk::prelude::*;
use plugin_sdk::testing::Harness;

fn model() -> Harness<Sentiment> {
    Harness::load(json!({"positive": ["lovely"], "negative": ["bad"]})).expect("valid settings")
}

#[test]
fn all_examples_succeed() {
    model().check_examples();
}

#[test]
fn each_text_is_classified() {
    let outcomes = model().predict("classify", &[json!("what a lovely day"), json!("bad weather")]);
    let expected = [
        json!({"label": "positive", "score": 0.25}),
        json!({"label": "negative", "score": -0.5}),
    ];
    assert_eq!(outcomes, expected.map(Ok));
}

#[test]
fn an_empty_text_fails_only_its_item() {
    let outcomes = model().predict("classify", &[json!(""), json!("a day")]);
    let failure = outcomes[0].as_ref().expect_err("the text is empty");
    assert_eq!(failure.message, "the text is empty");
    assert_eq!(outcomes[1], Ok(json!({"label": "neutral", "score": 0.0})));
}

#[test]
fn an_error_names_the_invalid_setting() {
    let failure = Harness::<Sentiment>::load(json!({"positive": [], "negative": []})).expect_err("no words");
    assert_eq!(failure.key, "positive");
}
