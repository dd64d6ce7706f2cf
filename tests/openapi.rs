//! Tests of the OpenAPI document.

use serde_json::Value as Json;

use crate::harness::{Scenario, Server, clients, rounds, tools};

/// Starts a server with the default configuration: handwritten digits, and the template.
fn start() -> Server {
    Scenario::of_the_repository().start()
}

#[test]
fn the_document_of_the_default_configuration_is_as_it_was() {
    let mut document = start().get("/openapi.json").expect(200).json();
    document["info"]["version"] = "[version]".into();
    let schemas = document["components"]["schemas"].take();
    let operations: Vec<String> = operations(&document)
        .map(|(path, method, operation)| line(path, method, operation))
        .collect();
    insta::assert_snapshot!("operations_of_the_default_configuration", operations.join("\n"));
    let text = serde_json::to_string_pretty(&schemas).expect("what was read can be written");
    insta::assert_snapshot!("schemas_of_the_default_configuration", text);
    // One operation in full stands for all: they are made in one place.
    let operation = &document["paths"]["/v1/models/text/tasks/echo/predict"]["post"];
    let text = serde_json::to_string_pretty(operation).expect("what was read can be written");
    insta::assert_snapshot!("an_operation_of_the_default_configuration", text);
}

/// Iterates over the path, method and document of each operation.
fn operations(document: &Json) -> impl Iterator<Item = (&str, &str, &Json)> {
    let paths = document["paths"].as_object().expect("a document has paths");
    paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("a path has methods").iter();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// Summarizes an operation in one line.
fn line(path: &str, method: &str, operation: &Json) -> String {
    let types = |content: &Json| -> String {
        let content = content.as_object().into_iter().flatten();
        let one = |(media_type, content): (&String, &Json)| match content["schema"]["$ref"].as_str() {
            Some(target) => target.rsplit('/').next().unwrap_or_default().to_owned(),
            None => media_type.clone(),
        };
        content.map(one).collect::<Vec<_>>().join(" | ")
    };
    let body = types(&operation["requestBody"]["content"]);
    let responses = operation["responses"]
        .as_object()
        .expect("an operation has responses");
    let (good, bad): (Vec<_>, Vec<_>) = responses.iter().partition(|(status, _)| *status == "200");
    let good: Vec<String> = good
        .into_iter()
        .map(|(_, response)| types(&response["content"]))
        .collect();
    let bad: Vec<&str> = bad.into_iter().map(|(status, _)| status.as_str()).collect();
    format!(
        "{} {path}\n    {} [{}]: ({body}) -> {}; {}",
        method.to_uppercase(),
        operation["operationId"].as_str().unwrap_or_default(),
        operation["tags"][0].as_str().unwrap_or_default(),
        good.join(" | "),
        bad.join(" ")
    )
}

#[test]
fn the_document_reflects_the_loaded_models() {
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
fn all_examples_of_the_document_succeed() {
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
fn an_independent_validator_accepts_the_document() {
    let Some(mut python) = clients::python() else {
        return;
    };
    let server = start();
    let file = server.dir().join("openapi.json");
    std::fs::write(&file, server.get("/openapi.json").expect(200).body).expect("there is room");
    tools::run(
        python
            .args(["-m", "openapi_spec_validator", "--errors", "all"])
            .arg(&file),
    );
}

const ADMIN_KEY: &str = "the-key-of-the-administrator";

/// Starts a server with the default configuration and keys, which generated clients must be able to send.
fn start_with_keys() -> Server {
    Scenario::of_the_repository()
        .env("INFERENCE_API_KEYS", "a-key-of-a-client")
        .env("INFERENCE_ADMIN_KEY", ADMIN_KEY)
        .start()
}

#[test]
fn a_client_generated_by_openapi_python_client_can_call_all_operations() {
    let server = start_with_keys();
    let url = format!("http://{}", server.address());
    clients::run("openapi_client.py", &[&url, ADMIN_KEY]);
}

#[test]
fn a_client_generated_by_openapi_generator_can_call_all_operations() {
    let install = "apt-get install default-jre-headless";
    if rounds(0, 1) == 0 || tools::find("INFERENCE_TEST_JAVA", &["java"], install).is_none() {
        return;
    }
    let server = start_with_keys();
    let url = format!("http://{}", server.address());
    clients::run("openapi_generator.py", &[&url, ADMIN_KEY]);
}
