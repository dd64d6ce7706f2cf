//! The environment and the command line: what goes before what, and what is said about their faults.

use insta::assert_snapshot;

use super::super::Overrides;
use super::super::keys::Section;
use super::super::overrides::Layer;
use super::file;
use crate::batching::{DeclaredLimits, Policy, WeightRule};

const NOTHING: DeclaredLimits = DeclaredLimits {
    max_batch_size: None,
    max_batch_weight: None,
    weight_rule: None,
};

/// `max_batch_size` of the task "text" when the first `sources` of these are written: the plugin, [batching],
/// [models.batching], [models.tasks.text], the environment, the environment for the task, the command line.
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
    let flags = Overrides {
        max_batch_size: (sources >= 7).then(|| "7".to_owned()),
        ..Overrides::none()
    };
    let declared = DeclaredLimits {
        max_batch_size: (sources >= 1).then_some(1),
        ..NOTHING
    };
    let scenario = file(&text)
        .variables(&variables[..sources.saturating_sub(4).min(2)])
        .flags(flags);
    scenario
        .model()
        .task("text", &declared)
        .batching
        .max_batch_size
        .get()
}

#[test]
fn each_source_goes_before_those_below_it() {
    assert_eq!(
        (0..=7).map(max_batch_size).collect::<Vec<_>>(),
        [32, 1, 2, 3, 4, 5, 6, 7]
    );
}

#[test]
fn a_variable_for_one_task_leaves_the_others_alone() {
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
fn what_a_plugin_declares_can_be_taken_back() {
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
fn server_keys_are_taken_from_the_flag_then_the_variable_then_the_file() {
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
    let flags = Overrides {
        host: Some("c".to_owned()),
        ..Overrides::none()
    };
    let settings = file(text).variables(&variables).flags(flags).settings();
    let server = settings.server;
    assert_eq!((server.host.as_str(), server.port), ("c", 2));
    assert_eq!(
        server.plugin_dir.to_str(),
        Some("/etc/inference/p"),
        "the file's paths start at its folder"
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
fn faults_of_variables_and_flags_name_them() {
    let variables = [
        ("INFERENCE_PORT", "http"),
        ("INFERENCE_KEEP_ALIVE", "75"),
        ("INFERENCE_HOST", ""),
        ("INFERENCE_DOCS", "yes"),
        ("INFERENCE_ACCESS_LOG_EXCLUDE", "/health,metrics"),
        ("INFERENCE_MAX_BATCH_SIZE_TEXT", "0"),
    ];
    let flags = Overrides {
        log_format: Some("xml".to_owned()),
        max_delay: Some("5".to_owned()),
        ..Overrides::none()
    };
    let scenario = file("[server]\nport = 70000\n")
        .variables(&variables)
        .flags(flags);
    assert_snapshot!(scenario.errors(), @r#"
    models.toml:2:8: `port` in [server] is the integer 70000, expected an integer from 0 to 65535
        2 | port = 70000
          |        ^^^^^

    environment variable INFERENCE_ACCESS_LOG_EXCLUDE: `access_log_exclude` in [logging] is a list with "metrics", expected a list, each a path, or the start of one followed by `*`, such as "/v2/health/*"
        hint: begin with a slash: "/metrics"

    environment variable INFERENCE_DOCS: `docs` in [server] is "yes", expected true or false
        hint: write true

    environment variable INFERENCE_HOST: `host` in [server] is empty, expected an IP address or a host name
        hint: unset the variable to use what the file says

    environment variable INFERENCE_KEEP_ALIVE: `keep_alive` in [server] is "75", expected a duration from 0s to 24h
        hint: write it as text with its unit: "75ms", "75s" or "75m"

    environment variable INFERENCE_MAX_BATCH_SIZE_TEXT: `max_batch_size` for the task TEXT is "0", expected an integer from 1 to 65536

    environment variable INFERENCE_PORT: `port` in [server] is "http", expected an integer from 0 to 65535

    command line --log-format: `format` in [logging] is "xml", expected "text" or "json"

    command line --max-delay: `max_delay` in [batching] is "5", expected a duration from 0s to 1m
        hint: write it as text with its unit: "5ms", "5s" or "5m"
    "#);
}

#[test]
fn a_kubernetes_service_link_is_recognised() {
    assert_snapshot!(file("").variables(&[("INFERENCE_PORT", "tcp://10.0.0.1:80")]).errors(), @r#"
    environment variable INFERENCE_PORT: `port` in [server] is "tcp://10.0.0.1:80", expected an integer from 0 to 65535
        hint: Kubernetes sets this for a Service named `inference`; set `enableServiceLinks: false` in the pod, or rename the Service
    "#);
}

#[test]
fn the_flags_of_the_keys_are_the_fields_of_the_overrides() {
    let mut layer = Layer::empty();
    let mut of_keys: Vec<&str> = layer
        .sections()
        .iter()
        .flat_map(|(_, section)| Section::keys(*section))
        .filter_map(|key| key.flag)
        .collect();
    let mut of_overrides: Vec<&str> = Overrides::none()
        .by_flag()
        .iter()
        .map(|(flag, _)| *flag)
        .collect();
    of_keys.sort_unstable();
    of_overrides.sort_unstable();
    assert_eq!(of_keys, of_overrides);
}
