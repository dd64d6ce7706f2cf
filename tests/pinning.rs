//! Which plugin files are loaded: only those with the expected content, and only those that other users cannot change.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use inference_server::digest::Digest;
use serde_json::json;

use crate::harness::plugins::library;
use crate::harness::{Scenario, Server};

/// A configuration with the model `m` of the file `libmine.so`, with these lines.
fn config(server: &str, model: &str) -> String {
    format!("[server]\n{server}\n[[models]]\nname = \"m\"\nplugin = \"./libmine.so\"\n{model}\n")
}

/// A scenario with a copy of a plugin.
fn scenario(server: &str, model: &str) -> (Scenario, PathBuf) {
    let scenario = Scenario::new(&config(server, model));
    let file = scenario.dir().join("libmine.so");
    fs::copy(library("template"), &file).expect("the plugin can be copied");
    fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("the file is the test's");
    (scenario, file)
}

fn digest(file: &Path) -> String {
    Digest::of(&fs::read(file).expect("the file can be read")).to_string()
}

fn pin(digest: &str) -> String {
    format!("sha256 = \"{digest}\"")
}

fn serves(server: &Server) {
    server.predict("m", "echo", &json!(["to be"])).expect(200);
}

/// Starts a server whose model fails to load, and returns its log.
fn failed(scenario: Scenario) -> (Server, String) {
    let server = scenario.start_unready();
    server.wait_for_log("server is not ready: fix the errors above");
    let log = server.log().text();
    (server, log)
}

#[test]
fn a_plugin_with_the_expected_content_is_loaded_in_a_thread_and_in_a_process() {
    for isolation in ["", "isolation = \"process\""] {
        let (scenario, file) = scenario("", "");
        let text = config("", &format!("{}\n{isolation}", pin(&digest(&file))));
        fs::write(scenario.dir().join("models.toml"), text).expect("the configuration can be written");
        serves(&scenario.start());
    }
}

#[test]
fn a_plugin_with_other_content_is_rejected_with_both_digests_before_anything_else_is_checked() {
    let expected = "0".repeat(64);
    for isolation in ["", "isolation = \"process\""] {
        let (scenario, file) = scenario("", &format!("{}\n{isolation}", pin(&expected)));
        // Reading its header would fail.
        fs::write(&file, "not a plugin").expect("the file can be written");
        let found = digest(&file);
        let message = format!("the SHA-256 of the file is {found}, but `sha256` of the model is {expected}");
        let output = scenario.run(&["check", "--config", "models.toml"]);
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{printed}");
        assert!(printed.contains(&message), "{printed}");
        let (server, log) = failed(scenario);
        assert!(log.contains(&message), "{log}");
        let model = server.model("m");
        assert_eq!(
            model["reason"], "the plugin file cannot be used; see the server's log",
            "{model}"
        );
    }
}

#[test]
fn check_accepts_the_digest_that_inspect_prints() {
    let server = "scratch_dir = \"scratch\"";
    let (scenario, file) = scenario(server, "");
    let scratch = scenario.dir().join("scratch");
    fs::create_dir(&scratch).expect("the directory can be created");
    let output = scenario.run(&["inspect", &file.to_string_lossy()]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = printed.lines().find_map(|line| line.strip_prefix("sha256 "));
    let printed_digest = line.expect("the digest is printed").trim().to_owned();
    assert_eq!(printed_digest, digest(&file));
    let text = config(server, &pin(&printed_digest));
    fs::write(scenario.dir().join("models.toml"), text).expect("the configuration can be written");
    let output = scenario.run(&["check", "--config", "models.toml"]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let left = fs::read_dir(scratch).expect("the directory can be read").count();
    assert_eq!(left, 0, "the copy that was compared is removed");
}

#[test]
fn a_reload_with_a_replaced_plugin_fails_until_its_digest_is_configured() {
    let (scenario, file) = scenario("", "");
    let old = digest(&file);
    let text = config("", &pin(&old));
    fs::write(scenario.dir().join("models.toml"), text).expect("the configuration can be written");
    let server = scenario.start();
    let generation = server.generation("m");
    // Bytes after the end of a library have no effect.
    let mut content = fs::read(&file).expect("the file can be read");
    content.push(0);
    let new_file = file.with_extension("new");
    fs::write(&new_file, &content).expect("the file can be written");
    fs::rename(&new_file, &file).expect("the file can be replaced");
    let new = digest(&file);

    let lines = server.log().lines().len();
    assert!(!server.reload());
    server.wait_for_log_after(lines, "reload failed; keeping the current configuration");
    let log = server.log().lines()[lines..].join("\n");
    assert!(
        log.contains(&format!(
            "the SHA-256 of the file is {new}, but `sha256` of the model is {old}"
        )),
        "{log}"
    );
    assert_eq!(server.generation("m"), generation);
    serves(&server);

    server.write_config(&config("", &pin(&new)));
    assert!(server.reload(), "{}", server.log().text());
    assert_ne!(server.generation("m"), generation);
    serves(&server);
    // Another digest alone is a reason to load the plugin again.
    server.write_config(&config("", &pin(&old)));
    assert!(!server.reload());
    serves(&server);
}

#[test]
fn a_plugin_that_everyone_can_write_is_rejected_unless_it_is_pinned_or_allowed() {
    let message = "every user can change the file (mode 777, ";
    let (writable, file) = scenario("", "");
    fs::set_permissions(&file, Permissions::from_mode(0o777)).expect("the file is the test's");
    let output = writable.run(&["check", "--config", "models.toml"]);
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{printed}");
    assert!(printed.contains(message), "{printed}");
    let inspected = writable.run(&["inspect", &file.to_string_lossy()]);
    let printed = String::from_utf8_lossy(&inspected.stdout).into_owned();
    assert!(printed.contains(&format!("warning      {message}")), "{printed}");
    let (_server, log) = failed(writable);
    assert!(
        log.contains(message) && log.contains("`allow_writable_plugins = true`"),
        "{log}"
    );

    let (allowed, file) = scenario("allow_writable_plugins = true", "");
    fs::set_permissions(&file, Permissions::from_mode(0o777)).expect("the file is the test's");
    serves(&allowed.start());

    let (pinned, file) = scenario("", "");
    fs::set_permissions(&file, Permissions::from_mode(0o777)).expect("the file is the test's");
    let text = config("", &pin(&digest(&file)));
    fs::write(pinned.dir().join("models.toml"), text).expect("the configuration can be written");
    serves(&pinned.start());
}
