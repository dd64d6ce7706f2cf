//! A plugin that terminates the server causes a log line that names it, and never exit code 0.

use std::os::unix::process::ExitStatusExt;

use serde_json::json;

use crate::harness::Scenario;
use crate::harness::misbehave::{echo, echoes};

/// Runs a task of a model in thread mode that terminates the server. Returns the signal, the exit code and the last lines of the log.
fn end_server(
    scenario: Scenario,
    task: &str,
    order: serde_json::Value,
) -> (Option<i32>, Option<i32>, String) {
    let mut server = scenario.start();
    assert_eq!(
        server.predict("m", task, &json!([echo("alive")])).values(),
        ["alive"]
    );
    let _unanswered = server.predict_in_background("m", task, &json!([order]));
    let status = server.wait_for_exit();
    (status.signal(), status.code(), server.log().text())
}

#[test]
fn a_crash_in_thread_mode_names_the_thread_the_model_and_the_task_and_keeps_its_signal() {
    for (action, task, signal, what) in [
        ("segfault", "text", 11, "segmentation fault (SIGSEGV)"),
        ("abort", "text", 6, "abort (SIGABRT)"),
        ("abort_in_prepare", "prepared", 6, "abort (SIGABRT)"),
        ("stack_overflow", "text", 6, "segmentation fault (SIGSEGV)"),
    ] {
        let scenario = Scenario::misbehave("", "");
        let (ended_by, _, log) = end_server(scenario, task, json!({"do": action, "value": "last"}));
        assert_eq!(ended_by, Some(signal), "{action}: {log}");
        let thread = if task == "prepared" {
            "prepare"
        } else {
            "model m 0"
        };
        let expected = [
            format!("[ERROR crash] {what} in thread `{thread}"),
            format!("in the plugin of model `m`, task `{task}`; terminating the server"),
        ];
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("[ERROR crash]"))
            .collect();
        assert!(
            matches!(&lines[..], [line] if expected.iter().all(|part| line.contains(part))),
            "{action}: {log}"
        );
    }
}

#[test]
fn exit_in_a_plugin_is_reported_and_never_exits_the_server_with_success() {
    for code in [0, 3] {
        let scenario = Scenario::misbehave("", "");
        let (_, ended_with, log) = end_server(
            scenario,
            "text",
            json!({"do": "exit", "code": code, "value": "last"}),
        );
        assert_eq!(ended_with, Some(70), "{log}");
        let expected =
            "[ERROR crash] call of exit() in thread `model m 0`, in the plugin of model `m`, task `text`";
        assert!(log.contains(expected), "{log}");
    }
}

#[test]
fn a_crash_is_logged_as_json_if_the_log_is_json() {
    let scenario = Scenario::misbehave("", "").env("INFERENCE_LOG_FORMAT", "json");
    let (_, _, log) = end_server(scenario, "text", json!({"do": "segfault", "value": "last"}));
    let line = log
        .lines()
        .find(|line| line.contains("\"crash\""))
        .unwrap_or_else(|| panic!("{log}"));
    let line: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
    assert_eq!(
        [&line["level"], &line["model"], &line["task"], &line["thread"]],
        ["ERROR", "m", "text", "model m 0"]
    );
}

#[test]
fn an_orderly_shutdown_is_not_reported_as_a_crash() {
    let mut server = Scenario::misbehave("", "").start();
    assert_eq!(server.predict("m", "text", &echoes(["a"])).values(), ["a"]);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert!(!server.log().has("[ERROR crash]"), "{}", server.log().text());
}

#[test]
fn a_plugin_bound_to_the_thread_that_loads_it_serves_and_reloads() {
    let mut server = Scenario::misbehave("on_load = \"bind_thread\"", "").start();
    assert_eq!(server.predict("m", "text", &echoes(["a"])).values(), ["a"]);
    let config = "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n\n[models.settings]\non_load = \"bind_thread\"\ntag = \"new\"\n";
    server.write_config(config);
    assert!(server.reload());
    assert_eq!(server.predict("m", "text", &echoes(["b"])).values(), ["b"]);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert!(!server.log().has("[ERROR crash]"), "{}", server.log().text());
}
