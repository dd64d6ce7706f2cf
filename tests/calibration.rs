//! The command `calibrate` with real plugins in real processes.

use std::process::Output;

use serde_json::Value as Json;

use crate::harness::Scenario;
use crate::harness::plugins::repository;

/// Coefficients of the memory of the task `padded_memory`: at most 352 MiB.
const COEFFICIENTS: [f64; 4] = [16_777_216.0, 262_144.0, 2_048.0, 16.0];

/// A scenario whose task `padded_memory` has these coefficients, and further settings of it.
fn padded(more: &str) -> Scenario {
    let [c0, c1, c2, c3] = COEFFICIENTS;
    Scenario::misbehave(
        &format!("padded_memory = {{ c0 = {c0}, c1 = {c1}, c2 = {c2}, c3 = {c3}, max_weight = 512{more} }}"),
        "",
    )
}

fn calibrate(scenario: &Scenario, arguments: &[&str]) -> Output {
    let command = ["calibrate", "--config", "models.toml", "--max-time", "20s"];
    scenario.run(&[&command, arguments].concat())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The standard output of a command that must succeed.
#[track_caller]
fn printed(ran: &Output) -> String {
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    text(&ran.stdout)
}

/// The file that was written.
fn file(scenario: &Scenario, model: &str) -> Json {
    let path = scenario.dir().join(format!("calibration/{model}.json"));
    let text = std::fs::read_to_string(path).expect("the file was written");
    serde_json::from_str(&text).expect("the file is JSON")
}

fn numbers(value: &Json) -> Vec<f64> {
    let values = value.as_array().cloned().unwrap_or_default();
    values.iter().filter_map(Json::as_f64).collect()
}

#[test]
fn known_coefficients_of_the_memory_are_recovered_within_5_percent() {
    let scenario = padded("");
    let ran = calibrate(&scenario, &["--task", "padded_memory", "--budget", "2GiB"]);
    let printed = printed(&ran);
    let memory = &file(&scenario, "m")["tasks"]["padded_memory"]["costs"]["memory"];
    let found = numbers(&memory["coefficients"]);
    assert_eq!(found.len(), 4, "{memory}");
    for (found, expected) in found.iter().zip(COEFFICIENTS) {
        let relative = (found - expected).abs() / expected;
        assert!(relative < 0.05, "{found} instead of {expected}: {printed}");
    }
    assert!(
        memory["r_squared"].as_f64().is_some_and(|fit| fit > 0.99),
        "{memory}"
    );
    assert_eq!(
        memory["identifiable"],
        serde_json::json!([true, true, true, true]),
        "{memory}"
    );
    for part in [
        "model `m` on",
        "task `padded_memory`",
        "R²",
        "residual",
        "knee",
        "[models.tasks.padded_memory]",
        "max_batch_size = ",
        "max_batch_weight = ",
        "workers = ",
        "calibration/m.json",
    ] {
        assert!(printed.contains(part), "{part:?} is not in {printed}");
    }
}

#[test]
fn memory_that_the_creation_of_items_leaves_behind_is_not_attributed_to_batches() {
    let scenario = padded(", kept_by_sample = 8388608");
    let printed = printed(&calibrate(
        &scenario,
        &["--task", "padded_memory", "--budget", "2GiB"],
    ));
    let memory = &file(&scenario, "m")["tasks"]["padded_memory"]["costs"]["memory"];
    let found = numbers(&memory["coefficients"]);
    assert_eq!(found.len(), 4, "{memory}");
    for (found, expected) in found.iter().zip(COEFFICIENTS) {
        let relative = (found - expected).abs() / expected;
        assert!(relative < 0.05, "{found} instead of {expected}: {printed}");
    }
}

#[test]
fn batches_grow_until_the_budget() {
    let scenario = padded("");
    let budget: u64 = 64 << 20;
    let arguments = ["--task", "padded_memory", "--budget", "64MiB", "--html", "m.html"];
    let printed = printed(&calibrate(&scenario, &arguments));
    assert!(printed.contains("exceed the budget"), "{printed}");
    let file = file(&scenario, "m");
    let points = file["tasks"]["padded_memory"]["points"].as_array().cloned();
    let measured: Vec<f64> = points
        .unwrap_or_default()
        .iter()
        .flat_map(|point| numbers(&point["memory_bytes"]))
        .collect();
    let most = measured.iter().copied().fold(0.0, f64::max);
    // The process itself needs some memory for each batch.
    assert!(most < budget as f64 * 1.1, "{most}");
    assert!(most > budget as f64 * 0.4, "{most}");
    let page = std::fs::read_to_string(scenario.dir().join("m.html")).expect("the page was written");
    assert_eq!(page.matches("<svg").count(), 3);
    assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("href="));
    for part in [
        "Memory of a batch",
        "Time of a batch",
        "Largest batches",
        "safe",
        "knee",
    ] {
        assert!(page.contains(part), "{part:?} is not in the page");
    }
}

#[test]
fn an_out_of_memory_error_ends_the_growth_and_is_survived() {
    for (limit, how) in [
        (", available = 100000000", "memory ran out in batches from"),
        (", killed_above = 100000000", "the process was killed"),
    ] {
        let scenario = padded(limit);
        let arguments = ["--task", "padded_memory", "--budget", "2GiB"];
        let printed = printed(&calibrate(&scenario, &arguments));
        assert!(printed.contains(how), "{how:?} is not in {printed}");
        let file = file(&scenario, "m");
        let memory = numbers(&file["tasks"]["padded_memory"]["costs"]["memory"]["coefficients"]);
        for (found, expected) in memory.iter().zip(COEFFICIENTS) {
            let relative = (found - expected).abs() / expected;
            assert!(relative < 0.05, "{found} instead of {expected}: {printed}");
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
#[test]
fn plugins_built_for_earlier_versions_are_measured_with_recorded_requests() {
    for version in ["1.0", "1.1"] {
        measured_with_recorded_requests(version);
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
fn measured_with_recorded_requests(version: &str) {
    let plugin = repository().join(format!("tests/fixtures/abi-{version}/libtemplate.so"));
    let scenario = Scenario::new(&format!(
        "[[models]]\nname = \"old\"\nplugin = \"{}\"\n",
        plugin.display()
    ));
    let without = calibrate(&scenario, &[]);
    assert_eq!(without.status.code(), Some(1), "{}", text(&without.stdout));
    let reason = "task `echo` does not create items of a requested weight: give recorded requests with --requests FILE";
    assert!(
        text(&without.stderr).contains(reason),
        "{}",
        text(&without.stderr)
    );
    let requests = "{\"task\": \"echo\", \"inputs\": [\"to be\", \"or not\"]}\n\
                    {\"task\": \"stats\", \"inputs\": [{\"text\": \"to be or not to be\"}]}\n";
    std::fs::write(scenario.dir().join("requests.jsonl"), requests).expect("the file can be written");
    let printed = printed(&calibrate(&scenario, &["--requests", "requests.jsonl"]));
    assert!(printed.contains("[models.tasks.echo]"), "{printed}");
    let file = file(&scenario, "old");
    for task in ["echo", "stats"] {
        assert!(file["tasks"][task]["costs"]["time"].is_object(), "{file}");
    }
}

#[test]
fn a_second_task_is_added_to_the_file() {
    let scenario = padded("");
    let requests = "{\"input\": {\"value\": 1}}\n";
    std::fs::write(scenario.dir().join("requests.jsonl"), requests).expect("the file can be written");
    printed(&calibrate(
        &scenario,
        &["--task", "text", "--requests", "requests.jsonl"],
    ));
    printed(&calibrate(
        &scenario,
        &["--task", "padded_memory", "--budget", "40MiB", "--quiet"],
    ));
    let file = file(&scenario, "m");
    assert!(file["tasks"]["text"].is_object() && file["tasks"]["padded_memory"].is_object());
}

#[test]
fn mistakes_are_reported_with_what_to_do() {
    let scenario = padded("");
    std::fs::write(scenario.dir().join("wrong.jsonl"), "{\"inputs\": 1}\n").expect("it can be written");
    std::fs::write(
        scenario.dir().join("invalid.jsonl"),
        "{\"inputs\": [{\"weight\": 900}]}\n",
    )
    .expect("it can be written");
    for (arguments, code, part) in [
        (
            &["--model", "n"][..],
            2,
            "the configuration has no model `n`; its models are `m`",
        ),
        (
            &["--task", "other"],
            2,
            "model `m` has no task `other`; its tasks are `text`, `image`",
        ),
        (&["--budget", "3"], 2, "add a unit"),
        (
            &["--requests", "missing.jsonl"],
            2,
            "cannot read the recorded requests in missing.jsonl",
        ),
        (&["--requests", "wrong.jsonl"], 2, "wrong.jsonl: line 1: "),
        (
            &["--task", "padded_memory", "--requests", "invalid.jsonl"],
            1,
            "invalid.jsonl: line 1: task `padded_memory` rejected the item: `weight` is 900, expected at most 512",
        ),
        (
            &["--task", "text"],
            1,
            "task `text` does not create items of a requested weight",
        ),
    ] {
        let ran = calibrate(&scenario, arguments);
        let reported = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(code), "{arguments:?}: {reported}");
        assert!(reported.contains(part), "{arguments:?}: {reported}");
    }
    let written = scenario.dir().join("calibration");
    assert!(!written.exists(), "nothing is written after an error");
}
