//! Tests of the plugin `clip` through the server.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value as Json, json};

use crate::harness::plugins::{library, repository};
use crate::harness::vectors::{assert_close, list, reference};
use crate::harness::{Scenario, Server};

const REFERENCE: &str = "plugins/clip/tests/reference/reference.json";

fn start(settings: &str) -> Server {
    library("clip");
    let folder = repository().join("plugins/clip/tests/models/new");
    Scenario::new(&format!(
        "[[models]]\nname = \"m\"\nplugin = \"clip\"\n\n[models.settings]\nfolder = \"{}\"\n{settings}\n",
        folder.display()
    ))
    .start()
}

fn image(name: &str) -> Vec<u8> {
    let file = repository().join("plugins/clip/tests/images").join(name);
    std::fs::read(file).expect("the image is part of the repository")
}

fn data_uri(name: &str) -> String {
    let kind = name.rsplit('.').next().expect("images have an ending");
    format!("data:image/{kind};base64,{}", BASE64_STANDARD.encode(image(name)))
}

#[test]
fn images_of_concurrent_clients_have_the_vectors_of_the_reference() {
    let server = start("normalize = false");
    let reference = reference(REFERENCE);
    let expected = &reference["expected"]["new"]["image"];
    let names: Vec<_> = list(&reference["exact"])
        .iter()
        .filter_map(Json::as_str)
        .collect();
    let pending: Vec<_> = names
        .iter()
        .map(|name| server.predict_in_background("m", "image", &json!([data_uri(name)])))
        .collect();
    for (name, pending) in names.iter().zip(pending) {
        let reply = pending.reply().expect(200).json();
        assert_close(&reply["outputs"][0]["embedding"], &expected[name], name);
    }
}

#[test]
fn an_image_can_be_the_body_of_a_request() {
    let server = start("normalize = false");
    let expected = &reference(REFERENCE)["expected"]["new"]["image"];
    for (name, media_type) in [("rgba.png", "image/png"), ("lossless.webp", "image/webp")] {
        let call = server.request("POST", "/v1/models/m/tasks/image/predict");
        let reply = call.body(media_type, image(name)).send().expect(200).json();
        assert_close(&reply["output"]["embedding"], &expected[name], name);
    }
}

#[test]
fn openai_clients_get_text_vectors_and_token_counts() {
    let server = start("normalize = false");
    let reference = reference(REFERENCE);
    let expected = &reference["expected"]["new"];
    let request = json!({"model": "m.text", "input": reference["texts"]});
    let reply = server.post("/v1/embeddings", &request).expect(200).json();
    let vectors = list(&reply["data"]);
    assert_eq!(vectors.len(), list(&reference["texts"]).len());
    for (index, vector) in vectors.iter().enumerate() {
        assert_close(
            &vector["embedding"],
            &expected["text"][index],
            &format!("text {index}"),
        );
    }
    let tokens: usize = list(&expected["ids"]).iter().map(|ids| list(ids).len()).sum();
    assert_eq!(reply["usage"]["prompt_tokens"], json!(tokens));
}

#[test]
fn an_image_is_classified_with_the_labels_of_the_request() {
    let server = start("");
    let reference = reference(REFERENCE);
    let labels = list(&reference["labels"]);
    for name in ["large.png", "palette.png"] {
        let question = json!({"image": data_uri(name), "labels": labels, "template": reference["template"]});
        let reply = server
            .predict("m", "classify", &json!([question]))
            .expect(200)
            .json();
        let scores = list(&reply["outputs"][0]["scores"]);
        let score = |label: &Json| {
            scores
                .iter()
                .find(|score| score["label"] == *label)
                .map(|score| score["score"].clone())
        };
        let got: Vec<_> = labels.iter().map(score).collect();
        assert_close(
            &json!(got),
            &reference["expected"]["new"]["probabilities"][name],
            name,
        );
    }
}

#[test]
fn the_example_model_classifies_its_shapes() {
    library("clip");
    let config = repository().join("config");
    let text = std::fs::read_to_string(config.join("clip.toml"))
        .expect("the configuration is part of the repository");
    let folder = format!("folder = \"{}\"", config.join("shapes").display());
    let server = Scenario::new(&text.replace("folder = \"shapes\"", &folder)).start();
    let labels = ["red circle", "circle", "blue cross", "blue triangle"];
    for (sample, label) in [("red-circle", "red circle"), ("blue-triangle", "blue triangle")] {
        let file =
            std::fs::read(config.join(format!("shapes/samples/{sample}.png"))).expect("the sample is there");
        let image = json!({"b64": BASE64_STANDARD.encode(file)});
        let question = json!({"input": {"image": image, "labels": labels}});
        let reply = server
            .post("/v1/models/shapes/predict", &question)
            .expect(200)
            .json();
        assert_eq!(reply["output"]["label"], label);
        let score = reply["output"]["score"].as_f64().expect("a number");
        assert!(score > 0.99, "{score}");
    }
}

#[test]
fn an_invalid_image_does_not_affect_others() {
    let server = start("");
    let inputs = json!([
        data_uri("tiny.png"),
        data_uri("bomb.png"),
        data_uri("cut.png"),
        data_uri("animated.webp")
    ]);
    let reply = server.predict("m", "image", &inputs).expect(200).json();
    let outputs = list(&reply["outputs"]);
    assert_eq!(list(&outputs[0]["embedding"]).len(), 10);
    for (output, problem) in outputs[1..].iter().zip([
        "image has 65535×65535 = 4294836225 pixels, expected at most 64000000",
        "cannot decode the image",
        "image is animated",
    ]) {
        let message = output["error"]["message"].as_str().expect("it failed");
        assert!(message.contains(problem), "{message}");
        assert_eq!(output["error"]["code"], "invalid_input");
    }
}

#[test]
fn a_question_without_labels_is_a_client_error() {
    let question = json!({"input": {"image": data_uri("tiny.png"), "labels": []}});
    let reply = start("").post("/v1/models/m/tasks/classify/predict", &question);
    assert!(
        reply.expect(422).text().contains("`labels` is empty"),
        "expected an explanation"
    );
}
