//! Asynchronous methods.

use serde_json::json;

use super::{class, config, python, serve};
use crate::harness::{Scenario, Server};

fn asynchronous(keys: &str) -> Option<Server> {
    serve("asynchronous.py", "Asynchronous", keys)
}

#[test]
fn asynchronous_tasks_run_on_the_same_event_loop_as_load() {
    for keys in ["", "isolation = \"thread\"\nworkers = 2"] {
        let Some(server) = asynchronous(keys) else { return };
        for round in 0..3 {
            let outputs = server
                .predict("m", "shout", &json!(["a", "b"]))
                .expect(200)
                .outputs();
            assert_eq!(outputs, [json!("A"), json!("B")], "round {round}");
        }
        let outputs = server
            .predict("m", "forgotten", &json!(["a"]))
            .expect(200)
            .outputs();
        assert_eq!(
            outputs,
            [json!("A")],
            "a coroutine that a plain method returns is awaited"
        );
        let outputs = server.predict("m", "plain", &json!(["a"])).expect(200).outputs();
        assert_eq!(outputs, [json!("True")], "a plain method does not block the loop");
    }
}

#[test]
fn background_tasks_of_load_run_between_batches() {
    let Some(server) = asynchronous("") else { return };
    let outputs = server
        .predict("m", "next_tick", &json!([0, 0, 0]))
        .expect(200)
        .outputs();
    assert_eq!(outputs.len(), 3);
    let later = server
        .predict("m", "next_tick", &json!([0]))
        .expect(200)
        .outputs();
    assert!(
        later[0].as_u64() > outputs[2].as_u64(),
        "{later:?} after {outputs:?}"
    );
}

#[test]
fn a_batch_is_one_call() {
    let Some(server) = asynchronous("") else { return };
    let outputs = server
        .predict("m", "size", &json!(["a", "b", "c"]))
        .expect(200)
        .outputs();
    assert_eq!(outputs, [json!(3), json!(3), json!(3)]);
}

#[test]
fn an_exception_in_an_asynchronous_task_fails_its_item_and_the_event_loop_keeps_running() {
    let Some(server) = asynchronous("") else { return };
    for (bad, code, message) in [
        ("value", "invalid_input", "not a good text"),
        ("key", "model_fault", "the model failed on this item: KeyError"),
        ("exit", "model_fault", "the model failed on this item: SystemExit"),
        (
            "cancel",
            "model_fault",
            "the model failed on this item: CancelledError",
        ),
    ] {
        let outputs = server
            .predict("m", "fail", &json!(["good", bad]))
            .expect(200)
            .outputs();
        assert_eq!(outputs[0], "good", "{bad}");
        assert_eq!(
            outputs[1]["error"],
            json!({"code": code, "message": message}),
            "{bad}"
        );
    }
    server.predict("m", "shout", &json!(["a"])).expect(200);
}

#[test]
fn an_asynchronous_unload_is_awaited() {
    let Some(server) = asynchronous("") else { return };
    server.write_config("");
    assert!(server.reload());
    server.wait_for_log("farewell on the loop: True");
}

#[test]
fn generators_and_failing_loads_are_load_errors() {
    let Some(python) = python() else { return };
    for (name, expected) in [
        (
            "Generating",
            "`stream` is a generator, expected a method that returns a list",
        ),
        (
            "GeneratingPlainly",
            "`stream` is a generator, expected a method that returns a list",
        ),
        ("FailingToLoad", "`load` raised RuntimeError: no disk ("),
    ] {
        let config = config(&python, &class("asynchronous.py", name), "");
        let server = Scenario::new(&config).start_unready();
        let said = server.wait_for_log("model `m`: ");
        assert!(said.contains(expected), "{name}: {said}");
    }
}
