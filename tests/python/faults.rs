//! Faults of methods: errors of clients, the log, and the outcomes of other items.

use serde_json::json;

use super::serve;
use crate::harness::Server;

/// Starts a server with the class `Faults`. The policy keeps the items of a request in one batch.
fn faults(keys: &str) -> Option<Server> {
    let keys = format!("{keys}\n[models.batching]\npolicy = \"greedy\"\n");
    serve("faults.py", "Faults", &keys)
}

#[test]
fn an_exception_returned_as_an_outcome_fails_its_item() {
    let Some(server) = faults("") else { return };
    let inputs = json!(["good", "value", "type", "unsupported", "key"]);
    let outputs = server.predict("m", "item", &inputs).expect(200).outputs();
    assert_eq!(outputs[0], "good");
    for (output, code, message) in [
        (&outputs[1], "invalid_input", "not a good text"),
        (&outputs[2], "invalid_input", "not a text"),
        (&outputs[3], "unsupported", "no such language"),
        (
            &outputs[4],
            "model_fault",
            "the model failed on this item: KeyError",
        ),
    ] {
        assert_eq!(output["error"], json!({"code": code, "message": message}));
    }
    server.wait_for_log("KeyError: 'secret'");
    for (item, status) in [("value", 422), ("key", 500)] {
        server.predict("m", "item", &json!([item])).expect(status);
    }
}

#[test]
fn an_exception_is_logged_with_its_traceback_and_clients_see_only_its_type() {
    let Some(server) = faults("") else { return };
    let (code, message) = server
        .predict("m", "batch", &json!(["runtime"]))
        .expect(500)
        .error();
    assert_eq!(
        (code.as_str(), message.as_str()),
        (
            "model_fault",
            "all items failed; inputs[0]: the model raised RuntimeError"
        )
    );
    server.wait_for_log("RuntimeError: the password is hunter2");
    let log = server.log().text();
    assert!(
        log.contains("model::m::python") && log.contains("faults.py\", line"),
        "{log}"
    );
    assert!(
        !log.contains("<inference-server"),
        "expected no frames of the plugin: {log}"
    );
    server.predict("m", "batch", &json!(["next"])).expect(200);
}

#[test]
fn an_exception_does_not_terminate_the_process() {
    let Some(server) = faults("") else { return };
    let process = server.predict("m", "who", &json!(["?"])).outputs();
    for (fault, name) in [("exit", "SystemExit"), ("interrupt", "KeyboardInterrupt")] {
        let (_, message) = server.predict("m", "batch", &json!([fault])).expect(500).error();
        assert_eq!(
            message,
            format!("all items failed; inputs[0]: the model raised {name}")
        );
    }
    assert_eq!(server.predict("m", "who", &json!(["?"])).outputs(), process);
}

#[test]
fn a_batch_that_does_not_fit_in_memory_is_retried_in_parts() {
    let Some(server) = faults("") else { return };
    let inputs = json!(["first", "memory", "third", "fourth"]);
    let outputs = server.predict("m", "batch", &inputs).expect(200).outputs();
    assert_eq!(
        [&outputs[0], &outputs[2], &outputs[3]],
        [&json!("first"), &json!("third"), &json!("fourth")]
    );
    assert_eq!(outputs[1]["error"]["code"], "out_of_memory", "{outputs:?}");
}

#[test]
fn a_wrong_number_of_outcomes_fails_the_batch() {
    let Some(server) = faults("") else { return };
    for (inputs, problem) in [
        (
            json!(["few", "b"]),
            "returned 1 outcomes for 2 items, expected one for each",
        ),
        (
            json!(["none"]),
            "returned a value of type `NoneType`, expected a list of 1",
        ),
        (
            json!(["text", "b", "c"]),
            "returned a value of type `str`, expected a list of 3",
        ),
    ] {
        let outputs = server.predict("m", "count", &inputs);
        let text = outputs.text();
        assert!(text.contains(problem), "{inputs}: {text}");
    }
    assert_eq!(
        server.predict("m", "count", &json!(["all", "b"])).outputs(),
        [json!("all"), json!("b")]
    );
}

#[test]
fn an_outcome_that_does_not_match_its_hint_fails_only_its_item() {
    let Some(server) = faults("") else { return };
    for (task, bad, problem) in [
        (
            "unfit",
            "unfit",
            "cannot send the model's output: it is a value of type `int`, expected a string",
        ),
        ("unfit", "half", "surrogates not allowed"),
        (
            "unwritable",
            "object",
            "a value of type `object` is not representable in JSON",
        ),
        ("unwritable", "endless", "contains itself"),
        (
            "tensor",
            "integer",
            "`output` is an array of complex64, expected float32",
        ),
        ("tensor", "shape", "`output` has the shape [2, 2], expected [-1]"),
    ] {
        let outputs = server
            .predict("m", task, &json!(["good", bad]))
            .expect(200)
            .outputs();
        assert!(outputs[0].get("error").is_none(), "{task}: {outputs:?}");
        let error = &outputs[1]["error"];
        assert_eq!(error["code"], "model_fault", "{task} {bad}: {outputs:?}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains(problem), "{task} {bad}: {message}");
    }
}

#[test]
fn output_and_log_records_appear_in_the_servers_log() {
    let Some(server) = faults("") else { return };
    server.predict("m", "say", &json!(["one", "two"])).expect(200);
    for (level, target, text) in [
        ("INFO", "stdout", "printed one two"),
        ("WARN", "stderr", "complained one two"),
        ("WARN", "faults.log", "logged one two"),
        ("WARN", "faults.log", "half a pair: \\ud800"),
    ] {
        let line = server.wait_for_log(text);
        let mark = format!("{level} ");
        assert!(
            line.contains(&mark) && line.contains(&format!("model::m::{target}]")),
            "{line}"
        );
    }
    assert!(!server.log().has("whispered"), "it is below the level of the log");
}

#[test]
fn threads_can_log_while_a_batch_runs() {
    for keys in ["", "isolation = \"thread\"\nworkers = 4"] {
        let Some(server) = faults(keys) else { return };
        let pending: Vec<_> = (0..8)
            .map(|_| server.predict_in_background("m", "threads", &json!(["x"])))
            .collect();
        for pending in pending {
            pending.reply().expect(200);
        }
        server.wait_for_log("thread 7 49");
    }
}
