//! Faults of a model affect only the current batch.

use serde_json::{Value as Json, json};

use crate::harness::misbehave::{echo, echoes, perform};
use crate::harness::{Scenario, Server};

/// Actions that fail the batch, each with a task that supports it.
const FATAL_TO_THE_BATCH: [(&str, &str); 6] = [
    ("text", "panic"),
    ("text", "panic_twice"),
    ("text", "too_few"),
    ("text", "too_many"),
    ("text", "fail_batch"),
    ("prepared", "panic"),
];

#[test]
fn one_failed_item_of_three_does_not_affect_the_others() {
    let server = Scenario::misbehave("", "").start();
    for action in ["fail_item", "fault_item"] {
        let inputs = json!([echo("first"), perform(action, "second"), echo("third")]);
        let outputs = server.predict("m", "text", &inputs).expect(200).outputs();
        assert_eq!(
            [&outputs[0]["value"], &outputs[2]["value"]],
            [&json!("first"), &json!("third")]
        );
        let message = outputs[1]["error"]["message"].as_str().unwrap_or_default();
        assert!(
            message.contains(&format!("the message of {action}")),
            "{}",
            outputs[1]
        );
    }
}

#[test]
fn an_item_that_does_not_match_the_task_fails_alone() {
    let server = Scenario::misbehave("", "").start();
    let inputs = json!([echo("first"), {"valu": "second"}, echo("third")]);
    for task in ["text", "prepared"] {
        let outputs = server.predict("m", task, &inputs).expect(200).outputs();
        assert_eq!(
            [&outputs[0]["value"], &outputs[2]["value"]],
            [&json!("first"), &json!("third")]
        );
        assert_eq!(outputs[1]["error"]["code"], "invalid_input", "{}", outputs[1]);
    }
}

/// Batches that cannot be timed or summed would stop the worker, and with it the model.
#[test]
fn an_item_whose_weight_is_out_of_range_fails_alone_and_the_model_keeps_serving() {
    for policy in ["adaptive", "fixed", "greedy", "off"] {
        let server = Scenario::misbehave("", &format!("policy = \"{policy}\"")).start();
        // The maximum weight, before and after a weight that is out of range.
        let inputs = json!([
            {"value": "first", "weight": 1_u64 << 40},
            {"value": "second", "weight": u64::MAX},
            {"value": "third", "weight": 1_u64 << 40},
            {"value": "fourth", "weight": (1_u64 << 40) + 1},
        ]);
        for _ in 0..3 {
            let outputs = server.predict("m", "prepared", &inputs).expect(200).outputs();
            assert_eq!(
                [&outputs[0]["value"], &outputs[2]["value"]],
                [&json!("first"), &json!("third")]
            );
            assert_eq!(
                outputs[1]["error"]["message"],
                "weight 18446744073709551615 exceeds the maximum of 1099511627776"
            );
            assert_eq!(
                outputs[3]["error"]["message"],
                "weight 1099511627777 exceeds the maximum of 1099511627776"
            );
            let light = server.predict("m", "prepared", &json!([echo("light")]));
            assert_eq!(light.expect(200).outputs()[0]["value"], "light");
        }
    }
}

#[test]
fn an_item_that_fails_in_the_prepare_step_fails_alone() {
    let server = Scenario::misbehave("", "").start();
    for (action, code) in [
        ("fail_in_prepare", "invalid_input"),
        ("panic_in_prepare", "model_fault"),
    ] {
        let inputs = json!([echo("first"), perform(action, "second"), echo("third")]);
        let outputs = server.predict("m", "prepared", &inputs).expect(200).outputs();
        assert_eq!(
            [&outputs[0]["value"], &outputs[2]["value"]],
            [&json!("first"), &json!("third")]
        );
        assert_eq!(outputs[1]["error"]["code"], code, "{}", outputs[1]);
    }
}

#[test]
fn a_request_whose_items_all_fail_has_the_status_of_the_failure() {
    let server = Scenario::misbehave("", "").start();
    let status = |action: &str| {
        server
            .predict("m", "text", &json!([perform(action, "only")]))
            .status
    };
    assert_eq!([status("fail_item"), status("fault_item")], [422, 500]);
}

#[test]
fn a_failed_batch_does_not_affect_the_next_one() {
    let mut server = Scenario::misbehave("", "").start();
    for (task, action) in FATAL_TO_THE_BATCH {
        let inputs = json!([echo("first"), perform(action, "second")]);
        let reply = server.predict("m", task, &inputs);
        assert_eq!(reply.status, 500, "{action} in {task}: {}", reply.text());
        assert_eq!(reply.error().0, "model_fault", "{action} in {task}");
        let next = server.predict("m", task, &echoes(["next"]));
        assert_eq!(next.values(), [json!("next")], "after {action} in {task}");
        assert!(server.lives());
    }
    server.get("/readyz").expect(200);
}

#[test]
fn a_panic_while_dropping_does_not_terminate_the_server() {
    let mut server = Scenario::misbehave("", "").start();
    // The batch has either completed by then or fails. The next one succeeds.
    let reply = server.predict(
        "m",
        "prepared",
        &json!([perform("panic_in_prepared_drop", "drops")]),
    );
    assert!([200, 500].contains(&reply.status), "{}", reply.text());
    assert_eq!(
        server.predict("m", "prepared", &echoes(["next"])).values(),
        [json!("next")]
    );
    assert!(server.lives());
}

#[test]
fn a_model_that_panics_when_dropped_can_be_replaced() {
    let config = |panics: bool, tag: &str| {
        format!(
            "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n[models.settings]\npanic_in_drop = {panics}\ntag = \"{tag}\"\n"
        )
    };
    let server = Scenario::new(&config(true, "first")).start();
    server.write_config(&config(false, "second"));
    assert!(server.reload());
    assert_eq!(
        server.predict("m", "text", &echoes(["x"])).report().tag(),
        "second"
    );
    server.wait_for_metric("inference_generations_live", &[], 1);
    server.shut_down();
}

#[test]
fn clients_see_why_a_batch_failed_and_no_details_of_the_machine() {
    let server = Scenario::misbehave("", "").start();
    let bodies: Vec<String> = FATAL_TO_THE_BATCH
        .iter()
        .map(|(task, action)| server.predict("m", task, &json!([perform(action, 1)])).text())
        .collect();
    assert_without_paths(&server, &bodies);
    assert!(bodies[0].contains("the message of panic"), "{}", bodies[0]);
    assert!(bodies[4].contains("the message of fail_batch"), "{}", bodies[4]);
}

fn assert_without_paths(server: &Server, bodies: &[String]) {
    let folder = server.dir().to_string_lossy().into_owned();
    for body in bodies {
        for path in [folder.as_str(), ".so", ".rs", "/target/", "/src/"] {
            assert!(!body.contains(path), "{path:?} in {body}");
        }
    }
}

#[test]
fn two_models_of_one_plugin_share_neither_faults_nor_settings() {
    let server = Scenario::new(
        "[[models]]\nname = \"a\"\nplugin = \"misbehave\"\n[models.settings]\ntag = \"A\"\n\n\
         [[models]]\nname = \"b\"\nplugin = \"misbehave\"\n[models.settings]\ntag = \"B\"\n",
    )
    .start();
    let occupied = server.occupy("a");
    assert_eq!(server.predict("b", "text", &echoes([1])).report().tag(), "B");
    assert_eq!(occupied.release().tag(), "A");
    server
        .predict("a", "text", &json!([perform("panic", 1)]))
        .expect(500);
    assert_eq!(
        server.predict("b", "text", &echoes([2])).values(),
        [Json::from(2)]
    );
}

#[test]
fn log_records_of_a_plugin_are_in_the_servers_log_with_the_name_of_the_model() {
    let server = Scenario::misbehave("", "").start();
    server
        .predict(
            "m",
            "text",
            &json!([{"do": "log", "message": "a word from the plugin"}]),
        )
        .expect(200);
    let line = server.wait_for_log("a word from the plugin");
    assert!(line.contains("INFO") && line.contains("model::m::"), "{line}");
}

#[test]
fn a_panic_of_a_plugin_is_in_the_log_with_the_name_of_the_model() {
    let server = Scenario::misbehave("", "").start();
    server
        .predict("m", "text", &json!([perform("panic", 1)]))
        .expect(500);
    let line = server.wait_for_log("the message of panic");
    assert!(line.contains("model::m::"), "{line}");
}
