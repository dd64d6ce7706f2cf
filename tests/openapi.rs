//! The OpenAPI document: what it says, and that it is one.

use serde_json::Value as Json;

use crate::harness::{Scenario, Server, clients};

/// The default configuration: handwritten digits, and the template.
fn start() -> Server {
    Scenario::of_the_repository().start()
}

#[test]
fn the_document_of_the_default_configuration_is_as_it_was() {
    let mut document = start().get("/openapi.json").expect(200).json();
    document["info"]["version"] = "[version]".into();
    let text = serde_json::to_string_pretty(&document).expect("what was read can be written");
    insta::assert_snapshot!("openapi_of_the_default_configuration", text);
}

#[test]
fn the_document_follows_what_is_loaded() {
    let server = Scenario::new("[[models]]\nname = \"words\"\nplugin = \"template\"\n").start();
    let paths = |server: &Server| -> Vec<String> {
        let document = server.get("/openapi.json").expect(200).json();
        let paths = document["paths"].as_object().expect("a document has paths");
        paths
            .keys()
            .filter(|path| path.ends_with("/predict"))
            .cloned()
            .collect()
    };
    assert_eq!(
        paths(&server),
        [
            "/v1/models/words/tasks/echo/predict",
            "/v1/models/words/tasks/stats/predict"
        ]
    );
    server.write_config("[[models]]\nname = \"other\"\nplugin = \"template\"\ndefault_task = \"echo\"\n");
    assert!(server.reload());
    assert_eq!(
        paths(&server),
        [
            "/v1/models/other/predict",
            "/v1/models/other/tasks/echo/predict",
            "/v1/models/other/tasks/stats/predict"
        ]
    );
}

#[test]
fn every_example_of_the_document_is_answered() {
    let server = start();
    let document = server.get("/openapi.json").expect(200).json();
    let mut sent = 0;
    for (path, item) in document["paths"].as_object().expect("a document has paths") {
        let examples = &item["post"]["requestBody"]["content"]["application/json"]["examples"];
        for example in examples
            .as_object()
            .into_iter()
            .flat_map(|examples| examples.values())
        {
            let reply = server.post(path, &example["value"]);
            assert_eq!(reply.status, 200, "{path}: {}", reply.text());
            sent += 1;
        }
    }
    assert!(sent >= 4, "only {sent} examples in {}", brief(&document));
}

fn brief(document: &Json) -> String {
    document.to_string().chars().take(500).collect()
}

#[test]
fn a_validator_of_others_finds_the_document_valid() {
    let Some(mut python) = clients::python() else {
        return;
    };
    let server = start();
    let file = server.dir().join("openapi.json");
    std::fs::write(&file, server.get("/openapi.json").expect(200).body).expect("there is room");
    let output = python
        .args(["-m", "openapi_spec_validator", "--errors", "all"])
        .arg(&file)
        .output()
        .expect("Python can be started");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
