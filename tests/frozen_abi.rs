//! The plugin ABI is frozen at 1.0: plugins built for it load in every later server.

use serde_json::json;

use crate::harness::Scenario;
use crate::harness::plugins::repository;

/// `plugins/template` as built when the ABI was frozen; see the README in its directory.
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
#[test]
fn a_plugin_built_for_version_1_0_can_be_served() {
    let plugin = repository().join("tests/fixtures/abi-1.0/libtemplate.so");
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
        json!(["to be", "or not"])
    );
    assert_eq!(
        predict("stats", json!([{"text": "to be or not"}, {"text": ""}])),
        json!([
            {"words": 1, "characters": 12, "longest": "not"},
            {"error": {"code": "invalid_input", "message": "`text` has no words to count, expected at least one"}}
        ])
    );
}
