//! How `adaptive` serves closed-loop clients, in virtual time: changes, several tasks, workers, classes and items.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use crate::batcher::scheduler::{Command, Message, Payload, Scheduler};

impl Payload for usize {
    fn is_queued(&self) -> bool {
        true
    }

    fn start(&mut self) -> bool {
        true
    }
}

pub(super) const ADAPTIVE: Policy = Policy::Adaptive {
    max_delay: Duration::from_millis(10),
};

/// Who asks, waits for the reply, thinks, and asks again.
#[derive(Clone, Copy)]
struct Caller {
    task: usize,
    items: usize,
    priority: Priority,
    think: Duration,
}

const CALLER: Caller = Caller {
    task: 0,
    items: 1,
    priority: Priority::Normal,
    think: Duration::from_micros(500),
};

/// A batch that ran.
#[derive(Clone, Copy, Debug)]
struct Ran {
    ended: Instant,
    task: usize,
    size: usize,
    /// How long its oldest item took, from its arrival.
    slowest: Duration,
    slowest_low: Duration,
}

/// A batch that runs.
struct Running {
    ends: Instant,
    started: Instant,
    worker: usize,
    batch: Batch<usize>,
}

/// Callers, a scheduler and workers whose batches take 5 ms and 0.1 ms an item.
struct Rounds {
    scheduler: Scheduler<usize>,
    now: Instant,
    pushed: u64,
    callers: Vec<Caller>,
    /// Callers that stop as soon as they have their reply.
    leaving: usize,
    /// Items of each caller that have no reply.
    unanswered: Vec<usize>,
    thinking: BinaryHeap<Reverse<(Instant, usize)>>,
    running: Vec<Running>,
    ran: Vec<Ran>,
}

impl Rounds {
    fn new(tasks: usize, workers: usize) -> Self {
        let now = crate::clock::now();
        let mut scheduler = Scheduler::new(vec![rules(ADAPTIVE, 32); tasks], workers);
        for worker in 0..workers {
            scheduler.handle(now, Message::WorkerAvailable(worker));
        }
        Rounds {
            scheduler,
            now,
            pushed: 0,
            callers: Vec::new(),
            leaving: 0,
            unanswered: Vec::new(),
            thinking: BinaryHeap::new(),
            running: Vec::new(),
            ran: Vec::new(),
        }
    }

    /// More callers, who begin one after the other.
    fn join(&mut self, callers: usize, caller: Caller) {
        for nth in 0..callers {
            let begins = self.now + ms(1) * nth as u32;
            self.thinking.push(Reverse((begins, self.callers.len())));
            self.callers.push(caller);
            self.unanswered.push(0);
        }
    }

    fn run_for(&mut self, millis: u64) {
        let end = self.now + ms(millis);
        while self.now < end {
            self.step(end);
        }
    }

    fn step(&mut self, end: Instant) {
        let wait = loop {
            match self.scheduler.poll(self.now) {
                Command::Start { worker, batch, .. } => {
                    let took = Duration::from_micros(5000 + 100 * batch.items.len() as u64);
                    self.running.push(Running {
                        ends: self.now + took,
                        started: self.now,
                        worker,
                        batch,
                    });
                }
                Command::Wait(until) => break until.unwrap_or(end).min(end),
                other => panic!("nothing is cancelled or expires: {other:?}"),
            }
        };
        let ends = self
            .running
            .iter()
            .map(|running| running.ends)
            .min()
            .unwrap_or(end);
        let asks = self.thinking.peek().map_or(end, |Reverse((asks, _))| *asks);
        self.now = ends.min(asks).min(wait).max(self.now);
        while let Some(Reverse((asks, caller))) = self.thinking.peek().copied()
            && asks <= self.now
        {
            self.thinking.pop();
            self.ask(caller);
        }
        while let Some(nth) = self.running.iter().position(|running| running.ends <= self.now) {
            self.complete(nth);
        }
    }

    fn ask(&mut self, caller: usize) {
        let Caller {
            task,
            items,
            priority,
            ..
        } = self.callers[caller];
        self.unanswered[caller] = items;
        for _ in 0..items {
            let item = Item {
                task,
                priority,
                ..item(self.pushed, self.now, caller)
            };
            self.scheduler.handle(self.now, Message::Arrival(item));
            self.pushed += 1;
        }
    }

    fn complete(&mut self, nth: usize) {
        let Running {
            ends: finished,
            started,
            worker,
            batch,
        } = self.running.swap_remove(nth);
        let completed = Message::Completed {
            token: batch.token,
            outcome: BatchOutcome {
                started,
                finished,
                succeeded: true,
            },
            out_of_memory: None,
        };
        self.scheduler.handle(self.now, completed);
        self.scheduler.handle(self.now, Message::WorkerAvailable(worker));
        let slowest = |low: bool| {
            let counted = batch
                .items
                .iter()
                .filter(|item| !low || item.priority == Priority::Low);
            counted
                .map(|item| finished - item.arrived)
                .max()
                .unwrap_or_default()
        };
        self.ran.push(Ran {
            ended: finished,
            task: batch.task,
            size: batch.items.len(),
            slowest: slowest(false),
            slowest_low: slowest(true),
        });
        for item in &batch.items {
            let caller = item.payload;
            self.unanswered[caller] -= 1;
            if self.unanswered[caller] > 0 {
                continue;
            }
            if self.leaving > 0 {
                self.leaving -= 1;
            } else {
                // Not all think as long: up to a quarter more.
                let more = self.callers[caller].think * (caller as u32 % 5) / 20;
                let back = finished + self.callers[caller].think + more;
                self.thinking.push(Reverse((back, caller)));
            }
        }
    }

    /// The batches of the last `millis` milliseconds.
    fn last(&self, millis: u64) -> Vec<Ran> {
        let from = self.now - ms(millis);
        self.ran.iter().filter(|ran| ran.ended > from).copied().collect()
    }

    fn mean_size(&self, millis: u64) -> f64 {
        let last = self.last(millis);
        last.iter().map(|ran| ran.size).sum::<usize>() as f64 / last.len() as f64
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        // Batches are still running when a test ends.
        self.running
            .drain(..)
            .for_each(|running| std::mem::forget(running.batch.token));
    }
}

#[test]
fn all_callers_share_one_batch_soon_after_they_came() {
    let mut rounds = Rounds::new(1, 1);
    rounds.join(16, CALLER);
    rounds.run_for(1000);
    assert!(rounds.mean_size(200) > 15.0, "{:?}", rounds.last(200));
}

#[test]
fn callers_who_join_are_relearned_within_a_second() {
    let mut rounds = Rounds::new(1, 1);
    rounds.join(6, CALLER);
    rounds.run_for(2000);
    rounds.join(18, CALLER);
    rounds.run_for(1000);
    assert!(rounds.mean_size(200) > 23.0, "{:?}", rounds.last(200));
}

#[test]
fn callers_who_left_are_not_waited_for_after_a_second() {
    let mut rounds = Rounds::new(1, 1);
    rounds.join(24, CALLER);
    rounds.run_for(2000);
    rounds.leaving = 18;
    rounds.run_for(1000);
    for ran in rounds.last(200) {
        // 5.6 ms for the batch; the first waits for the last, who thinks 0.1 ms longer.
        assert!(
            ran.size == 6 && ran.slowest < Duration::from_micros(5800),
            "{ran:?}"
        );
    }
}

#[test]
fn callers_who_think_for_longer_are_relearned_within_a_second() {
    let mut rounds = Rounds::new(1, 1);
    rounds.join(16, CALLER);
    rounds.run_for(2000);
    for caller in &mut rounds.callers {
        caller.think = Duration::from_micros(2000);
    }
    rounds.run_for(1000);
    assert!(rounds.mean_size(200) > 15.0, "{:?}", rounds.last(200));
}

#[test]
fn what_was_learned_before_a_pause_is_forgotten_soon_after_it() {
    let mut rounds = Rounds::new(1, 1);
    rounds.join(16, CALLER);
    rounds.run_for(1000);
    rounds.leaving = 15;
    let lone = loop {
        rounds.run_for(1);
        if rounds.leaving == 0
            && let Some(Reverse((_, caller))) = rounds.thinking.pop()
        {
            break caller;
        }
    };
    rounds.now += ms(5000);
    rounds.thinking.push(Reverse((rounds.now, lone)));
    rounds.run_for(1000);
    let slowest = rounds.last(1000).iter().map(|ran| ran.slowest).max();
    assert!(slowest < Some(Duration::from_micros(5500)), "{slowest:?}");
    for ran in rounds.last(500) {
        assert_eq!(ran.slowest, Duration::from_micros(5100), "{ran:?}");
    }
}

#[test]
fn a_crowd_that_comes_after_a_pause_is_not_taken_for_one_caller_who_returned() {
    let mut rounds = Rounds::new(1, 1);
    for pause in [100, 130, 160, 200] {
        rounds.join(8, CALLER);
        rounds.run_for(1000);
        let size = rounds.mean_size(300);
        assert!(size > 7.5, "{size} before a pause of {pause} ms");
        // One after the other, so that the last batch has one item.
        rounds.leaving = 7;
        rounds.run_for(50);
        rounds.leaving = 1;
        rounds.run_for(pause);
    }
}

#[test]
fn requests_of_several_items_meet_in_one_batch() {
    let mut rounds = Rounds::new(1, 1);
    rounds.join(6, Caller { items: 5, ..CALLER });
    rounds.run_for(1000);
    assert!(rounds.mean_size(200) > 29.0, "{:?}", rounds.last(200));
}

#[test]
fn two_tasks_take_turns_and_each_gathers_its_own_callers() {
    let mut rounds = Rounds::new(2, 1);
    rounds.join(8, CALLER);
    rounds.join(8, Caller { task: 1, ..CALLER });
    rounds.run_for(2000);
    let last = rounds.last(500);
    let of_one = last.iter().filter(|ran| ran.task == 0).count();
    assert!(
        (0.4..0.6).contains(&(of_one as f64 / last.len() as f64)),
        "{last:?}"
    );
    assert!(rounds.mean_size(500) > 7.5, "{last:?}");
    // Its own batch, and one of the other task before it.
    assert!(last.iter().all(|ran| ran.slowest < ms(13)), "{last:?}");
}

#[test]
fn a_quiet_task_is_not_starved_by_a_busy_one() {
    let mut rounds = Rounds::new(2, 1);
    rounds.join(64, CALLER);
    rounds.join(1, Caller { task: 1, ..CALLER });
    rounds.run_for(3000);
    let last = rounds.last(2000);
    let quiet = || last.iter().filter(|ran| ran.task == 1);
    assert!(quiet().count() > 70, "{} batches", quiet().count());
    // A batch of 32 that runs, one whose callers have waited longer, and its own.
    let slowest = quiet().map(|ran| ran.slowest).max().expect("batches ran");
    assert!(slowest < ms(9 + 9 + 6), "{slowest:?}");
}

#[test]
fn a_low_class_waits_for_eight_batches_of_the_higher_ones_at_most() {
    let mut rounds = Rounds::new(1, 1);
    let high = Caller {
        priority: Priority::High,
        ..CALLER
    };
    rounds.join(100, high);
    rounds.join(
        4,
        Caller {
            priority: Priority::Low,
            ..CALLER
        },
    );
    rounds.run_for(3000);
    let slowest = rounds.ran.iter().map(|ran| ran.slowest_low).max();
    let slowest = slowest.expect("batches ran");
    assert!(slowest > Duration::ZERO, "no item of the low class ran");
    // The batch that runs when it arrives, seven that go first, its own, and a wait of at most a quarter each.
    assert!(slowest < ms(9 * (8 + 2)), "{slowest:?}");
}

#[test]
fn workers_share_the_callers() {
    let mut rounds = Rounds::new(1, 2);
    rounds.join(16, CALLER);
    rounds.run_for(2000);
    let last = rounds.last(500);
    assert!(last.iter().all(|ran| ran.size <= 8), "{last:?}");
    assert!(rounds.mean_size(500) > 7.0, "{last:?}");
}

#[test]
fn four_workers_share_the_callers_who_return_at_the_same_time() {
    let mut rounds = Rounds::new(1, 4);
    rounds.join(24, CALLER);
    rounds.run_for(2000);
    let last = rounds.last(500);
    assert!(last.iter().all(|ran| ran.size <= 6), "{last:?}");
    assert!(rounds.mean_size(500) > 5.5, "{last:?}");
}

#[test]
fn several_workers_do_not_wait_for_callers_who_left() {
    let mut rounds = Rounds::new(1, 2);
    rounds.join(16, CALLER);
    rounds.run_for(2000);
    rounds.leaving = 14;
    rounds.run_for(1000);
    for ran in rounds.last(500) {
        assert_eq!(ran.slowest, Duration::from_micros(5100), "{ran:?}");
    }
}

#[test]
fn two_workers_give_each_of_two_callers_one_of_them() {
    let mut rounds = Rounds::new(1, 2);
    rounds.join(2, CALLER);
    rounds.run_for(1000);
    for ran in rounds.last(500) {
        assert_eq!(
            (ran.size, ran.slowest),
            (1, Duration::from_micros(5100)),
            "{ran:?}"
        );
    }
}
