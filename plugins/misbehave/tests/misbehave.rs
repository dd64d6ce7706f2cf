//! Tests that a fault affects only the item, batch or load in which it occurs.

use misbehave::Misbehave;
use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::Value as JsonValue;
use plugin_sdk::testing::{Cost, Failure, FailureKind, Harness};

fn misbehave(settings: JsonValue) -> Harness<Misbehave> {
    Harness::load(settings).expect("it loads")
}

fn item(value: u32, action: &str) -> JsonValue {
    json!({"value": value, "do": action, "message": "as requested"})
}

/// Returns the kind of failure of each item, or `None` for successful items.
fn kinds(outcomes: &[Result<JsonValue, Failure>]) -> Vec<Option<FailureKind>> {
    outcomes
        .iter()
        .map(|outcome| outcome.as_ref().err().map(|failure| failure.kind))
        .collect()
}

fn message(outcome: &Result<JsonValue, Failure>) -> &str {
    &outcome.as_ref().expect_err("fails").message
}

#[test]
fn all_examples_succeed() {
    misbehave(json!({})).check_examples();
}

#[test]
fn a_report_describes_the_batch() {
    let outcomes = misbehave(json!({"tag": "a"})).predict("image", &[item(1, "echo"), item(2, "echo")]);
    let report = outcomes[1].as_ref().expect("echo");
    assert_eq!(report["order"], json!([1, 2]));
    assert_eq!(
        (&report["value"], &report["batch_size"], &report["tag"]),
        (&json!(2), &json!(2), &json!("a"))
    );
}

#[test]
fn a_fault_fails_its_batch_but_not_the_next() {
    let model = misbehave(json!({}));
    for (action, kind, text) in [
        ("panic", FailureKind::Panic, "misbehave panics: as requested"),
        ("panic_twice", FailureKind::Panic, "panic without a message"),
        (
            "too_few",
            FailureKind::Internal,
            "the task returned 1 outcomes for 2 items, expected one for each",
        ),
        (
            "too_many",
            FailureKind::Internal,
            "the task returned 3 outcomes for 2 items, expected one for each",
        ),
        ("fail_batch", FailureKind::Internal, "as requested"),
        ("out_of_memory", FailureKind::OutOfMemory, "as requested"),
    ] {
        for task in ["text", "prepared"] {
            let outcomes = model.predict(task, &[item(1, action), item(2, "echo")]);
            assert_eq!(kinds(&outcomes), [Some(kind), Some(kind)], "{action}");
            assert_eq!(message(&outcomes[0]), text);
            assert_eq!(
                kinds(&model.predict(task, &[item(3, "echo")])),
                [None],
                "after {action}"
            );
        }
    }
}

#[test]
fn a_failed_item_does_not_affect_others() {
    let model = misbehave(json!({}));
    for (task, action, kind) in [
        ("text", "fail_item", FailureKind::InvalidInput),
        ("text", "fault_item", FailureKind::Internal),
        ("prepared", "fail_item", FailureKind::InvalidInput),
        ("prepared", "fail_in_prepare", FailureKind::InvalidInput),
        ("prepared", "panic_in_prepare", FailureKind::Panic),
        ("text", "no_such_action", FailureKind::InvalidInput),
    ] {
        let outcomes = model.predict(task, &[item(1, "echo"), item(2, action), item(3, "echo")]);
        assert_eq!(kinds(&outcomes), [None, Some(kind), None], "{action}");
        assert_eq!(outcomes[2].as_ref().expect("echo")["value"], 3, "{action}");
    }
}

#[test]
fn panics_while_dropping_are_caught_and_logged() {
    let model = misbehave(json!({"panic_in_drop": true, "farewell": "so long"}));
    assert_eq!(
        kinds(&model.predict("prepared", &[item(1, "panic_in_prepared_drop")])),
        [None]
    );
    let logs = model.unload();
    let lines: Vec<_> = logs
        .iter()
        .map(|line| (line.target.as_str(), line.message.as_str()))
        .collect();
    assert!(
        matches!(lines[..], [("panic", _), (_, "so long"), ("panic", _)]),
        "{lines:?}"
    );
    assert!(lines[2].1.ends_with("misbehave panics in drop"), "{lines:?}");
}

#[test]
fn a_panic_is_logged_with_its_location() {
    let model = misbehave(json!({}));
    model.predict("text", &[item(1, "panic")]);
    let logs = model.logs();
    assert!(logs[0].message.contains("tasks.rs:"), "{logs:?}");
}

#[test]
fn a_failed_load_reports_its_cause() {
    for (fault, kind, key) in [
        ("panic", FailureKind::Panic, ""),
        ("error", FailureKind::Settings, "on_load"),
    ] {
        let failure = Harness::<Misbehave>::load(json!({"on_load": fault})).expect_err("a load fault");
        assert_eq!((failure.kind, &*failure.key), (kind, key));
    }
}

#[test]
fn a_failed_warm_up_does_not_affect_other_batches() {
    let model = misbehave(json!({"fail_warm_up": true}));
    assert_eq!(
        kinds(&model.predict("text", &[json!({"value": "warm-up"})])),
        [Some(FailureKind::Internal)]
    );
    assert_eq!(kinds(&model.predict("text", &[item(1, "echo")])), [None]);
}

#[test]
fn items_report_weights_and_groups() {
    let model = misbehave(json!({}));
    let cost = model
        .prepare("prepared", &json!({"weight": 7, "group": 2}))
        .expect("a valid item");
    assert_eq!(cost, Cost { weight: 7, group: 2 });
    assert_eq!(
        model
            .prepare("prepared", &json!({}))
            .expect("a valid item")
            .weight,
        1
    );
}

#[test]
fn a_gate_blocks_batches_until_its_file_exists() {
    let directory = std::env::temp_dir().join(format!("misbehave-gate-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("create the directory");
    let gate = directory.join("gate");
    let model = misbehave(json!({"gate": gate}));
    std::thread::scope(|scope| {
        let held = scope.spawn(|| model.predict("text", &[item(1, "echo")]));
        while !directory.join("gate.reached").exists() {
            std::thread::yield_now();
        }
        assert!(!held.is_finished());
        std::fs::write(&gate, "").expect("create the file of the gate");
        assert_eq!(kinds(&held.join().expect("no panic")), [None]);
    });
    std::fs::remove_dir_all(&directory).expect("remove the directory");
}

#[test]
fn tensors_are_doubled() {
    let outcomes = misbehave(json!({})).predict("tensor", &[json!([1.0]), json!({"numbers": [2.0, 3.0]})]);
    assert_eq!(
        outcomes,
        [Ok(json!({"doubled": [2.0]})), Ok(json!({"doubled": [4.0, 6.0]}))]
    );
}

/// Environment variable with the action that `a_fatal_action_in_a_child` performs.
const FATAL_ACTION: &str = "MISBEHAVE_FATAL_ACTION";

#[test]
#[ignore = "run in a child process by the test below, because it terminates the process"]
fn a_fatal_action_in_a_child() {
    let action = std::env::var(FATAL_ACTION).expect("the parent sets the variable");
    let item = json!({"do": action, "code": 3});
    let outcomes = misbehave(json!({})).predict("text", &[item]);
    panic!("the process survived: {outcomes:?}");
}

#[test]
#[cfg(unix)]
fn fatal_actions_terminate_the_process() {
    use std::os::unix::process::ExitStatusExt;

    const SIGABRT: i32 = 6;
    const SIGSEGV: i32 = 11;
    for (action, code, signal) in [
        ("exit", Some(3), None),
        ("abort", None, Some(SIGABRT)),
        ("segfault", None, Some(SIGSEGV)),
        // The Rust runtime detects the overflow and aborts.
        ("stack_overflow", None, Some(SIGABRT)),
    ] {
        let child = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "a_fatal_action_in_a_child", "--ignored"])
            .env(FATAL_ACTION, action)
            .output()
            .expect("run the child");
        assert_eq!(
            (child.status.code(), child.status.signal()),
            (code, signal),
            "{action}"
        );
    }
}
