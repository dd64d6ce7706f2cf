//! How items are batched, as seen by clients and in metrics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::harness::misbehave::{Batches, echo, echoes};
use crate::harness::{Pending, Reply, Scenario, Server};

/// A `max_delay` shorter than the deadline of requests. A batch that runs earlier did not wait for its delay.
const LONG_DELAY: Duration = Duration::from_secs(30);

fn predict_with_priority(server: &Server, priority: &'static str, inputs: Json) -> Pending {
    server.in_background(move |client| {
        let call = client.request("POST", "/v1/models/m/tasks/text/predict");
        call.header("x-priority", priority)
            .json(&json!({ "inputs": inputs }))
            .try_send()
    })
}

#[test]
fn twelve_queued_items_run_as_three_batches_of_four() {
    let server = Scenario::misbehave("", "max_batch_size = 4").start();
    let occupied = server.occupy("m");
    let pending: Vec<_> = (0..12)
        .map(|value| server.predict_in_background("m", "text", &echoes([value])))
        .collect();
    server.wait_for_queued("m", "text", 12);
    let first = occupied.release().batch();
    let mut batches: Vec<u64> = pending
        .into_iter()
        .map(|pending| {
            let report = pending.reply().report();
            assert_eq!(report.batch_size(), 4);
            report.batch() - first
        })
        .collect();
    batches.sort_unstable();
    assert_eq!(batches, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]);
    // Including the batch with the item that occupied the model.
    assert_eq!(Batches::of(&server, "m", "text"), Batches { count: 4, items: 13 });
    let labels = [("model", "m"), ("task", "text")];
    assert_eq!(
        server.metrics().in_bucket("inference_batch_size", &labels, 4.0),
        3
    );
}

#[test]
fn an_idle_server_runs_a_request_immediately_in_its_own_batch() {
    // The policy has not learned yet that waiting helps.
    let server = Scenario::misbehave("", "max_delay = \"30s\"").start();
    let reply = server.predict("m", "text", &echoes(["alone"]));
    assert!(reply.took() < LONG_DELAY, "{:?}", reply.took());
    let report = reply.report();
    assert_eq!((report.value(), report.batch_size()), (&json!("alone"), 1));
    assert_eq!(Batches::of(&server, "m", "text"), Batches { count: 1, items: 1 });
}

#[test]
fn a_single_request_waits_for_the_fixed_delay() {
    let server = Scenario::misbehave("", "policy = \"fixed\"\nmax_delay = \"500ms\"").start();
    let reply = server.predict("m", "text", &echoes(["alone"]));
    assert_eq!(reply.report().batch_size(), 1);
    assert!(
        reply.took() >= Duration::from_millis(500),
        "it ran after {:?}",
        reply.took()
    );
}

#[test]
fn a_fixed_delay_starts_when_the_item_arrives_and_not_when_the_model_is_free() {
    let delay = Duration::from_secs(4);
    let server = Scenario::misbehave("", "policy = \"fixed\"\nmax_delay = \"4s\"").start();
    // The model is busy until the delay of the second request has passed.
    let busy = server.predict_in_background("m", "text", &json!([{"do": "sleep", "ms": 5000}]));
    server.wait_for_metric("inference_executing_items", &[("task", "text")], 1);
    let second = server.predict_in_background("m", "text", &echoes(["second"]));
    server.wait_for_queued("m", "text", 1);
    let (busy, second) = (busy.reply().expect(200), second.reply());
    assert_eq!(second.report().batch_size(), 1);
    let after = second.answered.saturating_duration_since(busy.answered);
    assert!(
        after < delay,
        "it waited {after:?} more, after the model was free"
    );
}

#[test]
fn a_full_batch_runs_before_its_fixed_delay_has_passed() {
    let server =
        Scenario::misbehave("", "policy = \"fixed\"\nmax_delay = \"30s\"\nmax_batch_size = 3").start();
    let pending: Vec<_> = (0..3)
        .map(|value| server.predict_in_background("m", "text", &echoes([value])))
        .collect();
    for pending in pending {
        let reply = pending.reply();
        assert!(reply.took() < LONG_DELAY, "{:?}", reply.took());
        assert_eq!(reply.report().batch_size(), 3);
    }
}

#[test]
fn requests_of_eleven_and_three_items_run_as_batches_of_eight_and_six_and_keep_their_order() {
    let server = Scenario::misbehave("", "max_batch_size = 8").start();
    let occupied = server.occupy("m");
    let eleven = server.predict_in_background("m", "text", &echoes(0..11));
    server.wait_for_queued("m", "text", 11);
    let three = server.predict_in_background("m", "text", &echoes(11..14));
    server.wait_for_queued("m", "text", 14);
    let images = server.predict_in_background("m", "image", &echoes(20..25));
    server.wait_for_queued("m", "image", 5);
    let first = occupied.release().batch();

    let (eleven, three, images) = (eleven.reply(), three.reply(), images.reply());
    let numbers = |range: std::ops::Range<i32>| range.map(Json::from).collect::<Vec<_>>();
    assert_eq!(eleven.values(), numbers(0..11));
    assert_eq!(three.values(), numbers(11..14));
    assert_eq!(images.values(), numbers(20..25));
    let sizes = |reply: &Reply| -> Vec<(u64, u64)> {
        let reports = reply.reports();
        reports
            .iter()
            .map(|report| (report.batch() - first, report.batch_size()))
            .collect()
    };
    assert_eq!(sizes(&eleven), [vec![(1, 8); 8], vec![(2, 6); 3]].concat());
    assert_eq!(sizes(&three), vec![(2, 6); 3]);
    assert_eq!(sizes(&images), vec![(3, 5); 5]);
}

#[test]
fn alternating_shapes_are_grouped_into_few_batches() {
    let server = Scenario::misbehave("", "max_batch_size = 8").start();
    let occupied = server.occupy("m");
    let inputs: Json = (0..8)
        .map(|value| json!({"value": value, "group": value % 2}))
        .collect();
    let pending = server.predict_in_background("m", "prepared", &inputs);
    server.wait_for_queued("m", "prepared", 8);
    occupied.release();
    let reply = pending.reply();
    assert_eq!(reply.values(), (0..8).map(Json::from).collect::<Vec<_>>());
    for report in reply.reports() {
        let parity = report.value().as_u64().map(|value| value % 2);
        let of_batch: Vec<_> = report
            .batch_values()
            .iter()
            .map(|value| value.as_u64().map(|v| v % 2))
            .collect();
        assert_eq!(of_batch, vec![parity; 4]);
    }
    assert_eq!(
        Batches::of(&server, "m", "prepared"),
        Batches { count: 2, items: 8 }
    );
}

#[test]
fn alternating_weights_are_grouped_within_the_weight_limit() {
    // In order of arrival, there would be four batches with a light and a heavy item each. If grouped, the four light items fit into
    // one batch.
    let server = Scenario::misbehave("", "max_batch_size = 4\nmax_batch_weight = 20").start();
    let occupied = server.occupy("m");
    let inputs: Json = (0..8)
        .map(|value| json!({"value": value, "weight": if value % 2 == 0 { 1 } else { 10 }}))
        .collect();
    let pending = server.predict_in_background("m", "prepared", &inputs);
    server.wait_for_queued("m", "prepared", 8);
    let weighs = server
        .metrics()
        .count("inference_queue_weight", &[("task", "prepared")]);
    assert_eq!(weighs, 44);
    occupied.release();
    assert_eq!(
        pending.reply().values(),
        (0..8).map(Json::from).collect::<Vec<_>>()
    );
    assert_eq!(
        Batches::of(&server, "m", "prepared"),
        Batches { count: 3, items: 8 }
    );
}

#[test]
fn tasks_of_one_model_never_share_a_batch_and_neither_starves() {
    let server = Scenario::misbehave("batch_ms = 1", "max_batch_size = 4").start();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for client in 0..6 {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || {
                // Sends without pause until the other task has received all of its replies.
                while !stop.load(Ordering::Relaxed) {
                    let reply = server.predict("m", "text", &echoes([format!("text {client}")]));
                    assert_one_task(&reply, "text");
                }
            });
        }
        let images: Vec<_> = (0..2)
            .map(|client| {
                let server = &server;
                scope.spawn(move || {
                    for round in 0..25 {
                        let reply =
                            server.predict("m", "image", &echoes([format!("image {client} {round}")]));
                        assert_one_task(&reply, "image");
                    }
                })
            })
            .collect();
        let finished: Vec<_> = images.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(
            finished.iter().all(Result::is_ok),
            "images were answered wrongly or not at all"
        );
    });
    assert_eq!(Batches::of(&server, "m", "image").items, 50);
}

fn assert_one_task(reply: &Reply, task: &str) {
    for value in reply.report().batch_values() {
        assert!(
            value.as_str().is_some_and(|value| value.starts_with(task)),
            "{value} in a batch of {task}"
        );
    }
}

#[test]
fn a_high_priority_overtakes_a_long_queue_of_low_priority() {
    let server = Scenario::misbehave("", "max_batch_size = 4").start();
    let occupied = server.occupy("m");
    let low = predict_with_priority(&server, "low", echoes(0..40));
    server.wait_for_queued("m", "text", 40);
    let high = predict_with_priority(&server, "high", echoes(["urgent"]));
    server.wait_for_queued("m", "text", 41);
    let first = occupied.release().batch();
    assert_eq!(high.reply().report().batch(), first + 1);
    assert_eq!(low.reply().values(), (0..40).map(Json::from).collect::<Vec<_>>());
}

#[test]
fn low_priority_items_make_progress_behind_a_long_queue_of_high_priority() {
    let server = Scenario::misbehave("", "max_batch_size = 1").start();
    let occupied = server.occupy("m");
    let low = predict_with_priority(&server, "low", echoes(["patient"]));
    server.wait_for_queued("m", "text", 1);
    let high = predict_with_priority(&server, "high", echoes(0..40));
    server.wait_for_queued("m", "text", 41);
    let first = occupied.release().batch();
    let turn = low.reply().report().batch() - first;
    assert!(turn <= 8, "it had its turn only in batch {turn} of 41");
    high.reply().expect(200);
}

#[test]
fn under_a_flood_of_high_priority_low_priority_gets_at_least_every_eighth_batch() {
    let server = Scenario::misbehave("batch_ms = 1", "max_batch_size = 2\nmax_queue_size = 64").start();
    let stop = AtomicBool::new(false);
    let (low, high) = thread::scope(|scope| {
        let flood: Vec<_> = (0..8)
            .map(|_| {
                let (server, stop) = (&server, &stop);
                scope.spawn(move || {
                    let mut batches = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let reply = predict_with_priority(server, "high", echoes(["high"])).reply();
                        batches.push(reply.report().batch());
                    }
                    batches
                })
            })
            .collect();
        let low = predict_with_priority(&server, "low", echoes(0..40)).reply();
        stop.store(true, Ordering::Relaxed);
        let high: Vec<u64> = flood
            .into_iter()
            .flat_map(|thread| thread.join().expect("a high priority is served"))
            .collect();
        (low.expect(200), high)
    });
    let mut batches: Vec<u64> = low.reports().iter().map(|report| report.batch()).collect();
    batches.dedup();
    let gaps: Vec<u64> = batches.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap <= 8), "{gaps:?}");
    let (first, last) = (batches[0], batches[batches.len() - 1]);
    assert!(
        high.iter().any(|batch| (first..last).contains(batch)),
        "there was no flood: {batches:?} {high:?}"
    );
}

#[test]
fn the_policy_off_runs_single_items() {
    let server = Scenario::misbehave("", "policy = \"off\"").start();
    let reply = server.predict("m", "text", &json!([echo(1), echo(2), echo(3)]));
    let sizes: Vec<u64> = reply.reports().iter().map(|report| report.batch_size()).collect();
    assert_eq!(sizes, [1, 1, 1]);
}

#[test]
fn a_batch_that_does_not_fit_in_memory_is_halved_and_every_item_completes() {
    let server = Scenario::misbehave("out_of_memory_above = 2", "max_batch_size = 8").start();
    let occupied = server.occupy("m");
    let pending = server.predict_in_background("m", "text", &echoes(0..8));
    server.wait_for_queued("m", "text", 8);
    occupied.release();
    let reply = pending.reply();
    assert_eq!(reply.values(), (0..8).map(Json::from).collect::<Vec<_>>());
    assert!(reply.reports().iter().all(|report| report.batch_size() <= 2));
    assert!(
        server
            .metrics()
            .count("inference_out_of_memory_total", &[("model", "m")])
            >= 1
    );
}

#[test]
fn a_model_with_two_workers_runs_two_batches_concurrently() {
    let server = Scenario::new("[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nworkers = 2\n").start();
    let first = server.occupy("m");
    // Returns while the first worker is busy.
    assert_eq!(
        server.predict("m", "text", &echoes(["beside"])).values(),
        [json!("beside")]
    );
    let second = server.occupy("m");
    let waiting = server.predict_in_background("m", "text", &echoes(["waits"]));
    server.wait_for_queued("m", "text", 1);
    first.release();
    assert_eq!(waiting.reply().values(), [json!("waits")]);
    second.release();
}
