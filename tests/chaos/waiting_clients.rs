//! Clients that wait for their replies and check them.

use fastrand::Rng;
use serde_json::{Value as Json, json};

use super::World;
use super::items::{Item, Outcome};
use super::ledger::{Ledger, TASKS};
use super::targets::Target;
use crate::harness::Reply;
use crate::harness::client::predict_path;

/// Maximum number of items in a request.
const MAX_ITEMS: usize = 8;

/// Sends random requests to a target sequentially.
pub(super) fn send_requests(world: &World<'_>, mut rng: Rng, target: Target) -> Ledger {
    let client = world.server.client();
    let mut ledger = Ledger::of(target);
    while world.is_running() {
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
        record(&mut ledger, &items, &reply);
        world.answered();
    }
    ledger
}

pub(super) fn random_items(world: &World<'_>, rng: &mut Rng, target: Target, task: &str) -> Vec<Item> {
    (0..rng.usize(1..=MAX_ITEMS))
        .map(|_| Item::choose(rng, target, task, world.value()))
        .collect()
}

/// Records a reply in the ledger. Panics if these items cannot have this reply.
fn record(ledger: &mut Ledger, items: &[Item], reply: &Reply) {
    *ledger.statuses.entry(reply.status).or_default() += 1;
    let json = reply.json();
    let Some(outputs) = json["outputs"].as_array() else {
        return record_rejection(ledger, reply);
    };
    assert_eq!(outputs.len(), items.len(), "{json}");
    let mut worst = Outcome::Success;
    let mut best = Outcome::Fault;
    for (item, output) in items.iter().zip(outputs) {
        let outcome = outcome_of(item, output);
        item.check(outcome, output);
        (worst, best) = (worst.max(outcome), best.min(outcome));
        *ledger.outcomes.entry(outcome).or_default() += 1;
    }
    let expected = match best {
        Outcome::Success => 200,
        _ => worst.status(),
    };
    assert_eq!(reply.status, expected, "{json}");
}

/// Records a reply without outputs, which means that the request was rejected.
fn record_rejection(ledger: &mut Ledger, reply: &Reply) {
    let (code, message) = reply.error();
    match (reply.status, code.as_str()) {
        (429, "queue_full" | "overloaded") => {
            assert!(reply.header("retry-after").is_some(), "{message}");
            ledger.rejected += 1;
        }
        (504, "deadline_exceeded") => ledger.expired += 1,
        // In a crash loop.
        (503, "unavailable") if ledger.target == Target::Processes => {}
        (status, code) => panic!("status {status}, {code}: {message}"),
    }
}

fn outcome_of(item: &Item, output: &Json) -> Outcome {
    if let Some(error) = output.get("error") {
        return Outcome::of(error["code"].as_str().expect("an error has a code"));
    }
    assert_eq!(output["value"], item.value, "another item's output: {output}");
    let order = output["order"].as_array().expect("a report lists its batch");
    let times = order.iter().filter(|value| **value == item.value).count();
    assert_eq!(
        times, 1,
        "item {} is {times} times in its batch: {output}",
        item.value
    );
    Outcome::Success
}
