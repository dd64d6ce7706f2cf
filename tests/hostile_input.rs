//! Malicious or malformed input is rejected with bounded resources and does not affect other clients.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::json;

use crate::harness::gzip::gzip;
use crate::harness::raw::{Raw, RawReply};
use crate::harness::{Reply, Scenario, Server};

pub(crate) const ECHO: &str = "/v1/models/t/tasks/echo/predict";

pub(crate) fn start(server: &str) -> Server {
    Scenario::new(&format!(
        "[server]\n{server}\n\n[[models]]\nname = \"t\"\nplugin = \"template\"\n"
    ))
    .start()
}

#[track_caller]
pub(crate) fn assert_well(server: &mut Server) {
    assert!(server.lives());
    assert_eq!(
        server.predict("t", "echo", &json!(["well"])).outputs(),
        [json!("well")]
    );
}

fn post(server: &Server, body: impl Into<Vec<u8>>) -> Reply {
    server.request("POST", ECHO).body("application/json", body).send()
}

/// Returns a request with exactly this number of bytes.
fn request_of(bytes: usize) -> String {
    let frame = "{\"inputs\":[\"\"]}";
    format!("{{\"inputs\":[\"{}\"]}}", "x".repeat(bytes - frame.len()))
}

#[test]
fn a_body_of_the_maximum_size_is_accepted_and_one_byte_more_is_rejected() {
    let mut server = start("max_body_size = \"100KiB\"");
    let limit = 100 << 10;
    for bytes in [limit - 1, limit] {
        assert_eq!(request_of(bytes).len(), bytes);
        post(&server, request_of(bytes)).expect(200);
    }
    let (code, message) = post(&server, request_of(limit + 1)).expect(413).error();
    assert_eq!(code, "body_too_large");
    assert!(message.contains(&limit.to_string()), "{message}");
    assert_well(&mut server);
}

#[test]
fn a_body_in_chunks_has_the_same_limit() {
    let mut server = start("max_body_size = \"100KiB\"");
    let chunked = |bytes: usize| {
        let mut connection = server.connect();
        connection.send(format!(
            "POST {ECHO} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        ));
        for part in request_of(bytes).as_bytes().chunks(4096) {
            // Fails if the server has already rejected the request and stopped reading.
            let _ = connection.try_send(format!("{:x}\r\n", part.len()));
            let _ = connection.try_send(part);
            let _ = connection.try_send("\r\n");
        }
        let _ = connection.try_send("0\r\n\r\n");
        connection.reply().expect("an answer").status
    };
    assert_eq!([chunked(100 << 10), chunked((100 << 10) + 1)], [200, 413]);
    assert_well(&mut server);
}

#[test]
fn a_body_in_very_many_chunks_is_served() {
    let mut server = start("");
    let text = "x".repeat(65_537 - "{\"inputs\":[\"\"]}".len());
    let body = format!("{{\"inputs\":[\"{text}\"]}}");
    assert_eq!(body.len(), 65_537);
    let mut sent = format!(
        "POST {ECHO} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    for character in body.chars() {
        sent.push_str(&format!("1\r\n{character}\r\n"));
    }
    sent.push_str("0\r\n\r\n");
    let mut connection = server.connect();
    connection.send(sent);
    let reply = connection.reply().expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_well(&mut server);
}

#[test]
fn a_content_length_above_the_limit_is_rejected_before_the_body_is_sent() {
    let mut server = start("");
    for length in ["100000000000", "18446744073709551615"] {
        let mut connection = server.connect();
        connection.send(format!(
            "POST {ECHO} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        ));
        assert_eq!(connection.reply().expect("an answer").status, 413);
    }
    assert_well(&mut server);
}

fn post_gzip(server: &Server, body: Vec<u8>) -> Reply {
    let call = server.request("POST", ECHO).header("content-encoding", "gzip");
    call.body("application/json", body).send()
}

#[test]
fn a_compressed_body_is_served() {
    let server = start("");
    let reply = post_gzip(&server, gzip(br#"{"inputs":["packed"]}"#));
    assert_eq!(reply.expect(200).outputs(), [json!("packed")]);
}

#[test]
fn a_compression_bomb_is_rejected_with_bounded_memory() {
    let mut server = start("max_body_size = \"8MiB\"");
    // 512 MiB of spaces as identical concatenated members, which gzip allows.
    let bomb = gzip(&vec![b' '; 1 << 20]).repeat(512);
    assert!(bomb.len() < 1 << 20);
    let before = server.resident_bytes();
    for _ in 0..4 {
        let (code, _) = post_gzip(&server, bomb.clone()).expect(413).error();
        assert_eq!(code, "body_too_large");
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "memory grew by {} MiB", grown >> 20);
    assert_well(&mut server);
}

#[test]
fn the_size_limit_applies_to_the_decompressed_body() {
    let mut server = start("max_body_size = \"100KiB\"");
    let limit = 100 << 10;
    let statuses = [limit - 1, limit, limit + 1].map(|bytes| {
        let packed = gzip(request_of(bytes).as_bytes());
        assert!(packed.len() < 10_000);
        post_gzip(&server, packed).status
    });
    assert_eq!(statuses, [200, 200, 413]);
    assert_well(&mut server);
}

#[test]
fn a_deflate_bomb_is_rejected_and_nested_compression_is_not_decompressed() {
    let mut server = start("max_body_size = \"1MiB\"");
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
    zlib.write_all(&vec![b' '; 64 << 20])
        .expect("a vector takes everything");
    let bomb = zlib.finish().expect("a vector takes everything");
    let call = server.request("POST", ECHO).header("content-encoding", "deflate");
    let reply = call.body("application/json", bomb).send();
    assert_eq!(reply.expect(413).error().0, "body_too_large");

    let twice = gzip(&gzip(br#"{"inputs":["packed twice"]}"#));
    post_gzip(&server, twice.clone()).expect(400).error();
    let call = server
        .request("POST", ECHO)
        .header("content-encoding", "gzip, gzip");
    call.body("application/json", twice).send().expect(415).error();
    assert_well(&mut server);
}

#[test]
fn a_corrupt_compressed_body_is_rejected() {
    let mut server = start("");
    let whole = gzip(br#"{"inputs":["packed"]}"#);
    for body in [b"no gzip at all".to_vec(), whole[..whole.len() / 2].to_vec()] {
        assert_eq!(
            post_gzip(&server, body).expect(400).error().0,
            "malformed_request"
        );
    }
    let unknown = server.request("POST", ECHO).header("content-encoding", "br");
    let unknown = unknown.body("application/json", "{}").send();
    assert_eq!(unknown.expect(415).error().0, "unsupported_media_type");
    assert_well(&mut server);
}

#[test]
fn json_nested_a_thousand_or_a_million_levels_deep_is_rejected() {
    let mut server = start("");
    for depth in [1000, 1_000_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let (code, message) = post(&server, format!("{{\"inputs\":[{nested}]}}"))
                .expect(400)
                .error();
            assert_eq!(code, "malformed_request");
            assert!(message.contains("128"), "{message}");
        }
        post(&server, "[".repeat(depth)).expect(400);
    }
    assert_well(&mut server);
}

#[test]
fn numbers_that_are_not_valid_json_are_rejected() {
    let mut server = Scenario::misbehave("", "").start();
    for number in ["NaN", "Infinity", "-Infinity", "1e999", "0x10", "01", "--1"] {
        let body = format!("{{\"inputs\":[{{\"numbers\":[{number}]}}]}}");
        let call = server.request("POST", "/v1/models/m/tasks/tensor/predict");
        let reply = call.body("application/json", body).send();
        assert!(
            [400, 422].contains(&reply.status),
            "{number}: {} {}",
            reply.status,
            reply.text()
        );
        reply.error();
    }
    assert!(server.lives());
    let doubled = server
        .predict("m", "tensor", &json!([{"numbers": [1.5]}]))
        .expect(200);
    assert!(
        doubled.text().contains("3.0") || doubled.text().contains("[3]"),
        "{}",
        doubled.text()
    );
}

#[test]
fn text_that_is_not_utf_8_is_rejected_with_the_position_of_the_invalid_byte() {
    let mut server = start("");
    let (code, message) = post(&server, b"{\"inputs\":[\"\xff\xfe\"]}".to_vec())
        .expect(400)
        .error();
    assert_eq!(code, "malformed_request");
    assert!(message.contains("12"), "{message}");
    let raw = server
        .request("POST", ECHO)
        .body("text/plain", b"\xc3\x28".to_vec())
        .send();
    raw.expect(400).error();
    assert_well(&mut server);
}

#[test]
fn names_with_path_traversal_are_unknown_names() {
    let mut server = start("");
    for name in [
        "..",
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e",
        "a%00b",
        "%ff",
        "x\u{202e}y",
        "t/../t",
    ] {
        let path = |rest: &str| format!("/v1/models/{name}{rest}");
        for (method, path) in [("GET", path("")), ("POST", path("/tasks/echo/predict"))] {
            let mut connection = server.connect();
            connection.send(format!(
                "{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
            ));
            let reply = connection.reply().expect("an answer");
            assert!(
                [400, 404].contains(&reply.status),
                "{path}: {} {}",
                reply.status,
                reply.text()
            );
        }
    }
    for file in ["../models.toml", "..%2fmodels.toml", "%2e%2e/models.toml"] {
        let mut connection = server.connect();
        connection.send(format!("GET /docs/{file} HTTP/1.1\r\nhost: test\r\n\r\n"));
        let reply = connection.reply().expect("an answer");
        assert!(reply.status >= 300, "{file}: {}", reply.text());
    }
    assert_well(&mut server);
}

#[test]
fn a_very_long_name_is_truncated_in_the_error() {
    let mut server = start("");
    let name = "n".repeat(8000);
    let reply = server.get(&format!("/v1/models/{name}")).expect(404);
    assert!(reply.body.len() < 1000, "{} bytes", reply.body.len());
    reply.error();
    assert_well(&mut server);
}

/// Sends a head and returns the reply, or `None` if the connection was closed instead.
fn send_head(server: &Server, head: &[u8]) -> Option<RawReply> {
    let mut connection = server.connect();
    let _ = connection.try_send(head);
    connection.reply()
}

#[test]
fn a_huge_head_is_rejected_or_its_connection_is_closed() {
    let mut server = start("");
    let long = format!(
        "GET /livez HTTP/1.1\r\nhost: test\r\nx-long: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    let mut many = "GET /livez HTTP/1.1\r\nhost: test\r\n".to_owned();
    for number in 0..50_000 {
        many.push_str(&format!("x-{number}: y\r\n"));
    }
    many.push_str("\r\n");
    let line = format!("GET /{} HTTP/1.1\r\nhost: test\r\n\r\n", "x".repeat(1 << 20));
    for head in [long, many, line] {
        if let Some(reply) = send_head(&server, head.as_bytes()) {
            assert!((400..500).contains(&reply.status), "{reply:?}");
        }
    }
    assert_well(&mut server);
}

#[test]
fn a_malformed_head_is_rejected_or_its_connection_is_closed() {
    let mut server = start("");
    let heads: [&[u8]; 12] = [
        b"\r\n\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /livez HTTP/9.9\r\nhost: test\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n",
        b"G\x00T /livez HTTP/1.1\r\nhost: test\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nhost: test\r\ncontent-length: -1\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST /livez HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /livez HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"POST /livez HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nhost: test\r\ntransfer-encoding: gzip\r\n\r\nhello",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS greeting",
    ];
    for head in heads {
        let mut connection = server.connect();
        connection.send(head);
        connection.half_close();
        if let Some(reply) = connection.reply() {
            assert!(
                (400..500).contains(&reply.status),
                "{:?}: {reply:?}",
                String::from_utf8_lossy(head)
            );
        }
    }
    assert_well(&mut server);
}

#[test]
fn invalid_tensor_shapes_are_rejected() {
    let mut server = Scenario::misbehave("", "").start();
    let inputs = [
        json!({"numbers": "text"}),
        json!({"numbers": [[1.0], [2.0, 3.0]]}),
        json!({"numbers": [1.0, "two"]}),
        json!({"numbers": [null]}),
        json!({"other": [1.0]}),
        json!({}),
        json!(null),
        json!({"numbers": {"shape": [-1], "data": [1.0]}}),
        json!({"numbers": {"shape": [18_446_744_073_709_551_615_u64, 2], "data": [1.0]}}),
    ];
    for input in inputs {
        let reply = server.predict("m", "tensor", &json!([input]));
        assert!(
            [400, 422].contains(&reply.status),
            "{input}: {} {}",
            reply.status,
            reply.text()
        );
    }
    assert!(server.lives());
}

#[test]
fn malformed_input_is_not_logged_as_an_error_of_the_server() {
    let mut server = start("grpc_port = 0");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let head = format!("POST {ECHO} HTTP/1.1\r\nhost: test\r\n");
    let grpc_call = b"\0\0\0\x04\0\0\0\0\0\0\0\x05\x01\x05\0\0\0\x01\xff\xff\xff\xff\xff";
    let cases: Vec<Vec<u8>> = vec![
        [&b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..], &[0x11; 300]].concat(),
        b"\xff\0garbage\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        format!("{head}content-length: x\r\n\r\n").into(),
        format!("{head}transfer-encoding: chunked\r\n\r\nZZ\r\n").into(),
        format!("{head}content-length: 50\r\n\r\nabc").into(),
        [
            format!("{head}content-encoding: gzip\r\ncontent-length: 5\r\n\r\n").as_bytes(),
            b"\x1f\x8bxxx",
        ]
        .concat(),
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(200_000)).into(),
        preface.to_vec(),
        [&preface[..], &[0xff; 200]].concat(),
        [&preface[..], grpc_call].concat(),
    ];
    for address in [server.address(), server.grpc_address()] {
        for case in &cases {
            let mut connection = Raw::connect(address);
            // Fails if the server has already rejected the head and stopped reading.
            let _ = connection.try_send(case);
            connection.finish();
        }
    }
    assert_well(&mut server);
    let errors: Vec<String> = server
        .log()
        .lines()
        .into_iter()
        .filter(|line| line.contains("ERROR"))
        .collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}
