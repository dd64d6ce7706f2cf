//! Checks the states of a request's items with every interleaving of the threads that move them, by loom.
//!
//! In each of the cases below, whichever thread is first: no outcome is lost, none is given twice, and the counters of the
//! queue return to zero.

#[allow(dead_code, reason = "the engine uses more of it than the cases below")]
#[path = "../src/engine/item_states.rs"]
mod item_states;

/// What `item_states` is built with here.
mod sync {
    pub(crate) use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    pub(crate) use std::sync::PoisonError;
}

use loom::sync::Arc;
use loom::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use loom::thread;

use item_states::{By, Counters, ItemStates, Settled};

const WEIGHT: u64 = 7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Output,
    Expired,
}

struct Counts {
    items: AtomicIsize,
    weight: AtomicIsize,
    detached: AtomicIsize,
}

impl Counters for Counts {
    fn remove_item(&self) {
        self.items.fetch_sub(1, Ordering::AcqRel);
    }

    fn add_weight(&self, weight: u64) {
        self.weight.fetch_add(weight as isize, Ordering::AcqRel);
    }

    fn remove_weight(&self, weight: u64) {
        let before = self.weight.fetch_sub(weight as isize, Ordering::AcqRel);
        assert!(
            before >= weight as isize,
            "more weight was removed than was added"
        );
    }

    fn add_detached(&self) {
        self.detached.fetch_add(1, Ordering::AcqRel);
    }

    fn remove_detached(&self) {
        let before = self.detached.fetch_sub(1, Ordering::AcqRel);
        assert!(before >= 1, "an item was attached again that was not detached");
    }
}

/// A request whose items have an input, and what the threads did with it.
struct Request {
    items: ItemStates<(), Outcome>,
    counts: Counts,
    replies: AtomicUsize,
    cancelled: AtomicUsize,
}

impl Request {
    fn new(items: usize) -> Arc<Self> {
        Arc::new(Self {
            items: ItemStates::new((0..items).map(|_| Some(()))),
            counts: Counts {
                items: AtomicIsize::new(items as isize),
                weight: AtomicIsize::new(0),
                detached: AtomicIsize::new(0),
            },
            replies: AtomicUsize::new(0),
            cancelled: AtomicUsize::new(0),
        })
    }

    /// Prepares an item, as a thread for that does.
    fn prepare(&self, item: usize) {
        if let Some(input) = self.items.prepare(item) {
            self.items.queue_prepared(item, input, WEIGHT, &self.counts);
        }
    }

    /// Runs an item, as a worker does.
    fn run(&self, item: usize) {
        if self.items.start(item, &self.counts) {
            assert_eq!(self.items.take_input(item), Some(()), "the input was lost");
            self.settle(item, By::Holder, Outcome::Output);
        }
    }

    /// Drops the handle of an item, after which nothing moves it.
    fn drop_handle(&self, item: usize) {
        assert!(
            self.items.phase(item) != item_states::Phase::Running,
            "a running item is answered before its handle is dropped"
        );
        self.settle(item, By::Holder, Outcome::Output);
        self.items.handle_dropped(item, &self.counts);
    }

    fn settle(&self, item: usize, by: By, outcome: Outcome) {
        if self.items.settle(item, by, |_| outcome, &self.counts) == Settled::Last {
            let outcomes: Vec<_> = self.items.take_outcomes().collect();
            assert!(
                outcomes.iter().all(Option::is_some),
                "an outcome was lost: {outcomes:?}"
            );
            self.replies.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The deadline passes.
    fn expire(&self) {
        for item in 0..self.items.len() {
            self.settle(item, By::Client, Outcome::Expired);
        }
    }

    /// The client goes away.
    fn cancel(&self) {
        for item in 0..self.items.len() {
            if self.items.cancel(item, By::Client, &self.counts).is_some() {
                self.cancelled.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    fn check(&self) {
        let Counts {
            items,
            weight,
            detached,
        } = &self.counts;
        let counts = [items, weight, detached].map(|count| count.load(Ordering::Acquire));
        assert_eq!(counts, [0; 3], "items, weight and detached handles");
        let replies = self.replies.load(Ordering::Acquire);
        match self.cancelled.load(Ordering::Acquire) {
            0 => assert_eq!(replies, 1, "the number of replies"),
            _ => assert_eq!(replies, 0, "a reply to a request of which items were cancelled"),
        }
    }
}

/// Runs these threads in every interleaving, and then checks the request. Its items are queued before if `queued`.
fn check(items: usize, queued: bool, threads: &'static [fn(&Request)]) {
    let mut model = loom::model::Builder::new();
    // Every interleaving in which threads that can continue are interrupted this often.
    model.preemption_bound = Some(if threads.len() > 2 { 2 } else { 3 });
    model.check(move || {
        let request = Request::new(items);
        if queued {
            (0..items).for_each(|item| assert!(request.items.queue(item, WEIGHT, &request.counts)));
        }
        let threads: Vec<_> = threads
            .iter()
            .map(|run| {
                let request = request.clone();
                thread::spawn(move || run(&request))
            })
            .collect();
        for thread in threads {
            thread.join().expect("the thread does not panic");
        }
        request.check();
    });
}

fn prepare_and_run(request: &Request) {
    request.prepare(0);
    request.run(0);
    request.drop_handle(0);
}

fn run_the_first(request: &Request) {
    request.run(0);
    request.drop_handle(0);
}

fn run_the_second(request: &Request) {
    request.run(1);
    request.drop_handle(1);
}

fn drop_unanswered(request: &Request) {
    request.drop_handle(0);
}

#[test]
fn an_item_that_is_prepared_and_run_while_its_deadline_passes_is_answered_once() {
    check(1, false, &[prepare_and_run, Request::expire]);
}

#[test]
fn an_item_that_is_prepared_and_run_while_its_client_goes_away_leaves_no_weight() {
    check(1, false, &[prepare_and_run, Request::cancel]);
}

#[test]
fn an_item_whose_handle_is_dropped_while_its_deadline_passes_is_answered_once() {
    for queued in [false, true] {
        check(1, queued, &[drop_unanswered, Request::expire]);
        check(1, queued, &[drop_unanswered, Request::cancel]);
    }
}

#[test]
fn two_workers_that_answer_the_items_of_a_request_send_one_reply() {
    check(2, true, &[run_the_first, run_the_second]);
}

#[test]
fn two_workers_and_the_deadline_send_one_reply() {
    check(2, true, &[run_the_first, run_the_second, Request::expire]);
}

#[test]
fn two_workers_and_a_client_that_goes_away_leave_nothing_behind() {
    check(2, true, &[run_the_first, run_the_second, Request::cancel]);
}
