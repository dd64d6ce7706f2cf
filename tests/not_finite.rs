//! Embeddings with NaN are errors in every protocol and encoding, and of a model that produces nothing else.

use serde_json::json;

use crate::harness::Scenario;

const MESSAGE: &str = "the embedding contains NaN or infinity";

#[test]
fn an_embedding_with_nan_is_an_error_in_every_encoding() {
    let server = Scenario::misbehave("", "").start();
    let native = server
        .post(
            "/v1/models/m/tasks/embed/predict",
            &json!({"inputs": ["to be", "a nan"]}),
        )
        .expect(200)
        .json();
    assert_eq!(native["outputs"][0]["embedding"], json!([5.0, 2.0, 0.5]));
    assert_eq!(
        native["outputs"][1]["error"],
        json!({"code": "model_fault", "message": MESSAGE})
    );
    for format in ["float", "base64"] {
        let request = json!({"model": "m.embed", "input": ["to be", "a nan"], "encoding_format": format});
        let reply = server.post("/v1/embeddings", &request).expect(500).json();
        let message = reply["error"]["message"].as_str().expect("a message");
        assert!(message.contains(MESSAGE), "{format}: {message}");
    }
    for binary in [false, true] {
        let request = json!({
            "inputs": [{"name": "TEXT", "shape": [1], "datatype": "BYTES", "data": ["a nan"]}],
            "parameters": {"binary_data_output": binary},
        });
        let reply = server
            .post("/v2/models/m.embed/infer", &request)
            .expect(500)
            .json();
        let message = reply["error"].as_str().expect("a message");
        assert!(message.contains(MESSAGE), "binary {binary}: {message}");
    }
}

#[test]
fn a_model_whose_example_yields_nan_does_not_become_ready() {
    let server = Scenario::misbehave("nan_embeddings = true", "").start_unready();
    let error = server.wait_for_log(MESSAGE);
    assert!(error.contains("task `embed`"), "{error}");
}
