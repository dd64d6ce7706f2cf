//! Clients that go away, at any moment and in great numbers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fastrand::Rng;
use serde_json::{Value as Json, json};

use crate::admission::wait_until_nothing_is_queued_or_running;
use crate::harness::misbehave::echoes;
use crate::harness::{Client, Scenario, Server, eventually, rounds, seed};

/// Threads that connect and go away, each its share of the clients.
const LEAVING: usize = 4;

/// Items of each request.
const ITEMS: usize = 3;

#[test]
fn clients_that_leave_at_random_leave_nothing_behind_and_do_no_harm_to_those_that_stay() {
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

/// Asks until the others are gone; how often it was answered, always rightly.
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

/// Sends requests, each on a connection of its own that is dropped after a random part of it, or after all of it.
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
        server.connect().send(&request.as_bytes()[..cut]);
    }
}

/// Every item is counted once: all of those that stayed as a success, and of the gone at most all of them, some as
/// cancelled.
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
    // With the warm-up of this test, before.
    assert_eq!(all, success + cancelled, "{metrics:?}");
    assert!(cancelled > 0, "nobody left in time to be noticed");
    assert!(
        success > stayed,
        "{success} successes, of which {stayed} were seen"
    );
    assert!(
        all <= stayed + gone + 1,
        "{all} items of {stayed} and at most {gone}"
    );
}
