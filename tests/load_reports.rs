//! Load reports (ORCA) for balancers and gateways, in a header of replies to clients that ask for them.

use serde_json::{Value as Json, json};

use crate::harness::misbehave::echoes;
use crate::harness::{Reply, Scenario, Server, eventually};

const REQUESTED: &str = "endpoint-load-metrics-format";
const REPORT: &str = "endpoint-load-metrics";

fn get(server: &Server, path: &str, format: &str) -> Reply {
    server.request("GET", path).header(REQUESTED, format).send()
}

fn report(server: &Server) -> Json {
    let reply = get(server, "/livez", "JSON").expect(200);
    let header = reply.header(REPORT).expect("a report");
    let json = header.strip_prefix("JSON ").expect("a report in JSON");
    serde_json::from_str(json).expect("it is JSON")
}

#[test]
fn a_report_is_added_to_any_reply_for_clients_that_ask_for_one_and_to_no_other() {
    let server = Scenario::misbehave("", "").start();
    let body = json!({ "inputs": echoes(["a"]) });
    for (method, path, status) in [
        ("POST", "/v1/models/m/tasks/text/predict", 200),
        ("POST", "/v1/models/m:predict", 404),
        ("GET", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/no/such/route", 404),
    ] {
        let request = || {
            let request = server.request(method, path);
            if method == "POST" {
                request.json(&body)
            } else {
                request
            }
        };
        assert_eq!(request().send().expect(status).header(REPORT), None, "{path}");
        let reply = request().header(REQUESTED, "text").send().expect(status);
        let report = reply.header(REPORT).expect("a report");
        assert!(
            report.starts_with("TEXT application_utilization="),
            "{path}: {report}"
        );
    }
    assert_eq!(get(&server, "/livez", "BIN").expect(200).header(REPORT), None);
}

#[test]
fn a_report_has_the_queue_the_utilization_and_the_expected_wait() {
    let server = Scenario::misbehave("batch_ms = 20", "max_batch_size = 1\npolicy = \"greedy\"").start();
    // So that the server knows how long a batch takes.
    server.predict("m", "text", &echoes(0..10)).expect(200);
    eventually("an idle server to report no load", || {
        let report = report(&server);
        let idle = json!([0.0, 0]);
        match json!([
            report["application_utilization"],
            report["named_metrics"]["queue_items"]
        ]) {
            load if load == idle => Ok(()),
            load => Err(load),
        }
    });
    let occupied = server.occupy("m");
    let pending = server.predict_in_background("m", "text", &echoes(0..50));
    server.wait_for_queued("m", "text", 50);
    eventually("a busy server to report its load", || {
        let report = report(&server);
        let named = &report["named_metrics"];
        assert_eq!(named["queue_items"], 50);
        // At least 49 batches of at least 20 ms run before an item that arrives now.
        assert!(named["expected_wait_seconds"].as_f64() >= Some(0.98), "{report}");
        match report["application_utilization"].as_f64() {
            Some(utilization) if utilization > 0.95 => Ok(()),
            utilization => Err(utilization),
        }
    });
    occupied.release();
    pending.reply().expect(200);
    eventually(
        "requests to be counted",
        || match report(&server)["rps_fractional"].as_f64() {
            Some(rate) if rate > 0.0 => Ok(()),
            rate => Err(rate),
        },
    );
}
