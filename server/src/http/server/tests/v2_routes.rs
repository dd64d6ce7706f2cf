use serde_json::{Value as Json, json};

use super::test_server::TestServer;

const UPPER: &str = "/v2/models/vision.upper/infer";
const NEGATE: &str = "/v2/models/vision.negate/infer";

fn text(elements: Json) -> Json {
    let count = elements.as_array().map(Vec::len);
    json!({"inputs": [{"name": "TEXT", "shape": [count, 1], "datatype": "BYTES", "data": elements}]})
}

#[actix_web::test]
async fn a_text_task_takes_and_returns_a_tensor_of_strings() {
    let server = TestServer::start();
    for path in [
        UPPER,
        "/v2/models/vision/infer",
        "/v2/models/vision.upper/versions/1/infer",
        "/v2/models/%76ision/infer",
    ] {
        let answer = server.post(path, &text(json!(["a", "b"]))).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let outputs = json!([{"name": "TEXT", "datatype": "BYTES", "shape": [2, 1], "data": ["A", "B"]}]);
        assert_eq!(answer.json()["outputs"], outputs);
        assert!(answer.header("server-timing").is_some());
    }
}

#[actix_web::test]
async fn binary_tensors_are_sent_and_returned_unchanged() {
    let server = TestServer::start();
    let json = json!({
        "id": "r1", "parameters": {"binary_data_output": true},
        "inputs": [{"name": "x", "shape": [2, 3], "datatype": "UINT8", "parameters": {"binary_data_size": 6}}],
    })
    .to_string();
    let head = format!("POST {NEGATE}\ninference-header-content-length: {}", json.len());
    // The client of MLServer sends this body as JSON, and other clients send no content type.
    for content_type in [
        "",
        "\ncontent-type: application/json",
        "\ncontent-type: application/octet-stream",
    ] {
        let body = [json.as_bytes(), &[1, 2, 3, 4, 5, 6]].concat();
        let answer = server.send(&format!("{head}{content_type}"), &body).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        let length: usize = answer
            .header("inference-header-content-length")
            .and_then(|length| length.parse().ok())
            .expect("the reply has the header");
        let (json, binary) = answer.body.split_at(length);
        let json: Json = serde_json::from_slice(json).expect("the text is JSON");
        assert_eq!(
            (&json["id"], &json["model_name"]),
            (&json!("r1"), &json!("vision.negate"))
        );
        assert_eq!(json["outputs"][0]["parameters"], json!({"binary_data_size": 6}));
        assert_eq!(binary, [1, 2, 3, 4, 5, 6]);
    }
}

#[actix_web::test]
async fn a_raw_body_is_the_only_input() {
    let server = TestServer::start();
    let head = format!("POST {NEGATE}\ninference-header-content-length: 0");
    let answer = server.send(&head, &[1, 2, 3]).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.ends_with(&[1, 2, 3]));
}

#[actix_web::test]
async fn malformed_requests_are_rejected_with_the_reason() {
    let server = TestServer::start();
    let x = |more: Json| {
        let mut input = json!({"name": "x", "shape": [1, 2], "datatype": "UINT8", "data": [1, 2]});
        input
            .as_object_mut()
            .expect("the value is an object")
            .extend(more.as_object().expect("the value is an object").clone());
        json!({ "inputs": [input] })
    };
    let takes = "expected `x` UINT8 [-1, -1]";
    let cases = [
        (NEGATE, x(json!({"name": "z"})), 400, format!("unknown input `z`, did you mean `x`?; {takes}")),
        (NEGATE, json!({"inputs": []}), 400, format!("missing input `x`; {takes}")),
        (NEGATE, x(json!({"datatype": "FP32"})), 400, "input `x` has datatype FP32, expected UINT8".into()),
        (
            NEGATE,
            x(json!({"shape": [2]})),
            400,
            "input `x` has shape [2], expected [-1, -1], where -1 means any size".into(),
        ),
        (
            NEGATE,
            x(json!({"shape": [0, 2], "data": []})),
            400,
            "input `x` has no items: the shape is [0, 2]; expected at least one item".into(),
        ),
        (
            NEGATE,
            x(json!({"shape": [9, 1], "data": [1, 2, 3, 4, 5, 6, 7, 8, 9]})),
            400,
            "input `x` has 9 items, expected at most 8 per request".into(),
        ),
        (
            NEGATE,
            x(json!({"data": [1, 2, 3]})),
            400,
            "input `x` has `data` of length 3, expected 2 for shape [1, 2]".into(),
        ),
        (NEGATE, x(json!({"data": [1, 256]})), 400, "input `x`: element 1: 256 is out of range for UINT8".into()),
        (
            UPPER,
            text(json!(["bad"])),
            422,
            "a bad text".into(),
        ),
        (UPPER, text(json!(["a", "broken"])), 500, "item 1 of 2: it broke".into()),
        (
            "/v2/models/nothing/infer",
            text(json!(["a"])),
            404,
            "unknown model `nothing`; known models: later, vision, vision.embed, vision.flip, vision.negate, vision.upper, vision.wait, vision.whole".into(),
        ),
        (
            "/v2/models/vision/versions/2/infer",
            text(json!(["a"])),
            404,
            "unknown version `2` of model `vision`; expected `1`".into(),
        ),
        ("/v2/models/later/infer", text(json!(["a"])), 503, "model `later` is loading".into()),
        ("/v2/nowhere", json!({}), 404, "unknown route `/v2/nowhere`; see /v1/models for the available models".into()),
        (
            "/v2/health/live",
            json!({}),
            405,
            "method POST is not allowed; expected GET, HEAD".into(),
        ),
    ];
    for (path, body, status, message) in cases {
        let answer = server.post(path, &body).await;
        assert_eq!(
            (answer.status, answer.json()),
            (status, json!({"error": message})),
            "{path} {body}"
        );
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let head = format!("POST {NEGATE}\ncontent-encoding: br");
    let answer = server.send(&head, b"{}").await;
    assert_eq!(answer.status, 415);
    assert!(answer.json()["error"].is_string());
}

#[actix_web::test]
async fn the_server_and_its_models_are_described() {
    let server = TestServer::start();
    for path in ["/v2", "/v2/"] {
        let answer = server.get(path).await.json();
        assert_eq!(answer["name"], "inference-server");
        assert!(
            answer["extensions"]
                .as_array()
                .is_some_and(|all| all.contains(&json!("binary_tensor_data")))
        );
    }
    assert_eq!(server.get("/v2/health/live").await.json(), json!({"live": true}));
    let ready = server.get("/v2/health/ready").await;
    assert_eq!(
        (ready.status, ready.json()),
        (503, json!({"live": true, "ready": false}))
    );

    let metadata = server.get("/v2/models/vision.negate").await.json();
    let tensor = json!([{"name": "x", "datatype": "UINT8", "shape": [-1, -1]}]);
    let expected = json!({
        "name": "vision.negate", "versions": ["1"], "platform": "test", "inputs": tensor, "outputs": tensor,
    });
    assert_eq!(metadata, expected);
    assert_eq!(
        server.get("/v2/models/vision/ready").await.json(),
        json!({"name": "vision", "ready": true})
    );
    assert_eq!(server.get("/v2/models/later/ready").await.status, 503);
    assert_eq!(server.get("/v2/models/nothing/ready").await.status, 404);

    let config = server.get("/v2/models/vision/versions/1/config").await.json();
    assert_eq!(config["max_batch_size"], 32);
    assert_eq!(
        config["input"],
        json!([{"name": "TEXT", "data_type": "TYPE_STRING", "dims": [1]}])
    );

    let head = "POST /v2/repository/index\ncontent-length: 0";
    let index = server.send(head, b"").await.json();
    let expected = json!([
        {"name": "later", "version": "1", "state": "LOADING", "reason": ""},
        {"name": "vision", "version": "1", "state": "READY", "reason": ""},
    ]);
    assert_eq!(index, expected);
    let index = server
        .post("/v2/repository/index", &json!({"ready": true}))
        .await
        .json();
    assert_eq!(index.as_array().map(Vec::len), Some(1));
}

#[actix_web::test]
async fn statistics_count_requests_and_items() {
    let server = TestServer::start();
    server.post(UPPER, &text(json!(["a", "b"]))).await;
    server.post(UPPER, &text(json!(["bad"]))).await;
    let native = json!({"inputs": ["a", "bad"]});
    server
        .post("/v1/models/vision/tasks/upper/predict", &native)
        .await;
    let of_one = server.get("/v2/models/vision.upper/stats").await.json();
    let statistics = &of_one["model_stats"][0];
    assert_eq!(statistics["name"], "vision.upper");
    assert_eq!(
        (&statistics["inference_count"], &statistics["execution_count"]),
        (&json!(3), &json!(3))
    );
    let count = |what: &str| statistics["inference_stats"][what]["count"].clone();
    assert_eq!(
        (count("success"), count("fail"), count("queue")),
        (json!(1), json!(2), json!(1))
    );
    // Stages of failed requests are not counted: perf_analyzer fails if the counts of two stages differ.
    for stage in ["compute_input", "compute_infer", "compute_output"] {
        assert_eq!(count(stage), json!(1), "{stage}");
    }
    assert!(statistics["inference_stats"]["compute_output"]["ns"].as_u64() > Some(0));
    assert!(statistics["inference_stats"]["success"]["ns"].as_u64() > Some(0));
    let batches = statistics["batch_stats"]
        .as_array()
        .expect("the value is an array");
    let times = |size: &serde_json::Value| size["compute_infer"]["count"].as_u64();
    assert_eq!(batches.iter().filter_map(times).sum::<u64>(), 3);
    assert!(
        batches.iter().all(|size| size["batch_size"].as_u64() <= Some(2)),
        "{batches:?}"
    );
    assert!(statistics["last_inference"].as_u64() > Some(1_700_000_000_000));
    let of_all = server.get("/v2/models/stats").await.json();
    assert_eq!(of_all["model_stats"].as_array().map(Vec::len), Some(6));
}

#[actix_web::test]
async fn deadlines_and_priorities_can_be_parameters() {
    let server = TestServer::start();
    let mut request = text(json!(["a"]));
    request["parameters"] = json!({"timeout": 20_000, "priority": 1});
    let answer = server.post("/v2/models/vision.wait/infer", &request).await;
    let json = answer.json();
    let message = json["error"].as_str().unwrap_or_default();
    assert_eq!(answer.status, 504);
    assert!(message.starts_with("deadline of 20 ms passed"), "{message}");
    request["parameters"] = json!({"timeout": "soon"});
    let answer = server.post(UPPER, &request).await;
    assert_eq!(
        answer.json(),
        json!({"error": "invalid value \"soon\" for parameter `timeout`: expected a number of microseconds"})
    );
    server.gate.open();
}

#[actix_web::test]
async fn only_large_inference_replies_are_compressed() {
    let server = TestServer::start();
    let encoding = async |head: &str, body: &[u8]| {
        let answer = server
            .send(&format!("{head}\naccept-encoding: gzip, deflate"), body)
            .await;
        answer.header("content-encoding").map(str::to_owned)
    };
    for (length, expected) in [(1, None), (500, None), (2000, Some("gzip"))] {
        let request = text(json!(["a".repeat(length)])).to_string();
        let infer = encoding(&format!("POST {UPPER}"), request.as_bytes()).await;
        assert_eq!(infer.as_deref(), expected, "{length}");
    }
    for head in [
        "GET /v2",
        "GET /v2/models/vision",
        "GET /v2/models/nothing",
        "POST /v2/models/vision/infer",
    ] {
        assert_eq!(encoding(head, b"").await, None, "{head}");
    }
}

#[actix_web::test]
async fn an_item_of_an_unsupported_media_type_is_rejected() {
    let server = TestServer::start();
    let flip = async |content_type: &str, data: &[&str]| {
        let request = json!({"inputs": [{"name": "BYTES", "shape": [data.len()], "datatype": "BYTES", "data": data,
            "parameters": {"content_type": content_type}}]});
        let answer = server.post("/v2/models/vision.flip/infer", &request).await;
        (answer.status, answer.json()["error"].clone())
    };
    let png = "data:image/png;base64,YWJj";
    assert_eq!(flip("image/png", &["abc"]).await, (200, Json::Null));
    assert_eq!(flip("", &[png, "abc"]).await, (200, Json::Null));
    let rejected = "unsupported media type `image/gif`: task `flip` accepts image/png";
    assert_eq!(flip("image/gif", &["abc"]).await, (422, json!(rejected)));
    let (status, message) = flip("", &[png, "data:image/gif;base64,YWJj"]).await;
    assert_eq!(
        (status, message),
        (422, json!(format!("item 1 of 2: {rejected}")))
    );
}
