//! Names and labels of metrics, which exist from the start.

use std::fmt::Write;

use serde_json::json;

use crate::harness::{Metrics, Scenario, Server};

fn start() -> Server {
    Scenario::new("[[models]]\nname = \"words\"\nplugin = \"template\"\n").start()
}

/// Returns the families with their types and labels, except those about the process, which depend on the operating system.
fn promised(metrics: &Metrics) -> String {
    let mut text = String::new();
    for (family, (kind, labels)) in metrics.families() {
        if !family.starts_with("process_") {
            let labels: Vec<String> = labels.into_iter().collect();
            writeln!(text, "{family} {kind} {{{}}}", labels.join(", ")).expect("a string takes everything");
        }
    }
    text
}

#[test]
fn names_types_and_labels_of_a_fresh_server_are_those_that_were_promised() {
    insta::assert_snapshot!("metric_names", promised(&start().metrics()));
}

#[test]
fn a_request_adds_the_metrics_of_its_route_and_no_others() {
    let server = start();
    let before = promised(&server.metrics());
    server.predict("words", "echo", &json!(["a"])).expect(200);
    let after = promised(&server.metrics());
    let added: Vec<&str> = after.lines().filter(|line| !before.contains(line)).collect();
    insta::assert_snapshot!("metric_names_of_routes", added.join("\n"));
}

#[test]
fn all_metrics_of_a_task_are_zero_before_its_first_request() {
    let server = start();
    let metrics = server.metrics();
    for (name, labels, value) in metrics.samples() {
        if labels.contains_key("task") {
            assert!(
                value.abs() < f64::EPSILON,
                "{name}{labels:?} is {value} before the first request"
            );
        }
    }
    for task in ["echo", "stats"] {
        let labels = [("model", "words"), ("task", task)];
        for name in [
            "inference_items_total",
            "inference_rejections_total",
            "inference_batches_total",
        ] {
            assert_eq!(metrics.count(name, &labels), 0);
        }
    }
}

#[test]
fn memory_of_the_process_is_among_the_metrics() {
    let resident = start().metrics().count("process_resident_memory_bytes", &[]);
    assert!(resident > 1 << 20, "{resident}");
}

#[test]
fn clients_cannot_create_label_values() {
    let server = start();
    let before = server.metrics().samples().len();
    for number in 0..20 {
        server.post(&format!("/made/up/{number}"), &json!({})).expect(404);
        server
            .predict(&format!("model-{number}"), "echo", &json!(["a"]))
            .expect(404);
        server
            .predict("words", &format!("task-{number}"), &json!(["a"]))
            .expect(404);
        server
            .request(&format!("METHOD{number}"), "/health")
            .send()
            .expect(405);
    }
    let text = server.get("/metrics").text();
    for part in ["made/up", "model-1", "task-1", "METHOD1"] {
        assert!(!text.contains(part), "{part:?} is in the metrics");
    }
    let grown = server.metrics().samples().len() - before;
    assert!(grown < 100, "{grown} more samples after 80 made-up requests");
}

#[test]
fn items_are_counted_by_outcome() {
    let server = start();
    server
        .predict("words", "stats", &json!([{"text": "to be"}, {"text": ""}]))
        .expect(200);
    let metrics = server.metrics();
    let items = |outcome| {
        metrics.count(
            "inference_items_total",
            &[("task", "stats"), ("outcome", outcome)],
        )
    };
    assert_eq!((items("success"), items("invalid")), (1, 1));
    assert_eq!(metrics.count("inference_seconds_count", &[("task", "stats")]), 1);
    assert_eq!(
        metrics.count("inference_queue_seconds_count", &[("task", "stats")]),
        2
    );
    assert_eq!(metrics.count("inference_items_total", &[("task", "echo")]), 0);
}
