use serde_json::{Value as Json, json};

use super::test_server::TestServer;

#[actix_web::test]
async fn rows_are_answered_with_rows_and_columns_with_columns() {
    let server = TestServer::start();
    for (path, body, reply) in [
        (
            "vision:predict",
            json!({"instances": ["a", "b"]}),
            json!({"predictions": ["A", "B"]}),
        ),
        (
            "vision:predict",
            json!({"inputs": ["a", "b"]}),
            json!({"outputs": ["A", "B"]}),
        ),
        (
            "vision/versions/1:predict",
            json!({"instances": ["a"]}),
            json!({"predictions": ["A"]}),
        ),
        (
            "vision.negate:predict",
            json!({"instances": [[1, 2], [3, 4]]}),
            json!({"predictions": [[1, 2], [3, 4]]}),
        ),
        (
            "vision.negate/versions/1:predict",
            json!({"inputs": {"x": [[1, 2]]}}),
            json!({"outputs": [[1, 2]]}),
        ),
        (
            "vision.flip:predict",
            json!({"instances": [{"b64": "YWJj"}]}),
            json!({"predictions": [{"b64": "Y2Jh", "media_type": "image/png"}]}),
        ),
    ] {
        let answer = server.post(&format!("/v1/models/{path}"), &body).await;
        assert_eq!((answer.status, answer.json()), (200, reply), "{path} {body}");
        assert!(answer.header("server-timing").is_some());
    }
}

#[actix_web::test]
async fn requests_and_replies_are_json_with_any_headers() {
    let server = TestServer::start();
    let post = async |path: &str, header: &str, body: Json| {
        let head = format!("POST /v1/models/{path}:predict\n{header}");
        let answer = server.send(&head, body.to_string().as_bytes()).await;
        assert_eq!(
            answer.header("content-type"),
            Some("application/json"),
            "{header}"
        );
        (answer.status, answer.json())
    };
    // The task takes text, but this protocol has no raw bodies.
    for header in [
        "",
        "content-type: application/json; charset=utf-8",
        "content-type: text/json",
        "content-type: application/x-www-form-urlencoded",
        "content-type: text/plain",
        "content-type: application/octet-stream",
    ] {
        let reply = post("vision", header, json!({"instances": ["a"]})).await;
        assert_eq!(reply, (200, json!({"predictions": ["A"]})), "{header}");
    }
    let reply = post(
        "vision.flip",
        "accept: image/png",
        json!({"instances": [{"b64": "YWJj"}]}),
    )
    .await;
    let image = json!({"b64": "Y2Jh", "media_type": "image/png"});
    assert_eq!(reply, (200, json!({"predictions": [image]})));
}

#[actix_web::test]
async fn a_signature_is_a_task() {
    let server = TestServer::start();
    let predict = async |model: &str, signature: &str| {
        let body = json!({"signature_name": signature, "inputs": [[1, 2]]});
        let answer = server.post(&format!("/v1/models/{model}:predict"), &body).await;
        (answer.status, answer.json())
    };
    let negated = (200, json!({"outputs": [[1, 2]]}));
    assert_eq!(predict("vision", "negate").await, negated);
    assert_eq!(predict("vision.negate", "serving_default").await, negated);
    assert_eq!(predict("vision.negate", "negate").await, negated);
    let unknown = |signature: &str, model: &str, known: &str| {
        let message = format!("unknown signature `{signature}` of model `{model}`; expected one of {known}");
        (400, json!({"error": message}))
    };
    assert_eq!(
        predict("vision", "classify_x").await,
        unknown(
            "classify_x",
            "vision",
            "serving_default, upper, flip, negate, wait, embed, whole"
        )
    );
    assert_eq!(
        predict("vision.negate", "flip").await,
        unknown("flip", "vision.negate", "serving_default, negate")
    );
}

#[actix_web::test]
async fn one_failed_item_fails_the_request() {
    let server = TestServer::start();
    let predict = async |instances: Json| {
        let body = json!({ "instances": instances });
        let answer = server.post("/v1/models/vision:predict", &body).await;
        (answer.status, answer.json())
    };
    assert_eq!(
        predict(json!(["bad"])).await,
        (422, json!({"error": "a bad text"}))
    );
    assert_eq!(
        predict(json!(["a", "bad"])).await,
        (422, json!({"error": "item 1 of 2: a bad text"}))
    );
    assert_eq!(
        predict(json!(["bad", "broken"])).await,
        (500, json!({"error": "item 1 of 2: it broke"}))
    );
}

#[actix_web::test]
async fn rejected_requests_get_the_reason_in_the_format_of_the_protocol() {
    let server = TestServer::start();
    let names =
        "later, vision, vision.embed, vision.flip, vision.negate, vision.upper, vision.wait, vision.whole";
    for (method, path, status, message) in [
        (
            "POST",
            "nothing:predict",
            404,
            format!("unknown model `nothing`; known models: {names}"),
        ),
        (
            "POST",
            "vision/versions/2:predict",
            404,
            "unknown version `2` of model `vision`; expected `1`".to_owned(),
        ),
        (
            "GET",
            "vision/versions/2",
            404,
            "unknown version `2` of model `vision`; expected `1`".to_owned(),
        ),
        (
            "GET",
            "vision/versions/2/metadata",
            404,
            "unknown version `2` of model `vision`; expected `1`".to_owned(),
        ),
        (
            "POST",
            "vision/labels/stable:predict",
            404,
            "version labels are not supported: remove the label from the path, or use version `1`".to_owned(),
        ),
        (
            "GET",
            "vision/labels/stable/metadata",
            404,
            "version labels are not supported: remove the label from the path, or use version `1`".to_owned(),
        ),
        (
            "POST",
            "vision:classify",
            404,
            "method `:classify` is not supported; expected `:predict`".to_owned(),
        ),
        (
            "POST",
            "vision/versions/1:regress",
            404,
            "method `:regress` is not supported; expected `:predict`".to_owned(),
        ),
        (
            "POST",
            "vision:predict",
            400,
            "missing member `instances` (rows) or `inputs` (columns)".to_owned(),
        ),
        (
            "POST",
            "later:predict",
            503,
            "model `later` is loading".to_owned(),
        ),
        (
            "POST",
            "later.any:predict",
            503,
            "model `later` is loading".to_owned(),
        ),
        (
            "GET",
            "later/metadata",
            503,
            "model `later` is loading".to_owned(),
        ),
        (
            "GET",
            "vision:predict",
            405,
            "method GET is not allowed; expected POST".to_owned(),
        ),
    ] {
        let answer = server.send(&format!("{method} /v1/models/{path}"), b"{}").await;
        assert_eq!(
            (answer.status, answer.json()),
            (status, json!({"error": message})),
            "{method} {path}"
        );
    }
}

#[actix_web::test]
async fn the_status_of_a_model_is_that_of_its_only_version() {
    let server = TestServer::start();
    let available = json!([
        {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
    ]);
    for path in [
        "vision",
        "vision.negate",
        "vision/versions/1",
        "vision.negate/versions/1",
    ] {
        let answer = server.get(&format!("/v1/models/{path}")).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.json()["model_version_status"], available, "{path}");
    }
    let later = server.get("/v1/models/later").await.json();
    assert_eq!(later["model_version_status"][0]["state"], "LOADING");
    assert_eq!(server.get("/").await.json()["status"], "alive");
}

#[actix_web::test]
async fn a_task_is_described_under_its_own_name() {
    let server = TestServer::start();
    let model = server.get("/v1/models/vision.negate").await.json();
    assert_eq!(
        (&model["id"], &model["name"], &model["ready"]),
        (&json!("vision.negate"), &json!("vision.negate"), &json!(true))
    );
    assert_eq!(model["default_task"], "negate");
    let tasks = model["tasks"].as_array().expect("the value is an array");
    assert_eq!((tasks.len(), &tasks[0]["name"]), (1, &json!("negate")));
    // The tasks of a loading model are unknown, so any name is accepted.
    let later = server.get("/v1/models/later.any").await;
    assert_eq!((later.status, &later.json()["ready"]), (200, &json!(false)));
    assert_eq!(server.get("/v1/models/vision.any").await.status, 404);
}

#[actix_web::test]
async fn the_metadata_has_a_signature_for_every_task() {
    let server = TestServer::start();
    let metadata = server.get("/v1/models/vision/metadata").await.json();
    assert_eq!(
        metadata["model_spec"],
        json!({"name": "vision", "signature_name": "", "version": "1"})
    );
    let signatures = &metadata["metadata"]["signature_def"]["signature_def"];
    let tensor = |name: &str, dtype: &str, dims: &[&str]| {
        let dims: Vec<Json> = dims
            .iter()
            .map(|size| json!({"size": size, "name": ""}))
            .collect();
        json!({name: {
            "dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": false}, "name": name,
        }})
    };
    let text = tensor("TEXT", "DT_STRING", &["-1"]);
    let upper = json!({"inputs": text, "outputs": text, "method_name": "tensorflow/serving/predict"});
    assert_eq!(signatures["serving_default"], upper);
    assert_eq!(signatures["upper"], upper);
    assert_eq!(
        signatures["negate"]["inputs"],
        tensor("x", "DT_UINT8", &["-1", "-1"])
    );
    assert_eq!(
        signatures["embed"]["outputs"],
        tensor("embedding", "DT_FLOAT", &["-1", "2"])
    );
    let one = server
        .get("/v1/models/vision.negate/versions/1/metadata")
        .await
        .json();
    let one = one["metadata"]["signature_def"]["signature_def"].clone();
    let names: Vec<&String> = one.as_object().expect("the value is an object").keys().collect();
    assert_eq!(names, ["negate", "serving_default"]);
}

#[actix_web::test]
async fn every_path_supports_options() {
    let server = TestServer::start();
    for path in [
        "vision:predict",
        "vision:classify",
        "vision/metadata",
        "vision/versions/1",
        "vision/labels/stable",
    ] {
        let answer = server.send(&format!("OPTIONS /v1/models/{path}"), b"").await;
        assert_eq!(answer.status, 204, "{path}");
        assert!(answer.header("allow").is_some(), "{path}");
    }
}
