//! Tests of tasks without a batch dimension: in every protocol, a request, or an item on the native routes, is one
//! item.

use serde_json::{Value as Json, json};

use super::test_server::TestServer;

const INFER: &str = "/v2/models/vision.whole/infer";

fn tensor(name: &str, datatype: &str, shape: Json, data: Json) -> Json {
    json!({"name": name, "datatype": datatype, "shape": shape, "data": data})
}

fn scalar() -> Json {
    tensor("scalar", "FP32", json!([]), json!([1.5]))
}

fn cache(shape: Json, data: Json) -> Json {
    tensor("cache", "INT16", shape, data)
}

#[actix_web::test]
async fn v2_tensors_have_exactly_the_declared_shapes() {
    let server = TestServer::start();
    let metadata = server.get("/v2/models/vision.whole").await.json();
    assert_eq!(
        metadata["inputs"],
        json!([
            {"name": "scalar", "datatype": "FP32", "shape": []},
            {"name": "cache", "datatype": "INT16", "shape": [1, -1, 2]},
            {"name": "parts", "datatype": "UINT8", "shape": [-1]},
        ])
    );
    let config = server.get("/v2/models/vision.whole/config").await.json();
    assert_eq!(config["max_batch_size"], json!(0));
    assert_eq!(config["input"][1]["dims"], json!([1, -1, 2]));
    assert_eq!(config["dynamic_batching"], Json::Null);

    for (inputs, outputs) in [
        (
            json!([cache(json!([1, 2, 2]), json!([1, 2, 3, 4])), scalar()]),
            json!([scalar(), cache(json!([1, 2, 2]), json!([1, 2, 3, 4]))]),
        ),
        (
            json!([scalar(), cache(json!([1, 0, 2]), json!([[]]))]),
            json!([scalar(), cache(json!([1, 0, 2]), json!([]))]),
        ),
        (
            json!([
                scalar(),
                tensor("parts.1", "UINT8", json!([2]), json!([8, 9])),
                cache(json!([1, 1, 2]), json!([[[5, 6]]])),
                tensor("parts.0", "UINT8", json!([1]), json!([7])),
            ]),
            json!([
                scalar(),
                cache(json!([1, 1, 2]), json!([5, 6])),
                tensor("parts.0", "UINT8", json!([1]), json!([7])),
                tensor("parts.1", "UINT8", json!([2]), json!([8, 9])),
            ]),
        ),
    ] {
        let answer = server.post(INFER, &json!({ "inputs": inputs })).await;
        assert_eq!(answer.status, 200, "{inputs}: {}", answer.text());
        assert_eq!(answer.json()["outputs"], outputs, "{inputs}");
    }
}

#[actix_web::test]
async fn v2_requests_with_other_tensors_are_rejected_with_the_expected_ones() {
    let server = TestServer::start();
    let cache = || cache(json!([1, 0, 2]), json!([]));
    for (inputs, expected) in [
        (
            json!([tensor("scalar", "FP32", json!([1]), json!([1.5])), cache()]),
            "input `scalar` has shape [1], expected []",
        ),
        (
            json!([
                scalar(),
                tensor("cache", "INT16", json!([2, 1, 2]), json!([1, 2, 3, 4]))
            ]),
            "input `cache` has shape [2, 1, 2], expected [1, -1, 2]",
        ),
        (
            json!([
                scalar(),
                cache(),
                tensor("parts.1", "UINT8", json!([0]), json!([]))
            ]),
            "missing input `parts.0`; expected `scalar` FP32 [], `cache` INT16 [1, -1, 2], `parts.0`, `parts.1`, … UINT8 [-1]",
        ),
        (
            json!([scalar(), cache(), tensor("parts", "UINT8", json!([0]), json!([]))]),
            "input `parts` is a sequence of tensors: send them as `parts.0`, `parts.1`, …",
        ),
        (json!([scalar(), scalar(), cache()]), "duplicate input `scalar`"),
    ] {
        let answer = server.post(INFER, &json!({ "inputs": inputs })).await;
        assert_eq!(answer.status, 400, "{inputs}: {}", answer.text());
        let error = answer.json()["error"].to_string();
        assert!(error.contains(expected), "{inputs}: {error}");
    }
}

#[actix_web::test]
async fn v2_sequences_are_requested_as_a_whole_or_by_tensor() {
    let server = TestServer::start();
    let inputs = json!([
        scalar(),
        cache(json!([1, 0, 2]), json!([])),
        tensor("parts.0", "UINT8", json!([1]), json!([7])),
        tensor("parts.1", "UINT8", json!([1]), json!([8])),
    ]);
    let names = |answer: Json| -> Vec<Json> {
        let outputs = answer["outputs"].as_array().cloned().unwrap_or_default();
        outputs
            .into_iter()
            .map(|mut output| output["name"].take())
            .collect()
    };
    for (outputs, expected) in [
        (
            json!([{"name": "parts"}, {"name": "scalar"}]),
            json!(["parts.0", "parts.1", "scalar"]),
        ),
        (json!([{"name": "parts.1"}]), json!(["parts.1"])),
    ] {
        let answer = server
            .post(INFER, &json!({"inputs": inputs, "outputs": outputs}))
            .await;
        assert_eq!(
            json!(names(answer.json())),
            expected,
            "{outputs}: {}",
            answer.text()
        );
    }
    for (outputs, expected) in [
        (
            json!([{"name": "parts.2"}]),
            "the model did not return output `parts.2`; it returned `scalar`, `cache`, `parts.0`",
        ),
        (
            json!([{"name": "parts"}, {"name": "parts.0"}]),
            "duplicate output `parts.0`",
        ),
        (json!([{"name": "part"}]), "unknown output `part`"),
    ] {
        let answer = server
            .post(INFER, &json!({"inputs": inputs, "outputs": outputs}))
            .await;
        let error = answer.json()["error"].to_string();
        assert!(error.contains(expected), "{outputs}: {error}");
    }
}

#[actix_web::test]
async fn v2_binary_tensors_have_no_batch_dimension() {
    let server = TestServer::start();
    let binary = |name: &str, datatype: &str, shape: Json, size: usize| json!({"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}});
    let json = json!({
        "parameters": {"binary_data_output": true},
        "inputs": [binary("scalar", "FP32", json!([]), 4), binary("cache", "INT16", json!([1, 1, 2]), 4)],
    })
    .to_string();
    let data = [1.5_f32.to_le_bytes(), [1, 0, 2, 0]].concat();
    let head = format!("POST {INFER}\ninference-header-content-length: {}", json.len());
    let answer = server.send(&head, &[json.as_bytes(), &data].concat()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.body.ends_with(&data));
    let text = String::from_utf8_lossy(&answer.body);
    assert!(
        text.contains(r#""name":"scalar","datatype":"FP32","shape":[],"#),
        "{text}"
    );
}

#[actix_web::test]
async fn native_items_are_whole_tensors() {
    let server = TestServer::start();
    let items = json!([
        {"scalar": 1.5, "cache": [[]]},
        {"scalar": 2.5, "cache": [[[1, 2]]], "parts.0": [1, 2, 3], "parts.1": []},
    ]);
    let path = "/v1/models/vision/tasks/whole/predict";
    let answer = server.post(path, &json!({ "inputs": items })).await;
    assert_eq!(answer.json()["outputs"], items, "{}", answer.text());
    let gap = json!({"input": {"scalar": 1.5, "cache": [[]], "parts.1": [1]}});
    let answer = server.post(path, &gap).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(
        answer.text().contains("missing tensor `parts.0`"),
        "{}",
        answer.text()
    );
}

#[actix_web::test]
async fn v1_columns_are_the_tensors_of_one_item() {
    let server = TestServer::start();
    let item = json!({"scalar": 1.5, "cache": [[[1, 2], [3, 4]]]});
    let path = "/v1/models/vision.whole:predict";
    let columns = server.post(path, &json!({ "inputs": item })).await;
    assert_eq!(columns.json()["outputs"], item, "{}", columns.text());
    let rows = server.post(path, &json!({ "instances": [item, item] })).await;
    assert_eq!(rows.json()["predictions"], json!([item, item]), "{}", rows.text());
    let metadata = server.get("/v1/models/vision.whole/metadata").await.json();
    let signature = &metadata["metadata"]["signature_def"]["signature_def"]["whole"];
    assert_eq!(
        signature["inputs"]["scalar"]["tensor_shape"],
        json!({"dim": [], "unknown_rank": false}),
        "{metadata}"
    );
}
