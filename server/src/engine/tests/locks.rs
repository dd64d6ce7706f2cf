//! What happens while a worker, which may not run for long at its priority, holds the lock of the scheduler, and what
//! happens under that lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::scenario::{LONG, Running, Scenario, echo};
use crate::error::ItemError;

/// Runs `act` on another thread while the lock of the scheduler is held. Panics if it does not return.
fn while_locked(run: Running, act: impl FnOnce(&Running) + Send + 'static) -> Running {
    let (done, is_done) = std::sync::mpsc::channel();
    let crew = run.crew();
    let acting = crew.with_scheduler_locked(|_| {
        let acting = thread::spawn(move || {
            act(&run);
            done.send(()).expect("the test listens");
            run
        });
        is_done
            .recv_timeout(LONG)
            .expect("the event loop waits for no worker");
        acting
    });
    drop(crew);
    acting.join().expect("it does not panic")
}

#[test]
fn the_event_loop_waits_for_no_worker_that_holds_the_lock_of_the_scheduler() {
    let run = Scenario::default().start();
    let busy = run.occupy();
    let run = while_locked(run, |run| {
        drop(run.submit(&["gone"]).expect("there is room"));
        let late = run
            .submit_within(&["late"], Duration::from_millis(20))
            .expect("there is room");
        assert!(matches!(run.reply(late)[0], Err(ItemError::Expired { .. })));
        run.engine.health();
        run.engine.totals(0);
        run.engine.running();
        run.engine.estimates(0);
        run.engine.encoded(0, true, Duration::ZERO);
        run.engine.reconfigure(&[Scenario::default().limits()]);
        assert_eq!(run.queued(), (0, 0));
    });
    run.let_go(echo);
    run.reply(busy);
    run.end();
}

#[test]
fn values_of_a_plugin_are_dropped_outside_the_lock_of_the_scheduler() {
    let run = Scenario {
        prepares: true,
        ..Scenario::default()
    }
    .start();
    let (crew, dropped) = (run.workers.crew.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = dropped.clone();
    let on_drop = move || {
        let crew = crew.upgrade();
        if crew.is_none_or(|crew| crew.is_scheduler_unlocked()) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    };
    assert!(run.on_drop.set(Box::new(on_drop)).is_ok());
    let busy = run.occupy();
    // One that is cancelled, and one that expires, both in the queue.
    let gone = run.submit(&["gone"]).expect("there is room");
    let late = run
        .submit_within(&["late"], Duration::from_millis(50))
        .expect("there is room");
    run.wait_until_queued_weight(8);
    drop(gone);
    assert!(run.reply(late)[0].is_err());
    run.let_go(echo);
    run.reply(busy);
    run.end();
    assert_eq!(
        dropped.load(Ordering::SeqCst),
        3,
        "dropped while no thread held the lock"
    );
}
