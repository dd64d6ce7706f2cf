//! A client whose requests are no good: each is refused, or its connection closed, and that is all.

use std::io::Write as _;

use fastrand::Rng;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::World;
use crate::harness::raw::RawReply;

/// A task that nobody else uses: what is made of its items is of no interest.
const TENSOR: &str = "/v1/models/m/tasks/tensor/predict";

/// Sends nonsense until it is told to stop.
pub(super) fn talk(world: &World<'_>, mut rng: Rng) {
    while world.goes_on() {
        let mut connection = world.server.connect();
        let (sent, may_be_served) = choose(&mut rng);
        // The server need not read on once it has refused.
        let _ = connection.try_send(&sent);
        connection.half_close();
        if let Some(reply) = connection.reply() {
            let RawReply { status, .. } = reply;
            assert!(
                (400..500).contains(&status) || may_be_served && status == 200,
                "{:?}: {reply:?}",
                String::from_utf8_lossy(&sent)
            );
        }
        world.answered();
    }
}

/// What to send, and whether it might make sense after all.
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

/// More than the body limit of the scenario, packed.
fn bomb() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(&vec![b' '; 2 << 20])
        .expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

fn noise(rng: &mut Rng) -> Vec<u8> {
    (0..rng.usize(1..2000)).map(|_| rng.u8(..)).collect()
}

fn damaged(valid: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut damaged = valid.to_vec();
    damaged[rng.usize(..valid.len())] = rng.u8(..);
    damaged
}
