use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::test_server::{PATIENCE, TestServer};
use crate::clock;

const UPPER: &str = "/v1/models/vision/tasks/upper/predict";
const WAIT: &str = "/v1/models/vision/tasks/wait/predict";
/// A complete request to the task `wait`.
const WAIT_REQUEST: &[u8] = b"POST /v1/models/vision/tasks/wait/predict HTTP/1.1\r\nhost: test\r\n\
    content-length: 14\r\n\r\n{\"input\": \"a\"}";
const RUNNING: &str = "inference_executing_items{model=\"vision\",task=\"wait\"}";
const WAITING: &str = "inference_queue_items{model=\"vision\",task=\"wait\"}";

#[actix_web::test]
async fn items_are_answered_in_their_order() {
    let server = TestServer::start();
    let answer = server.post(UPPER, &json!({"inputs": ["a", "bad", "c"]})).await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(
        (&body["model"], &body["task"]),
        (&json!("vision"), &json!("upper"))
    );
    assert_eq!(
        body["outputs"],
        json!(["A", {"error": {"code": "invalid_input", "message": "a bad text"}}, "C"])
    );
    assert!(body["inference_time"].is_f64());
    let timing = answer.header("server-timing").expect("the reply has the header");
    for stage in ["prepare;dur=", "queue;dur=", "inference;dur=", "encode;dur="] {
        assert!(timing.contains(stage), "no {stage} in {timing}");
    }
}

#[actix_web::test]
async fn every_route_to_a_task_works() {
    let server = TestServer::start();
    for path in ["/v1/models/vision/predict", "/shout", UPPER] {
        let answer = server.post(path, &json!({"input": "a"})).await;
        assert_eq!(
            (answer.status, &answer.json()["output"]),
            (200, &json!("A")),
            "for {path}"
        );
    }
    let answer = server
        .post("/v1/models/vision:predict", &json!({"instances": ["a", "b"]}))
        .await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"predictions": ["A", "B"]}))
    );
    let answer = server
        .post(
            "/v1/models/vision/tasks/negate/predict",
            &json!({"inputs": [[1, 2]]}),
        )
        .await;
    assert_eq!(answer.json()["outputs"], json!([{"x": [1, 2]}]));
}

#[actix_web::test]
async fn names_are_decoded_from_the_path() {
    let server = TestServer::start();
    let answer = server
        .post("/v1/models/%76ision/tasks/upper/predict", &json!({"input": "a"}))
        .await;
    assert_eq!(answer.status, 200);
    let answer = server.get("/v1/models/%ff").await;
    assert_eq!(answer.status, 404);
}

#[actix_web::test]
async fn unknown_names_are_reported_with_the_known_ones() {
    let server = TestServer::start();
    let body = json!({"input": "a"});
    let cases = [
        (
            "/v1/models/visoin/predict",
            "unknown model `visoin`, did you mean `vision`?; known models: later, vision",
        ),
        (
            "/v1/models/vision/tasks/uper/predict",
            "unknown task `uper`, did you mean `upper`?; tasks of model `vision`: upper, flip, negate, wait, embed, whole",
        ),
        (
            "/nowhere",
            "unknown route `/nowhere`; see /v1/models for the available models",
        ),
    ];
    for (path, message) in cases {
        let expected = (404, "not_found".to_owned(), message.to_owned());
        assert_eq!(server.post(path, &body).await.error(), expected);
    }
    let answer = server.post("/v1/models/later/predict", &body).await;
    assert_eq!(answer.error().0, 503);
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[actix_web::test]
async fn errors_have_their_status() {
    let server = TestServer::start();
    let status = async |body: &str| {
        let answer = server.send(&format!("POST {UPPER}"), body.as_bytes()).await;
        let id = answer
            .header("x-request-id")
            .expect("the reply has an id")
            .to_owned();
        let (status, code, _) = answer.error();
        assert_eq!(answer.json()["error"]["request_id"], json!(id));
        (status, code)
    };
    let expect = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(status("{\"inputs\": [").await, expect(400, "malformed_request"));
    assert_eq!(status("{\"inputs\": []}").await, expect(400, "malformed_request"));
    assert_eq!(
        status("{\"inputs\": [1,2,3,4,5,6,7,8,9]}").await,
        expect(400, "malformed_request")
    );
    assert_eq!(
        status(&format!("{{\"input\":{}", "[".repeat(1000))).await,
        expect(400, "malformed_request")
    );
    assert_eq!(status("{\"input\": 5}").await, expect(422, "invalid_input"));
    assert_eq!(
        status("{\"inputs\": [5, \"broken\"]}").await,
        expect(500, "model_fault")
    );
}

#[actix_web::test]
async fn raw_bodies_are_accepted_and_returned() {
    let server = TestServer::start();
    let head = "POST /v1/models/vision/tasks/flip/predict\ncontent-type: image/png\n";
    let answer = server.send(&format!("{head}accept: image/*"), b"abc").await;
    assert_eq!((answer.status, answer.text()), (200, "cba".to_owned()));
    assert_eq!(answer.header("content-type"), Some("image/png"));
    let answer = server.send(head, b"abc").await;
    assert_eq!(
        answer.json()["output"],
        json!({"b64": "Y2Jh", "media_type": "image/png"})
    );
    // An array of one item has the same reply.
    let list = head.replace("image/png", "application/json") + "accept: image/*";
    let answer = server.send(&list, b"{\"inputs\": [{\"b64\": \"YWJj\"}]}").await;
    assert_eq!((answer.status, answer.text()), (200, "cba".to_owned()));
    let answer = server.send(&head.replace("png", "gif"), b"abc").await;
    assert_eq!(answer.error().0, 415);
    let answer = server
        .send(
            "POST /shout\ncontent-type: text/plain; charset=utf-8",
            "é".as_bytes(),
        )
        .await;
    assert_eq!(answer.json()["output"], json!("é"));
}

#[actix_web::test]
async fn large_requests_and_replies_are_complete() {
    let server = TestServer::start_with("max_body_size = \"1MiB\"");
    let values: Vec<u8> = (0..100_000u32).map(|index| (index % 251) as u8).collect();
    let body = json!({"inputs": [values, [1], "no tensor"]});
    let answer = server.post("/v1/models/vision/tasks/negate/predict", &body).await;
    assert_eq!(answer.status, 200);
    let outputs = answer.json()["outputs"].clone();
    assert_eq!(outputs[0]["x"], json!(values));
    assert_eq!(outputs[1]["x"], json!([1]));
    assert_eq!(outputs[2]["error"]["code"], json!("invalid_input"));
}

#[actix_web::test]
async fn deadlines_are_enforced_while_the_model_is_busy() {
    let server = TestServer::start();
    let head = format!("POST {WAIT}\nx-request-timeout: 100ms");
    let answer = server.send(&head, b"{\"input\": \"a\"}").await;
    let (status, code, message) = answer.error();
    assert_eq!((status, code.as_str()), (504, "deadline_exceeded"));
    assert!(message.starts_with("deadline of 100 ms passed"), "{message}");
    server.gate.open();
    for header in ["x-request-timeout: soon", "x-priority: urgent"] {
        let answer = server
            .send(&format!("POST {UPPER}\n{header}"), b"{\"input\": \"a\"}")
            .await;
        assert_eq!(answer.error().0, 400, "for {header}");
    }
    let answer = server
        .send(&format!("POST {UPPER}\nx-priority: high"), b"{\"input\": \"a\"}")
        .await;
    assert_eq!(answer.status, 200);
}

#[actix_web::test]
async fn a_full_queue_is_answered_with_a_retry_time() {
    let server = TestServer::start();
    let body = json!({"input": "a"});
    let wait = || server.post(WAIT, &body);
    let (running, waiting, late, flood) = tokio::join!(
        wait(),
        async {
            server.metric_becomes(RUNNING, 1.0).await;
            wait().await
        },
        async {
            // Until its batch starts, the first request is also in the queue, where others would join its batch.
            server.metric_becomes(RUNNING, 1.0).await;
            server.metric_becomes(WAITING, 1.0).await;
            wait().await
        },
        async {
            server.metric_becomes(RUNNING, 1.0).await;
            // The queue limit of the task.
            server.metric_becomes(WAITING, 2.0).await;
            let answer = wait().await;
            server.gate.open();
            answer
        }
    );
    assert_eq!([running.status, waiting.status, late.status], [200; 3]);
    assert_eq!(flood.error().0, 429);
    assert_eq!(flood.header("retry-after"), Some("1"));
    server.metric_becomes(WAITING, 0.0).await;
}

#[actix_web::test]
async fn a_disconnect_cancels_the_items_of_the_client() {
    let server = TestServer::start();
    let mut clients = Vec::new();
    for (metric, value) in [(RUNNING, 1.0), (WAITING, 1.0), (WAITING, 2.0)] {
        let mut client = server.connect().await;
        client
            .write_all(WAIT_REQUEST)
            .await
            .expect("the server reads the request");
        clients.push(client);
        server.metric_becomes(metric, value).await;
    }
    for client in &clients {
        // Causes a reset, since closing the connection immediately after the request counts as a half-close.
        rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO)).expect("a socket has options");
    }
    drop(clients);
    server.metric_becomes(WAITING, 0.0).await;
    let cancelled = "inference_items_total{model=\"vision\",outcome=\"cancelled\",task=\"wait\"}";
    server.metric_becomes(cancelled, 2.0).await;
    server.gate.open();
}

#[actix_web::test]
async fn draining_answers_what_was_accepted_and_closes_idle_connections() {
    let test = TestServer::start();
    let idle = test.connect().await;
    let mut busy = test.connect().await;
    busy.write_all(WAIT_REQUEST)
        .await
        .expect("the server reads the request");
    test.metric_becomes(RUNNING, 1.0).await;
    test.registry.start_draining();
    let TestServer { server, gate, .. } = test;
    let answer = async {
        gate.open();
        let mut answer = String::new();
        busy.read_to_string(&mut answer)
            .await
            .expect("the server replies and closes the connection");
        answer
    };
    let (drained, answer) = tokio::join!(server.drain(clock::now() + PATIENCE), answer);
    assert!(drained);
    assert!(answer.starts_with("HTTP/1.1 200"), "got {answer}");
    drop(idle);
}

#[actix_web::test]
async fn a_drain_ends_at_its_deadline() {
    let test = TestServer::start();
    let mut busy = test.connect().await;
    busy.write_all(WAIT_REQUEST)
        .await
        .expect("the server reads the request");
    test.metric_becomes(RUNNING, 1.0).await;
    assert!(!test.server.drain(clock::now() + Duration::from_millis(50)).await);
    test.gate.open();
}
