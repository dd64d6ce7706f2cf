//! Named keys from a file: models, limits, expiry, reload, metrics and log.

mod file;
mod limits;

use std::fs;
use std::time::{Duration, SystemTime};

use hyper::body::Bytes;
use inference_server::digest::Digest;
use serde_json::{Value as Json, json};

use crate::harness::client::{Call, Reply};
use crate::harness::grpc::{self, Grpc};
use crate::harness::{Scenario, Server, plugins};

const ADMIN_KEY: &str = "the-key-of-the-admin";

/// A gRPC message of `ModelInfer` for the task `m.embed` with the text "to be".
const EMBED: &[u8] =
    b"\0\0\0\0\x27\x0a\x07m.embed\x2a\x11\x0a\x04TEXT\x12\x05BYTES\x1a\x02\x01\x01\x3a\x09\x05\0\0\0to be";

/// A gRPC message whose first field is the name "other".
const OTHER: &[u8] = b"\0\0\0\0\x07\x0a\x05other";

/// An empty gRPC message.
const EMPTY: &[u8] = b"\0\0\0\0\0";

/// The models `m`, which has embeddings, `words` and `other`.
fn scenario(keys: &str) -> Scenario {
    plugins::library("misbehave");
    let scenario = Scenario::new(&format!(
        "[server]\ngrpc_port = 0\napi_keys_file = \"keys.toml\"\nadmin_key = \"{ADMIN_KEY}\"\n\
         [logging]\nlevel = \"trace\"\n\
         [[models]]\nname = \"m\"\nplugin = \"misbehave\"\n\
         [[models]]\nname = \"words\"\nplugin = \"template\"\n[models.tasks.echo]\nroute = \"/words\"\n\
         [[models]]\nname = \"other\"\nplugin = \"template\"\n[models.tasks.echo]\nroute = \"/others\"\n"
    ));
    fs::write(scenario.dir().join("keys.toml"), with_hashes(keys)).expect("the file can be written");
    scenario
}

fn start(keys: &str) -> Server {
    scenario(keys).start()
}

/// The key of this name.
pub(crate) fn secret(name: &str) -> String {
    format!("infkey_of_{name}")
}

/// Adds the hash to each name.
pub(crate) fn with_hashes(keys: &str) -> String {
    let mut text = String::new();
    for line in keys.lines() {
        text.push_str(&format!("{line}\n"));
        if let Some(name) = line.strip_prefix("name = ") {
            let hash = Digest::of(secret(name.trim_matches('"')).as_bytes());
            text.push_str(&format!("hash = \"sha256:{hash}\"\n"));
        }
    }
    text
}

fn send(call: Call<'_>, key: &str) -> Reply {
    call.header("authorization", &format!("Bearer {}", secret(key)))
        .send()
}

pub(crate) fn post(server: &Server, key: &str, path: &str, body: &Json) -> Reply {
    send(server.request("POST", path).json(body), key)
}

fn get(server: &Server, key: &str, path: &str) -> Reply {
    send(server.request("GET", path), key)
}

fn infer() -> Json {
    json!({"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["to be"]}]})
}

/// Makes a gRPC call with one message, and returns its status and the bytes of its reply.
async fn call(client: &mut Grpc, method: &str, message: &'static [u8], key: &str) -> (String, Vec<u8>) {
    let (answer, mut body) = client.begin_with_key(method, message, &secret(key));
    // Fails if the call has already been rejected.
    let _ = body.send_data(Bytes::new(), true);
    let answer = answer.await.expect("an answer");
    if answer.headers().contains_key("grpc-status") {
        let (status, message) = grpc::status(&answer);
        return (status.to_owned(), message.into_bytes());
    }
    let mut reply = answer.into_body();
    let mut bytes = Vec::new();
    while let Some(part) = reply.data().await {
        let part = part.expect("the reply is complete");
        let _ = reply.flow_control().release_capacity(part.len());
        bytes.extend_from_slice(&part);
    }
    ("0".to_owned(), bytes)
}

const LIMITED: &str = "[[key]]\nname = \"limited\"\nmodels = [\"m\", \"words.echo\"]\n";

#[test]
fn a_key_runs_only_the_tasks_that_it_may_use_on_every_route() {
    let server = start(LIMITED);
    let native = json!({"inputs": ["to be"]});
    let instances = json!({"instances": ["to be"]});
    for (path, body) in [
        ("/v1/models/m/tasks/embed/predict", &native),
        ("/v1/models/words/tasks/echo/predict", &native),
        ("/v1/models/w%6frds/tasks/echo/predict", &native),
        ("/words", &native),
        ("/v1/models/m.embed:predict", &instances),
        ("/v1/models/words.echo:predict", &instances),
        (
            "/v1/models/words:predict",
            &json!({"signature_name": "echo", "instances": ["to be"]}),
        ),
        ("/v2/models/words.echo/infer", &infer()),
        ("/v1/embeddings", &json!({"model": "m.embed", "input": "to be"})),
        (
            "/openai/deployments/m.embed/embeddings?api-version=2024-10-21",
            &json!({"input": "to be"}),
        ),
    ] {
        post(&server, "limited", path, body).expect(200);
    }
    for (path, body) in [
        ("/v1/models/words/tasks/stats/predict", &native),
        ("/v1/models/other/tasks/echo/predict", &native),
        ("/v1/models/%6fther/tasks/echo/predict", &native),
        ("/v1/models/other/predict", &native),
        ("/others", &native),
        ("/v1/models/words.stats:predict", &instances),
        ("/v1/models/other.echo:predict", &instances),
        ("/v1/models/other.echo/versions/1:predict", &instances),
        (
            "/v1/models/words:predict",
            &json!({"signature_name": "stats", "instances": [{"text": "to be"}]}),
        ),
        ("/v2/models/other.echo/infer", &infer()),
        ("/v2/models/other.echo/versions/1/infer", &infer()),
        ("/v1/embeddings", &json!({"model": "other", "input": "to be"})),
        (
            "/openai/deployments/other/embeddings?api-version=2024-10-21",
            &json!({"input": "to be"}),
        ),
        // Whether there is such a model is not revealed.
        ("/v1/models/nothing/tasks/echo/predict", &native),
        ("/v2/models/nothing/infer", &infer()),
        ("/v1/models/nothing:predict", &instances),
    ] {
        let reply = post(&server, "limited", path, body).expect(403);
        let text = reply.text();
        assert!(
            text.contains("API key `limited` may not use ") && text.contains("it may use: m, words.echo"),
            "{path}: {text}"
        );
        let with_admin_key = server
            .request("POST", path)
            .json(body)
            .header("authorization", &format!("Bearer {ADMIN_KEY}"));
        assert_ne!(with_admin_key.send().status, 403, "{path}");
    }
    let forbidden = post(&server, "limited", "/others", &native).expect(403);
    assert_eq!(forbidden.error().0, "forbidden");
}

#[test]
fn a_key_sees_only_its_models() {
    let server = start(LIMITED);
    for path in [
        "/v1/models/other",
        "/v1/models/other/metadata",
        "/v1/models/other/versions/1",
        "/v2/models/other",
        "/v2/models/other.echo",
        "/v2/models/other.echo/ready",
        "/v2/models/other.echo/config",
        "/v2/models/words.stats/stats",
    ] {
        get(&server, "limited", path).expect(403);
    }
    let names = |list: &Json, member: &str| -> Vec<String> {
        let list = list.as_array().expect("it is a list");
        let name = |one: &Json| one[member].as_str().expect("it has a name").to_owned();
        list.iter().map(name).collect()
    };
    let models = get(&server, "limited", "/v1/models").expect(200).json();
    assert_eq!(names(&models["data"], "id"), ["m", "words"]);
    let index = post(&server, "limited", "/v2/repository/index", &json!({})).expect(200);
    assert_eq!(names(&index.json(), "name"), ["m", "words"]);
    let statistics = get(&server, "limited", "/v2/models/stats").expect(200).json();
    for name in names(&statistics["model_stats"], "name") {
        assert!(name.starts_with("m.") || name == "words.echo", "{name}");
    }
    let signatures = get(&server, "limited", "/v1/models/words/metadata")
        .expect(200)
        .json();
    let signatures = &signatures["metadata"]["signature_def"]["signature_def"];
    let signatures: Vec<&String> = signatures.as_object().expect("it is an object").keys().collect();
    assert_eq!(signatures, ["echo"]);
    let unknown = get(&server, "limited", "/v2/models/m.nothing").expect(404).text();
    assert!(
        !unknown.contains("other") && !unknown.contains("stats"),
        "{unknown}"
    );
    let all = server.request("GET", "/v1/models");
    let all = all.header("authorization", &format!("Bearer {ADMIN_KEY}"));
    assert_eq!(
        names(&all.send().expect(200).json()["data"], "id"),
        ["m", "other", "words"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_limited_to_its_models_in_grpc() {
    let server = start(LIMITED);
    let mut client = Grpc::connect(server.grpc_address()).await;
    let (status, _) = call(&mut client, "ModelInfer", EMBED, "limited").await;
    assert_eq!(status, "0");
    for method in [
        "ModelInfer",
        "ModelReady",
        "ModelMetadata",
        "ModelConfig",
        "ModelStatistics",
    ] {
        let (status, message) = call(&mut client, method, OTHER, "limited").await;
        let message = String::from_utf8_lossy(&message).into_owned();
        assert_eq!(status, "7", "{method}: {message}");
        assert!(
            message.contains("API key `limited` may not use model `other`"),
            "{message}"
        );
    }
    for method in ["RepositoryIndex", "ModelStatistics"] {
        let (status, reply) = call(&mut client, method, EMPTY, "limited").await;
        let reply = String::from_utf8_lossy(&reply).into_owned();
        assert_eq!(status, "0", "{method}");
        assert!(
            reply.contains("words") && !reply.contains("other"),
            "{method}: {reply}"
        );
    }
    let (status, reply) = call(&mut client, "ModelStreamInfer", OTHER, "limited").await;
    let reply = String::from_utf8_lossy(&reply).into_owned();
    assert!(
        status == "0" && reply.contains("may not use model `other`"),
        "{reply}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_is_rejected_with_its_expiry_and_reported_in_the_log() {
    let soon = SystemTime::now() + Duration::from_secs(3 * 24 * 60 * 60);
    let soon = humantime::format_rfc3339_seconds(soon);
    let server = start(&format!(
        "[[key]]\nname = \"old\"\nexpires = 2001-02-03\n[[key]]\nname = \"soon\"\nexpires = {soon}\n\
         [[key]]\nname = \"far\"\nexpires = 2999-12-31T23:59:59Z\n"
    ));
    let reply = get(&server, "old", "/v1/models").expect(401);
    assert_eq!(
        reply.error(),
        (
            "unauthorized".to_owned(),
            "API key `old` expired at 2001-02-03T00:00:00Z".to_owned()
        )
    );
    assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    for key in ["soon", "far"] {
        get(&server, key, "/v1/models").expect(200);
    }
    let mut client = Grpc::connect(server.grpc_address()).await;
    let (status, _) = call(&mut client, "ModelInfer", EMBED, "old").await;
    assert_eq!(status, "16");
    server.wait_for_log("API key `old` expired at 2001-02-03T00:00:00Z");
    server.wait_for_log(&format!("API key `soon` expires at {soon}"));
    assert!(!server.log().has("API key `far`"));
}

#[test]
fn the_name_of_the_key_is_in_the_access_log_and_in_metrics_and_the_key_nowhere() {
    let server = start("[[key]]\nname = \"ci\"\nmodels = [\"words\"]\n");
    let native = json!({"inputs": ["to be"]});
    post(&server, "ci", "/words", &native).expect(200);
    post(&server, "ci", "/others", &native).expect(403);
    post(&server, "ci", "/words", &json!({})).expect(400);
    get(&server, "ci", "/health").expect(200);
    for (outcome, count) in [("success", 1), ("forbidden", 1), ("error", 1)] {
        let labels = [("key", "ci"), ("outcome", outcome)];
        server.wait_for_metric("inference_key_requests_total", &labels, count);
    }
    let line = server.wait_for_log("path=/words status=200");
    assert!(line.contains(" key=ci"), "{line}");
    let models = get(&server, "ci", "/v1/models").expect(200).text();
    let metrics = server.get("/metrics").text();
    let log = server.log().text();
    let hash = Digest::of(secret("ci").as_bytes()).to_string();
    for hidden in [secret("ci"), hash] {
        for text in [&models, &metrics, &log] {
            assert!(!text.contains(&hidden), "{hidden} is in {text}");
        }
    }
}

#[test]
fn a_key_for_administration_loads_and_unloads_its_models() {
    let server =
        start("[[key]]\nname = \"ops\"\nadmin = true\nmodels = [\"words\"]\n[[key]]\nname = \"client\"\n");
    let unload = |key: &str, model: &str| {
        let path = format!("/v2/repository/models/{model}/unload");
        send(server.request("POST", &path), key)
    };
    unload("client", "words").expect(403);
    unload("ops", "other").expect(403);
    unload("ops", "words").expect(200);
    let load = server.request("POST", "/v2/repository/models/words/load");
    send(load, "ops").expect(200);
    assert_eq!(
        server.metrics().count(
            "inference_key_requests_total",
            &[("key", "ops"), ("outcome", "success")]
        ),
        2
    );
}

#[test]
fn the_documentation_describes_the_errors_and_headers_of_keys() {
    let server = start("[[key]]\nname = \"a\"\n");
    let document = server.get("/openapi.json").expect(200).json();
    let operation = &document["paths"]["/v1/models/words/tasks/echo/predict"]["post"]["responses"];
    for status in ["401", "403", "429"] {
        assert!(operation[status].is_object(), "{status}: {operation}");
    }
    assert!(
        operation["429"]["content"]["application/json"]["examples"]["rate_limited"].is_object(),
        "{operation}"
    );
    for status in ["200", "429"] {
        for header in ["RateLimit", "RateLimit-Policy"] {
            assert!(
                operation[status]["headers"][header].is_object(),
                "{status} {header}"
            );
        }
    }
}
