//! Handling of the content types that common tools send.

use serde_json::{Value as Json, json};

use crate::harness::Scenario;

/// Returns each route that accepts JSON, with a request.
fn json_routes() -> Vec<(&'static str, Json)> {
    let text = json!({"inputs": [{"name": "TEXT", "shape": [1], "datatype": "BYTES", "data": ["a"]}]});
    vec![
        ("/v1/models/words/tasks/echo/predict", json!({"inputs": ["a"]})),
        ("/v1/models/words/predict", json!({"input": "a"})),
        ("/echo", json!({"input": "a"})),
        ("/v1/models/words:predict", json!({"instances": ["a"]})),
        ("/v1/models/words/versions/1:predict", json!({"instances": ["a"]})),
        ("/v2/models/words/infer", text.clone()),
        ("/v2/models/words/versions/1/infer", text),
        ("/v1/embeddings", json!({"model": "m.embed", "input": "a"})),
        ("/v2/repository/index", json!({"ready": true})),
        ("/v2/repository/models/words/load", json!({"parameters": {}})),
        ("/v2/repository/models/words/unload", json!({"parameters": {}})),
    ]
}

#[test]
fn json_routes_accept_the_content_types_that_curl_and_other_tools_send() {
    crate::harness::plugins::library("misbehave");
    let server = Scenario::new(
        "[server]\nadmin_key = \"an-administrator\"\n\
         [[models]]\nname = \"words\"\nplugin = \"template\"\ndefault_task = \"echo\"\n\
         [models.tasks.echo]\nroute = \"/echo\"\n\
         [[models]]\nname = \"m\"\nplugin = \"misbehave\"\n",
    )
    .start();
    let content_types = [
        None,
        Some("application/json"),
        Some("application/json; charset=utf-8"),
        Some("text/json"),
        Some("application/x-www-form-urlencoded"),
    ];
    for (path, body) in json_routes() {
        for content_type in content_types {
            let mut connection = server.connect();
            let header = content_type.map_or(String::new(), |kind| format!("content-type: {kind}\r\n"));
            let body = body.to_string();
            connection.send(format!(
                "POST {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer an-administrator\r\n{header}\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            ));
            let reply = connection.reply().expect("an answer");
            assert_eq!(reply.status, 200, "{path}, {content_type:?}: {}", reply.text());
        }
    }
}

#[test]
fn text_sent_as_a_form_is_rejected_with_advice() {
    let server =
        Scenario::new("[[models]]\nname = \"words\"\nplugin = \"template\"\ndefault_task = \"echo\"\n")
            .start();
    let post = |content_type| {
        let call = server.request("POST", "/v1/models/words/predict");
        call.body(content_type, "plain text").send()
    };
    let (code, message) = post("application/x-www-form-urlencoded").expect(415).error();
    assert_eq!(code, "unsupported_media_type");
    assert!(
        message.contains("curl -d") && message.contains("text/plain"),
        "{message}"
    );
    assert_eq!(post("text/plain").expect(200).json()["output"], "plain text");
}
