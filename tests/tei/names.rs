//! The name of the model in front of the path, and the paths that consist of a name alone.

use serde_json::{Value as Json, json};

use super::{error, start};
use crate::harness::plugins::{library, repository};
use crate::harness::vectors::list;
use crate::harness::{Scenario, Server};

#[test]
fn the_name_of_the_model_is_in_front_of_the_path() {
    library("misbehave");
    library("sentence_embeddings");
    let cross = repository().join("plugins/sentence-embeddings/tests/models/cross");
    let server = Scenario::new(&format!(
        "[[models]]\nname = \"org/a\"\nplugin = \"misbehave\"\n[[models]]\nname = \"b\"\nplugin = \"misbehave\"\n\
         [models.tasks.text]\nroute = \"/x/embed\"\n[[models]]\nname = \"x\"\nplugin = \"misbehave\"\n\
         [[models]]\nname = \"cross\"\nplugin = \"sentence_embeddings\"\n[models.settings]\nfolder = \"{}\"\n",
        cross.display()
    ))
    .start();
    let request = json!({"inputs": "to be", "normalize": false});
    for path in [
        "/org/a/embed",
        "/org%2Fa/embed",
        "/b/embed",
        "/b.embed/embed",
        "/org/a",
        "/org%2Fa",
        "/b",
    ] {
        let reply = server.post(path, &request).expect(200).json();
        assert_eq!(reply, json!([[5.0, 2.0, 0.5]]), "{path}");
    }
    let tokens = server.post(
        "/org/a/tokenize",
        &json!({"inputs": "to", "add_special_tokens": false}),
    );
    assert_eq!(tokens.expect(200).json()[0][0]["text"], "to");
    assert_eq!(server.get("/org/a/info").expect(200).json()["model_id"], "org/a");
    server.get("/b/health").expect(200);
    server.get("/nothing/health").expect(404);
    for path in ["/cross/rerank", "/cross"] {
        let ranked = server
            .post(path, &json!({"query": "q", "texts": ["a", "b"]}))
            .expect(200)
            .json();
        assert_eq!(list(&ranked).len(), 2, "{path}");
    }
    // At the root, several models could answer.
    let (status, kind, message) = error(&server, "/embed", &request);
    assert_eq!((status, kind.as_str()), (424, "Backend"));
    assert_eq!(
        message,
        "several tasks can answer: put the name of one in front of the path, as in `/MODEL/embed`: b.embed, org/a.embed, \
         x.embed"
    );
    // Only one model ranks.
    server
        .post("/rerank", &json!({"query": "q", "texts": ["a"]}))
        .expect(200);
    // The route that a task is configured with takes precedence over one below a model.
    let reply = server
        .post("/x/embed", &json!({"input": {"value": 7}}))
        .expect(200)
        .json();
    assert_eq!(reply["model"], "b");
    // Neither takes precedence over the routes of the server.
    server.get("/b/nothing").expect(404);
    server.request("GET", "/b/embed").send().expect(405);
    server.post("/nothing/embed", &request).expect(404);
    server.post("/nothing", &request).expect(404);
}

#[test]
fn the_root_runs_a_model_only_if_a_request_there_can_mean_one() {
    let is_documented = |server: &Server| {
        let document = server.get("/openapi.json").expect(200).json();
        document["paths"]["/"]["post"].is_object()
    };
    let methods = |server: &Server| {
        let reply = server.request("OPTIONS", "/").send().expect(204);
        reply.header("allow").map(str::to_owned)
    };
    let request = json!({"inputs": "to be"});
    let one = start();
    one.post("/", &request).expect(200);
    assert!(is_documented(&one));
    assert_eq!(methods(&one).as_deref(), Some("GET, HEAD, POST, OPTIONS"));
    let plain = "[[models]]\nname = \"words\"\nplugin = \"template\"\n".to_owned();
    library("misbehave");
    let two = ["a", "b"].map(|name| format!("[[models]]\nname = \"{name}\"\nplugin = \"misbehave\"\n"));
    for (config, reason) in [
        (plain, "no model produces embeddings"),
        (two.concat(), "several tasks can answer"),
    ] {
        let server = Scenario::new(&config).start();
        let reply = server.post("/", &request).expect(405);
        assert_eq!(reply.header("allow"), Some("GET, HEAD"));
        let error = reply.json()["error"].clone();
        assert_eq!(error["code"], "method_not_allowed");
        let message = error["message"].as_str().expect("a message");
        let start = "method POST is not allowed; expected GET, HEAD: ";
        assert!(
            message.starts_with(start) && message.contains(reason),
            "{message}"
        );
        assert!(!is_documented(&server));
        assert_eq!(methods(&server).as_deref(), Some("GET, HEAD, OPTIONS"));
    }
}

#[test]
fn errors_at_the_root_and_at_a_name_have_the_format_that_is_documented() {
    let server = start();
    let is_tei = |error: &Json| error["error_type"] == "Validation" && error["error"].is_string();
    let is_native = |error: &Json| error["error"]["code"].is_string();
    let send = |method: &str, path: &str, status: u16| {
        let call = server.request(method, path).json(&json!({"inputs": "to be"}));
        let call = match status {
            406 => call.header("accept-encoding", "br, identity;q=0"),
            _ => call,
        };
        call.send().expect(status).json()
    };
    for (method, path, status, of_tei) in [
        ("GET", "/", 406, false),
        ("PUT", "/", 405, false),
        ("POST", "/", 406, true),
        ("GET", "/m", 405, true),
        ("PUT", "/m", 405, true),
        ("POST", "/m", 406, true),
        ("POST", "/m.embed", 406, true),
        ("POST", "/nothing", 406, false),
        ("POST", "/nothing", 404, false),
    ] {
        let error = send(method, path, status);
        assert_eq!(
            (is_tei(&error), is_native(&error)),
            (of_tei, !of_tei),
            "{method} {path}: {error}"
        );
    }
}

#[test]
fn the_format_of_errors_does_not_tell_whether_a_model_exists() {
    let scenario = Scenario::misbehave("", "").env("INFERENCE_API_KEYS", "a-key-of-a-client");
    let server = scenario.start();
    let error = |path: &str| server.post(path, &json!({})).expect(401).json();
    let without_id = |mut error: Json| {
        error["error"]["request_id"].take();
        error
    };
    assert_eq!(without_id(error("/m")), without_id(error("/nothing")));
}
