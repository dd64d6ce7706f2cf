//! Lints.

use insta::assert_snapshot;

use super::file;

const MODEL: &str = "[[models]]\nname = \"a\"\nplugin = \"a\"\n";

#[test]
fn a_configuration_without_models_is_a_warning() {
    assert_snapshot!(file("").warnings(), @r"
    models.toml:1:1: no models are configured
        hint: add a [[models]] table with `name` and `plugin`
    ");
}

#[test]
fn unknown_variables_are_warnings() {
    let variables = [
        ("INFERENCE_CONFIG", "models.toml"),
        ("INFERENCE_MAX_BACTH_SIZE", "8"),
        ("INFERENCE_MAX_BACTH_SIZE_TEXT", "8"),
        ("INFERENCE_FOO", "8"),
        ("INFERENCE_SERVICE_HOST", "10.0.0.1"),
        ("INFERENCE_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("INFERENCE_", "x"),
        ("INFERENCER_PORT", "80"),
    ];
    let scenario = file(MODEL)
        .variables(&variables)
        .read_by_the_command_line("INFERENCE_CONFIG");
    assert_snapshot!(scenario.warnings(), @r"
    environment variable INFERENCE_: unknown variable; it has no effect

    environment variable INFERENCE_FOO: unknown variable; it has no effect

    environment variable INFERENCE_MAX_BACTH_SIZE: unknown variable; it has no effect
        hint: did you mean INFERENCE_MAX_BATCH_SIZE?

    environment variable INFERENCE_MAX_BACTH_SIZE_TEXT: unknown variable; it has no effect
        hint: did you mean INFERENCE_MAX_BATCH_SIZE_TEXT?

    environment variable INFERENCE_PORT_8080_TCP_ADDR: unknown variable; it has no effect
        hint: Kubernetes sets it for a Service named `inference`: set `enableServiceLinks: false` in the pod, or rename the Service

    environment variable INFERENCE_SERVICE_HOST: unknown variable; it has no effect
        hint: Kubernetes sets it for a Service named `inference`: set `enableServiceLinks: false` in the pod, or rename the Service
    ");
}

#[test]
fn keys_for_worker_processes_are_warnings_for_a_model_that_runs_in_a_thread() {
    let keys = "on_crash = \"fail\"\npredict_timeout = \"5s\"\n";
    let thread = format!("{MODEL}isolation = \"thread\"\n{keys}");
    assert_snapshot!(file(&thread).warnings(), @r#"
    models.toml:5:12: `on_crash` has no effect without `isolation = "process"`
        hint: set `isolation = "process"`, or remove `on_crash`

    models.toml:6:19: `predict_timeout` has no effect without `isolation = "process"`
        hint: set `isolation = "process"`, or remove `predict_timeout`
    "#);
    let undecided = format!("{MODEL}{keys}");
    assert_eq!(
        file(&undecided).warnings(),
        "",
        "the plugin can still declare that it runs in a process"
    );
    let settings = file(&undecided).settings();
    let model = &settings.models[0];
    assert_eq!(
        model.warnings_in_thread().len(),
        2,
        "the plugin does not declare it"
    );
    let process = format!("{MODEL}isolation = \"process\"\n{keys}");
    assert_eq!(file(&process).warnings(), "");
}

#[test]
fn a_delay_without_an_effect_is_a_warning() {
    let text = format!(
        "[batching]\npolicy = \"greedy\"\nmax_delay = \"5ms\"\n{MODEL}[models.batching]\npolicy = \"fixed\"\n"
    );
    assert_eq!(file(&text).warnings(), "", "one model uses it");
    let text = format!("[batching]\npolicy = \"greedy\"\nmax_delay = \"5ms\"\n{MODEL}");
    assert_snapshot!(file(&text).warnings(), @r#"
    models.toml:3:13: `max_delay` has no effect: only the policies "adaptive" and "fixed" wait for more items
        hint: add `policy = "adaptive"`, or remove `max_delay`
    "#);
}

#[test]
fn a_fixed_delay_of_zero_is_a_warning() {
    let text = format!("{MODEL}[models.tasks.text]\npolicy = \"fixed\"\nmax_delay = \"0s\"\n");
    assert_snapshot!(file(&text).warnings(), @r#"
    models.toml:6:13: `max_delay` is zero: batches never wait for more items
        hint: use `policy = "greedy"`, or a delay such as "5ms"
    "#);
}

#[test]
fn a_queue_shorter_than_a_batch_is_a_warning() {
    let text = format!("{MODEL}[models.batching]\nmax_queue_size = 16\n");
    assert_snapshot!(file(&text).warnings(), @r"
    models.toml:5:18: `max_queue_size` (16) is less than `max_batch_size` (32): no batch can be full
        hint: raise `max_queue_size` to at least 32
    ");
}

#[test]
fn a_variable_for_a_task_that_no_model_has_is_a_warning() {
    let variables = [
        ("INFERENCE_MAX_BATCH_SIZE_TXET", "8"),
        ("INFERENCE_MAX_BATCH_SIZE_IMAGE", "8"),
    ];
    let settings = file(MODEL).variables(&variables).settings();
    let warnings: Vec<String> = settings
        .unused_task_variables(["text", "image"])
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_snapshot!(warnings.join("\n"), @r"
    environment variable INFERENCE_MAX_BATCH_SIZE_TXET: no model has a task TXET; the variable has no effect
        hint: did you mean the task TEXT?
    ");
}
