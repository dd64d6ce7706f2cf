//! `GET /v1/models/{model}` explains why a model is not ready, why its batches are small, and what limits its throughput.

use serde_json::{Value as Json, json};

use crate::harness::load::Load;
use crate::harness::misbehave::{echo, echoes};
use crate::harness::{Scenario, Server, eventually};
use crate::memory_budget;

/// The findings about a model or one of its tasks: code and message.
fn findings(described: &Json) -> Vec<(String, String)> {
    let found = described["explanation"].as_array().expect("a list of findings");
    let text = |value: &Json| value.as_str().expect("a text").to_owned();
    found
        .iter()
        .map(|finding| (text(&finding["code"]), text(&finding["message"])))
        .collect()
}

fn task(server: &Server, name: &str) -> Json {
    let model = server.model("m");
    let tasks = model["tasks"].as_array().expect("a list of tasks");
    let task = tasks.iter().find(|task| task["name"] == name);
    task.expect("the model has the task").clone()
}

/// Waits until the findings that `read` returns have one with this code. Returns its message.
#[track_caller]
fn wait_for(code: &str, read: impl Fn() -> Json) -> String {
    eventually(&format!("the explanation {code}"), || {
        let found = findings(&read());
        let message = found.iter().find(|(other, _)| other == code);
        message.map(|(_, message)| message.clone()).ok_or(found)
    })
}

/// Waits until the model, and one of its tasks, are explained with these codes, while clients send one item each to the task, again
/// and again. An empty code of a task means that nothing is found.
fn assert_explained(scenario: Scenario, clients: usize, name: &str, of_model: &str, of_task: &str) -> String {
    let server = scenario.start();
    let path = format!("/v1/models/m/tasks/{name}/predict");
    let body = json!({"input": echo("a")}).to_string();
    let load = Load::start(clients, server.address(), &path, &body);
    let message = wait_for(of_model, || server.model("m"));
    if of_task.is_empty() {
        assert_eq!(findings(&task(&server, name)), []);
    } else {
        wait_for(of_task, || task(&server, name));
    }
    let failures = load.stop();
    assert!(failures.is_empty(), "{failures:?}");
    message
}

#[test]
fn a_model_without_requests_is_idle() {
    let server = Scenario::misbehave("", "").start();
    let message = wait_for("idle", || server.model("m"));
    assert!(
        message.starts_with("no requests arrived in the last "),
        "{message}"
    );
    assert_eq!(findings(&task(&server, "text")), []);
    let recent = &server.model("m")["recent"];
    assert_eq!(
        (
            &recent["requests_per_second"],
            &recent["latency_p50_seconds"],
            &recent["worker_busy_share"]
        ),
        (&json!(0.0), &json!(null), &json!(0.0))
    );
}

#[test]
fn a_single_client_limits_throughput_and_its_batches_have_one_item() {
    let server = Scenario::misbehave("batch_ms = 2", "").start();
    let body = json!({"input": echo("a")}).to_string();
    let load = Load::start(1, server.address(), "/v1/models/m/tasks/text/predict", &body);
    let message = wait_for("limit_client", || server.model("m"));
    assert!(message.contains("requests in flight on average"), "{message}");
    let message = wait_for("batches_concurrency", || task(&server, "text"));
    assert!(
        message.contains("clients send one request at a time"),
        "{message}"
    );
    let recent = &server.model("m")["recent"];
    for figure in [
        "requests_per_second",
        "latency_p50_seconds",
        "batch_fill",
        "worker_busy_share",
    ] {
        assert!(recent[figure].as_f64() > Some(0.0), "{figure}: {recent}");
    }
    assert_eq!(recent["batch_size"], 1.0);
    load.stop();
}

#[test]
fn a_model_with_more_clients_than_workers_is_limited_by_its_queue() {
    let scenario = Scenario::misbehave("batch_ms = 20", "max_batch_size = 1");
    let message = assert_explained(scenario, 8, "text", "limit_queue", "batches_size_one");
    assert!(message.contains("Increase `workers`"), "{message}");
}

#[test]
fn a_model_that_is_busy_without_a_queue_limits_throughput_itself() {
    // So long that the time of the client is short in comparison, also on a busy machine.
    let scenario = Scenario::misbehave("batch_ms = 300", "max_batch_size = 1");
    let message = assert_explained(scenario, 1, "text", "limit_model", "batches_size_one");
    assert!(message.contains("its worker is busy"), "{message}");
}

#[test]
fn slow_preparation_limits_throughput() {
    let scenario = Scenario::misbehave("prepare_ms = 50", "");
    let message = assert_explained(scenario, 1, "prepared", "limit_prepare", "batches_concurrency");
    assert!(message.contains("`prepare_threads`"), "{message}");
}

#[test]
fn a_long_delay_for_fuller_batches_limits_throughput() {
    let scenario = Scenario::misbehave("", "policy = \"fixed\"\nmax_delay = \"200ms\"");
    let message = assert_explained(scenario, 1, "text", "limit_policy", "batches_concurrency");
    assert!(message.contains("Decrease `max_delay` (200 ms)"), "{message}");
}

#[test]
fn deadlines_make_batches_small() {
    let server = Scenario::misbehave("", "policy = \"fixed\"\nmax_delay = \"60s\"").start();
    for _ in 0..6 {
        let call = server.request("POST", "/v1/models/m/tasks/text/predict");
        let call = call
            .header("x-request-timeout", "20s")
            .json(&json!({"inputs": echoes(["a"])}));
        call.send().expect(200);
    }
    let message = wait_for("batches_deadline", || task(&server, "text"));
    assert!(message.contains("100% of them run early"), "{message}");
}

#[test]
fn a_weight_limit_makes_batches_small() {
    let server = Scenario::misbehave("", "max_batch_weight = 20").start();
    let items: Json = (0..24)
        .map(|value| json!({"value": value, "weight": 10}))
        .collect();
    server.predict("m", "prepared", &items).expect(200);
    let message = wait_for("batches_weight", || task(&server, "prepared"));
    assert!(message.contains("`max_batch_weight` (20)"), "{message}");
}

#[test]
fn a_memory_budget_and_memory_that_ran_out_make_batches_small() {
    let scenario = Scenario::new(&memory_budget::model("m", "memory_budget = \"96MiB\""));
    memory_budget::write_calibration(scenario.dir(), "m", 1);
    let server = scenario.start();
    let heavy = memory_budget::weights(std::iter::repeat_n(64, 192));
    server.predict("m", "padded_memory", &heavy).expect(200);
    let message = wait_for("batches_memory", || task(&server, "padded_memory"));
    assert!(message.contains("the memory budget (96.0 MiB)"), "{message}");

    let server = Scenario::misbehave("out_of_memory_above = 2", "").start();
    for _ in 0..4 {
        server.predict("m", "text", &echoes(0..8)).expect(200);
    }
    wait_for("batches_out_of_memory", || task(&server, "text"));
}

#[test]
fn rejections_and_failures_are_explained() {
    let server = Scenario::misbehave("", "max_queue_size = 4").start();
    server.predict("m", "text", &echoes(0..5)).expect(400);
    let failing = json!([{"do": "fault_item", "message": "no weights"}]);
    server.predict("m", "text", &failing).expect(500);
    let message = wait_for("rejections", || task(&server, "text"));
    assert!(
        message.starts_with("1 request was rejected in the last "),
        "{message}"
    );
    let message = wait_for("failures", || task(&server, "text"));
    assert!(message.starts_with("1 item failed in the last "), "{message}");
}

#[test]
fn a_model_that_cannot_be_loaded_is_explained_in_full_only_to_an_operator() {
    let config = |settings: &str| {
        format!(
            "[server]\nadmin_key = \"an-administrator\"\n\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n\
             [models.settings]\n{settings}\n"
        )
    };
    let server = Scenario::new(&config("on_load = \"error\"")).start_unready();
    let message = wait_for("load_failed", || server.model("m"));
    assert!(!message.contains("on_load"), "{message}");
    let operator = |path: &str| {
        let call = server
            .request("GET", path)
            .header("authorization", "Bearer an-administrator");
        call.send().expect(200).json()
    };
    let (_, full) = findings(&operator("/v1/models/m")).remove(0);
    assert!(full.contains("misbehave fails to load as requested"), "{full}");

    server.write_config(&config(""));
    assert!(server.reload());
    wait_for("idle", || server.model("m"));
    server.write_config(&config("on_load = \"error\""));
    assert!(!server.reload());
    let message = wait_for("reload_failed", || server.model("m"));
    assert!(
        message.contains("the last reload failed, and generation 1 keeps serving: "),
        "{message}"
    );

    let unload = server.request("POST", "/v2/repository/models/m/unload");
    unload
        .header("authorization", "Bearer an-administrator")
        .send()
        .expect(200);
    wait_for("unloaded", || server.model("m"));
}
