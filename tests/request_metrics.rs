//! Metrics of requests by model, in all protocols.

use std::time::Duration;

use hyper::body::Bytes;
use serde_json::json;

use crate::harness::grpc::Grpc;
use crate::harness::misbehave::echoes;
use crate::harness::{Scenario, Server};

/// A gRPC message of `ModelInfer` for the task `m.embed` with the text "to be".
const EMBED: &[u8] =
    b"\0\0\0\0\x27\x0a\x07m.embed\x2a\x11\x0a\x04TEXT\x12\x05BYTES\x1a\x02\x01\x01\x3a\x09\x05\0\0\0to be";

/// A gRPC message of `ModelInfer` for the task `m.embed` without inputs.
const NO_INPUTS: &[u8] = b"\0\0\0\0\x09\x0a\x07m.embed";

/// Returns the number of requests with this status.
fn requests(server: &Server, task: &str, protocol: &str, status: &str) -> u64 {
    let labels = labels(task, protocol, status);
    server.metrics().count("inference_requests_total", &labels)
}

fn labels<'a>(task: &'a str, protocol: &'a str, status: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("model", "m"),
        ("task", task),
        ("protocol", protocol),
        ("status", status),
    ]
}

fn infer(text: &str) -> serde_json::Value {
    json!({"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": [text]}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_task_protocol_and_status() {
    let server = Scenario::misbehave("", "")
        .argument("--grpc-port")
        .argument("0")
        .start();
    server.predict("m", "embed", &json!(["to be"])).expect(200);
    server.predict("m", "embed", &json!([1])).expect(422);
    server.predict("m", "embed", &json!("to be")).expect(400);
    server
        .post("/v1/models/m.embed:predict", &json!({"instances": ["to be"]}))
        .expect(200);
    server
        .post("/v2/models/m.embed/infer", &infer("to be"))
        .expect(200);
    server.post("/v2/models/m.embed/infer", &json!({})).expect(400);
    server
        .post("/v1/embeddings", &json!({"model": "m.embed", "input": "to be"}))
        .expect(200);
    server
        .post("/v1/embeddings", &json!({"model": "m.embed", "input": [-1]}))
        .expect(400);
    let mut client = Grpc::connect(server.grpc_address()).await;
    for (method, message) in [
        ("ModelInfer", EMBED),
        ("ModelInfer", NO_INPUTS),
        ("ModelStreamInfer", EMBED),
    ] {
        let (call, mut body) = client.begin(method, message);
        body.send_data(Bytes::new(), true).expect("the call is open");
        let mut answer = call.await.expect("an answer").into_body();
        while answer.data().await.is_some() {}
    }
    for (protocol, status, count) in [
        ("native", "200", 1),
        ("native", "400", 1),
        ("native", "422", 1),
        ("v1", "200", 1),
        ("v2", "200", 1),
        ("v2", "400", 1),
        ("openai", "200", 1),
        ("openai", "400", 1),
        ("grpc", "200", 2),
        ("grpc", "400", 1),
    ] {
        assert_eq!(
            requests(&server, "embed", protocol, status),
            count,
            "{protocol} {status}"
        );
    }
    let task = [("model", "m"), ("task", "embed")];
    let metrics = server.metrics();
    assert_eq!(metrics.count("inference_requests_total", &task), 11);
    assert_eq!(metrics.count("inference_latency_seconds_count", &task), 6);
    assert!(
        metrics.sum(
            "inference_requests_seconds_total",
            &labels("embed", "native", "422")
        ) > 0.0
    );
}

#[test]
fn rejected_requests_are_counted() {
    let server = Scenario::misbehave("", "max_queue_size = 1").start();
    let occupied = server.occupy("m");
    let queued = server.predict_in_background("m", "text", &echoes(["queued"]));
    server.wait_for_queued("m", "text", 1);
    server.predict("m", "text", &echoes(["too many"])).expect(429);
    occupied.release();
    queued.reply().expect(200);
    let occupied = server.occupy("m");
    server
        .request("POST", "/v1/models/m/tasks/text/predict")
        .header("x-request-timeout", "100ms")
        .json(&json!({"inputs": echoes(["late"])}))
        .send()
        .expect(504);
    let mut leaving = server.connect();
    leaving.send_json(
        "/v1/models/m/tasks/text/predict",
        &json!({ "inputs": echoes(["gone"]) }).to_string(),
    );
    server.wait_for_queued("m", "text", 1);
    // Closing the stream this soon after the request would count as a half-close.
    leaving.reset();
    server.wait_for_metric("inference_requests_total", &labels("text", "native", "499"), 1);
    occupied.release();
    assert_eq!(requests(&server, "text", "native", "429"), 1);
    assert_eq!(requests(&server, "text", "native", "504"), 1);
    let late = server.metrics();
    let late = late.sum(
        "inference_requests_seconds_total",
        &labels("text", "native", "504"),
    );
    assert!(late >= Duration::from_millis(100).as_secs_f64(), "{late}");
}

#[test]
fn a_body_above_the_limit_is_counted_for_the_task_it_was_sent_to() {
    let server = Scenario::new(
        "[server]\nmax_body_size = \"1KiB\"\n\n[[models]]\nname = \"m\"\nplugin = \"template\"\n",
    )
    .start();
    server
        .predict("m", "echo", &json!(["x".repeat(2000)]))
        .expect(413);
    assert_eq!(requests(&server, "echo", "native", "413"), 1);
}

#[test]
fn a_request_to_an_unknown_model_is_counted_without_a_task() {
    let server = Scenario::new(
        "[server]\nadmin_key = \"the-key-of-the-operator\"\n\n[[models]]\nname = \"m\"\nplugin = \"template\"\n",
    )
    .start();
    server.predict("m", "made-up", &json!(["a"])).expect(404);
    server.predict("made-up", "echo", &json!(["a"])).expect(404);
    assert_eq!(requests(&server, "", "native", "404"), 1);
    server
        .request("POST", "/v2/repository/models/m/unload")
        .header("authorization", "Bearer the-key-of-the-operator")
        .send()
        .expect(200);
    server.predict("m", "echo", &json!(["a"])).expect(503);
    assert_eq!(requests(&server, "", "native", "503"), 1);
    let metrics = server.metrics();
    let all = metrics.count("inference_requests_total", &[]);
    assert_eq!(all, 2, "clients cannot add models or tasks");
}

#[test]
fn a_removed_model_disappears_from_the_metrics_even_after_its_last_request() {
    let config = |name| {
        format!(
            "[[models]]\nname = \"{name}\"\nplugin = \"misbehave\"\n[models.settings]\ngate = \"$DIR/gate\"\n"
        )
    };
    let server = Scenario::new(&config("old")).start();
    let last = server.predict_in_background("old", "text", &echoes(["last"]));
    server.wait_for_metric("inference_executing_items", &[("model", "old")], 1);
    server.write_config(&config("new"));
    assert!(server.reload());
    std::fs::write(server.dir().join("gate"), "open").expect("a gate can be opened");
    last.reply().expect(200);
    server.wait_for_metric("inference_generations_live", &[], 1);
    for _ in 0..2 {
        let text = server.get("/metrics").text();
        let left: Vec<&str> = text.lines().filter(|line| line.contains("\"old\"")).collect();
        assert!(left.is_empty(), "{left:#?}");
        assert!(text.contains("inference_model_ready{model=\"new\"} 1"));
    }
}

#[test]
fn the_metrics_of_a_model_with_two_tasks_take_at_most_ten_kilobytes() {
    const NAMES: [&str; 3] = ["embeddings", "sentiment", "summaries"];
    let models = NAMES.map(|name| format!("[[models]]\nname = \"{name}\"\nplugin = \"template\"\n"));
    let server = Scenario::new(&models.concat()).start();
    for model in NAMES {
        for (task, item) in [("echo", json!("to be")), ("stats", json!({"text": "to be"}))] {
            server.predict(model, task, &json!([item])).expect(200);
            server.predict(model, task, &json!([7])).expect(422);
            server.predict(model, task, &item).expect(400);
            server
                .post(
                    &format!("/v1/models/{model}.{task}:predict"),
                    &json!({"instances": [item]}),
                )
                .expect(200);
            server
                .request("POST", &format!("/v1/models/{model}/tasks/{task}/predict"))
                .header("x-request-timeout", "1us")
                .json(&json!({"inputs": [item]}))
                .send()
                .expect(504);
        }
    }
    let text = server.get("/metrics").text();
    for model in NAMES {
        let label = format!("model=\"{model}\"");
        let bytes: usize = text
            .lines()
            .filter(|line| line.contains(&label))
            .map(|line| line.len() + 1)
            .sum();
        assert!(bytes > 1000, "only {bytes} bytes about {model}");
        assert!(bytes <= 10_000, "{bytes} bytes about {model}");
    }
}

#[test]
fn histograms_have_the_configured_buckets() {
    let server = Scenario::new(
        "[metrics]\ninference_buckets = [\"1ms\", \"2500us\"]\nrequest_buckets = []\nstage_buckets = [\"10s\"]\n\n\
         [[models]]\nname = \"m\"\nplugin = \"template\"\n",
    )
    .start();
    server.predict("m", "echo", &json!(["a"])).expect(200);
    let text = server.get("/metrics").text();
    let bounds = |histogram: &str| -> Vec<String> {
        let start = format!("{histogram}_bucket{{model=\"m\",task=\"echo\",le=\"");
        let lines = text.lines().filter_map(|line| line.strip_prefix(start.as_str()));
        lines
            .filter_map(|line| line.split('"').next().map(str::to_owned))
            .collect()
    };
    assert_eq!(bounds("inference_seconds"), ["0.001", "0.0025", "+Inf"]);
    assert_eq!(bounds("inference_queue_seconds"), ["10", "+Inf"]);
    assert!(bounds("inference_latency_seconds").is_empty());
    assert!(text.contains("# TYPE inference_latency_seconds summary"));
    assert_eq!(
        server
            .metrics()
            .count("inference_latency_seconds_count", &[("task", "echo")]),
        1
    );
}
