//! Workers and preparations that panic.

use super::scenario::{Answer, Scenario, echo};
use crate::error::ItemError;
use crate::metrics::ItemOutcome;
use crate::model::Health;

const PANIC: Answer = |_, _| panic!("the worker panics");

fn panicked() -> Result<String, ItemError> {
    Err(ItemError::Fault(
        "the server panicked while it ran this item".to_owned(),
    ))
}

fn unavailable() -> Result<String, ItemError> {
    Err(ItemError::Unavailable(format!("the model has failed: {REASON}")))
}

const REASON: &str = "its workers panicked 3 times in a row; the model has to be reloaded";

#[test]
fn the_batch_of_a_worker_that_panics_fails_and_the_next_one_runs() {
    let run = Scenario::default().start();
    let pending = run.submit(&["a", "b"]).expect("there is room");
    run.let_go(PANIC);
    assert_eq!(run.reply(pending), [panicked(), panicked()]);
    let next = run.submit(&["next"]).expect("there is room");
    run.let_go(echo);
    assert_eq!(run.reply(next), [Ok("next".to_owned())]);
    assert_eq!(run.engine.health(), Health::Ready);
    assert_eq!(run.executing(), 0);
    assert_eq!(run.queued(), (0, 0));
    assert!(run.engine.running().is_empty());
    run.end();
}

#[test]
fn a_model_whose_workers_panic_three_times_in_a_row_has_failed() {
    let run = Scenario {
        max_batch_size: 1,
        ..Scenario::default()
    }
    .start();
    let busy = run.occupy();
    let queued: Vec<_> = (0..4)
        .map(|_| run.submit(&["x"]).expect("there is room"))
        .collect();
    (0..3).for_each(|_| run.let_go(PANIC));
    let replies: Vec<_> = queued.into_iter().map(|pending| run.reply(pending)).collect();
    assert_eq!(run.reply(busy), [panicked()]);
    assert_eq!(
        replies.concat(),
        [panicked(), panicked(), unavailable(), unavailable()]
    );
    let reason = REASON.to_owned();
    assert_eq!(run.engine.health(), Health::Failed { reason });
    // A request that was addressed before.
    let late = run.submit(&["late"]).expect("there is room");
    assert_eq!(run.reply(late), [unavailable()]);
    assert_eq!(run.counted(ItemOutcome::Lost), 0);
    assert_eq!(run.queued(), (0, 0));
    run.end();
}

#[test]
fn panics_between_which_a_batch_completes_do_not_add_up() {
    let run = Scenario::default().start();
    for _ in 0..3 {
        for answer in [PANIC, PANIC, echo] {
            let pending = run.submit(&["x"]).expect("there is room");
            run.let_go(answer);
            run.reply(pending);
        }
    }
    assert_eq!(run.engine.health(), Health::Ready);
    run.end();
}

#[test]
fn a_panic_in_a_preparation_fails_that_item_alone() {
    let run = Scenario {
        prepares: true,
        ..Scenario::default()
    }
    .start();
    run.let_go(echo);
    let pending = run.submit(&["a", "panic", "b"]).expect("there is room");
    let fault = "the server panicked while it prepared this item";
    assert_eq!(
        run.reply(pending),
        [
            Ok("a".to_owned()),
            Err(ItemError::Fault(fault.to_owned())),
            Ok("b".to_owned())
        ]
    );
    assert_eq!(run.queued(), (0, 0));
    run.end();
}
