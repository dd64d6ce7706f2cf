//! Many clients that disconnect at random times.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use inference_server::clock;
use serde_json::{Value as Json, json};

use crate::admission::wait_until_nothing_is_queued_or_running;
use crate::harness::misbehave::echoes;
use crate::harness::raw::Raw;
use crate::harness::{Client, Scenario, Server, eventually, rounds, seed};

/// Number of threads, each of which runs a share of the disconnecting clients.
const LEAVING: usize = 4;

/// Number of items in each request.
const ITEMS: usize = 3;

#[test]
fn clients_that_disconnect_at_random_leave_nothing_behind_and_do_not_affect_others() {
    let clients = rounds(2_000, 10_000);
    let mut seeds = Rng::with_seed(seed());
    let server = Scenario::misbehave("batch_ms = 1", "max_batch_size = 16").start();
    serve_once(&server);
    let before = server.resources();
    let gone = AtomicBool::new(false);
    let stayed: usize = thread::scope(|scope| {
        let staying: Vec<_> = (0..2)
            .map(|number| {
                let (client, gone) = (server.client(), &gone);
                scope.spawn(move || stay(&client, number, gone))
            })
            .collect();
        let leaving: Vec<_> = (0..LEAVING)
            .map(|_| {
                let (server, rng) = (&server, seeds.fork());
                scope.spawn(move || leave(server, rng, clients / LEAVING))
            })
            .collect();
        for thread in leaving {
            thread.join().expect("the server takes every connection");
        }
        gone.store(true, Ordering::Relaxed);
        staying
            .into_iter()
            .map(|thread| thread.join().expect("those that stay are served"))
            .sum()
    });

    wait_until_nothing_is_queued_or_running(&server);
    assert_counted(&server, stayed * ITEMS, clients * ITEMS);
    eventually("the server to hold no more than before", || {
        let now = server.resources();
        if now.threads <= before.threads && now.open_files <= before.open_files {
            Ok(())
        } else {
            Err((before, now))
        }
    });
    serve_once(&server);
}

fn serve_once(server: &Server) {
    let report = server.predict("m", "text", &echoes(["alive"])).report();
    assert_eq!((report.value(), report.batch_size()), (&json!("alive"), 1));
}

/// Sends requests and checks replies until the other clients are gone. Returns the number of replies.
fn stay(client: &Client, number: usize, gone: &AtomicBool) -> usize {
    let mut answered = 0;
    while !gone.load(Ordering::Relaxed) {
        let values: Vec<Json> = (0..ITEMS).map(|item| json!([number, answered, item])).collect();
        assert_eq!(
            client.predict("m", "text", &echoes(values.clone())).values(),
            values
        );
        answered += 1;
    }
    answered
}

/// Sends requests on separate connections, each of which is closed or reset after a random part of the request or after all of it. A
/// connection that is closed directly after its request counts as half-closed, so its request is served.
fn leave(server: &Server, mut rng: Rng, clients: usize) {
    let body = json!({"inputs": echoes(0..ITEMS)}).to_string();
    let request = format!(
        "POST /v1/models/m/tasks/text/predict HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..clients {
        let cut = if rng.bool() {
            request.len()
        } else {
            rng.usize(..request.len())
        };
        let mut connection = server.connect();
        connection.send(&request.as_bytes()[..cut]);
        if rng.bool() {
            connection.reset();
        }
    }
}

/// Sends a request with one item to a busy model.
fn queue_one(server: &Server) -> Raw {
    let mut connection = server.connect();
    let body = json!({ "inputs": echoes(["unwanted"]) }).to_string();
    connection.send_json("/v1/models/m/tasks/text/predict", &body);
    server.wait_for_queued("m", "text", 1);
    connection
}

/// Longer than the time after a request in which a closed connection is treated as half-closed.
const LONGER_THAN_A_HALF_CLOSE: Duration = Duration::from_millis(300);

#[test]
fn queued_items_are_dropped_when_their_client_closes_or_resets_the_connection() {
    let server = Scenario::misbehave("", "").start();
    let occupied = server.occupy("m");
    let cancelled = |count| {
        let labels = [("model", "m"), ("task", "text"), ("outcome", "cancelled")];
        server.wait_for_metric("inference_items_total", &labels, count);
        server.wait_for_queued("m", "text", 0);
    };
    let gives_up = queue_one(&server);
    let sent = clock::now();
    eventually("the client to lose its patience", || match clock::now() - sent {
        passed if passed > LONGER_THAN_A_HALF_CLOSE => Ok(()),
        passed => Err(passed),
    });
    drop(gives_up);
    cancelled(1);
    queue_one(&server).reset();
    cancelled(2);
    let mut half_closed = queue_one(&server);
    half_closed.half_close();
    half_closed.reset();
    cancelled(3);
    occupied.release();
    serve_once(&server);
}

#[test]
fn a_disconnect_is_detected_even_if_the_client_has_sent_further_requests() {
    let server = Scenario::misbehave("", "").start();
    let occupied = server.occupy("m");
    let mut connection = queue_one(&server);
    let body = json!({ "inputs": echoes(["next"]) }).to_string();
    connection.send_json("/v1/models/m/tasks/text/predict", &body);
    connection.reset();
    let labels = [("model", "m"), ("task", "text"), ("outcome", "cancelled")];
    server.wait_for_metric("inference_items_total", &labels, 1);
    occupied.release();
}

/// Asserts that each item is counted once: all items of the remaining clients as successes, and at most all items of the
/// disconnected clients, some of them as cancelled.
fn assert_counted(server: &Server, stayed: usize, gone: usize) {
    let metrics = server.metrics();
    let items = |outcome: &str| {
        metrics.count(
            "inference_items_total",
            &[("model", "m"), ("task", "text"), ("outcome", outcome)],
        ) as usize
    };
    let (success, cancelled) = (items("success"), items("cancelled"));
    let all = metrics.count("inference_items_total", &[("model", "m")]) as usize;
    // Including the warm-up of this test.
    assert_eq!(all, success + cancelled, "{metrics:?}");
    assert!(cancelled > 0, "expected some cancelled items");
    assert!(
        success > stayed,
        "{success} successes, of which {stayed} were seen"
    );
    assert!(
        all <= stayed + gone + 1,
        "{all} items of {stayed} and at most {gone}"
    );
}
