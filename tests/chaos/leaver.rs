//! Clients that go away before they have their answer, each at another moment.

use fastrand::Rng;
use serde_json::{Value as Json, json};

use super::World;
use super::caller::random_items;
use super::ledger::{Ledger, TASKS};
use super::target::Target;
use crate::harness::client::predict_path;

/// Sends requests to a target, each on a connection of its own, and leaves.
pub(super) fn leave(world: &World<'_>, mut rng: Rng, target: Target) -> Ledger {
    let mut ledger = Ledger::of(target);
    while world.goes_on() {
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
            // With the answer on its way, or read in part.
            1 => {
                connection.send(&request).read_some(rng.usize(1..200));
            }
            // In small pieces, and then by closing one direction.
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
        ledger.left += 1;
        ledger.left_items += items.len() as u64;
    }
    ledger
}
