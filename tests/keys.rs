//! Keys that requests require.

use serde_json::json;

use crate::harness::client::Call;
use crate::harness::grpc::Grpc;
use crate::harness::{Scenario, Server};

const CLIENT_KEY: &str = "a-key-of-a-client";
const ADMIN_KEY: &str = "the-key-of-the-admin";

/// Paths that operators can choose and that resemble the server's own.
const LOOKALIKES: [&str; 17] = [
    "/docs-of-mine",
    "/ui2/predict",
    "/ui.html",
    "/docs.html",
    "/favicon.png",
    "/docs2/predict",
    "/Docs/text",
    "/metrics2",
    "/health-check",
    "/healthz",
    "/livez.json",
    "/readyz-2",
    "/openapi.json2",
    "/v1beta/health",
    "/v2x/health/live",
    "/x/v2/health/live",
    "/text",
];

/// Starts a server with one model for each of [`LOOKALIKES`].
fn start(server: &str) -> Server {
    let mut config =
        format!("[server]\napi_keys = [\"{CLIENT_KEY}\"]\nadmin_key = \"{ADMIN_KEY}\"\n{server}\n");
    for (index, route) in LOOKALIKES.iter().enumerate() {
        config.push_str(&format!(
            "[[models]]\nname = \"m{index}\"\nplugin = \"template\"\n[models.tasks.echo]\nroute = \"{route}\"\n"
        ));
    }
    Scenario::new(&config).start()
}

fn with_key<'a>(call: Call<'a>, key: &str) -> Call<'a> {
    call.header("authorization", &format!("Bearer {key}"))
}

#[test]
fn a_task_at_a_path_that_resembles_a_public_one_requires_a_key() {
    for docs in ["docs = true", "docs = false"] {
        let server = start(docs);
        for route in LOOKALIKES {
            let call = || server.request("POST", route).json(&json!({"input": "a"}));
            let rejected = call().send().expect(401);
            assert_eq!(rejected.error().0, "unauthorized", "{route}");
            assert_eq!(rejected.header("www-authenticate"), Some("Bearer"), "{route}");
            let reply = with_key(call(), CLIENT_KEY).send().expect(200);
            assert_eq!(reply.json()["output"], "a", "{route}");
            server.request("OPTIONS", route).send();
            server.request("HEAD", route).send().expect(401);
        }
    }
}

#[test]
fn health_metrics_documentation_and_the_files_of_pages_require_no_key_in_any_spelling_of_their_path() {
    let server = start("");
    for path in [
        "/",
        "/health",
        "/livez",
        "/%6Civez",
        "/readyz",
        "/metrics",
        "/docs",
        "/docs/",
        "/d%6fcs/",
        "/openapi.json",
        "/favicon.ico",
        "/ui",
        "/ui/login",
        "/ui/static/app.js",
        "/v2/health/live",
        "/v2/health/ready",
    ] {
        let status = server.get(path).status;
        assert!(status == 200 || status == 308, "{path}: {status}");
    }
    for path in [
        "//livez",
        "/livez/",
        "/health/..",
        "/docs%2f",
        "/docs%2f..%2fv1%2fmodels",
        "/v2/health/",
        "/v1/models",
        "/v1/models/m0/metadata",
        "/v1/models/m0/versions/1",
        "/favicon.ico/x",
        "/ui/",
        "/ui/models/m0",
        "/ui/events",
        "/ui/history/m0",
        "/ui/jobs",
        "/ui/jobs/events",
        "/ui/nothing",
        "/nothing",
        "/%76%31/models",
    ] {
        let mut connection = server.connect();
        connection.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
        assert_eq!(connection.reply().expect("an answer").status, 401, "{path}");
    }
}

#[test]
fn a_task_is_found_in_any_spelling_of_its_path() {
    let server = start("");
    let call = server.request("POST", "/t%65xt").json(&json!({"input": "a"}));
    with_key(call, CLIENT_KEY).send().expect(200);
}

#[test]
fn disabled_pages_are_not_found_and_require_a_key() {
    let server = start("docs = false\nui = false");
    for path in [
        "/docs",
        "/docs/",
        "/docs/x",
        "/openapi.json",
        "/ui",
        "/ui/",
        "/ui/login",
        "/ui/models/m0",
    ] {
        server.get(path).expect(401);
        with_key(server.request("GET", path), CLIENT_KEY)
            .send()
            .expect(404);
    }
}

#[test]
fn a_client_key_is_forbidden_on_routes_that_require_the_admin_key() {
    let server = start("");
    for order in ["unload", "load"] {
        let path = format!("/v2/repository/models/m0/{order}");
        let call = || server.request("POST", &path);
        let unauthorized = call().send().expect(401);
        assert_eq!(unauthorized.header("www-authenticate"), Some("Bearer"));
        let unauthorized = with_key(call(), "a-key-of-a-cl1ent").send().expect(401);
        assert_eq!(unauthorized.header("www-authenticate"), Some("Bearer"));
        assert_eq!(unauthorized.json(), json!({"error": "invalid API key"}));
        let forbidden = with_key(call(), CLIENT_KEY).send().expect(403);
        assert_eq!(forbidden.header("www-authenticate"), None);
        assert_eq!(
            forbidden.json(),
            json!({"error": "loading and unloading models requires the admin key, got a client key"})
        );
        with_key(call(), ADMIN_KEY).send().expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_not_logged_at_any_level() {
    let server = Scenario::new(&format!(
        "[server]\ngrpc_port = 0\napi_keys = [\"{CLIENT_KEY}\"]\nadmin_key = \"{ADMIN_KEY}\"\n\
         [logging]\nlevel = \"trace\"\n\
         [[models]]\nname = \"m\"\nplugin = \"template\"\nisolation = \"process\"\n\
         [models.env]\nPASSWORD = \"a-password-of-the-model\"\n"
    ))
    .start();
    let wrong = "a-key-that-is-not-valid";
    let mut grpc = Grpc::connect(server.grpc_address()).await;
    for (key, status) in [(CLIENT_KEY, 403), (wrong, 401), (ADMIN_KEY, 200)] {
        let call = server.request("POST", "/v2/repository/models/m/load");
        with_key(call, key).send().expect(status);
        let (answer, mut body) = grpc.begin_with_key("RepositoryModelLoad", b"\0\0\0\0\0", key);
        // Fails if the call has already been rejected.
        let _ = body.send_data(Default::default(), true);
        let answer = answer.await.expect("an answer");
        assert!(answer.headers().contains_key("x-request-id"));
    }
    let log = server.log().text();
    for secret in [CLIENT_KEY, ADMIN_KEY, wrong, "a-password-of-the-model"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[test]
fn commands_do_not_print_keys() {
    let scenario = Scenario::new(&format!(
        "[server]\nadmin_key = \"too short\"\napi_keys = \"{CLIENT_KEY}\"\nadminkey = \"{ADMIN_KEY}\"\n"
    ));
    let config = scenario.dir().join("models.toml");
    let config = config.to_str().expect("the path is text");
    for arguments in [
        &["check", "--config", config][..],
        &["--config", config, "--log-level", "trace"],
    ] {
        let output = scenario.run(arguments);
        assert!(!output.status.success());
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        assert!(printed.contains("`admin_key` in [server]"), "{printed}");
        for secret in ["too short", CLIENT_KEY, ADMIN_KEY] {
            assert!(!printed.contains(secret), "{printed}");
        }
    }
}
