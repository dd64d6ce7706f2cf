//! Clients that abuse HTTP/2.

use h2::Reason;
use serde_json::json;

use crate::harness::http2::Http2;
use crate::harness::raw::Raw;
use crate::harness::{Scenario, Server, eventually, seed};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const ECHO: &str = "/v1/models/words/tasks/echo/predict";

fn start(server: &str) -> Server {
    Scenario::new(&format!(
        "[server]\n{server}\n[[models]]\nname = \"words\"\nplugin = \"template\"\n"
    ))
    .start()
}

/// Returns a frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a short payload")
        .to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// Returns the compressed head of `GET /livez`, with literals only.
fn head() -> Vec<u8> {
    let mut head = vec![0x82, 0x86];
    for (name, value) in [(":path", "/livez"), (":authority", "test")] {
        head.push(0);
        for text in [name, value] {
            head.push(u8::try_from(text.len()).expect("a short text"));
            head.extend_from_slice(text.as_bytes());
        }
    }
    head
}

async fn assert_serves(server: &Server) {
    let mut connection = Http2::connect(server.address()).await;
    let reply = connection
        .post(ECHO, &json!({"input": "alive"}))
        .await
        .expect("it is sent");
    assert_eq!(reply.await.expect("a reply").json()["output"], "alive");
    assert!(!server.log().has("panicked"), "{}", server.log().text());
    assert!(!server.log().has("ERROR"), "{}", server.log().text());
}

/// Reads frames until the server announces that it closes the connection. Returns its reason.
fn reason(connection: &mut Raw) -> u32 {
    const GOAWAY: u8 = 7;
    loop {
        let head = connection.read_exactly(9);
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = connection.read_exactly(length);
        if head[3] == GOAWAY {
            return u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_opens_and_resets_streams_in_a_loop_is_disconnected() {
    let server = start("");
    let mut rapid = server.connect();
    rapid.send(PREFACE).send(SETTINGS);
    let mut flood = Vec::new();
    for number in 0..2000_u32 {
        let stream = number * 2 + 1;
        // HEADERS with END_HEADERS and END_STREAM, then RST_STREAM.
        flood.extend(frame(1, 5, stream, &head()));
        flood.extend(frame(3, 0, stream, &[0, 0, 0, 8]));
    }
    rapid.send(flood);
    assert_eq!(reason(&mut rapid), u32::from(Reason::ENHANCE_YOUR_CALM));
    assert!(rapid.is_closed());
    assert_serves(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_cancels_everything_that_it_asks_for_is_disconnected() {
    let server = start("");
    let mut connection = Http2::connect(server.address()).await;
    let mut canceled = 0;
    'connected: loop {
        let mut bodies = Vec::new();
        for _ in 0..10 {
            // Each request waits for the rest of its body, so that none is answered.
            let Ok((response, body)) = connection.begin("POST", ECHO, &[]).await else {
                break 'connected;
            };
            bodies.push((response, body));
        }
        // Once this is answered, the application has received the requests before it.
        if connection.send("GET", "/livez", &[]).await.is_err() {
            break;
        }
        for (_response, mut body) in bodies {
            body.send_reset(Reason::CANCEL);
            canceled += 1;
        }
        assert!(canceled < 5000, "the server accepts every cancellation");
    }
    assert!(canceled >= 400, "{canceled} cancellations are no abuse");
    assert_serves(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_rejected_and_the_connection_stays_open() {
    let server = start("");
    let mut connection = Http2::connect(server.address()).await;
    let value = "x".repeat(4000);
    let names: Vec<String> = (0..30).map(|number| format!("x-{number}")).collect();
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    match connection.send("GET", "/livez", &headers).await {
        Ok(reply) => assert_eq!(reply.status, 431),
        // The client knows the limit of the server, and does not send such a head.
        Err(error) => assert!(!error.is_io() && !error.is_go_away(), "{error:?}"),
    }
    assert_eq!(connection.get("/livez").await.status, 200);
    assert_serves(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_an_end_is_cut_off() {
    let server = start("");
    let mut endless = server.connect();
    endless.send(PREFACE).send(SETTINGS);
    // HEADERS without END_HEADERS, then CONTINUATION forever.
    endless.send(frame(1, 0, 1, &head()));
    // A field with a value of 4096 bytes.
    let field = [&[0, 1, b'a', 127, 0x81, 0x1f][..], &[b'x'; 4096]].concat();
    for _ in 0..1000 {
        if endless.try_send(frame(9, 0, 1, &field)).is_err() {
            break;
        }
    }
    assert_ne!(reason(&mut endless), u32::from(Reason::NO_ERROR));
    assert_serves(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_break_the_protocol_close_their_connection_only() {
    let server = start("");
    let mut random = fastrand::Rng::with_seed(seed());
    for number in 0..300 {
        let mut connection = server.connect();
        let mut bytes = PREFACE.to_vec();
        if number % 3 > 0 {
            bytes.extend_from_slice(SETTINGS);
        }
        for _ in 0..random.usize(1..6) {
            let payload: Vec<u8> = (0..random.usize(0..200)).map(|_| random.u8(..)).collect();
            let (kind, flags) = (random.u8(..12), random.u8(..));
            bytes.extend(frame(kind, flags, random.u32(..5), &payload));
        }
        if connection.try_send(&bytes).is_ok() {
            connection.finish();
        }
    }
    assert_serves(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_is_closed_in_time() {
    let server = start("header_timeout = \"300ms\"\nmax_connections = 3");
    let silent: Vec<Raw> = [PREFACE, &[PREFACE, SETTINGS].concat(), &PREFACE[..10]]
        .iter()
        .map(|beginning| {
            let mut connection = server.connect();
            connection.send(beginning);
            connection
        })
        .collect();
    // Waits in the backlog until the others have been closed.
    assert_serves(&server).await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_bodies_are_bounded_by_the_windows() {
    let server = start("max_body_size = \"1GiB\"");
    let mut connection = Http2::connect(server.address()).await;
    let (_response, mut body) = connection.begin("POST", ECHO, &[]).await.expect("it is sent");
    // The window that the server grants at first is the most that it holds for a body that is not read.
    body.reserve_capacity(1 << 30);
    eventually("the window of the server", || match body.capacity() {
        granted if granted == 512 * 1024 => Ok(()),
        granted => Err(granted),
    });
}
