//! Expected waits compared with real ones.

use proptest::prelude::*;

use super::*;
use policy::{Backlog, Preparation, TaskLoad, Workload};

/// Batches take `fixed + each × size + square × size²`, in milliseconds, and vary by a factor of up to 1 ± `noise`.
#[derive(Clone, Copy, Debug)]
struct Service {
    fixed: f64,
    each: f64,
    square: f64,
    noise: f64,
}

impl Service {
    fn time(&self, size: usize, nth: usize) -> Duration {
        let size = size as f64;
        let millis = self.fixed + self.each * size + self.square * size * size;
        // Spread over -1 to 1.
        let noise = ((nth * 37) % 21) as f64 / 10.0 - 1.0;
        Duration::from_secs_f64(millis * (1.0 + self.noise * noise) / 1e3)
    }
}

struct Server {
    batcher: Batcher<()>,
    workers: usize,
    service: Service,
    now: Instant,
    pushed: u64,
    batches: usize,
    running: Vec<(BatchOutcome, BatchToken)>,
}

impl Server {
    fn new(task: TaskBatching, workers: usize, service: Service) -> Self {
        Self {
            batcher: Batcher::new(vec![task]).with_workers(workers),
            workers,
            service,
            now: crate::clock::now(),
            pushed: 0,
            batches: 0,
            running: Vec::new(),
        }
    }

    fn push(&mut self, items: usize) {
        for _ in 0..items {
            self.batcher.push(item(self.pushed, self.now, ()));
            self.pushed += 1;
        }
    }

    /// Runs batches until none is queued or running. Returns when the batch with the item pushed last began.
    fn finish(&mut self) -> Instant {
        let last = ItemId(self.pushed - 1);
        let mut began = self.now;
        loop {
            let mut wait = None;
            while self.running.len() < self.workers {
                match self.batcher.poll(self.now) {
                    Next::Run(batch) => {
                        if batch.items.iter().any(|item| item.id == last) {
                            began = self.now;
                        }
                        self.start(batch);
                    }
                    Next::WaitUntil(until) => {
                        wait = Some(until);
                        break;
                    }
                    Next::WaitForMemory | Next::Idle => break,
                }
            }
            let ends = self.running.iter().map(|(outcome, _)| outcome.finished).min();
            let Some(next) = [ends, wait].into_iter().flatten().min() else {
                return began;
            };
            self.now = next;
            let ended = |(outcome, _): &(BatchOutcome, BatchToken)| outcome.finished <= self.now;
            while let Some(nth) = self.running.iter().position(ended) {
                let (outcome, token) = self.running.swap_remove(nth);
                self.batcher.complete(token, outcome);
            }
        }
    }

    fn start(&mut self, batch: Batch<()>) {
        let finished = self.now + self.service.time(batch.items.len(), self.batches);
        self.batches += 1;
        let outcome = BatchOutcome {
            started: self.now,
            finished,
            succeeded: true,
        };
        self.running.push((outcome, batch.token));
    }
}

fn expected(server: &Server, ahead: usize) -> Option<Duration> {
    let ahead = Backlog {
        items: ahead,
        weight: ahead as u64,
    };
    let task = TaskLoad {
        service: server.batcher.service_estimate(0),
        ahead,
    };
    Workload::new(
        vec![task],
        Preparation::default(),
        vec![Duration::ZERO; server.workers],
    )
    .expected_wait()
}

#[test]
fn the_expected_wait_of_a_long_queue_is_close_to_the_real_one() {
    for workers in [1, 4] {
        let service = Service {
            fixed: 5.0,
            each: 0.1,
            square: 0.0,
            noise: 0.0,
        };
        let mut server = Server::new(rules(GREEDY, 32), workers, service);
        server.push(1000);
        server.finish();
        let (ahead, began) = (10_000, server.now);
        let expected = expected(&server, ahead).expect("batches ran").as_secs_f64();
        server.push(ahead + 1);
        let real = (server.finish() - began).as_secs_f64();
        assert!(
            (0.97 * real..=1.001 * real).contains(&expected),
            "{workers} workers: expected {expected} s, waited {real} s"
        );
    }
}

#[test]
fn nothing_is_expected_before_a_batch_has_run_and_no_wait_if_nothing_is_ahead() {
    let service = Service {
        fixed: 5.0,
        each: 0.1,
        square: 0.0,
        noise: 0.0,
    };
    let server = Server::new(rules(GREEDY, 32), 1, service);
    assert_eq!(expected(&server, 100), None);
    assert_eq!(expected(&server, 0), Some(Duration::ZERO));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The bound that the documentation of `wait` states.
    #[test]
    fn the_expected_wait_exceeds_the_real_one_by_no_more_than_the_noise(
        policy in prop::sample::select(vec![GREEDY, Policy::Off, fixed(2)]),
        (fixed, each, square) in (0.1..20.0, 0.0..2.0, 0.0..0.05),
        noise in prop::sample::select(vec![0.0, 0.1, 0.3]),
        max in 1..64_usize,
        workers in 1..6_usize,
        before in prop::collection::vec(1..100_usize, 1..8),
        ahead in 0..600_usize,
    ) {
        let service = Service { fixed, each, square, noise };
        let mut server = Server::new(rules(policy, max), workers, service);
        for items in before {
            server.push(items);
            server.finish();
        }
        let began = server.now;
        let expected = expected(&server, ahead).expect("batches ran").as_secs_f64();
        server.push(ahead + 1);
        let real = (server.finish() - began).as_secs_f64();
        let factor = (1.0 + noise) / (1.0 - noise);
        prop_assert!(expected <= real * factor + 1e-6, "expected {expected} s, waited {real} s");
    }
}
