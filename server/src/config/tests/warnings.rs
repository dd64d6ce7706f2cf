//! What is legal but odd.

use insta::assert_snapshot;

use super::file;

const MODEL: &str = "[[models]]\nname = \"a\"\nplugin = \"a\"\n";

#[test]
fn a_server_without_models_is_legal_but_odd() {
    assert_snapshot!(file("").warnings(), @r"
    models.toml:1:1: no models are configured, so nothing can be predicted
        hint: add a [[models]] table with `name` and `plugin`
    ");
}

#[test]
fn variables_that_mean_nothing_are_named() {
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
    assert_snapshot!(file(MODEL).variables(&variables).warnings(), @r"
    environment variable INFERENCE_: no setting has this variable, so it does nothing

    environment variable INFERENCE_FOO: no setting has this variable, so it does nothing

    environment variable INFERENCE_MAX_BACTH_SIZE: no setting has this variable, so it does nothing
        hint: did you mean INFERENCE_MAX_BATCH_SIZE?

    environment variable INFERENCE_MAX_BACTH_SIZE_TEXT: no setting has this variable, so it does nothing
        hint: did you mean INFERENCE_MAX_BATCH_SIZE_TEXT?

    environment variable INFERENCE_PORT_8080_TCP_ADDR: no setting has this variable, so it does nothing
        hint: Kubernetes sets this for a Service named `inference`; set `enableServiceLinks: false` in the pod, or rename the Service

    environment variable INFERENCE_SERVICE_HOST: no setting has this variable, so it does nothing
        hint: Kubernetes sets this for a Service named `inference`; set `enableServiceLinks: false` in the pod, or rename the Service
    ");
}

#[test]
fn keys_about_processes_are_named_for_a_model_that_runs_in_a_thread() {
    let keys = "on_crash = \"fail\"\npredict_timeout = \"5s\"\n";
    let thread = format!("{MODEL}isolation = \"thread\"\n{keys}");
    assert_snapshot!(file(&thread).warnings(), @r#"
    models.toml:5:12: `on_crash` has no effect on a model that runs in a thread of the server
        hint: set `isolation = "process"`, or remove `on_crash`

    models.toml:6:19: `predict_timeout` has no effect on a model that runs in a thread of the server
        hint: set `isolation = "process"`, or remove `predict_timeout`
    "#);
    let undecided = format!("{MODEL}{keys}");
    assert_eq!(
        file(&undecided).warnings(),
        "",
        "the plugin may declare that it runs in a process"
    );
    let settings = file(&undecided).settings();
    let model = &settings.models[0];
    assert_eq!(
        model.warnings_in_thread().len(),
        2,
        "once it is known that it does not"
    );
    let process = format!("{MODEL}isolation = \"process\"\n{keys}");
    assert_eq!(file(&process).warnings(), "");
}

#[test]
fn a_delay_that_nothing_uses_is_named() {
    let text = format!(
        "[batching]\npolicy = \"greedy\"\nmax_delay = \"5ms\"\n{MODEL}[models.batching]\npolicy = \"fixed\"\n"
    );
    assert_eq!(file(&text).warnings(), "", "one model uses it");
    let text = format!("[batching]\npolicy = \"greedy\"\nmax_delay = \"5ms\"\n{MODEL}");
    assert_snapshot!(file(&text).warnings(), @r#"
    models.toml:3:13: `max_delay` does nothing here, because only the policies "adaptive" and "fixed" wait
        hint: add `policy = "adaptive"`, or take `max_delay` out
    "#);
}

#[test]
fn a_fixed_delay_of_zero_is_named() {
    let text = format!("{MODEL}[models.tasks.text]\npolicy = \"fixed\"\nmax_delay = \"0s\"\n");
    assert_snapshot!(file(&text).warnings(), @r#"
    models.toml:6:13: `max_delay` is zero, so batches never wait for company
        hint: write `policy = "greedy"`, or a delay such as "5ms"
    "#);
}

#[test]
fn a_queue_shorter_than_a_batch_is_named() {
    let text = format!("{MODEL}[models.batching]\nmax_queue_size = 16\n");
    assert_snapshot!(file(&text).warnings(), @r"
    models.toml:5:18: `max_queue_size` is 16, less than `max_batch_size`, which is 32: no batch can fill
        hint: raise `max_queue_size` to at least 32
    ");
}

#[test]
fn a_variable_for_a_task_that_no_model_has_is_named() {
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
    environment variable INFERENCE_MAX_BATCH_SIZE_TXET: no model has a task TXET, so this variable does nothing
        hint: did you mean the task TEXT?
    ");
}
