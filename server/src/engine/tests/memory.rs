//! Memory budgets: of one model, and shared by several.

use super::scenario::{Running, Scenario, echo};
use crate::batcher::cost_model::{BatchShape, CostModel, Sample, TaskCosts};
use crate::batching::WeightRule;
use crate::engine::{Costs, ServerMemory};
use crate::error::ItemError;

/// A byte for each item and unit of weight of a padded batch. The weight of an item is its length.
fn costs() -> Vec<TaskCosts> {
    let shapes = [1, 2, 4, 8]
        .into_iter()
        .flat_map(|items| [1, 5, 25].map(|weight| BatchShape::uniform(items, weight)));
    let samples: Vec<Sample> = shapes
        .map(|shape| Sample {
            shape,
            measured: (shape.items * shape.heaviest) as f64,
        })
        .collect();
    let memory = CostModel::fit(WeightRule::Padded, &samples).expect("the samples are valid");
    vec![TaskCosts {
        memory: Some(memory),
        time: None,
    }]
}

fn start(costs: Costs) -> Running {
    let scenario = Scenario {
        prepares: true,
        costs,
        ..Scenario::default()
    };
    scenario.start()
}

#[test]
fn an_item_that_exceeds_the_budget_alone_fails_while_the_model_is_busy_and_the_others_run() {
    let running = start(Costs {
        tasks: costs(),
        memory_budget: Some(20),
        ..Costs::default()
    });
    let busy = running.occupy();
    let heavy = running
        .submit(&["a text of more than 20 letters"])
        .expect("there is room");
    let outcomes = running.reply(heavy);
    let [
        Err(ItemError::TooHeavy {
            predicted,
            budget: 20,
        }),
    ] = outcomes.as_slice()
    else {
        panic!("expected an item that is too heavy, got {outcomes:?}");
    };
    assert!((30..=31).contains(predicted), "{predicted}");
    let others = running
        .submit(&["short", "also a text that is too long", "text"])
        .expect("there is room");
    running.let_go(echo);
    running.reply(busy);
    assert_eq!(running.next_batch(), ["short", "text"]);
    running.let_go(echo);
    let outcomes = running.reply(others);
    assert_eq!(
        outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, false, true]
    );
    running.end();
}

#[test]
fn a_new_budget_applies_to_the_next_items() {
    let running = start(Costs {
        tasks: costs(),
        memory_budget: Some(20),
        ..Costs::default()
    });
    let text = "a text of more than 20 letters";
    running.engine.set_memory_budget(Some(100));
    let pending = running.submit(&[text]).expect("there is room");
    assert_eq!(running.next_batch(), [text]);
    running.let_go(echo);
    running.reply(pending);
    running.engine.set_memory_budget(Some(20));
    let pending = running.submit(&[text]).expect("there is room");
    let outcomes = running.reply(pending);
    assert!(
        matches!(outcomes.as_slice(), [Err(ItemError::TooHeavy { .. })]),
        "{outcomes:?}"
    );
    running.end();
}

#[test]
fn a_batch_waits_until_another_model_has_released_the_shared_memory() {
    let memory = ServerMemory::new(8);
    let shared = || Costs {
        tasks: costs(),
        server_memory: Some(memory.clone()),
        ..Costs::default()
    };
    let (one, other) = (start(shared()), start(shared()));
    let busy = one.occupy();
    assert!((4..=5).contains(&memory.reserved()), "{}", memory.reserved());
    let waits = other.submit(&["waits"]).expect("there is room");
    let runs = other.submit(&["ok"]).expect("there is room");
    other.wait_until_queued_weight(7);
    assert!(!other.has_started());
    one.let_go(echo);
    one.reply(busy);
    assert_eq!(other.next_batch(), ["waits"]);
    other.let_go(echo);
    other.reply(waits);
    assert_eq!(other.next_batch(), ["ok"]);
    other.let_go(echo);
    other.reply(runs);
    one.end();
    other.end();
    assert_eq!(memory.reserved(), 0);
}
