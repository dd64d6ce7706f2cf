//! Clients that disconnect at random times before they have received their reply.

use fastrand::Rng;
use serde_json::{Value as Json, json};

use super::World;
use super::ledger::{Ledger, TASKS};
use super::targets::Target;
use super::waiting_clients::random_items;
use crate::harness::client::predict_path;

/// Sends requests to a target on separate connections, and disconnects.
pub(super) fn run(world: &World<'_>, mut rng: Rng, target: Target) -> Ledger {
    let mut ledger = Ledger::of(target);
    while world.is_running() {
        let task = TASKS[rng.usize(..TASKS.len())];
        let items = random_items(world, &mut rng, target, task);
        let inputs: Vec<&Json> = items.iter().map(|item| &item.json).collect();
        let body = json!({ "inputs": inputs }).to_string();
        let request = format!(
            "POST {} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            predict_path(target.model(), task),
            body.len()
        );
        let mut connection = world.server.connect();
        match rng.u8(..4) {
            // In the middle of the request.
            0 => {
                connection.send(&request.as_bytes()[..rng.usize(..request.len())]);
                continue;
            }
            // While waiting for the reply, or after reading a part of it.
            1 => {
                connection.send(&request).read_some(rng.usize(1..200));
            }
            // After sending in small pieces, by half-closing.
            2 => {
                for piece in request.as_bytes().chunks(rng.usize(1..64)) {
                    connection.send(piece);
                }
                connection.half_close();
            }
            _ => {
                connection.send(&request);
            }
        }
        ledger.disconnected += 1;
        ledger.disconnected_items += items.len() as u64;
    }
    ledger
}
