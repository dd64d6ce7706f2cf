//! `isolation = "process"`: a crash of a plugin only affects the current batch.

use serde_json::{Value as Json, json};

use crate::harness::misbehave::{echo, echoes, perform};
use crate::harness::processes::Process;
use crate::harness::{Scenario, Server, Signal, eventually};

/// Actions that terminate a process, each with the reason in metrics and the error message of the item at fault.
const WAYS_TO_DIE: [(&str, &str, &str); 6] = [
    ("segfault", "crash", "segmentation fault (SIGSEGV)"),
    ("abort", "crash", "abort (SIGABRT)"),
    ("exit", "exit", "exited with code 0"),
    ("stack_overflow", "crash", "abort (SIGABRT)"),
    ("kill", "killed", "SIGKILL"),
    ("hang", "hang", "did not reply within 2 s"),
];

/// Returns a scenario with two models, `m` and `other`, each in its own process.
fn scenario(keys: &str) -> Scenario {
    Scenario::new(&format!(
        "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"process\"\npredict_timeout = \"2s\"\n\
         restart_delay = \"1ms\"\n{keys}\n\n\
         [[models]]\nname = \"other\"\nplugin = \"misbehave\"\nisolation = \"process\"\n"
    ))
}

fn restarts(server: &Server, model: &str, reason: &str) -> u64 {
    server.metrics().count(
        "inference_worker_restarts_total",
        &[("model", model), ("reason", reason)],
    )
}

/// Returns the process that runs a model.
fn process_of(server: &Server, model: &str) -> Process {
    let outputs = server
        .predict(model, "text", &echoes(["who?"]))
        .expect(200)
        .outputs();
    Process::of(outputs[0]["pid"].as_u64().expect("a report names its process"))
}

#[test]
fn a_batch_is_rerun_after_its_process_dies_once() {
    let server = scenario("").start();
    let other = process_of(&server, "other");
    for (action, reason, _) in WAYS_TO_DIE {
        let mut fatal = perform(action, "second");
        fatal["once"] = format!("{}/{action}", server.dir().display()).into();
        let before = restarts(&server, "m", reason);
        let reply = server.predict("m", "text", &json!([echo("first"), fatal, echo("third")]));
        assert_eq!(
            reply.values(),
            [json!("first"), json!("second"), json!("third")],
            "{action}"
        );
        assert_eq!(restarts(&server, "m", reason), before + 1, "{action}");
    }
    assert_eq!(process_of(&server, "other"), other, "other models never notice");
    server.shut_down();
}

#[test]
fn only_the_item_at_fault_fails_in_a_batch_that_kills_its_process_repeatedly() {
    let server = scenario("").start();
    for task in ["text", "prepared"] {
        for (action, _, cause) in WAYS_TO_DIE {
            let inputs = json!([echo("first"), perform(action, "second"), echo("third")]);
            let outputs = server.predict("m", task, &inputs).expect(200).outputs();
            assert_eq!(
                [&outputs[0]["value"], &outputs[2]["value"]],
                [&json!("first"), &json!("third")],
                "{action}"
            );
            let error = &outputs[1]["error"];
            assert_eq!(error["code"], "model_fault", "{action}: {error}");
            let message = error["message"].as_str().unwrap_or_default();
            assert!(
                message.contains("this item ends the process of the model") && message.contains(cause),
                "{action}: {message}"
            );
        }
    }
    server.shut_down();
}

#[test]
fn a_single_item_that_kills_its_process_returns_500() {
    let server = scenario("").start();
    let reply = server.predict("m", "text", &json!([perform("segfault", 1)]));
    assert_eq!((reply.status, reply.error().0.as_str()), (500, "model_fault"));
    let bodies = reply.text();
    assert!(!bodies.contains('/'), "expected no path: {bodies}");
    server.predict("m", "text", &echoes(["next"])).expect(200);
}

#[test]
fn with_on_crash_fail_a_batch_is_not_rerun() {
    let server = scenario("on_crash = \"fail\"").start();
    let reply = server.predict("m", "text", &json!([echo("first"), perform("abort", "second")]));
    assert_eq!((reply.status, reply.error().0.as_str()), (500, "model_fault"));
    assert!(reply.text().contains("abort (SIGABRT)"), "{}", reply.text());
    assert_eq!(
        server.predict("m", "text", &echoes(["next"])).values(),
        [json!("next")]
    );
    assert_eq!(restarts(&server, "m", "crash"), 1);
}

#[test]
fn queued_items_survive_the_death_of_a_process_and_keep_their_deadline() {
    let scenario = Scenario::new(
        "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"process\"\nrestart_delay = \"10s\"\n\
         max_restart_delay = \"10s\"\n[models.settings]\nload_fault_until = \"loads\"\non_load = \"error\"\n",
    );
    let loads = scenario.dir().join("loads");
    std::fs::write(&loads, "").expect("change the directory of the scenario");
    let server = scenario.start();
    let process = process_of(&server, "m");
    let occupied = server.occupy("m");
    let patient = server.predict_in_background("m", "text", &echoes(["patient"]));
    server.wait_for_queued("m", "text", 1);
    let hasty = server.in_background(|client| {
        let call = client.request("POST", "/v1/models/m/tasks/text/predict");
        call.header("x-request-timeout", "3s")
            .json(&json!({"inputs": echoes(["hasty"])}))
            .try_send()
    });
    server.wait_for_queued("m", "text", 2);
    // From now on, loading fails in every new process.
    std::fs::remove_file(&loads).expect("change the directory of the scenario");
    process.signal(Signal::KILL);
    let late = hasty.reply();
    assert_eq!((late.status, late.error().0.as_str()), (504, "deadline_exceeded"));
    server.wait_for_metric("inference_worker_processes", &[("model", "m")], 0);
    assert!(!patient.is_answered());
    std::fs::write(&loads, "").expect("change the directory of the scenario");
    // The batch that the process held is rerun, and waits at the gate again.
    assert_eq!(occupied.release().value(), "occupies the model");
    assert_eq!(patient.reply().values(), [json!("patient")]);
    server.shut_down();
}

#[test]
fn a_crash_loop_is_reported_rejects_requests_and_can_recover() {
    let scenario = scenario("[models.settings]\nload_fault_until = \"loads\"\non_load = \"abort\"");
    std::fs::write(scenario.dir().join("loads"), "").expect("change the directory of the scenario");
    let server = scenario.start();
    let process = process_of(&server, "m");
    std::fs::remove_file(server.dir().join("loads")).expect("change the directory of the scenario");
    process.signal(Signal::KILL);
    server.wait_for_metric("inference_worker_crash_loops", &[("model", "m")], 1);
    let model = server.model("m");
    assert_eq!(
        (&model["ready"], &model["state"]),
        (&json!(false), &json!("crash loop"))
    );
    let reason = model["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("cannot be restarted"), "{reason}");
    let finding = &model["explanation"][0];
    assert_eq!(finding["code"], "crash_loop");
    let message = finding["message"].as_str().unwrap_or_default();
    assert!(message.ends_with(reason), "{message}");
    server.get("/readyz").expect(503);
    let metrics = server.metrics();
    assert_eq!(metrics.count("inference_model_ready", &[("model", "m")]), 0);
    assert_eq!(metrics.count("inference_worker_processes", &[("model", "m")]), 0);
    assert!(restarts(&server, "m", "start") >= 4);
    let rejected = server.predict("m", "text", &echoes([1]));
    assert_eq!(
        (rejected.status, rejected.error().0.as_str()),
        (503, "unavailable")
    );
    assert!(rejected.header("retry-after").is_some());
    server.predict("other", "text", &echoes([1])).expect(200);
    std::fs::write(server.dir().join("loads"), "").expect("change the directory of the scenario");
    server.wait_until_ready();
    server.predict("m", "text", &echoes([1])).expect(200);
    server.wait_for_metric("inference_worker_crash_loops", &[("model", "m")], 0);
    assert_eq!(server.model("m")["state"], "ready");
    server.shut_down();
}

#[test]
fn queued_items_fail_with_503_when_a_crash_loop_is_detected() {
    let scenario = scenario("[models.settings]\nload_fault_until = \"loads\"\non_load = \"error\"");
    std::fs::write(scenario.dir().join("loads"), "").expect("change the directory of the scenario");
    let server = scenario.start();
    let process = process_of(&server, "m");
    let occupied = server.occupy("m");
    let queued: Vec<_> = ["text", "prepared"]
        .map(|task| server.predict_in_background("m", task, &echoes(["queued"])))
        .into_iter()
        .collect();
    server.wait_for_queued("m", "text", 1);
    server.wait_for_queued("m", "prepared", 1);
    std::fs::remove_file(server.dir().join("loads")).expect("change the directory of the scenario");
    process.signal(Signal::KILL);
    for pending in queued {
        let reply = pending.reply();
        assert_eq!((reply.status, reply.error().0.as_str()), (503, "unavailable"));
        assert!(reply.text().contains("in a crash loop"), "{}", reply.text());
    }
    drop(occupied);
    std::fs::write(server.dir().join("loads"), "").expect("change the directory of the scenario");
    server.wait_until_ready();
    server.predict("m", "text", &echoes([1])).expect(200);
}

#[test]
fn a_process_that_is_stopped_by_a_signal_counts_as_hanging() {
    let server = scenario("").start();
    process_of(&server, "m").signal(Signal::STOP);
    assert_eq!(
        server.predict("m", "text", &echoes(["later"])).values(),
        [json!("later")]
    );
    assert_eq!(restarts(&server, "m", "hang"), 1);
}

#[test]
fn a_process_that_dies_while_idle_is_restarted() {
    let server = scenario("").start();
    let process = process_of(&server, "m");
    process.signal(Signal::KILL);
    process.wait_until_gone();
    server.wait_until_ready();
    assert_ne!(process_of(&server, "m"), process);
    assert_eq!(restarts(&server, "m", "killed"), 1);
}

#[test]
fn a_load_that_kills_its_process_fails_and_the_server_keeps_running() {
    for (fault, says) in [
        ("segfault", "segmentation fault"),
        ("abort", "abort (SIGABRT)"),
        ("exit", "exited with code 0"),
        ("panic", "misbehave panics in load"),
        ("error", "on_load"),
    ] {
        let server = Scenario::new(&format!(
            "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"process\"\n[models.settings]\non_load = \"{fault}\"\n"
        ))
        .start_unready();
        let line = server.wait_for_log("model `m`: ");
        assert!(line.contains(says), "{fault}: {line}");
        server.wait_for_log("server is not ready");
        assert_eq!(server.model("m")["state"], "failed", "{fault}");
        assert!(server.processes().is_empty(), "{fault}");
        server.shut_down();
    }
}

#[test]
fn output_log_records_and_panics_of_a_process_are_in_the_servers_log() {
    let server = scenario("").start();
    let said = |action: &str| json!([{"do": action, "message": format!("a word by {action}")}]);
    server.predict("m", "text", &said("log")).expect(200);
    let line = server.wait_for_log("a word by log");
    assert!(
        line.contains("INFO") && line.contains("model::m::misbehave"),
        "{line}"
    );
    server.predict("m", "text", &said("print")).expect(200);
    for stream in ["standard output", "standard error"] {
        let line = server.wait_for_log(&format!("to {stream}: a word by print"));
        assert!(line.contains("model::m::stderr"), "{line}");
    }
    server.predict("m", "text", &said("panic")).expect(500);
    let line = server.wait_for_log("a word by panic");
    assert!(line.contains("model::m::"), "{line}");
}

#[test]
fn faults_without_a_crash_are_handled_the_same_way_in_threads_and_processes() {
    let server = scenario("").start();
    let process = process_of(&server, "m");
    for action in ["panic", "panic_twice", "too_few", "too_many", "fail_batch"] {
        let reply = server.predict("m", "text", &json!([echo("first"), perform(action, "second")]));
        assert_eq!(
            (reply.status, reply.error().0.as_str()),
            (500, "model_fault"),
            "{action}"
        );
    }
    let inputs = json!([perform("out_of_memory", 1), echo(2), echo(3), echo(4)]);
    assert_eq!(
        server.predict("m", "prepared", &inputs).values(),
        [1, 2, 3, 4].map(Json::from)
    );
    let inputs = json!([echo(1), perform("fail_item", 2), {"valu": 3}]);
    let outputs = server.predict("m", "prepared", &inputs).expect(200).outputs();
    assert_eq!(outputs[0]["value"], 1);
    assert_eq!(outputs[1]["error"]["code"], "invalid_input");
    assert_eq!(outputs[2]["error"]["code"], "invalid_input");
    assert_eq!(process_of(&server, "m"), process, "none of it ends the process");
}

#[test]
fn payloads_of_all_sizes_are_transferred_unchanged() {
    let server = scenario("").start();
    for numbers in [1, 1000, 20_000, 300_000, 2_000_000] {
        let input: Vec<u32> = (0..numbers).map(|number| number % 1000).collect();
        let reply = server
            .predict("m", "tensor", &json!([{"numbers": input}]))
            .expect(200);
        let doubled: Vec<f64> =
            serde_json::from_value(reply.outputs()[0]["doubled"].clone()).expect("numbers");
        let expected: Vec<f64> = input.iter().map(|number| f64::from(number * 2)).collect();
        assert!(doubled == expected, "{numbers} numbers");
    }
}

#[test]
fn a_reload_can_move_a_model_between_thread_and_process() {
    let server = scenario("").start();
    let process = process_of(&server, "m");
    let config = |isolation: &str| {
        format!("[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"{isolation}\"\n")
    };
    server.write_config(&config("thread"));
    assert!(server.reload());
    assert_eq!(
        process_of(&server, "m"),
        Process::of(server.pid().as_raw_pid() as u64)
    );
    process.wait_until_gone();
    server.write_config(&config("process"));
    assert!(server.reload());
    assert_ne!(
        process_of(&server, "m"),
        Process::of(server.pid().as_raw_pid() as u64)
    );
    eventually("the model of the first generation to be gone", || {
        match server.processes().len() {
            1 => Ok(()),
            count => Err(count),
        }
    });
    server.shut_down();
}
