//! Items of a requested weight, with which the server measures batches.

#[allow(dead_code, reason = "each test file uses a part of it")]
mod common;

use common::plain;
use plugin_sdk::serde_json::Value as Json;

#[test]
fn texts_have_the_requested_number_of_tokens() {
    let model = plain("new");
    let samples: Vec<Json> = [4, 9, 20]
        .map(|weight| {
            let sample = model.sample("text", weight).expect("a sample").expect("a text");
            let stated = model.prepare("text", &sample).expect("a valid text").weight;
            assert_eq!(stated, weight, "{sample}");
            sample
        })
        .into();
    for outcome in model.predict("text", &samples) {
        outcome.expect("it can be computed");
    }
    assert_eq!(model.sample("text", 21), Ok(None), "longer texts are truncated");
}

#[test]
fn all_images_have_the_same_weight() {
    let model = plain("new");
    let weight = |wanted| {
        let sample = model
            .sample("image", wanted)
            .expect("a sample")
            .expect("an image");
        model.prepare("image", &sample).expect("a valid image").weight
    };
    assert!(weight(1) > 0);
    assert_eq!(weight(1), weight(1000));
}
