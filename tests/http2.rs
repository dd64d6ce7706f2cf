//! HTTP/2 on the HTTP port: all routes, cancellation, draining and limits, as with HTTP/1.1.

use futures_util::future::join_all;
use h2::Reason;
use hyper::body::Bytes;
use serde_json::{Value as Json, json};

use crate::harness::http2::{Answer, Http2, answer};
use crate::harness::misbehave::echoes;
use crate::harness::tls::Authority;
use crate::harness::{Scenario, Server, Signal, eventually, rounds, tools};
use crate::tls;

const ECHO: &str = "/v1/models/m/tasks/text/predict";

fn start(server: &str) -> Server {
    Scenario::new(&format!(
        "[server]\n{server}\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n"
    ))
    .start()
}

/// Returns the value of the only item of a reply.
fn value(answer: &Answer) -> Json {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["outputs"][0]["value"].clone()
}

async fn echo(connection: &mut Http2, text: &str) -> Result<Answer, h2::Error> {
    connection
        .post(ECHO, &json!({"inputs": echoes([text])}))
        .await?
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_request_is_answered_as_over_http_1() {
    let server = start("max_body_size = \"64KiB\"\nadmin_key = \"the-key-of-the-admin\"");
    let mut connection = Http2::connect(server.address()).await;
    for (method, path, status) in [
        ("GET", "/", 200),
        ("GET", "/livez", 200),
        ("HEAD", "/metrics", 200),
        ("GET", "/v1/models", 200),
        ("GET", "/v1/models/m?a=b", 200),
        ("GET", "/v2", 200),
        ("GET", "/openapi.json", 200),
        ("HEAD", "/openapi.json", 200),
        ("GET", "/no/such/route", 404),
        ("GET", ECHO, 405),
        ("OPTIONS", ECHO, 204),
        ("BREW", "/livez", 405),
        ("POST", "/v2/repository/models/m/load", 401),
    ] {
        let over_http2 = connection.send(method, path, &[]).await.expect("a reply");
        let over_http1 = server.request(method, path).send();
        assert_eq!(over_http2.status, status, "{method} {path}");
        assert_eq!(over_http1.status, status, "{method} {path}");
        for name in ["connection", "transfer-encoding", "keep-alive"] {
            assert_eq!(over_http2.header(name), None, "{method} {path}");
        }
        for name in ["content-type", "allow", "www-authenticate"] {
            assert_eq!(
                over_http2.header(name),
                over_http1.header(name),
                "{method} {path}"
            );
        }
        assert!(over_http2.header("date").is_some() && over_http2.header("x-request-id").is_some());
        if method == "HEAD" {
            assert!(over_http2.body.is_empty(), "{path}");
            assert!(over_http2.header("content-length") > Some("0"), "{path}");
        }
    }
    assert_eq!(
        value(&echo(&mut connection, "hello").await.expect("a reply")),
        "hello"
    );

    let malformed = connection
        .post(ECHO, &json!({"inputs": 7}))
        .await
        .expect("it is sent");
    let malformed = malformed.await.expect("a reply");
    assert_eq!(
        (malformed.status, &malformed.json()["error"]["code"]),
        (400, &json!("malformed_request"))
    );
    let large = connection
        .post(ECHO, &json!({"inputs": ["x".repeat(100_000)]}))
        .await;
    let large = large.expect("it is sent").await.expect("a reply");
    assert_eq!(
        (large.status, &large.json()["error"]["code"]),
        (413, &json!("body_too_large"))
    );
    assert_eq!(
        value(&echo(&mut connection, "again").await.expect("a reply")),
        "again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_and_replies_and_many_streams_share_a_connection() {
    // Its echo does not report the other items of the batch.
    let server = Scenario::new("[[models]]\nname = \"t\"\nplugin = \"template\"\n").start();
    let mut connection = Http2::connect(server.address()).await;
    let mut replies = Vec::new();
    for number in 0..60 {
        // Some exceed the windows of both sides.
        let length = if number % 10 == 0 { 3_000_000 } else { 10 };
        let text = format!("{number} {}", "x".repeat(length));
        let body = json!({"inputs": [text.clone()]});
        let reply = connection
            .post("/v1/models/t/tasks/echo/predict", &body)
            .await
            .expect("it is sent");
        replies.push(async move {
            let reply = reply.await.expect("a reply");
            assert!(
                reply.json()["outputs"][0] == text,
                "a reply with another text than {number}"
            );
        });
    }
    // Together, since replies that are not read take up the window of the connection.
    join_all(replies).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_checked_before_the_body() {
    let server = start("api_keys = [\"a-key-of-a-client\"]");
    let mut connection = Http2::connect(server.address()).await;
    let (response, mut body) = connection.begin("POST", ECHO, &[]).await.expect("it is sent");
    body.send_data(Bytes::from_static(b"{"), false)
        .expect("it is sent");
    let rejected = answer(response.await.expect("a reply")).await.expect("a reply");
    assert_eq!(rejected.status, 401);
    let headers = [("authorization", "Bearer a-key-of-a-client")];
    let (response, mut body) = connection
        .begin("POST", ECHO, &headers)
        .await
        .expect("it is sent");
    let json = json!({"inputs": echoes(["allowed"])}).to_string();
    body.send_data(Bytes::from(json), true).expect("it is sent");
    let allowed = answer(response.await.expect("a reply")).await.expect("a reply");
    assert_eq!(value(&allowed), "allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_late_is_rejected_and_other_streams_are_served() {
    let server = start("body_timeout = \"300ms\"");
    let mut connection = Http2::connect(server.address()).await;
    let (response, mut body) = connection.begin("POST", ECHO, &[]).await.expect("it is sent");
    body.send_data(Bytes::from_static(b"{\"inputs\":"), false)
        .expect("it is sent");
    assert_eq!(
        value(&echo(&mut connection, "other").await.expect("a reply")),
        "other"
    );
    let late = answer(response.await.expect("a reply")).await.expect("a reply");
    assert_eq!(late.status, 408, "{}", late.text());
    assert_eq!(
        value(&echo(&mut connection, "again").await.expect("a reply")),
        "again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_or_a_disconnect_cancels_the_waiting_items() {
    let server = start("");
    let occupied = server.occupy("m");
    let mut connection = Http2::connect(server.address()).await;
    let body = json!({"inputs": echoes(["canceled"])}).to_string();
    let (_response, mut stream) = connection.begin("POST", ECHO, &[]).await.expect("it is sent");
    stream
        .send_data(Bytes::from(body.clone()), true)
        .expect("it is sent");
    server.wait_for_queued("m", "text", 1);
    stream.send_reset(Reason::CANCEL);
    server.wait_for_queued("m", "text", 0);
    assert_eq!(connection.get("/livez").await.status, 200);

    let (_response, mut stream) = connection.begin("POST", ECHO, &[]).await.expect("it is sent");
    stream.send_data(Bytes::from(body), true).expect("it is sent");
    server.wait_for_queued("m", "text", 1);
    connection.cut().await;
    server.wait_for_queued("m", "text", 0);
    occupied.release();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_server_answers_open_streams_and_says_goaway() {
    let mut server = start("shutdown_delay = \"3s\"\ndrain_timeout = \"10m\"");
    let occupied = server.occupy("m");
    let mut idle = Http2::connect(server.address()).await;
    assert_eq!(idle.get("/livez").await.status, 200);
    let mut busy = Http2::connect(server.address()).await;
    let mut replies = Vec::new();
    for number in 0..5 {
        let text = format!("in flight {number}");
        let reply = busy.post(ECHO, &json!({"inputs": echoes([text.clone()])})).await;
        replies.push((text, reply.expect("it is sent")));
    }
    server.wait_for_queued("m", "text", 5);
    server.signal(Signal::TERM);
    idle.ended().await.expect("the server closes it with GOAWAY");
    // The server still accepts connections, and each is closed after its requests.
    let mut late = Http2::connect(server.address()).await;
    if let Ok(reply) = late.send("GET", "/livez", &[]).await {
        assert_eq!(reply.status, 200);
        late.ended().await.expect("the server closes it with GOAWAY");
    }
    occupied.release();
    for (text, reply) in replies {
        assert_eq!(value(&reply.await.expect("a reply")), text);
    }
    busy.ended().await.expect("the server closes it with GOAWAY");
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_under_load_loses_no_request_that_was_accepted() {
    for _ in 0..rounds(3, 30) {
        let mut server = start("drain_timeout = \"10m\"");
        let mut clients = Vec::new();
        for number in 0..8 {
            let mut connection = Http2::connect(server.address()).await;
            clients.push(tokio::spawn(async move {
                let mut answered = 0_u64;
                loop {
                    let text = format!("{number} {answered}");
                    match echo(&mut connection, &text).await {
                        Ok(reply) if reply.status == 503 => return answered,
                        Ok(reply) => assert_eq!(value(&reply), text),
                        // The server has not processed it, and says so.
                        Err(error) => {
                            let refused =
                                error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM);
                            assert!(refused, "{error:?}");
                            return answered;
                        }
                    }
                    answered += 1;
                }
            }));
        }
        eventually("the clients to be served", || {
            match server
                .metrics()
                .count("inference_items_total", &[("outcome", "success")])
            {
                served if served > 50 => Ok(()),
                served => Err(served),
            }
        });
        server.signal(Signal::TERM);
        for client in clients {
            assert!(client.await.expect("no reply is lost") > 0);
        }
        assert_eq!(server.wait_for_exit().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_after_keep_alive() {
    let server = start("keep_alive = \"300ms\"");
    let mut connection = Http2::connect(server.address()).await;
    assert_eq!(connection.get("/livez").await.status, 200);
    assert_eq!(
        value(&echo(&mut connection, "hello").await.expect("a reply")),
        "hello"
    );
    connection
        .ended()
        .await
        .expect("the server closes it with GOAWAY");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_starts_in_small_parts_is_recognized() {
    let server = start("");
    for parts in [&[1][..], &[2, 3], &[3, 10, 20], &[24]] {
        let mut raw = server.connect();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let mut sent = 0;
        for &end in parts.iter().chain(&[preface.len()]) {
            raw.send(&preface[sent..end]);
            sent = end;
            // Another request shows that the server has had time to read this part.
            server.get("/livez").expect(200);
        }
        // The first frame of the server is SETTINGS.
        let frame = raw.read_exactly(9);
        assert_eq!(frame[3], 4, "{parts:?}: {frame:?}");
    }
}

#[test]
fn curl_speaks_http_2_with_prior_knowledge() {
    let server = start("");
    let Some(curl) = tools::find("INFERENCE_TEST_CURL", &["curl"], "apt-get install curl") else {
        return;
    };
    let mut command = std::process::Command::new(curl);
    command.args([
        "--silent",
        "--show-error",
        "--http2-prior-knowledge",
        "--write-out",
        " %{http_version} %{http_code}",
    ]);
    command
        .arg("--data")
        .arg(json!({"inputs": echoes(["curl"])}).to_string());
    command.arg(format!("http://{}{ECHO}", server.address()));
    let printed = tools::run(&mut command);
    assert!(
        printed.contains("curl") && printed.ends_with(" 2 200"),
        "{printed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_management_port_speaks_http_2_and_management_only_hides_its_routes_elsewhere() {
    let authority = Authority::new();
    let server = tls::start(
        &authority,
        "management_only = true\nadmin_key = \"the-key-of-the-admin\"\nmanagement_host = \"127.0.0.1\"",
        "",
    );
    let mut management = Http2::connect(server.management_address()).await;
    let config = authority.client(&["h2"]);
    let mut main = Http2::connect_secure(server.address(), config.clone())
        .await
        .expect("the handshake succeeds");
    let key = [("authorization", "Bearer the-key-of-the-admin")];
    for (method, path, headers) in [
        ("GET", "/metrics", &[][..]),
        ("POST", "/v2/repository/models/words/unload", &key[..]),
        ("POST", "/v2/repository/models/words/load", &key[..]),
    ] {
        let hidden = main.send(method, path, headers).await.expect("a reply");
        assert_eq!(hidden.status, 404, "{path}");
        let served = management.send(method, path, headers).await.expect("a reply");
        assert_eq!(served.status, 200, "{path}: {}", served.text());
    }
    let mut grpc = crate::harness::grpc::Grpc::connect_secure(server.grpc_address(), config)
        .await
        .expect("the handshake succeeds");
    for method in ["RepositoryModelLoad", "RepositoryModelUnload"] {
        let (response, _body) = grpc.begin_with_key(method, b"\0\0\0\0\0", "the-key-of-the-admin");
        let response = response.await.expect("a reply");
        let (status, message) = crate::harness::grpc::status(&response);
        assert_eq!(status, "12", "{message}");
        assert!(message.contains("management port"), "{message}");
    }
}
