//! Requests that would use much more memory than their size, or cause a much larger reply.

use serde_json::{Value as Json, json};

use crate::harness::grpc::{self, Grpc};
use crate::harness::{Reply, Scenario, Server};

/// Length of a large body in bytes.
const LARGE: usize = 8 << 20;

fn start() -> Server {
    Scenario::misbehave("", "").start()
}

/// Repeats `text`, separated by commas, to fill a large body.
fn repeated(text: &str) -> String {
    let mut all = format!("{text},").repeat(LARGE / (text.len() + 1));
    all.pop();
    all
}

fn post(server: &Server, path: &str, body: String) -> Reply {
    server.request("POST", path).body("application/json", body).send()
}

/// Returns a request of the Open Inference Protocol to the task that doubles numbers, with additional fields.
fn v2_request(more: &Json) -> String {
    let mut request =
        json!({"inputs": [{"name": "numbers", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]});
    for (name, value) in more.as_object().expect("members") {
        request[name] = value.clone();
    }
    request.to_string()
}

#[test]
fn an_output_that_is_requested_twice_is_rejected() {
    let server = start();
    let path = "/v2/models/m.tensor/infer";
    post(
        &server,
        path,
        v2_request(&json!({"outputs": [{"name": "doubled"}]})),
    )
    .expect(200);
    for (count, expected) in [
        (2, "duplicate output `doubled`; request each output once"),
        (
            8000,
            "malformed request body: too many elements in an array: expected at most 1024",
        ),
    ] {
        let outputs = vec![json!({"name": "doubled"}); count];
        let reply = post(&server, path, v2_request(&json!({"outputs": outputs}))).expect(400);
        let error = reply.json()["error"].as_str().expect("a message").to_owned();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[tokio::test]
async fn an_output_that_is_requested_twice_over_grpc_is_rejected() {
    let server = Scenario::misbehave("", "")
        .argument("--grpc-port")
        .argument("0")
        .start();
    let mut client = Grpc::connect(server.grpc_address()).await;
    // Field 1 is the name of the model. Field 6 is an output, and field 1 of an output is its name.
    let message = b"\x0a\x08m.tensor\x32\x09\x0a\x07doubled\x32\x09\x0a\x07doubled";
    let framed = [&[0, 0, 0, 0, message.len() as u8], &message[..]].concat();
    let (call, mut body) = client.begin("ModelInfer", framed.leak());
    body.send_data(Default::default(), true)
        .expect("the call is open");
    let answer = call.await.expect("an answer");
    assert_eq!(
        grpc::status(&answer),
        (
            "3",
            "duplicate output `doubled`; request each output once".to_owned()
        )
    );
}

#[test]
fn the_memory_of_a_rejected_request_stays_around_the_size_of_its_body() {
    let server = start();
    let v2 = "/v2/models/m.tensor/infer";
    let input = |shape: &str, data: &str| {
        format!(r#"{{"inputs":[{{"name":"numbers","datatype":"FP32","shape":[{shape}],"data":[{data}]}}]}}"#)
    };
    let cases = [
        (
            "/v1/embeddings",
            format!(r#"{{"model":"m.embed","input":[{}]}}"#, repeated("-1")),
        ),
        (
            "/v1/embeddings",
            format!(r#"{{"model":"m.embed","input":[{}]}}"#, repeated(r#""""#)),
        ),
        (
            "/v1/models/m/tasks/tensor/predict",
            format!(r#"{{"inputs":[{}]}}"#, repeated("1")),
        ),
        (
            "/v1/models/m.tensor:predict",
            format!(r#"{{"instances":[{}]}}"#, repeated("[]")),
        ),
        (
            "/v1/models/m/tasks/tensor/predict",
            format!(r#"{{"inputs":[{{{}}}]}}"#, repeated(r#""x":1"#)),
        ),
        (
            v2,
            format!(
                r#"{{"inputs":[],"outputs":[{}]}}"#,
                repeated(r#"{"name":"doubled"}"#)
            ),
        ),
        (
            v2,
            format!(
                r#"{{"inputs":[{}]}}"#,
                repeated(r#"{"name":"numbers","shape":[],"datatype":"FP32"}"#)
            ),
        ),
        (
            v2,
            format!(r#"{{"inputs":[],"parameters":{{"x":[{}]}}}}"#, repeated("[]")),
        ),
        (
            v2,
            format!(r#"{{"inputs":[],"parameters":{{{}}}}}"#, repeated(r#""x":1"#)),
        ),
        (v2, input(&repeated("1"), "1")),
        (v2, input(&format!("{},1", LARGE / 2), &repeated("1"))),
        (v2, input("1,1", &repeated("1"))),
        (
            v2,
            format!(
                r#"{{"inputs":[{{"name":"numbers","shape":"{}"}}]}}"#,
                "é".repeat(LARGE / 2)
            ),
        ),
        (v2, format!(r#"{{"id":"{}","inputs":3}}"#, "x".repeat(LARGE))),
    ];
    // Complete one-time initialization first.
    for (path, _) in &cases {
        post(&server, path, "{}".to_owned());
    }
    for (path, body) in cases {
        let (size, start) = (body.len(), body[..60].to_owned());
        let grown = server.peak_growth(|| {
            let reply = post(&server, path, body);
            assert!(
                [400, 422].contains(&reply.status),
                "{path} {start}: {}",
                reply.status
            );
            assert!(
                reply.body.len() < 8192,
                "{path} {start}: a reply of {} bytes",
                reply.body.len()
            );
        });
        // The buffer of the body grows by doubling.
        let limit = 3 * size as u64 + (8 << 20);
        assert!(
            grown < limit,
            "{path} {start}: {} MiB for a body of {} MiB",
            grown >> 20,
            size >> 20
        );
    }
}

#[test]
fn many_items_that_fail_with_long_messages_make_a_bounded_reply() {
    let server = start();
    let name = "x".repeat(50_000);
    let inputs = vec![json!({ name: [1.0] }); 100];
    let reply = server.predict("m", "tensor", &json!(inputs)).expect(422);
    assert!(reply.body.len() < 100 * 1200 + 4096, "{} bytes", reply.body.len());
}
