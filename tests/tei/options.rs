//! What clients can choose for embeddings.

use serde_json::{Value as Json, json};

use super::start;
use crate::harness::Scenario;
use crate::harness::vectors::assert_close;

#[test]
fn texts_are_embedded() {
    let server = start();
    let raw = |inputs: Json| {
        let request = json!({"inputs": inputs, "normalize": false});
        server.post("/embed", &request).expect(200).json()
    };
    assert_eq!(raw(json!("to be")), json!([[5.0, 2.0, 0.5]]));
    assert_eq!(
        raw(json!(["to be", "a"])),
        json!([[5.0, 2.0, 0.5], [1.0, 1.0, 0.5]])
    );
    // Token ids are those of the model.
    assert_eq!(
        raw(json!([[7, 8], [1]])),
        json!([[15.0, 2.0, 0.5], [1.0, 1.0, 0.5]])
    );
    assert_eq!(
        raw(json!(["to be", [7, 8]])),
        json!([[5.0, 2.0, 0.5], [15.0, 2.0, 0.5]])
    );
    let reply = server
        .post("/embed", &json!({"inputs": "aa b"}))
        .expect(200)
        .json();
    let length = (16.0f64 + 4.0 + 0.25).sqrt();
    assert_close(
        &reply[0],
        &json!([4.0 / length, 2.0 / length, 0.5 / length]),
        "normalized",
    );
    let labels = [
        ("model", "m"),
        ("task", "embed"),
        ("protocol", "tei"),
        ("status", "200"),
    ];
    assert_eq!(server.metrics().count("inference_requests_total", &labels), 5);
}

#[test]
fn the_options_of_clients_are_honored() {
    let server = start();
    let long = "a bb ccc dddd eeeee";
    let embed = |options: Json| {
        let mut request = json!({"inputs": long, "normalize": false});
        for (name, value) in options.as_object().expect("an object") {
            request[name] = value.clone();
        }
        server.post("/embed", &request)
    };
    assert_eq!(
        embed(json!({"truncate": true})).expect(200).json(),
        json!([[13.0, 4.0, 0.5]])
    );
    for left in ["left", "Left"] {
        let reply = embed(json!({"truncate": true, "truncation_direction": left}))
            .expect(200)
            .json();
        assert_eq!(reply, json!([[17.0, 4.0, 0.5]]));
    }
    // Without permission, texts are not truncated.
    for options in [json!({}), json!({"truncate": false}), json!({"truncate": null})] {
        embed(options).expect(422);
    }
    let request = json!({"inputs": "to be", "normalize": false, "prompt_name": "find"});
    assert_eq!(
        server.post("/embed", &request).expect(200).json(),
        json!([[10.0, 3.0, 0.5]])
    );
    embed(json!({"truncate": true, "truncation_direction": "up"})).expect(400);
}

#[test]
fn fewer_dimensions_are_scaled_only_if_the_client_wants_that() {
    let server = Scenario::misbehave("[models.embeddings]\ndimensions = \"truncate\"\n", "").start();
    let embed = |path: &str, request: Json| server.post(path, &request).expect(200).json();
    let (length, request) = (29f64.sqrt(), json!({"inputs": "to be", "dimensions": 2}));
    assert_close(
        &embed("/embed", request.clone())[0],
        &json!([5.0 / length, 2.0 / length]),
        "scaled",
    );
    let mut raw = request;
    raw["normalize"] = json!(false);
    assert_eq!(embed("/embed", raw), json!([[5.0, 2.0]]));
    let openai = embed("/v1/embeddings", json!({"input": "to be", "dimensions": 2}));
    assert_close(
        &openai["data"][0]["embedding"],
        &json!([5.0 / length, 2.0 / length]),
        "scaled",
    );
    let raw = json!({"input": "to be", "dimensions": 2, "normalized": false});
    assert_eq!(
        embed("/v1/embeddings", raw)["data"][0]["embedding"],
        json!([5.0, 2.0])
    );
}
