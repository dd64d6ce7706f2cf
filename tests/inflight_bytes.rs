//! All requests together hold a limited number of bytes. Above it, requests are rejected, and every client gets an answer.

use std::sync::{Barrier, Mutex};
use std::thread;

use serde_json::json;

use crate::harness::effort::rounds;
use crate::harness::grpc::{self, Grpc};
use crate::harness::gzip::gzip;
use crate::harness::misbehave::echoes;
use crate::harness::plugins;
use crate::harness::raw::Raw;
use crate::harness::resources::Resources;
use crate::harness::{Scenario, Server};

const ECHO: &str = "/v1/models/m/tasks/text/predict";

/// A server whose requests may hold `budget`.
fn start(budget: &str) -> Server {
    plugins::library("misbehave");
    Scenario::new(&format!(
        "[server]\ngrpc_port = 0\nmax_inflight_bytes = \"{budget}\"\n\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n"
    ))
    .start()
}

/// The beginning of a request with a body of `size` bytes.
fn head(size: usize) -> String {
    format!(
        "POST {ECHO} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\nx-request-timeout: 10m\r\ncontent-length: {size}\r\n\r\n"
    )
}

/// A body of `size` bytes, whose text is not part of the reply.
fn body(size: usize) -> String {
    let frame = "{\"inputs\":[{\"message\":\"\"}]}";
    format!(
        "{{\"inputs\":[{{\"message\":\"{}\"}}]}}",
        "x".repeat(size - frame.len())
    )
}

#[test]
fn a_request_above_the_budget_is_rejected_before_it_sends_its_body() {
    let server = start("1MiB");
    let mut slow = server.connect();
    slow.send(head(900_000)).send(&body(900_000)[..10]);
    server.wait_for_metric("inference_inflight_bytes", &[], 900_000);
    assert_eq!(
        server.metrics().count("inference_inflight_bytes_limit", &[]),
        1 << 20
    );

    let mut rejected = server.connect();
    rejected.send(head(200_000));
    let reply = rejected.reply().expect("an answer without a body");
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("1")));
    assert_eq!(reply.json()["error"]["code"], "overloaded");
    server.wait_for_metric("inference_inflight_rejections_total", &[], 1);

    // Small requests do not count.
    server.predict("m", "text", &echoes([1])).expect(200);

    slow.send(&body(900_000)[10..]);
    assert_eq!(slow.reply().expect("an answer").status, 200);
    server.wait_for_metric("inference_inflight_bytes", &[], 0);
    let mut retried = server.connect();
    retried.send_json(ECHO, &body(200_000));
    assert_eq!(retried.reply().expect("an answer").status, 200);
}

#[tokio::test]
async fn a_call_above_the_budget_is_rejected_before_it_sends_its_message() {
    let server = start("1MiB");
    let mut client = Grpc::connect(server.grpc_address()).await;
    // A message begins with a flag and its length.
    let (_slow, _open) = client.begin("ModelInfer", b"\0\0\x0d\xbb\xa0\x0a");
    // The answer to a later call shows that the earlier one has arrived.
    assert!(client.is_live().await);
    server.wait_for_metric("inference_inflight_bytes", &[], 900_005);
    let (call, _open) = client.begin("ModelInfer", b"\0\0\x03\x0d\x40\x0a");
    let answer = call.await.expect("an answer");
    let (status, message) = grpc::status(&answer);
    assert_eq!(status, "8", "{message}");
    // The reply with the metrics may still be counted as well.
    assert!(
        message.starts_with("the requests in flight hold 9")
            && message.ends_with(" of at most 1048576 bytes, and this one needs 200005 more"),
        "{message}"
    );
    assert_eq!(answer.headers()["retry-after"], "1");
    client.cut().await;
    server.wait_for_metric("inference_inflight_bytes", &[], 0);
}

#[test]
fn a_body_that_can_never_fit_is_too_large_and_the_log_warns_of_it() {
    let server = start("1MiB");
    server.wait_for_log("`max_inflight_bytes` is less than `max_body_size`");
    let mut client = server.connect();
    client.send(head((1 << 20) + 1));
    assert_eq!(client.reply().expect("an answer").status, 413);
}

#[test]
fn an_item_that_waits_for_its_model_keeps_the_bytes_of_its_request() {
    let server = start("1MiB");
    let occupied = server.occupy("m");
    let mut waiting = server.connect();
    waiting.send_json(ECHO, &body(900_000));
    server.wait_for_queued("m", "text", 1);
    server.wait_for_metric("inference_inflight_bytes", &[], 900_000);
    occupied.release();
    assert_eq!(waiting.reply().expect("an answer").status, 200);
    server.wait_for_metric("inference_inflight_bytes", &[], 0);
}

#[test]
fn items_that_are_decoded_count_until_they_are_answered() {
    let server = start("2MiB");
    let occupied = server.occupy("m");
    // Strings are copied from a request of this protocol, so its body is freed while the item waits.
    let item = json!({ "value": "x".repeat(600_000) }).to_string();
    let request = json!({
        "inputs": [{"name": "JSON", "shape": [1], "datatype": "BYTES", "data": [item]}]
    });
    let mut waiting = server.connect();
    waiting.send_json("/v2/models/m.text/infer", &request.to_string());
    server.wait_for_queued("m", "text", 1);
    server.wait_for_metric("inference_inflight_bytes", &[], item.len() as u64);
    occupied.release();
    assert_eq!(waiting.reply().expect("an answer").status, 200);
    server.wait_for_metric("inference_inflight_bytes", &[], 0);
}

#[test]
fn a_request_that_cannot_be_decoded_within_the_budget_is_rejected() {
    let server = start("1MiB");
    // The numbers take 800 kB, twice their text.
    let numbers = "1,".repeat(200_000);
    let body = format!(
        r#"{{"inputs":[{{"name":"numbers","shape":[1,200001],"datatype":"FP32","data":[{numbers}1]}}]}}"#
    );
    let reply = server
        .request("POST", "/v2/models/m.tensor/infer")
        .body("application/json", body)
        .send()
        .expect(429);
    assert_eq!(reply.header("retry-after"), Some("1"));
    server.wait_for_metric("inference_inflight_bytes", &[], 0);
}

#[tokio::test]
async fn a_compressed_message_counts_with_its_decompressed_size() {
    let server = start("1MiB");
    let mut client = Grpc::connect(server.grpc_address()).await;
    // Field 1 is the name of the model, and field 7 raw data: 2 MiB.
    let message = [&b"\x0a\x06m.text\x3a\x80\x80\x80\x01"[..], &vec![0; 2 << 20]].concat();
    let packed = gzip(&message);
    let length = u32::try_from(packed.len()).expect("a small message");
    assert!(length < 10_000, "{length} bytes");
    let framed = [&[1][..], &length.to_be_bytes(), &packed].concat();
    let (call, mut body) = client.begin_compressed("ModelInfer", framed);
    body.send_data(Default::default(), true)
        .expect("the call is open");
    let answer = call.await.expect("an answer");
    let (status, message) = grpc::status(&answer);
    assert_eq!(status, "8", "{message}");
    assert!(message.contains("of at most 1048576 bytes"), "{message}");
    server.wait_for_metric("inference_inflight_bytes", &[], 0);
}

#[test]
fn many_large_requests_at_once_stay_within_the_budget_and_all_get_an_answer() {
    // The long form has 300 clients with 64 MiB each.
    let (clients, size) = (rounds(40, 300), rounds(4, 64) << 20);
    // With some room for the replies about metrics.
    let budget = size as u64 * 8 + (1 << 19);
    let server = start(&format!("{budget}B"));
    let occupied = server.occupy("m");
    let (head, body) = (head(size), body(size));
    let started = Barrier::new(clients + 1);
    let statuses = Mutex::new(Vec::new());
    let growth = thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut connection: Raw = server.connect();
                started.wait();
                connection.send(&head);
                // A server that has rejected the request does not read on.
                let _ = connection.try_send(&body);
                let status = connection.reply().map(|reply| reply.status);
                statuses.lock().expect("no client panics").push(status);
            });
        }
        let growth = Resources::peak_growth(server.pid().as_raw_pid().unsigned_abs(), || {
            started.wait();
            server.wait_for_queued("m", "text", 8);
            server.wait_for_metric("inference_inflight_rejections_total", &[], (clients - 8) as u64);
        });
        // Those that fit are answered once the model is free.
        occupied.release();
        growth
    });
    let statuses = statuses.into_inner().expect("no client panics");
    let answered = |status| statuses.iter().filter(|other| **other == Some(status)).count();
    assert_eq!((answered(200), answered(429)), (8, clients - 8), "{statuses:?}");
    assert!(
        growth < budget * 12 / 10 + (8 << 20),
        "{growth} bytes with a budget of {budget}"
    );
    server.wait_for_metric("inference_inflight_bytes", &[], 0);
}
