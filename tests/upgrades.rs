//! Upgrades: the configuration and the plugins of the previous version work with this server.

#![cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]

use serde_json::json;

use crate::harness::Scenario;
use crate::harness::plugins::repository;

/// The fixture of the previous version, with the plugin of the ABI that it had.
fn previous_version() -> Scenario {
    let fixtures = repository().join("tests/fixtures");
    let config = fixtures.join("config-0.1/models.toml");
    let text = std::fs::read_to_string(config).expect("the fixture can be read");
    Scenario::new(&text.replace("ABI", &fixtures.join("abi-1.0").display().to_string()))
}

#[test]
fn the_configuration_of_the_previous_version_has_no_errors_or_warnings() {
    let output = previous_version().run(&["check", "--load", "--config", "models.toml"]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert_eq!(out, "models.toml: ok, 1 models\n");
    assert!(!err.contains("warning:"), "{err}");
}

#[test]
fn the_plugin_of_the_previous_version_is_served_with_its_configuration() {
    let server = previous_version().start();
    let reply = server
        .post("/echo", &json!({"inputs": ["to be", "or not"]}))
        .expect(200);
    assert_eq!(reply.outputs(), [json!("to be"), json!("or not")]);
    let counted = server.predict("old", "stats", &json!([{"text": "to be or not"}]));
    assert_eq!(counted.outputs()[0]["words"], 1);
}
