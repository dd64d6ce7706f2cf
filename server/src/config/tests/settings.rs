//! The settings of a valid configuration.

use std::path::Path;
use std::time::Duration;

use plugin_abi::manifest;
use serde_json::json;

use super::file;
use crate::batching::{DeclaredLimits, Policy};
use crate::config::{Isolation, OnCrash, ProcessSettings};

const NOTHING: DeclaredLimits = DeclaredLimits {
    max_batch_size: None,
    max_batch_weight: None,
    weight_rule: None,
};

#[test]
fn an_empty_file_has_the_default_settings() {
    let settings = file("").settings();
    insta::assert_debug_snapshot!((&settings.server, &settings.logging), @r#"
    (
        ServerSettings {
            host: "0.0.0.0",
            port: 8080,
            grpc_port: None,
            management_port: None,
            management_host: "0.0.0.0",
            management_only: false,
            tls: None,
            http_workers: 4,
            prepare_threads: 4,
            max_connections: 8192,
            keep_alive: 75s,
            header_timeout: 10s,
            body_timeout: 60s,
            max_body_size: 67108864,
            max_inflight_bytes: 2147483648,
            memory_budget: None,
            max_items_per_request: 2048,
            max_json_depth: 128,
            request_timeout: 60s,
            shutdown_delay: 0ns,
            drain_timeout: 30s,
            reload_timeout: 300s,
            plugin_dirs: [
                "/opt/bin",
                "/opt/lib/inference-server",
            ],
            scratch_dir: "/tmp",
            allow_writable_plugins: false,
            compression: true,
            cors_allowed_origins: [],
            model_nice: 2,
            api_keys: [],
            api_keys_file: None,
            admin_key: None,
            docs: true,
            ui: true,
        },
        LoggingSettings {
            level: "info",
            format: Text,
            access_log: true,
            access_log_exclude: [
                "/health",
                "/livez",
                "/readyz",
                "/metrics",
                "/v2/health/*",
            ],
            slow_request_log: Off,
        },
    )
    "#);
    assert!(settings.models.is_empty());
}

#[test]
fn a_model_with_only_a_name_and_a_plugin_has_the_default_settings() {
    let model =
        file("[server]\nrequest_timeout = \"7s\"\n[[models]]\nname = \"digits\"\nplugin = \"onnx\"\n")
            .model();
    assert_eq!(model.plugin, Path::new("/opt/bin/libonnx.so"));
    assert_eq!((model.workers.get(), model.warm_up), (1, true));
    assert_eq!(model.isolation.process(None), None);
    assert_eq!(model.request_timeout, Duration::from_secs(7));
    assert_eq!(model.settings, json!({}));
    assert_eq!(model.base_dir, Path::new("/etc/inference"));
    assert_eq!(model.locate("anything"), None);
    insta::assert_debug_snapshot!(model.task("digits", &NOTHING), @r"
    TaskSettings {
        batching: TaskBatching {
            policy: Adaptive {
                max_delay: 10ms,
            },
            max_batch_size: 32,
            max_batch_weight: None,
            weight_rule: Padded,
            background_slack: Slack(
                500,
            ),
        },
        max_queue_size: 65536,
        max_queue_weight: None,
        route: None,
    }
    ");
}

#[test]
fn the_file_takes_precedence_over_the_plugin_in_where_a_model_runs() {
    let runs = |keys: &str, declared| {
        let text = format!("[[models]]\nname = \"m\"\nplugin = \"p\"\n{keys}\n");
        let isolation = file(&text).model().isolation;
        isolation.process(Some(declared)).is_some()
    };
    for (keys, declared, process) in [
        ("", manifest::Isolation::Process, true),
        ("", manifest::Isolation::Thread, false),
        ("isolation = \"thread\"", manifest::Isolation::Process, false),
        ("isolation = \"process\"", manifest::Isolation::Thread, true),
    ] {
        assert_eq!(runs(keys, declared), process, "{keys} {declared:?}");
    }
}

#[test]
fn a_plugin_is_a_name_or_a_path() {
    for (written, path) in [
        ("onnx", "/srv/plugins/libonnx.so"),
        ("onnx.so", "/etc/inference/onnx.so"),
        ("../lib/x.so.1", "/etc/inference/../lib/x.so.1"),
        ("/opt/libx.so", "/opt/libx.so"),
        ("v1.5", "/srv/plugins/libv1.5.so"),
    ] {
        let text = format!(
            "[server]\nplugin_dir = \"/srv/plugins\"\n[[models]]\nname = \"a\"\nplugin = \"{written}\"\n"
        );
        assert_eq!(file(&text).model().plugin, Path::new(path), "{written}");
    }
}

#[test]
fn a_plugin_given_by_name_is_the_first_file_in_the_search_path() {
    let configured = "[server]\nplugin_dir = \"/srv/plugins\"\n";
    let all = [
        "/srv/plugins/libonnx.so",
        "/opt/bin/libonnx.so",
        "/opt/lib/inference-server/libonnx.so",
    ];
    for (server, existing, expected) in [
        (configured, &all[..], all[0]),
        (configured, &all[1..], all[1]),
        (configured, &all[2..], all[2]),
        ("", &all[..], all[1]),
        ("", &all[2..], all[2]),
        (
            configured,
            &[][..],
            "/srv/plugins/libonnx.so, /opt/bin/libonnx.so, /opt/lib/inference-server/libonnx.so",
        ),
        (
            "[server]\nplugin_dir = \"/opt/bin\"\n",
            &[][..],
            "/opt/bin/libonnx.so, /opt/lib/inference-server/libonnx.so",
        ),
    ] {
        let text = format!("{server}[[models]]\nname = \"a\"\nplugin = \"onnx\"\n");
        let mut settings = file(&text).settings();
        settings.find_plugins(|file| existing.iter().any(|existing| file == Path::new(existing)));
        assert_eq!(
            settings.models[0].plugin_text(),
            expected,
            "{server} {existing:?}"
        );
    }
}

#[test]
fn a_plugin_given_by_path_is_not_searched_for() {
    let mut settings = file("[[models]]\nname = \"a\"\nplugin = \"./libonnx.so\"\n").settings();
    settings.find_plugins(|file| file.starts_with("/opt"));
    assert_eq!(settings.models[0].plugin_text(), "/etc/inference/./libonnx.so");
}

#[test]
fn a_task_can_have_its_own_limits_and_route() {
    let model = file(
        "[[models]]\nname = \"a\"\nplugin = \"a\"\nrequest_timeout = \"1s\"\n[models.batching]\npolicy = \"fixed\"\nmax_delay = \"2ms\"\n\
         [models.tasks.image]\nmax_batch_size = 4\nmax_queue_size = 16\nmax_queue_weight = 100\nroute = \"/image\"\n",
    )
    .model();
    let image = model.task("image", &NOTHING);
    assert_eq!(
        image.batching.policy,
        Policy::Fixed {
            max_delay: Duration::from_millis(2)
        }
    );
    assert_eq!(
        (
            image.batching.max_batch_size.get(),
            image.max_queue_size,
            image.max_queue_weight
        ),
        (4, 16, Some(100))
    );
    assert_eq!(image.route.as_deref(), Some("/image"));
    assert_eq!(model.task("text", &NOTHING).route, None);
    let configured: Vec<(&str, String)> = model
        .configured_tasks()
        .map(|(task, place)| (task, place.to_string()))
        .collect();
    assert_eq!(configured, [("image", "models.toml:8:15".to_owned())]);
    assert_eq!(model.request_timeout, Duration::from_secs(1));
}

#[test]
fn settings_of_a_plugin_are_json_and_keep_their_places() {
    let model = file(
        "[[models]]\nname = \"a\"\nplugin = \"a\"\n[models.settings]\nlabels = [\"zero\", \"öne\", 2]\nimage.size = 0x20\n\
         scale = 0.5\nbuilt = 2024-05-06\n[models.settings.deep]\nlist = [{ x = 1 }]\n",
    )
    .model();
    assert_eq!(
        model.settings,
        json!({
            "labels": ["zero", "öne", 2], "image": { "size": 32 }, "scale": 0.5, "built": "2024-05-06",
            "deep": { "list": [{ "x": 1 }] },
        })
    );
    for (path, place) in [
        ("labels", "5:10"),
        ("labels.2", "5:26"),
        ("image", "6:1"),
        ("image.size", "6:14"),
        ("image.color", "6:1"),
        ("deep.list.0.x", "10:15"),
        ("missing.thing", "4:1"),
        ("", "4:1"),
    ] {
        let found = model
            .locate(path)
            .map(|location| format!("{}:{}", location.line, location.column));
        assert_eq!(found.as_deref(), Some(place), "{path}");
    }
    assert_eq!(model.location().to_string(), "models.toml:1:1");
    assert_eq!(model.plugin_location().to_string(), "models.toml:3:10");
}

#[test]
fn a_model_in_worker_processes_has_the_default_settings_of_supervision() {
    let model =
        file("[[models]]\nname = \"a\"\nplugin = \"a\"\nisolation = \"process\"\npredict_timeout = \"9s\"\n")
            .model();
    let expected = ProcessSettings {
        on_crash: OnCrash::Retry,
        predict_timeout: Duration::from_secs(9),
        restart_delay: Duration::from_millis(100),
        max_restart_delay: Duration::from_secs(30),
    };
    assert_eq!(model.isolation, Isolation::Process(expected));
}

#[test]
fn only_some_changes_require_a_reload() {
    let model = |more: &str| file(&format!("[[models]]\nname = \"a\"\nplugin = \"a\"\n{more}")).model();
    let old = model("");
    let same = model("# a comment\n\n");
    assert_eq!(old, same);
    for change in [
        "workers = 2",
        "warm_up = false",
        "isolation = \"process\"",
        "settings.x = 1",
    ] {
        assert!(old.needs_reload(&model(change)), "{change}");
    }
    let process = model("isolation = \"process\"");
    for change in [
        "on_crash = \"fail\"",
        "predict_timeout = \"5s\"",
        "restart_delay = \"1s\"",
    ] {
        let new = model(&format!("isolation = \"process\"\n{change}"));
        assert!(process.needs_reload(&new), "{change}");
    }
    for change in [
        "batching.max_batch_size = 4",
        "tasks.x.route = \"/x\"",
        "description = \"x\"",
        "request_timeout = \"1s\"",
    ] {
        let new = model(change);
        assert!(!old.needs_reload(&new) && old != new, "{change}");
    }
}

#[test]
fn comparisons_of_settings_ignore_places() {
    let text = "[[models]]\nname = \"a\"\nplugin = \"a\"\n[models.batching]\nmax_batch_size = 4\n[models.tasks.x]\nroute = \"/x\"\n[models.settings]\ny = 1\n";
    assert_eq!(
        file(text).settings(),
        file(&format!("# moved\n\n{text}")).settings()
    );
}

#[test]
fn buckets_are_durations_in_ascending_order() {
    let metrics = file("[metrics]\ninference_buckets = [\"500us\", \"1ms\", \"2s\"]\nrequest_buckets = []\n")
        .settings()
        .metrics;
    assert_eq!(
        metrics.inference,
        [500, 1000, 2_000_000].map(Duration::from_micros)
    );
    assert!(metrics.requests.is_empty());
}
