//! Log records about batches have the model, the task and the requests as fields.

use serde_json::{Value as Json, json};

use crate::harness::misbehave::{echo, echoes, perform};
use crate::harness::{Scenario, Server};

fn start(isolation: &str) -> Server {
    Scenario::new(&format!(
        "[logging]\nformat = \"json\"\n\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"{isolation}\"\n"
    ))
    .start()
}

fn predict(server: &Server, task: &str, id: &str, inputs: &Json) -> u16 {
    let path = format!("/v1/models/m/tasks/{task}/predict");
    let request = server.request("POST", &path).header("x-request-id", id);
    request.json(&json!({ "inputs": inputs })).send().status
}

/// Returns the lines about a request, except those of the access log.
fn lines_about(server: &Server, id: &str) -> Vec<Json> {
    // All earlier records have been written before this one.
    let marker = format!("after-{id}");
    predict(server, "text", &marker, &echoes([1]));
    server.wait_for_log(&marker);
    let lines = server.log().lines();
    let lines = lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Json>(line).ok());
    lines
        .filter(|line| line["target"] != "access" && line.to_string().contains(id))
        .collect()
}

#[track_caller]
fn assert_fields(line: &Json, level: &str, task: &str, id: &str) {
    assert_eq!(line["level"], level, "{line}");
    assert_eq!(line["model"], "m", "{line}");
    assert_eq!(line["task"], task, "{line}");
    assert_eq!(line["requests"], id, "{line}");
}

#[test]
fn a_failure_is_logged_once_with_its_model_task_and_request() {
    for isolation in ["thread", "process"] {
        let server = start(isolation);
        for (task, action, status) in [
            ("text", "fail_batch", 500),
            ("text", "panic", 500),
            ("text", "fault_item", 500),
            ("text", "too_few", 500),
            ("prepared", "panic_in_prepare", 500),
        ] {
            let id = format!("request-{action}");
            assert_eq!(
                predict(&server, task, &id, &json!([perform(action, 1)])),
                status,
                "{action}"
            );
            let lines = lines_about(&server, &id);
            assert_eq!(lines.len(), 1, "{isolation} {action}: {lines:#?}");
            assert_fields(&lines[0], "ERROR", task, &id);
        }
        // Client errors are not logged as errors.
        assert_eq!(
            predict(
                &server,
                "text",
                "request-of-client",
                &json!([perform("fail_item", 1)])
            ),
            422
        );
        assert_eq!(lines_about(&server, "request-of-client"), Vec::<Json>::new());
    }
}

#[test]
fn log_records_of_a_plugin_name_the_running_batch() {
    for isolation in ["thread", "process"] {
        let server = start(isolation);
        assert_eq!(
            predict(&server, "text", "request-that-logs", &json!([perform("log", 1)])),
            200
        );
        server.wait_for_log("the message of log");
        let lines = lines_about(&server, "request-that-logs");
        assert_eq!(lines.len(), 1, "{isolation}: {lines:#?}");
        assert_eq!(lines[0]["message"], "the message of log");
        let level = lines[0]["level"].as_str().expect("a level").to_owned();
        assert_fields(&lines[0], &level, "text", "request-that-logs");
    }
}

#[test]
fn the_log_names_the_requests_of_a_batch_whose_process_crashes() {
    let server = start("process");
    let inputs = json!([perform("abort", 1), echo(2)]);
    assert_eq!(predict(&server, "text", "request-that-crashes", &inputs), 200);
    let lines = lines_about(&server, "request-that-crashes");
    let levels: Vec<&str> = lines.iter().filter_map(|line| line["level"].as_str()).collect();
    assert_eq!(levels, ["WARN", "WARN", "ERROR"], "{lines:#?}");
    for line in &lines {
        let level = line["level"].as_str().expect("a level");
        assert_fields(line, level, "text", "request-that-crashes");
    }
}

#[test]
fn the_text_format_contains_the_fields() {
    let server = Scenario::misbehave("", "").start();
    assert_eq!(
        predict(&server, "text", "in-text", &json!([perform("fail_batch", 1)])),
        500
    );
    let line = server.wait_for_log("failed");
    assert!(line.ends_with(" model=m task=text requests=in-text"), "{line}");
}
