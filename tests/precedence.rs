//! Precedence of command line, environment, configuration file, plugin and built-in defaults, observed in batch sizes.

use serde_json::json;

use crate::harness::misbehave::echoes;
use crate::harness::{Scenario, Server};

/// Returns the size of the largest batch of 40 queued items.
fn batch_size(server: &Server, task: &str) -> u64 {
    let occupied = server.occupy("m");
    let pending = server.predict_in_background("m", task, &echoes(0..40));
    server.wait_for_queued("m", task, 40);
    occupied.release();
    let reports = pending.reply().reports();
    let largest = reports
        .iter()
        .map(|report| report.batch_size())
        .max()
        .expect("there are reports");
    // The metrics agree, including the item that occupied the model.
    let count = |name: &str| server.metrics().count(name, &[("model", "m"), ("task", task)]);
    let other = u64::from(task == "text");
    assert_eq!(
        count("inference_batch_size_count"),
        40_u64.div_ceil(largest) + other
    );
    assert_eq!(count("inference_batch_size_sum"), 40 + other);
    largest
}

#[test]
fn the_built_in_default_has_the_lowest_precedence() {
    assert_eq!(batch_size(&Scenario::misbehave("", "").start(), "text"), 32);
}

#[test]
fn the_plugin_takes_precedence_over_the_built_in_default() {
    assert_eq!(
        batch_size(
            &Scenario::misbehave("declared_max_batch_size = 12", "").start(),
            "text"
        ),
        12
    );
}

#[test]
fn the_configuration_file_takes_precedence_over_the_plugin() {
    let scenario = Scenario::misbehave("declared_max_batch_size = 12", "max_batch_size = 10");
    assert_eq!(batch_size(&scenario.start(), "text"), 10);
}

#[test]
fn the_table_of_a_task_takes_precedence_over_that_of_its_model() {
    let scenario = Scenario::misbehave(
        "",
        "max_batch_size = 10\n[models.tasks.image]\nmax_batch_size = 9",
    );
    let server = scenario.start();
    assert_eq!(batch_size(&server, "text"), 10);
    assert_eq!(batch_size(&server, "image"), 9);
}

#[test]
fn the_environment_takes_precedence_over_the_configuration_file() {
    let scenario = Scenario::misbehave("", "max_batch_size = 10").env("INFERENCE_MAX_BATCH_SIZE", "8");
    let server = scenario.start();
    assert_eq!(batch_size(&server, "text"), 8);
    assert_eq!(batch_size(&server, "image"), 8);
}

#[test]
fn the_variable_of_a_task_takes_precedence_over_the_global_one() {
    let scenario = Scenario::misbehave("", "max_batch_size = 10")
        .env("INFERENCE_MAX_BATCH_SIZE", "8")
        .env("INFERENCE_MAX_BATCH_SIZE_IMAGE", "5");
    let server = scenario.start();
    assert_eq!(batch_size(&server, "text"), 8);
    assert_eq!(batch_size(&server, "image"), 5);
}

#[test]
fn the_command_line_takes_precedence_over_the_environment() {
    let scenario = Scenario::misbehave("", "max_batch_size = 10")
        .env("INFERENCE_MAX_BATCH_SIZE", "8")
        .argument("--max-batch-size")
        .argument("4");
    assert_eq!(batch_size(&scenario.start(), "text"), 4);
}

#[test]
fn an_invalid_variable_is_a_startup_error_that_names_it() {
    let scenario = Scenario::misbehave("", "").env("INFERENCE_MAX_BATCH_SIZE", "many");
    let output = scenario.run(&["--config", "models.toml"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("INFERENCE_MAX_BATCH_SIZE") && text.contains("many"),
        "{text}"
    );
}

#[test]
fn the_effective_limits_are_shown_with_the_model() {
    let server = Scenario::misbehave("", "max_batch_size = 10")
        .env("INFERENCE_MAX_BATCH_SIZE_IMAGE", "5")
        .start();
    let model = server.model("m");
    let tasks = model["tasks"].as_array().expect("a model lists its tasks");
    let limit = |name: &str| {
        let task = tasks.iter().find(|task| task["name"] == name);
        task.map(|task| task["max_batch_size"].clone())
    };
    assert_eq!((limit("text"), limit("image")), (Some(json!(10)), Some(json!(5))));
}

#[test]
fn a_variable_for_an_unknown_task_is_a_warning() {
    let server = Scenario::misbehave("", "")
        .env("INFERENCE_MAX_BATCH_SIZE_TEXTS", "4")
        .env("INFERENCE_MAX_BATCH_SIZE_IMAGE", "4")
        .start();
    let warning = server.wait_for_log("INFERENCE_MAX_BATCH_SIZE_TEXTS");
    assert!(warning.contains("WARN"), "{warning}");
    assert!(warning.contains("no model has a task TEXTS"), "{warning}");
    assert!(
        !server.log().has("INFERENCE_MAX_BATCH_SIZE_IMAGE"),
        "that task is there"
    );
}
