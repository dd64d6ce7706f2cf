//! A client that sends invalid requests. Each is rejected, or its connection is closed.

use std::io::Write as _;

use fastrand::Rng;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::World;
use crate::harness::raw::RawReply;

/// A task that no other client uses, and whose items are not counted.
const TENSOR: &str = "/v1/models/m/tasks/tensor/predict";

/// Sends invalid requests until the end of the phase.
pub(super) fn send(world: &World<'_>, mut rng: Rng) {
    while world.is_running() {
        let mut connection = world.server.connect();
        let (sent, may_be_valid) = choose(&mut rng);
        // Fails if the server has already rejected the request and stopped reading.
        let _ = connection.try_send(&sent);
        connection.half_close();
        if let Some(reply) = connection.reply() {
            let RawReply { status, .. } = reply;
            assert!(
                (400..500).contains(&status) || may_be_valid && status == 200,
                "{:?}: {reply:?}",
                String::from_utf8_lossy(&sent)
            );
        }
        world.answered();
    }
}

/// Returns a request, and whether it may be valid.
fn choose(rng: &mut Rng) -> (Vec<u8>, bool) {
    let valid = br#"{"inputs":[{"numbers":[1.0,2.5]}]}"#;
    match rng.u8(..12) {
        0 => (post(TENSOR, "", b"{\"inputs\":"), false),
        1 => (post(TENSOR, "", "[".repeat(rng.usize(1..5000)).as_bytes()), false),
        2 => (post(TENSOR, "", b"{\"inputs\":[{\"numbers\":[NaN]}]}"), false),
        3 => (post(TENSOR, "", b"{\"inputs\":[\"\xff\"]}"), false),
        4 => (post(TENSOR, "content-encoding: gzip\r\n", b"no gzip"), false),
        5 => (post(TENSOR, "content-encoding: gzip\r\n", &bomb()), false),
        6 => (post(TENSOR, "x-priority: urgent\r\n", valid), false),
        7 => (post("/v1/models/m/tasks/none/predict", "", valid), false),
        8 => (post("/v1/models/../tasks/text/predict", "", valid), false),
        9 => (noise(rng), false),
        10 => (b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n".to_vec(), false),
        _ => (post(TENSOR, "", &damaged(valid, rng)), true),
    }
}

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Returns a compressed body that exceeds the body limit when decompressed.
fn bomb() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(&vec![b' '; 2 << 20])
        .expect("writing to a vector cannot fail");
    encoder.finish().expect("writing to a vector cannot fail")
}

fn noise(rng: &mut Rng) -> Vec<u8> {
    (0..rng.usize(1..2000)).map(|_| rng.u8(..)).collect()
}

fn damaged(valid: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut damaged = valid.to_vec();
    damaged[rng.usize(..valid.len())] = rng.u8(..);
    damaged
}
