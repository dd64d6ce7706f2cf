//! A client that waits for its answers and looks at each.

use fastrand::Rng;
use serde_json::{Value as Json, json};

use super::World;
use super::deed::{Fate, Item};
use super::ledger::{Ledger, TASKS};
use super::target::Target;
use crate::harness::Reply;
use crate::harness::client::predict_path;

/// Most items of a request.
const MOST_ITEMS: usize = 8;

/// Sends random requests to a target, one after the other.
pub(super) fn call(world: &World<'_>, mut rng: Rng, target: Target) -> Ledger {
    let client = world.server.client();
    let mut ledger = Ledger::of(target);
    while world.goes_on() {
        let task = TASKS[rng.usize(..TASKS.len())];
        let items = random_items(world, &mut rng, target, task);
        let mut call = client
            .request("POST", &predict_path(target.model(), task))
            .header("x-priority", ["high", "normal", "low"][rng.usize(..3)]);
        if rng.u8(..10) == 0 {
            call = call.header("x-request-timeout", &format!("{}ms", rng.u64(1..30)));
        }
        let inputs: Vec<&Json> = items.iter().map(|item| &item.json).collect();
        let reply = call.json(&json!({ "inputs": inputs })).send();
        enter(&mut ledger, &items, &reply);
        world.answered();
    }
    ledger
}

pub(super) fn random_items(world: &World<'_>, rng: &mut Rng, target: Target, task: &str) -> Vec<Item> {
    (0..rng.usize(1..=MOST_ITEMS))
        .map(|_| Item::choose(rng, target, task, world.value()))
        .collect()
}

/// Enters an answer into the ledger; panics if it is not one that these items may have.
fn enter(ledger: &mut Ledger, items: &[Item], reply: &Reply) {
    *ledger.statuses.entry(reply.status).or_default() += 1;
    let json = reply.json();
    let Some(outputs) = json["outputs"].as_array() else {
        return enter_refusal(ledger, reply);
    };
    assert_eq!(outputs.len(), items.len(), "{json}");
    let mut worst = Fate::Success;
    let mut best = Fate::Fault;
    for (item, output) in items.iter().zip(outputs) {
        let fate = fate_of(item, output);
        item.check(fate, output);
        (worst, best) = (worst.max(fate), best.min(fate));
        *ledger.fates.entry(fate).or_default() += 1;
    }
    let expected = match best {
        Fate::Success => 200,
        _ => worst.status(),
    };
    assert_eq!(reply.status, expected, "{json}");
}

/// An answer without outputs: the request was not admitted.
fn enter_refusal(ledger: &mut Ledger, reply: &Reply) {
    let (code, message) = reply.error();
    match (reply.status, code.as_str()) {
        (429, "queue_full") => {
            assert!(reply.header("retry-after").is_some(), "{message}");
            ledger.refused += 1;
        }
        (504, "deadline_exceeded") => ledger.late += 1,
        // After several deaths in a row.
        (503, "unavailable") if ledger.target == Target::Processes => {}
        (status, code) => panic!("status {status}, {code}: {message}"),
    }
}

fn fate_of(item: &Item, output: &Json) -> Fate {
    if let Some(error) = output.get("error") {
        return Fate::of(error["code"].as_str().expect("an error has a code"));
    }
    assert_eq!(output["value"], item.value, "another item's output: {output}");
    let order = output["order"].as_array().expect("a report lists its batch");
    let times = order.iter().filter(|value| **value == item.value).count();
    assert_eq!(
        times, 1,
        "item {} is {times} times in its batch: {output}",
        item.value
    );
    Fate::Success
}
