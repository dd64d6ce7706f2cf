//! The faults that a plugin survives: each stays within the item, the batch or the load that it happened in.

use misbehave::Misbehave;
use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::Value as JsonValue;
use plugin_sdk::testing::{Cost, Failure, FailureKind, Harness};

fn misbehave(settings: JsonValue) -> Harness<Misbehave> {
    Harness::load(settings).expect("loads")
}

fn order(value: u32, deed: &str) -> JsonValue {
    json!({"value": value, "do": deed, "message": "as ordered"})
}

/// The kind of failure of each item, or none.
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
fn every_example_works() {
    misbehave(json!({})).check_examples();
}

#[test]
fn a_report_tells_how_the_items_were_batched() {
    let outcomes = misbehave(json!({"tag": "a"})).predict("image", &[order(1, "echo"), order(2, "echo")]);
    let report = outcomes[1].as_ref().expect("echo");
    assert_eq!(report["order"], json!([1, 2]));
    assert_eq!(
        (&report["value"], &report["batch_size"], &report["tag"]),
        (&json!(2), &json!(2), &json!("a"))
    );
}

#[test]
fn a_fault_fails_its_batch_and_the_next_succeeds() {
    let model = misbehave(json!({}));
    for (deed, kind, text) in [
        ("panic", FailureKind::Panic, "misbehave panics: as ordered"),
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
        ("fail_batch", FailureKind::Internal, "as ordered"),
        ("out_of_memory", FailureKind::OutOfMemory, "as ordered"),
    ] {
        for task in ["text", "prepared"] {
            let outcomes = model.predict(task, &[order(1, deed), order(2, "echo")]);
            assert_eq!(kinds(&outcomes), [Some(kind), Some(kind)], "{deed}");
            assert_eq!(message(&outcomes[0]), text);
            assert_eq!(
                kinds(&model.predict(task, &[order(3, "echo")])),
                [None],
                "after {deed}"
            );
        }
    }
}

#[test]
fn an_item_fails_alone() {
    let model = misbehave(json!({}));
    for (task, deed, kind) in [
        ("text", "fail_item", FailureKind::InvalidInput),
        ("text", "fault_item", FailureKind::Internal),
        ("prepared", "fail_item", FailureKind::InvalidInput),
        ("prepared", "fail_in_prepare", FailureKind::InvalidInput),
        ("prepared", "panic_in_prepare", FailureKind::Panic),
        ("text", "no_such_deed", FailureKind::InvalidInput),
    ] {
        let outcomes = model.predict(task, &[order(1, "echo"), order(2, deed), order(3, "echo")]);
        assert_eq!(kinds(&outcomes), [None, Some(kind), None], "{deed}");
        assert_eq!(outcomes[2].as_ref().expect("echo")["value"], 3, "{deed}");
    }
}

#[test]
fn drops_that_panic_are_contained_and_logged() {
    let model = misbehave(json!({"panic_in_drop": true, "farewell": "so long"}));
    assert_eq!(
        kinds(&model.predict("prepared", &[order(1, "panic_in_prepared_drop")])),
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
fn a_panic_is_logged_with_its_place() {
    let model = misbehave(json!({}));
    model.predict("text", &[order(1, "panic")]);
    let logs = model.logs();
    assert!(logs[0].message.contains("tasks.rs:"), "{logs:?}");
}

#[test]
fn a_load_that_fails_says_why() {
    for (fault, kind, key) in [
        ("panic", FailureKind::Panic, ""),
        ("error", FailureKind::Settings, "on_load"),
    ] {
        let failure = Harness::<Misbehave>::load(json!({"on_load": fault})).expect_err("must not load");
        assert_eq!((failure.kind, &*failure.key), (kind, key));
    }
}

#[test]
fn the_warm_up_fails_alone() {
    let model = misbehave(json!({"fail_warm_up": true}));
    assert_eq!(
        kinds(&model.predict("text", &[json!({"value": "warm-up"})])),
        [Some(FailureKind::Internal)]
    );
    assert_eq!(kinds(&model.predict("text", &[order(1, "echo")])), [None]);
}

#[test]
fn items_state_weights_and_groups() {
    let model = misbehave(json!({}));
    let cost = model
        .prepare("prepared", &json!({"weight": 7, "group": 2}))
        .expect("prepares");
    assert_eq!(cost, Cost { weight: 7, group: 2 });
    assert_eq!(model.prepare("prepared", &json!({})).expect("prepares").weight, 1);
}

#[test]
fn a_gate_holds_batches_until_its_file_exists() {
    let folder = std::env::temp_dir().join(format!("misbehave-gate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the gate");
    let gate = folder.join("gate");
    let model = misbehave(json!({"gate": gate}));
    std::thread::scope(|scope| {
        let held = scope.spawn(|| model.predict("text", &[order(1, "echo")]));
        while !folder.join("gate.reached").exists() {
            std::thread::yield_now();
        }
        assert!(!held.is_finished());
        std::fs::write(&gate, "").expect("the gate opens");
        assert_eq!(kinds(&held.join().expect("no panic")), [None]);
    });
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}

#[test]
fn tensors_are_doubled() {
    let outcomes = misbehave(json!({})).predict("tensor", &[json!([1.0]), json!({"numbers": [2.0, 3.0]})]);
    assert_eq!(
        outcomes,
        [Ok(json!({"doubled": [2.0]})), Ok(json!({"doubled": [4.0, 6.0]}))]
    );
}

/// Names the deed that `a_child_that_does_not_return` is to do.
const FATAL_DEED: &str = "MISBEHAVE_FATAL_DEED";

#[test]
#[ignore = "run in a child process by the test below, which it ends"]
fn a_child_that_does_not_return() {
    let deed = std::env::var(FATAL_DEED).expect("the parent names a deed");
    let item = json!({"do": deed, "code": 3});
    let outcomes = misbehave(json!({})).predict("text", &[item]);
    panic!("the deed was survived: {outcomes:?}");
}

#[test]
#[cfg(unix)]
fn fatal_deeds_end_the_process() {
    use std::os::unix::process::ExitStatusExt;

    const SIGABRT: i32 = 6;
    const SIGSEGV: i32 = 11;
    for (deed, code, signal) in [
        ("exit", Some(3), None),
        ("abort", None, Some(SIGABRT)),
        ("segfault", None, Some(SIGSEGV)),
        // The runtime notices, says so, and aborts.
        ("stack_overflow", None, Some(SIGABRT)),
    ] {
        let child = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "a_child_that_does_not_return", "--ignored"])
            .env(FATAL_DEED, deed)
            .output()
            .expect("a child can be run");
        assert_eq!(
            (child.status.code(), child.status.signal()),
            (code, signal),
            "{deed}"
        );
    }
}
