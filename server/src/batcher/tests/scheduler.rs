//! The commands of the scheduler, in virtual time.

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::batcher::scheduler::{Command, MemoryChange, Message, Payload, Reason, Scheduler};

/// Whether the item still waits.
#[derive(Clone, Debug)]
struct Waits(Rc<Cell<bool>>);

impl Payload for Waits {
    fn is_queued(&self) -> bool {
        self.0.get()
    }

    fn start(&mut self) -> bool {
        self.0.get()
    }
}

/// A command, with items and batches by name.
#[derive(Debug, PartialEq)]
enum Did {
    Start(usize, Vec<u64>),
    Release(Vec<u64>, Reason),
    MemoryLimit(u64, MemoryChange),
    Wait(Option<Duration>),
    Stop,
}

/// A scheduler of one task, and a clock that only the test moves.
struct Driver {
    scheduler: Scheduler<Waits>,
    start: Instant,
    now: Instant,
    pushed: u64,
    running: Tokens,
}

impl Driver {
    /// With workers 0, 1, 2, …, which became available in that order.
    fn new(rules: TaskBatching, workers: usize) -> Self {
        let start = crate::clock::now();
        let mut driver = Self {
            scheduler: Scheduler::new(vec![rules], workers),
            start,
            now: start,
            pushed: 0,
            running: Tokens::default(),
        };
        for worker in 0..workers {
            driver.handle(Message::WorkerAvailable(worker));
        }
        driver
    }

    fn handle(&mut self, message: Message<Waits>) {
        self.scheduler.handle(self.now, message);
    }

    fn push(&mut self) -> Waits {
        self.push_until(None)
    }

    fn push_until(&mut self, deadline: Option<Duration>) -> Waits {
        let waits = Waits(Rc::new(Cell::new(true)));
        let item = Item {
            deadline: deadline.map(|deadline| self.start + deadline),
            ..item(self.pushed, self.now, waits.clone())
        };
        self.pushed += 1;
        self.handle(Message::Arrival(item));
        waits
    }

    fn complete(&mut self, worker: usize, took: Duration, out_of_memory: Option<u64>) {
        let token = self.running.0.pop().expect("a batch runs");
        let outcome = BatchOutcome {
            started: self.now,
            finished: self.now + took,
            succeeded: true,
        };
        self.now += took;
        self.handle(Message::Completed {
            token,
            outcome,
            out_of_memory,
        });
        self.handle(Message::WorkerAvailable(worker));
    }

    /// All commands until it waits or stops.
    fn drive(&mut self) -> Vec<Did> {
        let ids = |items: &[Item<Waits>]| items.iter().map(|item| item.id.0).collect();
        let mut commands = Vec::new();
        loop {
            commands.push(match self.scheduler.poll(self.now) {
                Command::Start { worker, batch, .. } => {
                    let items = ids(&batch.items);
                    self.running.0.push(batch.token);
                    Did::Start(worker, items)
                }
                Command::Release(items, reason) => Did::Release(ids(&items), reason),
                Command::MemoryLimit { cost, change, .. } => Did::MemoryLimit(cost, change),
                Command::MemoryDrift { .. } => unreachable!("no batch is measured in this test"),
                Command::Wait(until) => {
                    commands.push(Did::Wait(until.map(|until| until - self.start)));
                    return commands;
                }
                Command::Stop => {
                    commands.push(Did::Stop);
                    return commands;
                }
            });
        }
    }
}

#[test]
fn a_batch_starts_on_the_worker_that_reported_last_and_none_starts_on_a_busy_one() {
    let mut driver = Driver::new(rules(GREEDY, 2), 2);
    (0..5).for_each(|_| drop(driver.push()));
    assert_eq!(
        driver.drive(),
        [
            Did::Start(1, vec![0, 1]),
            Did::Start(0, vec![2, 3]),
            Did::Wait(None)
        ]
    );
    driver.complete(0, ms(5), None);
    assert_eq!(driver.drive(), [Did::Start(0, vec![4]), Did::Wait(None)]);
}

#[test]
fn no_batch_starts_on_a_worker_that_is_not_available() {
    let mut driver = Driver::new(rules(GREEDY, 2), 1);
    driver.handle(Message::WorkerUnavailable(0));
    driver.push_until(Some(ms(5)));
    assert_eq!(driver.drive(), [Did::Wait(None)]);
    driver.now += ms(5);
    assert_eq!(
        driver.drive(),
        [Did::Release(vec![0], Reason::Expired), Did::Wait(None)]
    );
    driver.push();
    driver.handle(Message::WorkerAvailable(0));
    assert_eq!(driver.drive(), [Did::Start(0, vec![1]), Did::Wait(None)]);
}

#[test]
fn the_delay_of_fixed_counts_from_when_an_item_is_ready_to_run() {
    let mut driver = Driver::new(rules(fixed(10), 8), 1);
    let prepared = driver.start + ms(25);
    driver.now = prepared;
    let mut item = Item {
        ready: prepared,
        ..item(0, driver.start, Waits(Rc::new(Cell::new(true))))
    };
    driver.handle(Message::Arrival(item.clone()));
    assert_eq!(driver.drive(), [Did::Wait(Some(ms(35)))]);
    // A later request whose items were ready before.
    item.id = ItemId(1);
    item.arrived = driver.start + ms(1);
    item.ready = driver.start + ms(20);
    driver.handle(Message::Arrival(item));
    assert_eq!(driver.drive(), [Did::Wait(Some(ms(30)))]);
    driver.now = driver.start + ms(30);
    assert_eq!(driver.drive(), [Did::Start(0, vec![0, 1]), Did::Wait(None)]);
}

#[test]
fn items_that_stopped_waiting_are_released_and_do_not_run() {
    let mut driver = Driver::new(rules(GREEDY, 2), 1);
    let waits: Vec<Waits> = (0..3).map(|_| driver.push()).collect();
    waits[0].0.set(false);
    waits[1].0.set(false);
    assert_eq!(
        driver.drive(),
        [
            Did::Release(vec![0, 1], Reason::Cancelled),
            Did::Start(0, vec![2]),
            Did::Wait(None)
        ]
    );
    assert_eq!(driver.scheduler.batcher().running(), 1);
}

#[test]
fn an_item_that_no_batch_can_answer_in_time_is_infeasible_and_not_expired() {
    let mut driver = Driver::new(rules(GREEDY, 1), 1);
    driver.push();
    driver.drive();
    driver.complete(0, ms(10), None);
    driver.push_until(Some(ms(12)));
    driver.push_until(Some(ms(100)));
    assert_eq!(
        driver.drive(),
        [
            Did::Start(0, vec![2]),
            Did::Release(vec![1], Reason::Infeasible),
            Did::Wait(None)
        ]
    );
}

#[test]
fn a_closed_scheduler_runs_what_is_queued_without_waiting_and_stops() {
    let mut driver = Driver::new(rules(fixed(1000), 8), 1);
    driver.push();
    assert_eq!(driver.drive(), [Did::Wait(Some(ms(1000)))]);
    driver.handle(Message::Closed);
    assert_eq!(driver.drive(), [Did::Start(0, vec![0]), Did::Stop]);
}

#[test]
fn an_aborted_scheduler_releases_what_is_queued_and_what_still_arrives() {
    let mut driver = Driver::new(rules(fixed(1000), 8), 1);
    driver.push();
    driver.handle(Message::Aborted);
    driver.push();
    assert_eq!(
        driver.drive(),
        [Did::Release(vec![0, 1], Reason::Aborted), Did::Stop]
    );
}

#[test]
fn a_failed_scheduler_releases_what_arrives_until_it_is_closed() {
    let mut driver = Driver::new(rules(GREEDY, 8), 1);
    driver.push();
    driver.handle(Message::Failed);
    assert_eq!(
        driver.drive(),
        [Did::Release(vec![0], Reason::Failed), Did::Wait(None)]
    );
    driver.push();
    driver.handle(Message::Closed);
    assert_eq!(driver.drive(), [Did::Release(vec![1], Reason::Failed), Did::Stop]);
}

#[test]
fn a_batch_that_ran_out_of_memory_limits_the_next_ones() {
    let mut driver = Driver::new(rules(GREEDY, 8), 1);
    (0..12).for_each(|_| drop(driver.push()));
    driver.drive();
    driver.complete(0, ms(5), Some(4));
    assert_eq!(
        driver.drive(),
        [
            Did::MemoryLimit(4, MemoryChange::Narrowed(2)),
            Did::Start(0, vec![8, 9]),
            Did::Wait(None)
        ]
    );
}

#[test]
#[should_panic(expected = "a batch of 1 items was neither completed nor abandoned")]
#[cfg(debug_assertions)]
fn a_batch_that_is_forgotten_is_a_bug() {
    let mut driver = Driver::new(rules(GREEDY, 8), 1);
    driver.push();
    driver.drive();
    drop(driver.running.0.pop());
}
