//! HTTP/1.1 semantics: connection handling of each request, upgrades, methods and CORS.

use std::net::SocketAddr;

use serde_json::{Value as Json, json};

use crate::harness::misbehave::echoes;
use crate::harness::raw::{Raw, RawReply};
use crate::harness::{Scenario, Server, clients, tools};

const ECHO: &str = "/v1/models/m/tasks/text/predict";

fn start(server: &str) -> Server {
    Scenario::new(&format!(
        "[server]\n{server}\n\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n\
         [models.tasks.text]\nroute = \"/say\"\n"
    ))
    .start()
}

fn body_of(value: &str) -> String {
    json!({ "inputs": echoes([value]) }).to_string()
}

/// Returns a request that echoes a value, with additional header fields.
fn echo(version: &str, fields: &str, value: &str) -> String {
    let body = body_of(value);
    format!(
        "POST {ECHO} HTTP/{version}\r\nhost: test\r\ncontent-type: application/json\r\n{fields}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Returns the echoed value.
#[track_caller]
fn value_of(reply: &RawReply) -> Json {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["outputs"][0]["value"].clone()
}

#[track_caller]
fn next(connection: &mut Raw) -> RawReply {
    connection.reply().expect("a reply")
}

#[test]
fn an_upgrade_that_is_not_accepted_is_ignored_and_the_connection_is_kept() {
    let server = start("");
    let offers = [
        "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n",
        "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "connection: upgrade\r\nupgrade: made-up/9, TLS/1.0\r\n",
        "upgrade: h2c\r\n",
        "connection: upgrade\r\n",
    ];
    for offer in offers {
        let mut connection = server.connect();
        for round in 0..3 {
            let value = format!("round {round}");
            connection.send(echo("1.1", offer, &value));
            let reply = next(&mut connection);
            assert_eq!(value_of(&reply), json!(value), "{offer}");
            for field in ["connection", "upgrade"] {
                assert_eq!(reply.header(field), None, "{offer}");
            }
            connection.send(format!("GET /livez HTTP/1.1\r\nhost: test\r\n{offer}\r\n"));
            assert_eq!(next(&mut connection).status, 200, "{offer}");
        }
    }
}

#[test]
fn a_chunked_body_is_read_despite_an_offer_to_upgrade() {
    let server = start("");
    let mut connection = server.connect();
    let body = body_of("in chunks");
    let (one, two) = body.split_at(7);
    for _ in 0..2 {
        connection.send(format!(
            "POST {ECHO} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\nconnection: upgrade\r\nupgrade: h2c\r\n\
             transfer-encoding: chunked\r\n\r\n{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
            one.len(),
            two.len()
        ));
        assert_eq!(value_of(&next(&mut connection)), json!("in chunks"));
    }
}

#[test]
fn each_pipelined_request_keeps_its_own_handling_of_the_connection() {
    let server = start("");
    let occupied = server.occupy("m");
    let mut connection = server.connect();
    connection.send(
        [
            echo("1.1", "", "one"),
            echo("1.1", "connection: upgrade\r\nupgrade: h2c\r\n", "two"),
            echo("1.0", "connection: keep-alive\r\n", "three"),
            echo("1.1", "connection: close\r\n", "four"),
            echo("1.1", "", "never read"),
        ]
        .concat(),
    );
    occupied.release();
    let replies: Vec<(Json, Option<String>)> = (0..4)
        .map(|_| {
            let reply = next(&mut connection);
            (
                value_of(&reply),
                reply.header("connection").map(str::to_ascii_lowercase),
            )
        })
        .collect();
    let expected = [
        ("one", None),
        ("two", None),
        ("three", Some("keep-alive")),
        ("four", Some("close")),
    ];
    assert_eq!(
        replies,
        expected.map(|(value, connection)| (json!(value), connection.map(str::to_owned)))
    );
    assert!(connection.is_closed());
}

#[test]
fn an_http_1_0_request_is_served_and_its_connection_is_closed() {
    let server = start("");
    let mut connection = server.connect();
    connection.send(echo("1.0", "", "old"));
    assert_eq!(value_of(&next(&mut connection)), json!("old"));
    assert!(connection.is_closed());
}

#[test]
fn a_client_that_half_closes_after_its_requests_is_served() {
    let server = start("");
    for version in ["1.0", "1.1"] {
        let mut connection = server.connect();
        connection.send(echo(version, "", "at once")).half_close();
        assert_eq!(value_of(&next(&mut connection)), json!("at once"));
        assert!(connection.is_closed());
    }
    let occupied = server.occupy("m");
    let mut waiting = server.connect();
    waiting.send(echo("1.1", "", "first").repeat(2)).half_close();
    server.wait_for_queued("m", "text", 1);
    occupied.release();
    for _ in 0..2 {
        assert_eq!(value_of(&next(&mut waiting)), json!("first"));
    }
    assert!(waiting.is_closed());
}

#[test]
fn a_truncated_request_gets_an_error_if_the_client_still_reads() {
    let server = start("");
    let cut = |request: &str| {
        let mut connection = server.connect();
        connection.send(request).half_close();
        let reply = next(&mut connection);
        assert!(connection.is_closed());
        (reply.status, reply.json()["error"]["code"].clone())
    };
    let request = echo("1.1", "", "cut off");
    let malformed = (400, json!("malformed_request"));
    assert_eq!(cut("GET /livez HTT"), malformed);
    assert_eq!(cut(&request[..request.len() - 3]), malformed);
}

#[test]
fn options_lists_the_methods_of_every_route() {
    let server = start("api_keys = [\"a-key-of-a-client\"]");
    for (target, allow) in [
        ("/", "GET, HEAD, POST, OPTIONS"),
        ("/livez", "GET, HEAD, OPTIONS"),
        ("/metrics", "GET, HEAD, OPTIONS"),
        ("/v1/models/m", "GET, HEAD, OPTIONS"),
        ("/v1/models/nobody", "GET, HEAD, OPTIONS"),
        (ECHO, "POST, OPTIONS"),
        ("/say", "POST, OPTIONS"),
        ("/v1/embeddings", "POST, OPTIONS"),
        ("/openai/deployments/m/embeddings", "POST, OPTIONS"),
        ("/v2/models/m/infer", "POST, OPTIONS"),
        ("/no/such/route", "GET, HEAD, POST, OPTIONS"),
        ("*", "GET, HEAD, POST, OPTIONS"),
        ("http://test/livez", "GET, HEAD, OPTIONS"),
    ] {
        let mut connection = server.connect();
        for _ in 0..2 {
            connection.send(format!("OPTIONS {target} HTTP/1.1\r\nhost: test\r\n\r\n"));
            let reply = next(&mut connection);
            assert_eq!(
                (reply.status, reply.header("allow")),
                (204, Some(allow)),
                "{target}"
            );
            assert_eq!(reply.header("content-length"), None, "{target}");
        }
    }
}

#[test]
fn the_default_health_check_of_haproxy_succeeds() {
    let server = start("");
    let mut connection = server.connect();
    connection.send("OPTIONS / HTTP/1.0\r\n\r\n");
    assert_eq!(next(&mut connection).status, 204);
    assert!(connection.is_closed());
}

#[test]
fn unknown_methods_are_rejected_and_the_connection_is_kept() {
    let server = start("");
    let mut connection = server.connect();
    for line in [
        "CONNECT example.com:443",
        "TRACE /livez",
        "BREW /say",
        "DELETE /v1/models/m",
        "PUT /livez",
        "GET /say",
    ] {
        connection.send(format!("{line} HTTP/1.1\r\nhost: test\r\n\r\n"));
        let reply = next(&mut connection);
        assert_eq!(reply.status, 405, "{line}");
        assert_eq!(reply.json()["error"]["code"], "method_not_allowed", "{line}");
        assert!(reply.header("allow").is_some(), "{line}");
        assert_eq!(reply.header("connection"), None, "{line}");
    }
}

#[test]
fn web_pages_can_read_error_replies() {
    let server = start(
        "cors_allowed_origins = [\"https://page.example\"]\napi_keys = [\"a-key-of-a-client\"]\nmax_body_size = \"1KiB\"",
    );
    let key = "authorization: Bearer a-key-of-a-client\r\n";
    let large = "x".repeat(2000);
    for (request, status) in [
        ("GET /v1/models HTTP/1.1\r\n".to_owned(), 401),
        (format!("GET /no/such/route HTTP/1.1\r\n{key}"), 404),
        (format!("GET {ECHO} HTTP/1.1\r\n{key}"), 405),
        (format!("BREW {ECHO} HTTP/1.1\r\n{key}"), 405),
        (
            format!("GET /v1/models HTTP/1.1\r\n{key}accept-encoding: identity;q=0, br\r\n"),
            406,
        ),
        (
            format!("POST {ECHO} HTTP/1.1\r\n{key}content-length: 2000\r\n"),
            413,
        ),
        (
            format!("POST {ECHO} HTTP/1.1\r\n{key}content-encoding: br\r\ncontent-length: 0\r\n"),
            415,
        ),
        (format!("POST {ECHO} HTTP/1.1\r\n{key}content-length: 0\r\n"), 400),
        (format!("OPTIONS {ECHO} HTTP/1.1\r\n"), 204),
    ] {
        let mut connection = server.connect();
        connection.send(format!(
            "{request}host: test\r\norigin: https://page.example\r\n\r\n"
        ));
        if status == 413 {
            connection.send(&large);
        }
        let reply = next(&mut connection);
        assert_eq!(reply.status, status, "{request}: {}", reply.text());
        assert_eq!(
            reply.header("access-control-allow-origin"),
            Some("https://page.example"),
            "{request}"
        );
        assert!(reply.header("x-request-id").is_some(), "{request}");
    }
}

#[test]
fn web_pages_of_any_origin_can_read_replies_to_requests_that_cannot_be_parsed() {
    let server = start("cors_allowed_origins = [\"*\"]");
    let mut connection = server.connect();
    connection.send("GET /livez HTTP/1.1\r\nno colon\r\n\r\n");
    let reply = next(&mut connection);
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
}

#[test]
fn a_head_that_is_rejected_is_answered_in_json() {
    let server = start("header_timeout = \"300ms\"");
    let long = "x".repeat(200_000);
    for (head, status, code) in [
        (
            "GET /livez HTTP/1.1\r\nno colon\r\n\r\n".to_owned(),
            400,
            "malformed_request",
        ),
        ("GET /livez HTTP/9.9\r\n\r\n".to_owned(), 400, "malformed_request"),
        (
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            400,
            "malformed_request",
        ),
        (
            format!("GET /livez HTTP/1.1\r\nx-long: {long}\r\n\r\n"),
            431,
            "malformed_request",
        ),
        (
            format!("GET /{} HTTP/1.1\r\n\r\n", &long[..70_000]),
            414,
            "malformed_request",
        ),
        (
            "GET /livez HTTP/1.1\r\nhost: te".to_owned(),
            408,
            "request_timeout",
        ),
    ] {
        // As the first and as a later request of a connection.
        for before in [0, 2] {
            if before == 0 && head.starts_with("PRI ") {
                // This is a connection over HTTP/2.
                continue;
            }
            let mut connection = server.connect();
            for _ in 0..before {
                connection.send("GET /livez HTTP/1.1\r\nhost: test\r\n\r\n");
                assert_eq!(next(&mut connection).status, 200);
            }
            connection.send(&head);
            let reply = next(&mut connection);
            let line = &head[..20];
            assert_eq!(reply.status, status, "{line:?}");
            assert_eq!(reply.json()["error"]["code"], code, "{line:?}");
            assert_eq!(reply.header("connection"), Some("close"), "{line:?}");
            assert!(connection.is_closed(), "{line:?}");
        }
    }
}

#[test]
fn a_connection_is_kept_after_a_small_body_that_the_route_does_not_read() {
    let server = start("");
    let mut connection = server.connect();
    for _ in 0..3 {
        connection.send("GET /livez HTTP/1.1\r\nhost: test\r\ncontent-length: 13\r\n\r\n{\"un\":\"read\"}");
        let reply = next(&mut connection);
        assert_eq!((reply.status, reply.header("connection")), (200, None));
    }
}

#[test]
fn a_client_that_is_still_sending_its_body_can_read_the_rejection() {
    let server = start("max_body_size = \"1KiB\"");
    let mut connection = server.connect();
    connection.send(format!(
        "POST {ECHO} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n",
        32 << 20
    ));
    let part = vec![b' '; 1 << 20];
    for _ in 0..32 {
        // Fails if the server has stopped reading.
        let _ = connection.try_send(&part);
    }
    let reply = next(&mut connection);
    assert_eq!((reply.status, reply.header("connection")), (413, Some("close")));
    assert_eq!(reply.json()["error"]["code"], "body_too_large");
}

/// Sends many small requests with OpenJDK's client, which offers `Upgrade: h2c` by default.
fn run_java(address: SocketAddr) {
    let install = "apt-get install default-jdk-headless";
    let Some(java) = tools::find("INFERENCE_TEST_JAVA", &["java"], install) else {
        return;
    };
    let mut command = std::process::Command::new(java);
    command.arg(clients::source("KeepPosting.java"));
    command.args([&format!("http://{address}{ECHO}"), &body_of("from Java"), "20000"]);
    eprintln!("{}", tools::run(&mut command));
}

#[test]
fn all_requests_of_the_default_java_client_are_served() {
    if std::env::var_os("INFERENCE_TEST_LONG").is_none() {
        return;
    }
    run_java(start("").address());
}
