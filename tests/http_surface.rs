//! HTTP replies: outputs, errors and headers.

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::{Value as Json, json};

use crate::harness::{Reply, Scenario, Server};

pub(crate) const ECHO: &str = "/v1/models/words/tasks/echo/predict";
pub(crate) const STATS: &str = "/v1/models/words/tasks/stats/predict";

/// Configuration of one model of the plugin `template`, with a default task and a short route.
pub(crate) fn start() -> Server {
    start_with("")
}

pub(crate) fn start_with(server: &str) -> Server {
    Scenario::new(&format!(
        "[server]\n{server}\n\n[[models]]\nname = \"words\"\nplugin = \"template\"\ndefault_task = \"stats\"\n\n\
         [models.tasks.echo]\nroute = \"/say\"\n"
    ))
    .start()
}

pub(crate) fn post(server: &Server, path: &str, content_type: &str, body: &str) -> Reply {
    server.request("POST", path).body(content_type, body).send()
}

#[test]
fn a_list_of_inputs_returns_a_list_of_outputs() {
    let server = start();
    let reply = server
        .post(ECHO, &json!({"inputs": ["to be", "", "Grüße 🦀"]}))
        .expect(200)
        .json();
    assert_eq!(reply["outputs"], json!(["to be", "", "Grüße 🦀"]));
    assert_eq!(
        (&reply["model"], &reply["task"]),
        (&json!("words"), &json!("echo"))
    );
    assert!(
        reply["inference_time"]
            .as_f64()
            .is_some_and(|seconds| (0.0..10.0).contains(&seconds)),
        "{reply}"
    );
}

#[test]
fn a_single_input_returns_a_single_output() {
    let server = start();
    let reply = server.post(ECHO, &json!({"input": "to be"})).expect(200).json();
    assert_eq!(reply["output"], "to be");
    assert!(reply.get("outputs").is_none(), "{reply}");
}

#[test]
fn the_default_task_short_routes_and_the_v1_protocol_work() {
    let server = start();
    let document = json!({"text": "to be or not"});
    let default = server
        .post("/v1/models/words/predict", &json!({"inputs": [document]}))
        .expect(200);
    assert_eq!(default.outputs()[0]["words"], 4);
    let short = server.post("/say", &json!({"inputs": ["hi"]})).expect(200);
    assert_eq!(short.outputs(), [json!("hi")]);
    let v1 = server
        .post("/v1/models/words:predict", &json!({"instances": [document]}))
        .expect(200)
        .json();
    assert_eq!(v1["predictions"][0]["words"], 4);
}

#[test]
fn text_can_be_sent_as_a_plain_body() {
    let server = start();
    let reply = post(&server, ECHO, "text/plain; charset=utf-8", "to be").expect(200);
    assert_eq!(reply.json()["output"], "to be");
}

#[test]
fn head_returns_the_same_headers_as_get_without_a_body() {
    let server = start();
    for path in [
        "/",
        "/health",
        "/livez",
        "/readyz",
        "/metrics",
        "/v1/models",
        "/v1/models/words",
        "/openapi.json",
    ] {
        let mut connection = server.connect();
        connection.send(format!("HEAD {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
        let head = connection.reply_to_head().expect("an answer");
        assert_eq!(head.status, 200, "{path}");
        let length: usize = head
            .header("content-length")
            .and_then(|l| l.parse().ok())
            .expect("a length");
        assert!(length > 0, "{path} has a length of 0");
        // The connection remains usable, since no body was sent.
        connection.send("GET /livez HTTP/1.1\r\nhost: test\r\n\r\n");
        assert_eq!(
            connection.reply().expect("an answer").json(),
            json!({"live": true}),
            "after HEAD {path}"
        );
    }
}

#[test]
fn a_connection_serves_sequential_and_pipelined_requests() {
    let server = start();
    let mut connection = server.connect();
    for round in 0..3 {
        connection.send_json(ECHO, &json!({"inputs": [format!("round {round}")]}).to_string());
        let reply = connection.reply().expect("an answer");
        assert_eq!(reply.json()["outputs"][0], format!("round {round}"));
    }
    for round in 0..3 {
        connection.send_json(ECHO, &json!({"inputs": [format!("ahead {round}")]}).to_string());
    }
    for round in 0..3 {
        let reply = connection.reply().expect("an answer");
        assert_eq!(reply.json()["outputs"][0], format!("ahead {round}"));
    }
}

#[test]
fn expect_100_continue_is_supported() {
    let server = start();
    let body = "{\"inputs\":[\"waited\"]}";
    let mut connection = server.connect();
    connection.send(format!(
        "POST {ECHO} HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    ));
    assert_eq!(connection.reply().expect("leave to go on").status, 100);
    connection.send(body);
    assert_eq!(
        connection.reply().expect("an answer").json()["outputs"][0],
        "waited"
    );
}

#[test]
fn a_request_id_is_in_the_reply_in_errors_and_in_the_log() {
    let server = start();
    let send = |id: &str, body: &Json| {
        server
            .request("POST", ECHO)
            .header("x-request-id", id)
            .json(body)
            .send()
    };
    let reply = send("my-id-1", &json!({"inputs": ["a"]})).expect(200);
    assert_eq!(reply.header("x-request-id"), Some("my-id-1"));
    let rejected = send("my-id-2", &json!({"inputs": []})).expect(400);
    assert_eq!(rejected.header("x-request-id"), Some("my-id-2"));
    assert_eq!(rejected.json()["error"]["request_id"], "my-id-2");
    let line = server.wait_for_log("my-id-2");
    assert!(line.contains("status=400") && line.contains(ECHO), "{line}");
}

#[test]
fn a_request_without_a_valid_id_gets_a_generated_one() {
    let server = start();
    let ids: Vec<String> = ["", "has spaces", "\u{1F980}"]
        .iter()
        .map(|id| {
            let call = server.request("GET", "/livez");
            let call = if id.is_ascii() && !id.is_empty() {
                call.header("x-request-id", id)
            } else {
                call
            };
            let reply = call.send().expect(200);
            reply
                .header("x-request-id")
                .expect("every answer has an id")
                .to_owned()
        })
        .collect();
    assert!(ids.iter().all(|id| !id.contains(' ') && id.len() >= 8), "{ids:?}");
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
}

#[test]
fn a_prediction_reports_its_queue_and_inference_times() {
    let server = start();
    let reply = server.predict("words", "echo", &json!(["a"])).expect(200);
    let timing = reply.header("server-timing").expect("a prediction is timed");
    for stage in ["prepare;dur=", "queue;dur=", "inference;dur=", "encode;dur="] {
        assert!(timing.contains(stage), "{timing}");
    }
}

#[test]
fn a_large_reply_is_compressed_for_clients_that_accept_it() {
    let text = "to be or not to be ".repeat(1000);
    let accepts = |server: &Server| {
        let call = server.request("POST", ECHO).header("accept-encoding", "gzip");
        call.json(&json!({"inputs": [text]})).send().expect(200)
    };
    let server = start();
    let packed = accepts(&server);
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert!(packed.body.len() < text.len() / 4);
    let mut unpacked = String::new();
    GzDecoder::new(&packed.body[..])
        .read_to_string(&mut unpacked)
        .expect("it is gzip");
    let unpacked: Json = serde_json::from_str(&unpacked).expect("it is JSON");
    assert_eq!(unpacked["outputs"][0], json!(text));
    let plain = server.predict("words", "echo", &json!([text])).expect(200);
    assert_eq!(plain.header("content-encoding"), None);

    let without = start_with("compression = false");
    assert_eq!(accepts(&without).header("content-encoding"), None);
}

#[test]
fn cross_origin_requests_are_rejected_unless_the_origin_is_configured() {
    let ask = |server: &Server| {
        let reply = server
            .request("GET", "/v1/models")
            .header("origin", "https://example.com")
            .send();
        reply.header("access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(ask(&start()), None);
    let server = start_with("cors_allowed_origins = [\"https://example.com\"]");
    assert_eq!(ask(&server).as_deref(), Some("https://example.com"));
    let preflight = server
        .request("OPTIONS", ECHO)
        .header("origin", "https://example.com")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type")
        .send()
        .expect(200);
    assert!(
        preflight
            .header("access-control-allow-methods")
            .is_some_and(|methods| methods.contains("POST"))
    );
}

#[test]
fn the_list_of_models_serves_clients_of_two_protocols() {
    let server = start();
    let list = server.get("/v1/models").expect(200).json();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"], list["models"]);
    let model = &list["data"][0];
    assert_eq!(*model, server.model("words"));
    for (member, value) in [
        ("id", json!("words")),
        ("name", json!("words")),
        ("object", json!("model")),
        ("ready", json!(true)),
        ("state", json!("ready")),
        ("generation", json!(1)),
        ("default_task", json!("stats")),
    ] {
        assert_eq!(model[member], value, "{member}");
    }
    assert!(
        model["created"]
            .as_u64()
            .is_some_and(|seconds| seconds > 1_700_000_000),
        "{model}"
    );
    assert_eq!(model["tasks"][0]["name"], "echo");
    assert_eq!(model["tasks"][0]["route"], "/say");
    let text = list.to_string();
    assert!(!text.contains(".so") && !text.contains("/target/"), "{text}");
}

#[test]
fn documentation_can_be_switched_off() {
    let server = start_with("docs = false");
    server.get("/docs/").expect(404).error();
    server.get("/openapi.json").expect(404).error();
}

#[test]
fn requests_are_logged_and_probes_are_not() {
    let server = start();
    server.get("/livez").expect(200);
    server.predict("words", "echo", &json!(["a"])).expect(200);
    let line = server.wait_for_log("path=/v1/models/words");
    assert!(
        line.contains("method=POST") && line.contains("status=200"),
        "{line}"
    );
    assert!(!server.log().has("path=/livez"));
}

#[test]
fn the_log_can_be_configured_as_json() {
    let server = Scenario::new(
        "[logging]\nformat = \"json\"\n\n[[models]]\nname = \"words\"\nplugin = \"template\"\n",
    )
    .start();
    server.predict("words", "echo", &json!(["a"])).expect(200);
    let line = server.wait_for_log("/v1/models/words");
    let line: Json = serde_json::from_str(&line).expect("a line is JSON");
    assert_eq!((&line["status"], &line["method"]), (&json!(200), &json!("POST")));
    for line in server.log().lines() {
        let json: Result<Json, _> = serde_json::from_str(&line);
        assert!(json.is_ok(), "not JSON: {line}");
    }
}

#[test]
fn a_client_that_accepts_no_supported_encoding_gets_406_as_json() {
    let server = Scenario::misbehave("", "").start();
    let call = server
        .request("GET", "/v1/models")
        .header("accept-encoding", "identity;q=0, br");
    let (code, message) = call.send().expect(406).error();
    assert_eq!(code, "not_acceptable");
    assert!(message.contains("gzip, deflate, identity"), "{message}");
}

#[test]
fn a_model_without_a_description_is_described_by_its_plugin() {
    let server = Scenario::misbehave("", "").start();
    assert_eq!(
        server.model("m")["description"],
        "Test plugin that fails in the ways that each item requests"
    );
}
