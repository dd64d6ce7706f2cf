//! An exception in a batch fails only the items that cause it, with a bounded number of calls.

use serde_json::{Value as Json, json};

use super::serve;
use crate::harness::Server;

/// Starts a server with a class of `poison.py`. The policy keeps the items of a request in one batch.
fn poison(class: &str) -> Option<Server> {
    serve("poison.py", class, "[models.batching]\npolicy = \"greedy\"\n")
}

fn raising(server: &Server, inputs: &Json) -> Vec<Json> {
    let reply = server.predict("m", "raising", inputs);
    reply.json()["outputs"].as_array().cloned().unwrap_or_default()
}

/// Returns the numbers of calls and items since the last call of this function.
fn seen(server: &Server) -> (u64, u64) {
    let answer = server.predict("m", "seen", &json!(["?"])).expect(200).outputs();
    let number = |index: usize| answer[0][index].as_u64().expect("a number");
    (number(0), number(1))
}

#[test]
fn an_exception_caused_by_one_item_fails_only_that_item() {
    let Some(server) = poison("Poison") else { return };
    for (bad, code, message) in [
        ("value", "invalid_input", "not a good text"),
        ("type", "invalid_input", "not a text"),
        ("unsupported", "unsupported", "no such language"),
        ("key", "model_fault", "the model failed on this item: KeyError"),
        ("exit", "model_fault", "the model failed on this item: SystemExit"),
        (
            "interrupt",
            "model_fault",
            "the model failed on this item: KeyboardInterrupt",
        ),
        (
            "unprintable",
            "model_fault",
            "the model failed on this item: Unprintable",
        ),
        ("surrogate", "invalid_input", "half a pair: \\ud800"),
    ] {
        for place in [0, 3, 6] {
            let mut inputs: Vec<String> = (0..7).map(|index| format!("good {index}")).collect();
            bad.clone_into(&mut inputs[place]);
            let outputs = raising(&server, &json!(inputs));
            for (index, (input, output)) in inputs.iter().zip(&outputs).enumerate() {
                if index == place {
                    assert_eq!(
                        output["error"],
                        json!({"code": code, "message": message}),
                        "{bad}"
                    );
                } else {
                    assert_eq!(output, input, "{bad} at {place}");
                }
            }
        }
    }
}

#[test]
fn each_bad_item_gets_its_own_error() {
    let Some(server) = poison("Poison") else { return };
    let inputs = json!(["value", "a", "key", "b", "type", "c", "d", "value"]);
    let outputs = raising(&server, &inputs);
    let codes: Vec<&str> = outputs
        .iter()
        .map(|output| output["error"]["code"].as_str().unwrap_or("ok"))
        .collect();
    let (invalid, fault) = ("invalid_input", "model_fault");
    assert_eq!(codes, [invalid, "ok", fault, "ok", invalid, "ok", "ok", invalid]);
}

#[test]
fn an_exception_is_logged_once_and_invalid_inputs_are_not_logged() {
    let Some(server) = poison("Poison") else { return };
    raising(&server, &json!(["a", "key", "b", "key", "value"]));
    server.wait_for_log("the model failed on 2 items");
    let log = server.log().text();
    assert_eq!(log.matches("KeyError: 'secret'").count(), 1, "{log}");
    assert!(!log.contains("not a good text"), "{log}");
}

#[test]
fn the_type_of_the_exception_determines_whether_the_client_is_at_fault() {
    let Some(server) = poison("Poison") else { return };
    let reply = server.predict("m", "raising", &json!(["value"])).expect(422);
    let (code, message) = reply.error();
    assert_eq!(code, "invalid_input");
    assert!(message.contains("not a good text"), "{message}");
    server.predict("m", "raising", &json!(["key"])).expect(500);
    // Since the task has succeeded before, the items are at fault and not the model.
    assert_eq!(raising(&server, &json!(["good"])), [json!("good")]);
    server
        .predict("m", "raising", &json!(["value", "type"]))
        .expect(422);
}

#[test]
fn isolating_one_bad_item_takes_few_calls() {
    let Some(server) = poison("Poison") else { return };
    let mut inputs = vec!["good"; 32];
    inputs[17] = "value";
    seen(&server);
    raising(&server, &json!(inputs));
    let (calls, items) = seen(&server);
    assert!(calls <= 11 && items <= 3 * 32, "{calls} calls with {items} items");
}

#[test]
fn reruns_are_suspended_for_a_model_that_always_raises() {
    let Some(server) = poison("Poison") else { return };
    let inputs = json!([
        "value", "value", "value", "value", "value", "value", "value", "value"
    ]);
    for _ in 0..100 {
        server.predict("m", "raising", &inputs).expect(500);
    }
    let (calls, _) = seen(&server);
    assert!(calls < 300, "{calls} calls for 100 batches of 8 items");
    server.wait_for_log("ValueError: not a good text");
    // After a success, bad items are isolated again immediately.
    raising(&server, &json!(["good"]));
    let outputs = raising(&server, &json!(["good", "value"]));
    assert_eq!(
        (&outputs[0], &outputs[1]["error"]["code"]),
        (&json!("good"), &json!("invalid_input"))
    );
}

#[test]
fn a_class_can_disable_reruns() {
    let Some(server) = poison("Once") else { return };
    raising(&server, &json!(["good"]));
    seen(&server);
    server
        .predict("m", "raising", &json!(["good", "value"]))
        .expect(500);
    assert_eq!(seen(&server), (1, 2));
}

#[test]
fn reruns_receive_fresh_copies_of_modified_items() {
    let Some(server) = poison("Poison") else { return };
    let outputs = server
        .predict("m", "arrays", &json!([[1, 2], [-1, 0], [3, 4]]))
        .expect(200)
        .outputs();
    assert_eq!(outputs[0], json!({"output": [2.0, 4.0]}));
    assert_eq!(outputs[2], json!({"output": [6.0, 8.0]}));
    assert_eq!(outputs[1]["error"]["message"], "a number is negative");
    let inputs = json!([{"a": 1}, {"bad": true}, {"a": 2}]);
    let outputs = server.predict("m", "documents", &inputs).expect(200).outputs();
    assert_eq!(outputs[0], json!({"a": 1, "seen": 1}));
    assert_eq!(outputs[2], json!({"a": 2, "seen": 1}));
}

#[test]
fn invalid_items_keep_their_own_error_when_the_batch_fails() {
    let Some(server) = poison("Once") else { return };
    let outputs = server
        .predict("m", "documents", &json!([3, {"bad": true}, {"a": 1}]))
        .json()["outputs"]
        .clone();
    assert_eq!(outputs[0]["error"]["code"], "invalid_input", "{outputs}");
    assert_eq!(outputs[2]["error"]["code"], "model_fault", "{outputs}");
}

#[test]
fn an_out_of_memory_error_still_halves_the_batch() {
    let Some(server) = poison("Poison") else { return };
    let outputs = raising(&server, &json!(["good", "memory", "value", "fine"]));
    assert_eq!(outputs[0], "good");
    assert_eq!(outputs[1]["error"]["code"], "out_of_memory");
    assert_eq!(outputs[2]["error"]["code"], "invalid_input");
    assert_eq!(outputs[3], "fine");
}
