//! What the policy `adaptive` learns, and how it decides. `server/tests/simulation.rs` measures how well.

use super::*;

const ADAPTIVE: Policy = Policy::Adaptive {
    max_delay: Duration::from_millis(10),
};

/// A worker and clients that return 1 ms after their reply. A batch takes 6 ms, whatever its size.
struct Loop {
    scenario: Scenario,
    now: u64,
}

impl Loop {
    fn new(policy: Policy) -> Self {
        Loop {
            scenario: Scenario::new(&[rules(policy, 8), rules(GREEDY, 8)]),
            now: 0,
        }
    }

    /// Runs a batch that holds all that wait, and tells why it ran and how many it held.
    fn run(&mut self) -> (DispatchReason, usize) {
        loop {
            match self.scenario.at(self.now).poll() {
                Step::Ran { ids, reason, .. } => {
                    let started = self.scenario.now;
                    self.now += 6;
                    let finished = self.scenario.at(self.now).now;
                    let token = self.scenario.running.0.pop().expect("a batch runs");
                    let outcome = BatchOutcome {
                        started,
                        finished,
                        succeeded: true,
                    };
                    self.scenario.batcher.complete(token, outcome);
                    return (reason, ids.len());
                }
                Step::WaitUntil(_) => self.now += 1,
                Step::Idle => panic!("nothing to run"),
            }
        }
    }

    fn arrive(&mut self, at: u64, items: usize) {
        self.scenario.at(at).push_all(items, Spec::default());
    }

    fn reconfigure(&mut self, policy: Policy) {
        self.scenario
            .batcher
            .reconfigure(vec![rules(policy, 8), rules(GREEDY, 8)]);
    }

    /// Two groups of callers that take turns: while one is served, the other waits.
    fn two_groups(policy: Policy, rounds: usize) -> Self {
        let mut this = Loop::new(policy);
        // Of smaller batches it is known that they are no better, so none is tried.
        for _ in 0..4 {
            this.arrive(this.now, 2);
            this.run();
        }
        this.arrive(this.now, 3);
        for _ in 0..rounds {
            let (_, size) = this.run();
            assert_eq!(size, 3);
            // Those of the group before came back while this one was served.
            this.arrive(this.now - 5, 3);
        }
        this
    }
}

#[test]
fn a_batch_does_not_wait_before_anything_is_learned() {
    let mut scenario = Scenario::new(&[rules(ADAPTIVE, 8)]);
    scenario.push_all(1, Spec::default());
    assert_eq!(scenario.poll(), ran([0], DispatchReason::Idle));
}

#[test]
fn a_single_client_never_waits_for_other_arrivals() {
    let mut this = Loop::new(ADAPTIVE);
    for _ in 0..200 {
        this.now += 1;
        this.arrive(this.now, 1);
        assert_eq!(this.run(), (DispatchReason::Idle, 1));
    }
}

#[test]
fn a_batch_waits_for_clients_that_are_about_to_return() {
    // Greedy lets them take turns; what was learned then is used when the policy changes.
    let mut this = Loop::two_groups(Policy::Greedy, 60);
    this.reconfigure(ADAPTIVE);
    let Step::WaitUntil(until) = this.scenario.at(this.now).poll() else {
        panic!("the group that was just answered is not waited for")
    };
    assert!(until <= ms(this.now + 2), "{until:?} is long after they are back");
    this.arrive(this.now + 1, 3);
    this.now += 2;
    assert_eq!(this.run(), (DispatchReason::Returns, 6));
}

#[test]
fn a_batch_runs_immediately_if_a_wait_would_let_a_deadline_pass() {
    let mut this = Loop::two_groups(Policy::Greedy, 60);
    this.reconfigure(ADAPTIVE);
    // A batch takes 6 ms, so there is no room for a wait.
    this.scenario.at(this.now).push(Spec {
        deadline: Some(ms(this.now + 6)),
        ..Spec::default()
    });
    assert!(matches!(this.run(), (DispatchReason::Deadline, 4)));
}

#[test]
fn a_wait_never_exceeds_max_delay_from_when_the_worker_was_free() {
    let mut this = Loop::two_groups(Policy::Greedy, 60);
    let brief = Policy::Adaptive {
        max_delay: Duration::from_micros(500),
    };
    this.reconfigure(brief);
    assert_eq!(this.run(), (DispatchReason::Idle, 3));
}

#[test]
fn a_batch_does_not_wait_while_another_worker_is_idle() {
    let mut this = Loop::two_groups(Policy::Greedy, 60);
    this.reconfigure(ADAPTIVE);
    let now = this.scenario.start + ms(this.now);
    let mut batcher = this.scenario.batcher.with_workers(2);
    let Next::Run(batch) = batcher.poll(now) else {
        panic!("it waits")
    };
    batcher.abandon(batch.token);
}

#[test]
fn a_task_that_was_overtaken_while_it_waited_does_not_wait_again() {
    let mut this = Loop::two_groups(Policy::Greedy, 60);
    this.reconfigure(ADAPTIVE);
    assert!(matches!(this.scenario.at(this.now).poll(), Step::WaitUntil(_)));
    this.scenario.push_all(
        1,
        Spec {
            task: 1,
            ..Spec::default()
        },
    );
    assert!(matches!(this.scenario.poll(), Step::Ran { task: 1, .. }));
    assert!(matches!(this.scenario.poll(), Step::Ran { task: 0, .. }));
}

#[test]
fn the_estimates_can_be_read() {
    let mut this = Loop::new(ADAPTIVE);
    this.arrive(0, 3);
    for _ in 0..80 {
        let (_, size) = this.run();
        this.arrive(this.now + 1, size);
        this.now += 2;
    }
    let estimates = this
        .scenario
        .batcher
        .estimates(0)
        .expect("adaptive has estimates");
    assert!(
        estimates.batches > 60 && estimates.closed_loop_clients == Some(3),
        "{estimates:?}"
    );
    assert!((estimates.returns_per_reply - 1.0).abs() < 0.2, "{estimates:?}");
    let none = Batcher::<()>::new(vec![rules(GREEDY, 8)]);
    assert_eq!(none.estimates(0), None);
}

#[test]
fn the_time_of_failed_batches_does_not_count_as_service_time() {
    for (succeeded, sizes) in [(true, vec![1, 1]), (false, vec![2])] {
        let mut scenario = Scenario::new(&[rules(ADAPTIVE, 8)]);
        for round in 0..40 {
            scenario.at(1000 * round);
            // Alone an item takes 1 ms; two take 50 ms, or as long to fail.
            for (size, millis, succeeded) in [(1, 1, true), (2, 50, succeeded)] {
                scenario.batcher.observe(Completion {
                    succeeded,
                    ..completion(size, scenario.now, millis)
                });
            }
        }
        assert_eq!(
            scenario.push_all(2, Spec::default()).drained_sizes(),
            sizes,
            "{succeeded}"
        );
    }
}
