use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::test_server::{MAX_BODY, TestServer};

/// A request body of exactly this many bytes.
fn body_of(length: usize) -> Vec<u8> {
    let text = "a".repeat(length - "{\"input\":\"\"}".len());
    format!("{{\"input\":\"{text}\"}}").into_bytes()
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(size) {
        out.extend(format!("{:x}\r\n", chunk.len()).bytes());
        out.extend(chunk);
        out.extend(b"\r\n");
    }
    out.extend(b"0\r\n\r\n");
    out
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).expect("writing to memory succeeds");
    encoder.finish().expect("writing to memory succeeds")
}

#[actix_web::test]
async fn the_body_limit_is_exact() {
    let server = TestServer::start();
    let largest = body_of(MAX_BODY);
    let too_large = body_of(MAX_BODY + 1);
    assert_eq!(server.send("POST /shout", &largest).await.status, 200);
    let answer = server.send("POST /shout", &too_large).await;
    assert_eq!(
        answer.error(),
        (
            413,
            "body_too_large".to_owned(),
            "the request body is too large: expected at most 4096 bytes".to_owned()
        )
    );
    let head = "POST /shout\ntransfer-encoding: chunked";
    assert_eq!(server.send(head, &chunked(&largest, 1)).await.status, 200);
    assert_eq!(server.send(head, &chunked(&too_large, 100)).await.error().0, 413);
}

#[actix_web::test]
async fn the_body_limit_applies_to_decompressed_bodies() {
    let server = TestServer::start();
    let head = "POST /shout\ncontent-encoding: gzip";
    let largest = gzip(&body_of(MAX_BODY));
    assert!(largest.len() < 200);
    assert_eq!(server.send(head, &largest).await.status, 200);
    assert_eq!(
        server.send(head, &gzip(&body_of(MAX_BODY + 1))).await.error().0,
        413
    );
    let bomb = gzip(&vec![b' '; 3_000_000]);
    assert!(bomb.len() <= MAX_BODY);
    assert_eq!(server.send(head, &bomb).await.error().0, 413);
    assert_eq!(
        server.send(head, &largest[..largest.len() - 9]).await.error().0,
        400
    );
    assert_eq!(server.send(head, b"no gzip").await.error().0, 400);
    assert_eq!(
        server
            .send("POST /shout\ncontent-encoding: br", b"?")
            .await
            .error()
            .0,
        415
    );
}

#[actix_web::test]
async fn deflate_is_accepted_with_and_without_the_zlib_header() {
    let server = TestServer::start();
    let body = json!({"input": "a"}).to_string();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(body.as_bytes())
        .expect("writing to memory succeeds");
    let mut raw = DeflateEncoder::new(Vec::new(), Compression::fast());
    raw.write_all(body.as_bytes())
        .expect("writing to memory succeeds");
    for compressed in [zlib.finish(), raw.finish()] {
        let compressed = compressed.expect("writing to memory succeeds");
        let answer = server
            .send("POST /shout\ncontent-encoding: deflate", &compressed)
            .await;
        assert_eq!(answer.status, 200);
    }
}

#[actix_web::test]
async fn a_slow_body_is_answered_with_408() {
    let server = TestServer::start_with("body_timeout = \"100ms\"");
    let mut stream = server.connect().await;
    let head = "POST /shout HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\n{";
    stream
        .write_all(head.as_bytes())
        .await
        .expect("the server reads the request");
    let mut answer = vec![0; 1024];
    let length = stream.read(&mut answer).await.expect("the server replies");
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408"), "got {answer}");
    assert!(
        answer.contains("the request body did not arrive within 0.1 s"),
        "got {answer}"
    );
}

#[actix_web::test]
async fn a_late_head_is_answered_with_408() {
    let server = TestServer::start_with("header_timeout = \"100ms\"");
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /livez HTT")
        .await
        .expect("the server reads the request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("the server replies");
    assert!(answer.starts_with(b"HTTP/1.1 408"));
}

#[actix_web::test]
async fn an_oversized_head_is_rejected() {
    let server = TestServer::start();
    let head = format!("GET /livez\nx-huge: {}", "a".repeat(200_000));
    let mut stream = server.connect().await;
    // The server can close the connection before the whole head is written.
    let _ = stream
        .write_all(head.replace('\n', " HTTP/1.1\r\nhost: test\r\n").as_bytes())
        .await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"));
    assert_eq!(server.get("/livez").await.status, 200);
}

#[actix_web::test]
async fn replies_of_1_kib_or_more_are_compressed_for_clients_that_accept_it() {
    let server = TestServer::start();
    let send = async |head: &str, length| server.send(head, &body_of(length)).await;
    let large = send("POST /shout\naccept-encoding: gzip", 2000).await;
    assert_eq!(large.header("content-encoding"), Some("gzip"));
    assert_eq!(large.header("vary"), Some("accept-encoding"));
    assert!(large.body.len() < 500, "{} bytes", large.body.len());

    let small = send("POST /shout\naccept-encoding: gzip", 500).await;
    assert_eq!(small.header("content-encoding"), None);
    assert_eq!(small.header("vary"), Some("accept-encoding"));

    for head in ["POST /shout", "POST /shout\naccept-encoding: identity"] {
        let plain = send(head, 2000).await;
        assert_eq!(plain.header("content-encoding"), None);
        assert_eq!(plain.header("vary"), Some("accept-encoding"));
    }
    let disabled = TestServer::start_with("compression = false");
    let plain = disabled
        .send("POST /shout\naccept-encoding: gzip", &body_of(2000))
        .await;
    assert_eq!(
        (plain.header("content-encoding"), plain.header("vary")),
        (None, None)
    );
}

#[actix_web::test]
async fn an_encoding_that_the_client_excludes_is_not_used() {
    let server = TestServer::start();
    for head in ["GET /livez", "GET /v2", "POST /shout", "GET /v2/models/vision"] {
        let send = async |accepted: &str| {
            let head = format!("{head}\naccept-encoding: {accepted}");
            server.send(&head, &body_of(100)).await
        };
        let compressed = send("gzip, identity;q=0").await;
        assert_eq!(compressed.status, 200, "{head}");
        assert_eq!(compressed.header("content-encoding"), Some("gzip"), "{head}");
        for accepted in ["identity;q=0", "*;q=0", "br, *;q=0"] {
            assert_eq!(send(accepted).await.status, 406, "{head}, {accepted}");
        }
    }
}

#[actix_web::test]
async fn errors_and_images_are_not_compressed() {
    let server = TestServer::start();
    let accepted = "accept-encoding: gzip";
    let image = format!(
        "POST /v1/models/vision/tasks/flip/predict\n{accepted}\ncontent-type: image/png\naccept: image/png"
    );
    let reply = server.send(&image, &[0; 4000]).await;
    assert_eq!((reply.status, reply.body.len()), (200, 4000));
    assert_eq!(
        (reply.header("content-encoding"), reply.header("vary")),
        (None, None)
    );

    let failing = format!("{{\"inputs\":[{}]}}", ["\"bad\""; 8].join(","));
    let reply = server
        .send(&format!("POST /shout\n{accepted}"), failing.as_bytes())
        .await;
    assert_eq!((reply.status, reply.header("content-encoding")), (422, None));
}

#[actix_web::test]
async fn head_has_the_same_headers_as_get_if_a_document_is_compressed() {
    let server = TestServer::start();
    for path in [
        "/openapi.json",
        "/metrics",
        "/v1/models",
        "/docs/swagger-initializer.js",
    ] {
        let get = server
            .send(&format!("GET {path}\naccept-encoding: gzip"), b"")
            .await;
        let head = server
            .send(&format!("HEAD {path}\naccept-encoding: gzip"), b"")
            .await;
        assert!(head.body.is_empty(), "{path}");
        for name in ["content-encoding", "vary", "content-type"] {
            assert_eq!(head.header(name), get.header(name), "{path}, {name}");
        }
        let is_varied = |(name, value): &(String, String)| name == "vary" && value == "accept-encoding";
        assert!(get.headers.iter().any(is_varied), "{path}");
        assert!(head.headers.iter().any(is_varied), "{path}");
    }
}
