//! Invalid requests: each class has a status, a code, and a message that states what was expected.

use serde_json::json;

use crate::harness::Scenario;
use crate::http_surface::{ECHO, STATS, post, start, start_with};

#[test]
fn malformed_bodies_are_rejected_with_a_reason() {
    let server = start();
    let cases = [
        ("", "empty"),
        ("{", "line 1"),
        ("[]", "inputs"),
        ("null", "inputs"),
        ("{}", "inputs"),
        ("{\"inputs\":[]}", "no items"),
        ("{\"inputs\":\"text\"}", "array"),
        ("{\"inputs\":[\"a\"],\"input\":\"b\"}", "both"),
        ("{\"inputs\":[\"a\"],\"inputs\":[\"b\"]}", "duplicate"),
        ("{\"inpts\":[\"a\"]}", "did you mean `inputs`?"),
        ("{\"inputs\":[\"a\"]} trailing", "after the document"),
        ("{\"inputs\":[\"a\",]}", "trailing comma"),
        ("{\"inputs\":['a']}", "line 1"),
        ("{\"inputs\":[\"a\"],\"parameters\":5}", "parameters"),
        (
            "{\"inputs\":[\"a\"],\"parameters\":{\"b\":1}}",
            "takes no parameters",
        ),
    ];
    for (body, part) in cases {
        let reply = post(&server, ECHO, "application/json", body);
        assert_eq!(reply.status, 400, "{body:?}: {}", reply.text());
        let (code, message) = reply.error();
        assert_eq!(code, "malformed_request", "{body:?}");
        assert!(message.contains(part), "{body:?}: {part:?} is not in {message:?}");
    }
}

#[test]
fn an_input_that_does_not_match_the_task_is_unprocessable() {
    let server = start();
    for input in [
        json!(5),
        json!({"text": 5}),
        json!({"txet": "a"}),
        json!({"text": ""}),
        json!(null),
    ] {
        let (code, message) = server
            .post(STATS, &json!({"inputs": [input]}))
            .expect(422)
            .error();
        assert_eq!(code, "invalid_input", "{input}: {message}");
    }
    let (code, message) = server.post(ECHO, &json!({"inputs": [5]})).expect(422).error();
    assert_eq!(code, "invalid_input");
    assert!(
        message.contains("text") || message.contains("string"),
        "{message}"
    );
}

#[test]
fn too_many_items_are_rejected_with_the_limit() {
    let server = start_with("max_items_per_request = 3");
    server
        .predict("words", "echo", &json!(["a", "b", "c"]))
        .expect(200);
    let (code, message) = server
        .predict("words", "echo", &json!(["a", "b", "c", "d"]))
        .expect(400)
        .error();
    assert_eq!(code, "malformed_request");
    assert!(message.contains('3'), "{message}");
}

#[test]
fn errors_about_unknown_names_list_known_and_similar_names() {
    let server = start();
    let cases = [
        ("/v1/models/wrods/tasks/echo/predict", "did you mean `words`?"),
        ("/v1/models/something/tasks/echo/predict", "words"),
        ("/v1/models/words/tasks/ecko/predict", "did you mean `echo`?"),
        ("/v1/models/words/tasks/else/predict", "echo, stats"),
        ("/v1/models/wrods/predict", "did you mean `words`?"),
        ("/nowhere", "/v1/models"),
    ];
    for (path, part) in cases {
        let (code, message) = server.post(path, &json!({"inputs": ["a"]})).expect(404).error();
        assert_eq!(code, "not_found", "{path}");
        assert!(message.contains(part), "{path}: {part:?} is not in {message:?}");
    }
    let (_, message) = server.get("/v1/models/wrods").expect(404).error();
    assert!(message.contains("did you mean `words`?"), "{message}");
}

#[test]
fn a_model_without_a_default_task_explains_how_to_name_one() {
    let server = Scenario::new("[[models]]\nname = \"words\"\nplugin = \"template\"\n").start();
    let (code, message) = server
        .post("/v1/models/words/predict", &json!({"inputs": ["a"]}))
        .expect(404)
        .error();
    assert_eq!(code, "not_found");
    assert!(
        message.contains("/v1/models/words/tasks/{task}/predict") && message.contains("echo"),
        "{message}"
    );
}

#[test]
fn an_unsupported_method_is_rejected_with_the_supported_ones() {
    let server = start();
    for (method, path, allow) in [
        ("GET", ECHO, "POST"),
        ("DELETE", ECHO, "POST"),
        ("GET", "/say", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("PUT", "/v1/models", "GET, HEAD"),
        ("DELETE", "/v1/models/words", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
    ] {
        let reply = server.request(method, path).send().expect(405);
        assert_eq!(reply.error().0, "method_not_allowed", "{method} {path}");
        assert_eq!(reply.header("allow"), Some(allow), "{method} {path}");
    }
    server.request("BREW", "/health").send().expect(405).error();
}

#[test]
fn an_unsupported_media_type_is_rejected_with_the_supported_ones() {
    let server = start();
    for (path, content_type) in [
        (ECHO, "image/png"),
        (ECHO, "application/xml"),
        (STATS, "text/plain"),
        (STATS, "application/octet-stream"),
    ] {
        let (code, message) = post(&server, path, content_type, "x").expect(415).error();
        assert_eq!(code, "unsupported_media_type", "{content_type}");
        assert!(message.contains("application/json"), "{content_type}: {message}");
    }
}

#[test]
fn invalid_request_options_in_headers_are_rejected() {
    let server = start();
    for (name, value) in [
        ("x-request-timeout", "soon"),
        ("x-request-timeout", "0"),
        ("x-request-timeout", "-5s"),
        ("x-request-timeout", "1e300"),
        ("x-priority", "urgent"),
    ] {
        let call = server.request("POST", ECHO).header(name, value);
        let (code, message) = call.json(&json!({"inputs": ["a"]})).send().expect(400).error();
        assert_eq!(code, "malformed_request");
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn a_connection_remains_usable_after_an_error() {
    let server = start();
    let mut connection = server.connect();
    connection.send_json(ECHO, "{not json");
    assert_eq!(connection.reply().expect("an answer").status, 400);
    connection.send_json(ECHO, "{\"inputs\":[\"fine\"]}");
    assert_eq!(
        connection.reply().expect("an answer").json()["outputs"][0],
        "fine"
    );
}
