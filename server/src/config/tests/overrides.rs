//! The environment and the command line: precedence and errors.

use insta::assert_snapshot;

use super::file;
use crate::batching::{DeclaredLimits, Policy, WeightRule};

const NOTHING: DeclaredLimits = DeclaredLimits {
    max_batch_size: None,
    max_batch_weight: None,
    weight_rule: None,
};

/// `max_batch_size` of the task "text" if the first `sources` of these set it: the plugin, [batching], [models.batching],
/// [models.tasks.text], the environment, the environment for the task, the command line.
fn max_batch_size(sources: usize) -> usize {
    let mut text = String::new();
    if sources >= 2 {
        text.push_str("[batching]\nmax_batch_size = 2\n");
    }
    text.push_str("[[models]]\nname = \"a\"\nplugin = \"a\"\n");
    if sources >= 3 {
        text.push_str("[models.batching]\nmax_batch_size = 3\n");
    }
    if sources >= 4 {
        text.push_str("[models.tasks.text]\nmax_batch_size = 4\n");
    }
    let variables = [
        ("INFERENCE_MAX_BATCH_SIZE", "5"),
        ("INFERENCE_MAX_BATCH_SIZE_TEXT", "6"),
    ];
    let declared = DeclaredLimits {
        max_batch_size: (sources >= 1).then_some(1),
        ..NOTHING
    };
    let mut scenario = file(&text).variables(&variables[..sources.saturating_sub(4).min(2)]);
    if sources >= 7 {
        scenario = scenario.flag("--max-batch-size", "7");
    }
    scenario
        .model()
        .task("text", &declared)
        .batching
        .max_batch_size
        .get()
}

#[test]
fn each_source_takes_precedence_over_those_below_it() {
    assert_eq!(
        (0..=7).map(max_batch_size).collect::<Vec<_>>(),
        [32, 1, 2, 3, 4, 5, 6, 7]
    );
}

#[test]
fn a_variable_for_one_task_does_not_affect_the_others() {
    let text = "[[models]]\nname = \"a\"\nplugin = \"a\"\n";
    let variables = [
        ("INFERENCE_MAX_BATCH_SIZE_MY_TASK_2", "6"),
        ("INFERENCE_POLICY_MY_TASK_2", "off"),
    ];
    let model = file(text).variables(&variables).model();
    assert_eq!(model.task("my-task.2", &NOTHING).batching.max_batch_size.get(), 6);
    assert_eq!(model.task("my-task.2", &NOTHING).batching.policy, Policy::Off);
    assert_eq!(model.task("other", &NOTHING).batching.max_batch_size.get(), 32);
}

#[test]
fn the_file_can_remove_limits_that_a_plugin_declares() {
    let declared = DeclaredLimits {
        max_batch_size: None,
        max_batch_weight: Some(4096),
        weight_rule: Some(WeightRule::Sum),
    };
    let text = "[[models]]\nname = \"a\"\nplugin = \"a\"\n[models.tasks.b]\nmax_batch_weight = \"none\"\nweight_rule = \"padded\"\n";
    let model = file(text).model();
    assert_eq!(model.task("a", &declared).batching.max_batch_weight, Some(4096));
    assert_eq!(model.task("a", &declared).batching.weight_rule, WeightRule::Sum);
    assert_eq!(model.task("b", &declared).batching.max_batch_weight, None);
    assert_eq!(
        model.task("b", &declared).batching.weight_rule,
        WeightRule::Padded
    );
}

#[test]
fn flags_take_precedence_over_variables_and_variables_over_the_file() {
    let text = "[server]\nhost = \"a\"\nport = 1\nplugin_dir = \"p\"\nscratch_dir = \"s\"\n";
    let variables = [
        ("INFERENCE_HOST", "b"),
        ("INFERENCE_PORT", "2"),
        ("INFERENCE_SCRATCH_DIR", "s"),
        ("INFERENCE_COMPRESSION", "false"),
        ("INFERENCE_KEEP_ALIVE", "2s"),
        (
            "INFERENCE_CORS_ALLOWED_ORIGINS",
            "https://a.example, https://b.example",
        ),
        ("INFERENCE_LOG_LEVEL", "debug"),
        ("PATH", "/bin"),
    ];
    let settings = file(text).variables(&variables).flag("--host", "c").settings();
    let server = settings.server;
    assert_eq!((server.host.as_str(), server.port), ("c", 2));
    assert_eq!(
        server.plugin_dirs[0].to_str(),
        Some("/etc/inference/p"),
        "paths in the file start at its directory"
    );
    assert_eq!(
        server.scratch_dir.to_str(),
        Some("s"),
        "other paths start at the working directory"
    );
    assert!(!server.compression);
    assert_eq!(server.keep_alive.as_secs(), 2);
    assert_eq!(
        server.cors_allowed_origins,
        ["https://a.example", "https://b.example"]
    );
    assert_eq!(settings.logging.level, "debug");
}

#[test]
fn errors_name_the_variable_or_flag() {
    let variables = [
        ("INFERENCE_PORT", "http"),
        ("INFERENCE_KEEP_ALIVE", "75"),
        ("INFERENCE_HOST", ""),
        ("INFERENCE_DOCS", "yes"),
        ("INFERENCE_ACCESS_LOG_EXCLUDE", "/health,metrics"),
        ("INFERENCE_MAX_BATCH_SIZE_TEXT", "0"),
    ];
    let scenario = file("[server]\nport = 70000\n")
        .variables(&variables)
        .flag("--log-format", "xml")
        .flag("--max-delay", "5");
    assert_snapshot!(scenario.errors(), @r#"
    models.toml:2:8: invalid value 70000 for `port` in [server]: expected an integer from 0 to 65535
        2 | port = 70000
          |        ^^^^^

    environment variable INFERENCE_ACCESS_LOG_EXCLUDE: invalid element "metrics" of `access_log_exclude` in [logging]: expected a path, or a prefix followed by `*`, such as "/v2/health/*"
        hint: start with a slash: "/metrics"

    environment variable INFERENCE_DOCS: invalid value "yes" for `docs` in [server]: expected true or false
        hint: write true

    environment variable INFERENCE_HOST: invalid value for `host` in [server]: found an empty string, expected an IP address or a host name
        hint: unset the variable to use the value of the configuration file

    environment variable INFERENCE_KEEP_ALIVE: invalid value "75" for `keep_alive` in [server]: expected a duration from 0s to 24h
        hint: add a unit: "75ms", "75s" or "75m"

    environment variable INFERENCE_MAX_BATCH_SIZE_TEXT: invalid value "0" for `max_batch_size` for the task TEXT: expected an integer from 1 to 65536

    environment variable INFERENCE_PORT: invalid value "http" for `port` in [server]: expected an integer from 0 to 65535

    command line --log-format: invalid value "xml" for `format` in [logging]: expected "text" or "json"

    command line --max-delay: invalid value "5" for `max_delay` in [batching]: expected a duration from 0s to 1m
        hint: add a unit: "5ms", "5s" or "5m"
    "#);
}

#[test]
fn a_kubernetes_service_link_is_recognized() {
    assert_snapshot!(file("").variables(&[("INFERENCE_PORT", "tcp://10.0.0.1:80")]).errors(), @r#"
    environment variable INFERENCE_PORT: invalid value "tcp://10.0.0.1:80" for `port` in [server]: expected an integer from 0 to 65535
        hint: Kubernetes sets it for a Service named `inference`: set `enableServiceLinks: false` in the pod, or rename the Service
    "#);
}
