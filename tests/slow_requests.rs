//! The log of slow requests.

use serde_json::{Value as Json, json};

use crate::harness::misbehave::echoes;
use crate::harness::{Scenario, Server, eventually};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn start(rule: &str, settings: &str) -> Server {
    Scenario::new(&format!(
        "[logging]\nformat = \"json\"\nslow_request_log = \"{rule}\"\n\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n\n\
         [models.settings]\n{settings}\n"
    ))
    .start()
}

/// The lines so far.
fn lines(server: &Server) -> Vec<Json> {
    let lines = server.log().lines();
    let lines = lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Json>(line).ok());
    lines.filter(|line| line["target"] == "slow_request").collect()
}

#[test]
fn a_request_above_the_limit_is_logged_with_the_times_of_its_stages() {
    let server = start("20ms", "batch_ms = 30");
    let reply = server
        .request("POST", "/v1/models/m/tasks/text/predict")
        .header("x-request-id", "slow-one")
        .header("traceparent", &format!("00-{TRACE}-b7ad6b7169203331-00"))
        .json(&json!({ "inputs": echoes([1, 2]) }))
        .send()
        .expect(200);
    server.wait_for_log("slow request");
    let lines = lines(&server);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let line = &lines[0];
    for (field, value) in [
        ("level", json!("INFO")),
        ("message", json!("slow request")),
        ("model", json!("m")),
        ("task", json!("text")),
        ("protocol", json!("native")),
        ("status", json!(200)),
        ("request_id", json!("slow-one")),
        ("trace_id", json!(TRACE)),
        ("items", json!(2)),
        ("worker", json!(0)),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    let timing = reply.header("server-timing").expect("a reply has the header");
    for stage in ["prepare", "queue", "inference", "encode"] {
        let millis = line[format!("{stage}_ms")].as_f64().expect("a stage has a time");
        let (_, rest) = timing.split_once(&format!("{stage};dur=")).expect("a stage");
        let in_reply: f64 = rest
            .split(',')
            .next()
            .unwrap_or_default()
            .parse()
            .expect("a number");
        assert!((millis - in_reply).abs() < 0.0005, "{stage}: {line} {timing}");
    }
    assert!(
        line["total_ms"].as_f64() >= line["inference_ms"].as_f64(),
        "{line}"
    );
    assert!(line["batch_size"].as_u64() >= Some(1), "{line}");
    assert!(line["batch_reason"].is_string(), "{line}");
    assert_eq!(line["limit_ms"].as_f64(), Some(20.0));
}

#[test]
fn requests_below_the_limit_are_not_logged_and_by_default_none_are() {
    let fast = start("10m", "");
    let off = start("off", "batch_ms = 5");
    for server in [fast, off] {
        server.predict("m", "text", &echoes([1])).expect(200);
        server.predict("m", "text", &json!([1])).expect(422);
        server.get("/v1/models").expect(200);
        server.wait_for_log("/v1/models\"");
        assert_eq!(lines(&server), Vec::<Json>::new());
    }
}

#[test]
fn the_number_of_lines_is_limited_and_suppressed_requests_are_counted() {
    let server = start("1us", "");
    let sent = 300;
    for number in 0..sent {
        server.predict("m", "text", &echoes([number])).expect(200);
    }
    server.wait_for_log("\"suppressed\":");
    // What was suppressed last is reported when its second is over.
    eventually("all requests to be reported", || {
        let lines = lines(&server);
        let logged = lines
            .iter()
            .filter(|line| line["message"] == "slow request")
            .count() as u64;
        let suppressed: u64 = lines.iter().filter_map(|line| line["suppressed"].as_u64()).sum();
        match logged + suppressed {
            all if all == sent => Ok(()),
            all => Err(all),
        }
    });
}

#[test]
fn a_percentile_is_that_of_the_requests_of_the_same_task() {
    let server = start("p90", "batch_ms = 1");
    // The percentile is computed once per second.
    let line = eventually("a request to be slow", || {
        for number in 0..20 {
            server.predict("m", "text", &echoes([number])).expect(200);
        }
        lines(&server).into_iter().next().ok_or("none")
    });
    let millis = |field: &str| line[field].as_f64().expect("a number");
    assert!(millis("total_ms") > millis("limit_ms"), "{line}");
    // The batches take a millisecond.
    assert!(millis("limit_ms") >= 1.0, "{line}");
    // There are too few requests to another task.
    server.predict("m", "embed", &json!(["to be"])).expect(200);
    let others = lines(&server).into_iter().filter(|line| line["task"] != "text");
    assert_eq!(others.count(), 0);
}
