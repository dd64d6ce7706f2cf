//! Preparation that is slow or hangs.

use super::scenario::{LONG, Scenario, echo};
use crate::clock;
use crate::error::{ItemError, Rejection};

fn preparing() -> Scenario {
    Scenario {
        prepares: true,
        ..Scenario::default()
    }
}

#[test]
fn a_preparation_that_hangs_delays_no_other_model() {
    let (stuck, other) = (preparing().start(), preparing().start());
    let pending: Vec<_> = (0..2)
        .map(|_| {
            let pending = stuck.submit(&["held"]).expect("there is room");
            stuck.is_preparing();
            pending
        })
        .collect();
    other.let_go(echo);
    let answered = other.submit(&["a"]).expect("there is room");
    assert_eq!(other.reply(answered), [Ok("a".to_owned())]);
    (0..2).for_each(|_| stuck.finish_preparation());
    (0..2).for_each(|_| stuck.let_go(echo));
    for pending in pending {
        assert_eq!(stuck.reply(pending), [Ok("held".to_owned())]);
    }
    stuck.end();
    other.end();
}

#[test]
fn items_that_wait_for_their_preparation_fill_the_queue_of_their_own_task_only() {
    let run = Scenario {
        tasks: 2,
        max_queue_size: 3,
        ..preparing()
    }
    .start();
    let held = run.submit(&["held", "held", "x"]).expect("there is room");
    (0..2).for_each(|_| run.is_preparing());
    assert!(matches!(
        run.submit(&["y"]).err(),
        Some(Rejection::QueueFull {
            queued: 3,
            limit: 3,
            ..
        })
    ));
    let image = run
        .submit_to(1, &["image"], clock::now(), LONG)
        .expect("its queue is empty");
    (0..2).for_each(|_| run.finish_preparation());
    (0..2).for_each(|_| run.let_go(echo));
    run.reply(held);
    run.reply(image);
    assert_eq!(run.queued(), (0, 0));
    run.end();
}

#[test]
fn an_item_that_is_cancelled_while_it_is_prepared_leaves_no_weight_in_the_queue() {
    let run = preparing().start();
    let held = run.submit(&["held"]).expect("there is room");
    run.is_preparing();
    drop(held);
    assert_eq!(run.queued(), (0, 0));
    run.finish_preparation();
    let next = run.submit(&["next"]).expect("there is room");
    run.let_go(echo);
    assert_eq!(run.next_batch(), ["next"]);
    run.reply(next);
    assert_eq!(run.queued(), (0, 0));
    run.end();
}

#[test]
fn items_whose_preparation_ends_after_an_abort_are_shutting_down_and_not_lost() {
    let run = preparing().start();
    let held = run.submit(&["held"]).expect("there is room");
    run.is_preparing();
    run.engine.abort();
    run.finish_preparation();
    assert_eq!(run.reply(held), [Err(ItemError::ShuttingDown)]);
    run.end();
}
