//! Workers that are lost with a batch, and models that have none for a while.

use std::time::Duration;

use super::scenario::{Scenario, echo};
use crate::error::{ItemError, Stage};
use crate::metrics::ItemOutcome;
use crate::model::{BatchError, OutputSink};

fn lost() -> BatchError {
    BatchError::WorkerLost("crashed".to_owned())
}

fn lose(_: &[String], _: &mut dyn OutputSink) -> Result<(), BatchError> {
    Err(lost())
}

/// What a plugin does that dies of one item.
fn lose_with_poison(texts: &[String], sink: &mut dyn OutputSink) -> Result<(), BatchError> {
    if texts.iter().any(|text| text == "poison") {
        return Err(lost());
    }
    echo(texts, sink)
}

fn blamed(outcome: &Result<String, ItemError>) -> bool {
    matches!(outcome, Err(ItemError::Fault(message)) if message.contains("this item ends the process of the model: it crashed"))
}

#[test]
fn a_batch_that_is_lost_is_run_once_more() {
    let run = Scenario::default().start();
    let pending = run.submit(&["a", "b"]).expect("there is room");
    run.let_go(lose);
    run.let_go(echo);
    assert_eq!(run.next_batch(), ["a", "b"]);
    assert_eq!(run.next_batch(), ["a", "b"]);
    assert_eq!(run.reply(pending), [Ok("a".to_owned()), Ok("b".to_owned())]);
    run.end();
}

#[test]
fn a_batch_that_is_lost_again_is_run_item_by_item_and_the_one_to_blame_fails() {
    let run = Scenario::default().start();
    let pending = run.submit(&["a", "poison", "b"]).expect("there is room");
    (0..5).for_each(|_| run.let_go(lose_with_poison));
    let batches: Vec<Vec<String>> = (0..5).map(|_| run.next_batch()).collect();
    let whole = vec!["a".to_owned(), "poison".to_owned(), "b".to_owned()];
    let alone = |text: &str| vec![text.to_owned()];
    assert_eq!(
        batches,
        [whole.clone(), whole, alone("a"), alone("poison"), alone("b")]
    );
    let outcomes = run.reply(pending);
    assert_eq!(
        [&outcomes[0], &outcomes[2]],
        [&Ok("a".to_owned()), &Ok("b".to_owned())]
    );
    assert!(blamed(&outcomes[1]), "{outcomes:?}");
    run.end();
}

#[test]
fn an_item_alone_is_to_blame_after_the_second_loss() {
    let run = Scenario::default().start();
    let pending = run.submit(&["poison"]).expect("there is room");
    assert_eq!(run.next_batch(), ["poison"]);
    let next = run.submit(&["next"]).expect("there is room");
    run.let_go(lose_with_poison);
    run.let_go(lose_with_poison);
    assert_eq!(run.next_batch(), ["poison"]);
    assert!(blamed(&run.reply(pending)[0]));
    run.let_go(echo);
    assert_eq!(run.next_batch(), ["next"]);
    assert_eq!(run.reply(next), [Ok("next".to_owned())]);
    run.end();
}

#[test]
fn what_nobody_waits_for_any_more_is_not_run_again() {
    let run = Scenario::default().start();
    let busy = run.occupy();
    let timeout = Duration::from_millis(50);
    let late = run.submit_within(&["late"], timeout).expect("there is room");
    let gone = run.submit(&["gone"]).expect("there is room");
    let stays = run.submit(&["stays"]).expect("there is room");
    run.let_go(echo);
    assert_eq!(run.next_batch(), ["late", "gone", "stays"]);
    assert_eq!(
        run.reply(late),
        [Err(ItemError::Expired {
            timeout,
            stage: Stage::Model
        })]
    );
    drop(gone);
    run.let_go(lose);
    assert_eq!(run.next_batch(), ["stays"]);
    run.let_go(echo);
    assert_eq!(run.reply(stays), [Ok("stays".to_owned())]);
    run.reply(busy);
    assert_eq!(run.queued(), (0, 0));
    assert_eq!(run.counted(ItemOutcome::Cancelled), 1);
    assert_eq!(run.counted(ItemOutcome::Lost), 0);
    run.end();
}

#[test]
fn while_nothing_could_run_a_batch_items_stay_queued_and_keep_their_deadlines() {
    let run = Scenario::default().start();
    run.occupy_and_lose_workers();
    let timeout = Duration::from_millis(50);
    let late = run.submit_within(&["late"], timeout).expect("there is room");
    let stays = run.submit(&["stays"]).expect("there is room");
    assert_eq!(run.queued(), (2, 2));
    assert_eq!(
        run.reply(late),
        [Err(ItemError::Expired {
            timeout,
            stage: Stage::Queue
        })]
    );
    assert_eq!(run.queued(), (1, 1));
    run.have_workers(true);
    run.let_go(echo);
    assert_eq!(run.next_batch(), ["stays"]);
    assert_eq!(run.reply(stays), [Ok("stays".to_owned())]);
    run.end();
}

fn unavailable() -> ItemError {
    ItemError::Unavailable("the model is in a crash loop: its process crashed".to_owned())
}

#[test]
fn in_a_crash_loop_queued_items_fail_at_once_instead_of_at_their_deadline() {
    let run = Scenario::default().start();
    run.occupy_and_lose_workers();
    let queued = run.submit(&["a", "b"]).expect("there is room");
    assert_eq!(run.queued(), (2, 2));
    run.declare_crash_loop();
    assert_eq!(run.reply(queued), [Err(unavailable()), Err(unavailable())]);
    assert_eq!(run.queued(), (0, 0));
    assert_eq!(run.counted(ItemOutcome::Unavailable), 2);
    run.end();
}

#[test]
fn in_a_crash_loop_a_batch_that_waits_to_be_run_again_fails_as_well() {
    let run = Scenario::default().start();
    let held = run.submit(&["held"]).expect("there is room");
    run.let_go(lose);
    run.declare_crash_loop();
    run.let_go(|_, _| Err(BatchError::NoWorker));
    assert_eq!(run.reply(held), [Err(unavailable())]);
    run.end();
}

#[test]
fn a_batch_that_is_too_large_to_be_passed_on_runs_in_halves_and_only_an_item_too_large_alone_fails() {
    fn no_two(texts: &[String], sink: &mut dyn OutputSink) -> Result<(), BatchError> {
        if texts.len() > 1 || texts[0] == "huge" {
            return Err(BatchError::TooLarge(ItemError::Invalid("too large".to_owned())));
        }
        echo(texts, sink)
    }
    let run = Scenario::default().start();
    let pending = run.submit(&["a", "huge", "b"]).expect("there is room");
    (0..5).for_each(|_| run.let_go(no_two));
    let batches: Vec<Vec<String>> = (0..5).map(|_| run.next_batch()).collect();
    assert_eq!(
        batches,
        [
            vec!["a", "huge", "b"],
            vec!["a"],
            vec!["huge", "b"],
            vec!["huge"],
            vec!["b"]
        ]
    );
    let outcomes = run.reply(pending);
    assert_eq!(
        outcomes,
        [
            Ok("a".to_owned()),
            Err(ItemError::Invalid("too large".to_owned())),
            Ok("b".to_owned())
        ]
    );
    // Memory was not short, so nothing is limited from now on.
    let next = run.submit(&["c", "d"]).expect("there is room");
    run.let_go(echo);
    assert_eq!(run.next_batch(), ["c", "d"]);
    run.reply(next);
    run.end();
}

#[test]
fn an_engine_ends_although_nothing_can_run_a_batch() {
    let run = Scenario::default().start();
    run.occupy_and_lose_workers();
    run.end();
}

#[test]
fn an_engine_that_is_aborted_answers_what_is_queued_although_nothing_can_run_it() {
    let run = Scenario::default().start();
    run.occupy_and_lose_workers();
    let queued = run.submit(&["queued"]).expect("there is room");
    run.engine.abort();
    assert_eq!(run.reply(queued), [Err(ItemError::ShuttingDown)]);
    run.end();
}
