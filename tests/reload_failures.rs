//! SIGHUP with an invalid configuration or plugin: the whole reload fails with the position and the reason, and the old configuration
//! keeps serving.

use std::fs;

use crate::harness::plugins::library;
use crate::harness::{Scenario, Server};
use crate::reload::{model, serving_the_old, tag, tagged};

/// Reloads and asserts that the reload fails: the old model keeps serving, the failure is counted, and the reason is shown without
/// paths. Returns the log about it.
#[track_caller]
fn failed_reload(server: &Server) -> String {
    let (generation, lines) = (server.generation("m"), server.log().lines().len());
    assert!(!server.reload(), "the reload went well:\n{}", server.log().text());
    // The failure is counted before it is logged.
    server.wait_for_log_after(lines, "reload failed");
    assert_eq!(server.generation("m"), generation);
    assert_eq!(tag(server), "old");
    server.get("/readyz").expect(200);
    let model = server.model("m");
    let reason = model["last_reload_error"]
        .as_str()
        .unwrap_or_else(|| panic!("no reason in {model}"));
    let folder = server.dir().to_string_lossy().into_owned();
    for path in [folder.as_str(), "/tmp", ".so", ".toml"] {
        assert!(!reason.contains(path), "clients see {path:?} in {reason:?}");
    }
    let log = server.log().lines()[lines..].join("\n");
    assert!(!log.contains("panicked at server/"), "{log}");
    log
}

#[track_caller]
fn assert_names(log: &str, parts: &[&str]) {
    for part in parts {
        assert!(log.contains(part), "{part:?} is not in the log:\n{log}");
    }
}

#[test]
fn invalid_toml_is_rejected_with_its_line() {
    let server = serving_the_old();
    server.write_config(&format!(
        "{}\n[models.batching\nmax_batch_size = 4\n",
        tagged("new")
    ));
    assert_names(&failed_reload(&server), &["models.toml:7", "invalid TOML"]);
}

#[test]
fn an_unknown_key_is_rejected_with_its_line_and_a_similar_key() {
    let server = serving_the_old();
    server.write_config(&format!(
        "{}[models.batching]\nmax_batch_sise = 4\n",
        tagged("new")
    ));
    assert_names(
        &failed_reload(&server),
        &[
            "models.toml:7",
            "max_batch_sise",
            "did you mean `max_batch_size`?",
        ],
    );
}

#[test]
fn a_missing_configuration_file_is_reported_by_name() {
    let server = serving_the_old();
    fs::remove_file(server.dir().join("models.toml")).expect("the file is there");
    assert_names(&failed_reload(&server), &["models.toml", "No such file"]);
}

#[test]
fn a_missing_plugin_file_is_reported_with_its_name_and_line() {
    let server = serving_the_old();
    server.write_config(&model("./libmissing.so", ""));
    assert_names(&failed_reload(&server), &["models.toml:3", "libmissing.so"]);
}

#[test]
fn a_truncated_plugin_file_is_rejected() {
    let server = serving_the_old();
    let whole = fs::read(library("misbehave")).expect("the plugin can be read");
    let path = server.dir().join("libtruncated.so");
    for length in [0, 3, 40, 4096, whole.len() / 2] {
        fs::write(&path, &whole[..length]).expect("there is room");
        server.write_config(&model("./libtruncated.so", "tag = \"new\""));
        assert_names(&failed_reload(&server), &["models.toml:3", "libtruncated.so"]);
    }
}

#[test]
fn a_plugin_file_for_a_different_architecture_is_rejected_with_its_name() {
    let server = serving_the_old();
    let mut library = fs::read(library("misbehave")).expect("the plugin can be read");
    // The field `e_machine` of the ELF header: AArch64 here, x86-64 there.
    let other: u16 = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
    library[18..20].copy_from_slice(&other.to_le_bytes());
    fs::write(server.dir().join("libforeign.so"), library).expect("there is room");
    server.write_config(&model("./libforeign.so", "tag = \"new\""));
    let log = failed_reload(&server).to_lowercase();
    let named = if cfg!(target_arch = "x86_64") {
        "aarch64"
    } else {
        "x86"
    };
    assert_names(&log, &["models.toml:3", "libforeign.so", named]);
}

#[test]
fn a_file_that_is_not_a_plugin_is_rejected() {
    let server = serving_the_old();
    fs::write(server.dir().join("libtext.so"), "this is no library").expect("there is room");
    server.write_config(&model("./libtext.so", ""));
    assert_names(&failed_reload(&server), &["models.toml:3", "libtext.so"]);
}

#[test]
fn a_load_that_panics_or_fails_is_rejected() {
    let server = serving_the_old();
    for fault in ["panic", "error"] {
        server.write_config(&model(
            "misbehave",
            &format!("tag = \"new\"\non_load = \"{fault}\""),
        ));
        let log = failed_reload(&server);
        assert_names(&log, &["models.toml:", "model `m`"]);
    }
}

#[test]
fn an_invalid_setting_is_reported_with_its_line() {
    let server = serving_the_old();
    server.write_config(&model("misbehave", "tag = \"new\"\non_load = \"error\""));
    assert_names(
        &failed_reload(&server),
        &["models.toml:6", "on_load", "misbehave fails to load as requested"],
    );
    server.write_config(&model("misbehave", "tag = \"new\"\ntagg = \"typo\""));
    assert_names(&failed_reload(&server), &["models.toml:6", "tagg"]);
}

#[test]
fn a_failed_warm_up_is_reported_with_the_reason() {
    let server = serving_the_old();
    server.write_config(&model("misbehave", "tag = \"new\"\nfail_warm_up = true"));
    assert_names(
        &failed_reload(&server),
        &[
            "models.toml:",
            "warm-up",
            "misbehave fails its warm-up as requested",
        ],
    );
    let reason = server.model("m")["last_reload_error"].to_string();
    assert!(reason.contains("warm-up"), "{reason}");
}

#[test]
fn a_load_that_exceeds_its_timeout_is_rejected() {
    let config = |settings: &str| {
        format!(
            "[server]\nreload_timeout = \"5s\"\n\n{}",
            model("misbehave", settings)
        )
    };
    let server = Scenario::new(&config("tag = \"old\"")).start();
    server.write_config(&config("tag = \"new\"\non_load = \"hang\""));
    assert_names(
        &failed_reload(&server),
        &["model `m`", "longer than `reload_timeout`"],
    );
}

#[test]
fn one_failed_model_fails_the_whole_reload() {
    let server = serving_the_old();
    let broken =
        "[[models]]\nname = \"broken\"\nplugin = \"misbehave\"\n[models.settings]\nfail_warm_up = true\n";
    server.write_config(&format!("{}{broken}", tagged("new")));
    assert_names(&failed_reload(&server), &["model `broken`"]);
    server.get("/v1/models/broken").expect(404);
    server.write_config(&tagged("new"));
    assert!(server.reload());
    assert_eq!(tag(&server), "new");
    let model = server.model("m");
    assert!(
        model.get("last_reload_error").is_none(),
        "a reload that went well leaves no reason: {model}"
    );
}

#[test]
fn all_errors_of_a_configuration_are_reported_together() {
    let server = serving_the_old();
    server.write_config(
        "[server]\nprot = 1\nmax_body_size = 5\n\n[[models]]\nnam = \"m\"\nplugin = \"misbehave\"\n",
    );
    assert_names(
        &failed_reload(&server),
        &[
            "models.toml:2",
            "`port`",
            "models.toml:3",
            "models.toml:5",
            "models.toml:6",
        ],
    );
}
