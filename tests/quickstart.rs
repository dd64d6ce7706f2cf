//! The default configuration, which serves handwritten digits.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use crate::harness::plugins::repository;
use crate::harness::{Scenario, Server};

const CLASSIFY: &str = "/v1/models/digits/tasks/classify/predict";

fn start() -> Server {
    Scenario::of_the_repository().start()
}

fn samples() -> PathBuf {
    repository().join("config/digits/samples")
}

/// Returns the images and vectors with their expected digits.
fn expected() -> Json {
    let text = fs::read_to_string(samples().join("expected.json")).expect("the samples have known answers");
    serde_json::from_str(&text).expect("they are JSON")
}

/// Returns the most probable digit of a classification.
fn label(output: &Json) -> String {
    let label = output["label"]
        .as_str()
        .or_else(|| output["scores"][0]["label"].as_str());
    label.unwrap_or_else(|| panic!("no label in {output}")).to_owned()
}

#[test]
fn each_sample_image_is_classified_as_its_digit() {
    let server = start();
    let expected = expected();
    for image in expected["images"].as_array().expect("there are images") {
        let file = image["file"].as_str().expect("an image is a file");
        let bytes = fs::read(samples().join(file)).expect("the sample can be read");
        let reply = server
            .request("POST", CLASSIFY)
            .body("image/png", bytes.clone())
            .send()
            .expect(200);
        assert_eq!(
            label(&reply.json()["output"]),
            image["label"].to_string(),
            "{file}: {}",
            reply.text()
        );
        // The command in the first lines of the configuration.
        let default = server
            .request("POST", "/v1/models/digits/predict")
            .body("image/png", bytes)
            .send();
        assert_eq!(
            label(&default.expect(200).json()["output"]),
            image["label"].to_string()
        );
    }
}

#[test]
fn vectors_of_many_digits_in_one_request_are_returned_in_order() {
    let server = start();
    let expected = expected();
    let vectors = expected["vectors"].as_array().expect("there are vectors");
    let inputs: Json = vectors.iter().map(|vector| vector["pixels"].clone()).collect();
    let outputs = server
        .post(CLASSIFY, &json!({ "inputs": inputs }))
        .expect(200)
        .outputs();
    let labels: Vec<String> = outputs.iter().map(label).collect();
    let right: Vec<String> = vectors.iter().map(|vector| vector["label"].to_string()).collect();
    assert_eq!(labels, right);
}

#[test]
fn the_second_model_of_the_default_configuration_counts_words() {
    let reply = start().post(
        "/v1/models/text/predict",
        &json!({"inputs": [{"text": "to be or not to be"}]}),
    );
    assert_eq!(reply.expect(200).outputs()[0]["words"], 6);
}

#[test]
fn an_invalid_image_is_rejected() {
    let server = start();
    let whole = fs::read(samples().join("digit-7-8x8.png")).expect("the sample can be read");
    for bytes in [
        b"no image".to_vec(),
        whole[..whole.len() / 2].to_vec(),
        whole[..8].to_vec(),
    ] {
        let reply = server
            .request("POST", CLASSIFY)
            .body("image/png", bytes)
            .send()
            .expect(422);
        assert_eq!(reply.error().0, "invalid_input", "{}", reply.text());
    }
    let wrong = server.post(CLASSIFY, &json!({"inputs": [[1, 2, 3]]})).expect(422);
    assert!(wrong.error().1.contains("64"), "{}", wrong.text());
}
