//! The plugin ABI only grows: a plugin built for any version since 1.0 loads in every later server.

use serde_json::json;

use crate::harness::Scenario;
use crate::harness::plugins::repository;

/// `plugins/template` as built for each version; see the README in its directory.
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
#[test]
fn plugins_built_for_earlier_versions_can_be_served() {
    for version in ["1.0", "1.1"] {
        check(version);
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
fn check(version: &str) {
    let plugin = repository().join(format!("tests/fixtures/abi-{version}/libtemplate.so"));
    let server = Scenario::new(&format!(
        "[[models]]\nname = \"old\"\nplugin = \"{}\"\n[models.settings]\nshortest_word = 3\n",
        plugin.display()
    ))
    .start();
    let predict = |task: &str, inputs| {
        let path = format!("/v1/models/old/tasks/{task}/predict");
        server
            .request("POST", &path)
            .json(&json!({ "inputs": inputs }))
            .send()
            .expect(200)
            .json()["outputs"]
            .clone()
    };
    assert_eq!(
        predict("echo", json!(["to be", "or not"])),
        json!(["to be", "or not"]),
        "{version}"
    );
    assert_eq!(
        predict("stats", json!([{"text": "to be or not"}, {"text": ""}])),
        json!([
            {"words": 1, "characters": 12, "longest": "not"},
            {"error": {"code": "invalid_input", "message": "`text` has no words to count, expected at least one"}}
        ]),
        "{version}"
    );
}
