//! Rejected requests, expired items, and items of disconnected clients.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::harness::misbehave::{Batches, echoes};
use crate::harness::raw::Raw;
use crate::harness::{Scenario, Server, eventually};

fn items(server: &Server, outcome: &str) -> u64 {
    let labels = [("model", "m"), ("task", "text"), ("outcome", outcome)];
    server.metrics().count("inference_items_total", &labels)
}

pub(crate) fn wait_until_nothing_is_queued_or_running(server: &Server) {
    for gauge in [
        "inference_queue_items",
        "inference_queue_weight",
        "inference_executing_items",
    ] {
        server.wait_for_metric(gauge, &[("model", "m")], 0);
    }
}

#[test]
fn of_ten_requests_to_a_busy_model_with_a_queue_of_eight_exactly_two_are_rejected_immediately() {
    let server = Scenario::misbehave("", "max_queue_size = 8").start();
    let occupied = server.occupy("m");
    let pending: Vec<_> = (0..10)
        .map(|value| server.predict_in_background("m", "text", &echoes([value])))
        .collect();
    let reason = [("model", "m"), ("task", "text"), ("reason", "queue_full")];
    server.wait_for_metric("inference_rejections_total", &reason, 2);
    server.wait_for_queued("m", "text", 8);
    // The rejected requests return while the model is still busy.
    eventually("two answers", || {
        match pending.iter().filter(|pending| pending.is_answered()).count() {
            2 => Ok(()),
            other => Err(other),
        }
    });
    occupied.release();
    let (rejected, served): (Vec<_>, Vec<_>) = pending
        .into_iter()
        .map(|pending| pending.reply())
        .partition(|reply| reply.status == 429);
    assert_eq!((rejected.len(), served.len()), (2, 8));
    for reply in served {
        reply.expect(200);
    }
    for reply in rejected {
        let (code, message) = reply.error();
        assert_eq!(code, "queue_full");
        assert!(message.contains("8 of 8"), "{message}");
        let seconds: u64 = reply
            .header("retry-after")
            .and_then(|s| s.parse().ok())
            .expect("when to come back");
        assert!((1..=60).contains(&seconds), "come back in {seconds} s");
    }
    wait_until_nothing_is_queued_or_running(&server);
}

#[test]
fn a_queue_at_its_maximum_weight_rejects_requests() {
    let server = Scenario::misbehave("", "max_queue_weight = 100").start();
    let occupied = server.occupy("m");
    let heavy = server.predict_in_background("m", "prepared", &json!([{"value": "heavy", "weight": 100}]));
    server.wait_for_metric("inference_queue_weight", &[("task", "prepared")], 100);
    let rejected = server
        .predict("m", "prepared", &json!([{"weight": 1}]))
        .expect(429);
    assert_eq!(rejected.error().0, "queue_full");
    assert!(rejected.header("retry-after").is_some());
    occupied.release();
    assert_eq!(heavy.reply().values(), [json!("heavy")]);
    wait_until_nothing_is_queued_or_running(&server);
    server
        .predict("m", "prepared", &json!([{"weight": 1}]))
        .expect(200);
}

#[test]
fn an_item_that_expires_while_the_model_is_busy_never_reaches_it() {
    // Without this header, the deadline of the request would exceed the duration of the test.
    let server = Scenario::misbehave("", "")
        .argument("--request-timeout=1h")
        .start();
    let occupied = server.occupy("m");
    let late = server
        .request("POST", "/v1/models/m/tasks/text/predict")
        .header("x-request-timeout", "100ms")
        .json(&json!({"inputs": echoes(["late"])}))
        .send()
        .expect(504);
    assert_eq!(late.error().0, "deadline_exceeded");
    assert!(
        late.took() >= Duration::from_millis(100),
        "answered after {:?}",
        late.took()
    );
    assert_eq!(items(&server, "expired"), 1);
    server.wait_for_queued("m", "text", 0);
    let first = occupied.release().batch();
    let next = server.predict("m", "text", &echoes(["next"])).report();
    assert_eq!((next.batch(), next.batch_size()), (first + 1, 1));
    assert_eq!(Batches::of(&server, "m", "text"), Batches { count: 2, items: 2 });
    wait_until_nothing_is_queued_or_running(&server);
}

#[test]
fn the_deadline_applies_while_the_model_computes_the_item() {
    let server = Scenario::misbehave("", "")
        .argument("--request-timeout=1h")
        .start();
    let late = server
        .request("POST", "/v1/models/m/tasks/text/predict")
        .header("x-request-timeout", "200ms")
        .json(&json!({"inputs": [{"do": "hang"}]}))
        .send()
        .expect(504);
    assert_eq!(late.error().0, "deadline_exceeded");
}

#[test]
fn the_configured_deadline_applies_to_requests_without_one() {
    let server = Scenario::new(
        "[server]\nrequest_timeout = \"1h\"\n\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nrequest_timeout = \"100ms\"\n",
    )
    .start();
    let inputs = json!([{"do": "sleep", "ms": 3000}]);
    assert_eq!(
        server.predict("m", "text", &inputs).expect(504).error().0,
        "deadline_exceeded"
    );
}

#[test]
fn queued_items_of_disconnected_clients_are_dropped_and_counted() {
    let server = Scenario::misbehave("", "").start();
    let occupied = server.occupy("m");
    let body = json!({"inputs": echoes(["from nobody", "for nobody"])}).to_string();
    let connections: Vec<_> = (0..100)
        .map(|_| {
            let mut connection = server.connect();
            connection.send_json("/v1/models/m/tasks/text/predict", &body);
            connection
        })
        .collect();
    server.wait_for_queued("m", "text", 200);
    connections.into_iter().for_each(Raw::reset);
    // The model remains busy, so it does not empty the queue.
    server.wait_for_queued("m", "text", 0);
    let first = occupied.release().batch();
    assert_eq!(items(&server, "cancelled"), 200);
    let next = server.predict("m", "text", &echoes(["next"])).report();
    assert_eq!((next.batch(), next.batch_size()), (first + 1, 1));
    assert_eq!(Batches::of(&server, "m", "text"), Batches { count: 2, items: 2 });
    wait_until_nothing_is_queued_or_running(&server);
}

#[test]
fn a_request_with_more_items_than_the_queue_capacity_is_rejected() {
    let server = Scenario::misbehave("", "max_queue_size = 4").start();
    let (code, message) = server.predict("m", "text", &echoes(0..5)).expect(400).error();
    assert_eq!(code, "malformed_request");
    assert!(message.contains('5') && message.contains('4'), "{message}");
}

#[test]
fn a_request_that_cannot_be_answered_within_its_deadline_is_rejected_with_the_expected_wait() {
    let server = Scenario::misbehave("", "max_batch_size = 1").start();
    // Now the server knows that a batch takes at least 200 ms.
    server
        .predict("m", "text", &json!([{"do": "sleep", "ms": 200}]))
        .expect(200);
    let occupied = server.occupy("m");
    let predict = |items: usize, timeout: &str| {
        let request = server.request("POST", "/v1/models/m/tasks/text/predict");
        let inputs = echoes(0..items as u64);
        request
            .header("x-request-timeout", timeout)
            .json(&json!({ "inputs": inputs }))
    };
    let queued = thread::scope(|scope| {
        let queued = scope.spawn(|| predict(50, "1h").send());
        server.wait_for_queued("m", "text", 50);
        let rejected = predict(1, "9s").send().expect(429);
        let (code, message) = rejected.error();
        assert_eq!(code, "overloaded");
        assert!(message.contains("deadline of 9000 ms"), "{message}");
        let seconds = rejected.header("retry-after").and_then(|s| s.parse::<u64>().ok());
        assert!(seconds >= Some(10), "come back in {seconds:?} s");
        let reason = [("model", "m"), ("task", "text"), ("reason", "overloaded")];
        server.wait_for_metric("inference_rejections_total", &reason, 1);
        // A request of a higher class does not wait for them.
        let urgent = scope.spawn(|| predict(1, "1h").header("x-priority", "high").send());
        server.wait_for_queued("m", "text", 51);
        occupied.release();
        assert_eq!(urgent.join().expect("an answer").report().value(), 0);
        queued.join().expect("an answer")
    });
    assert_eq!(queued.reports().len(), 50);
    // Nothing is ahead of a request, so it is admitted with any deadline.
    predict(1, "9s").send().expect(200);
    wait_until_nothing_is_queued_or_running(&server);
}
